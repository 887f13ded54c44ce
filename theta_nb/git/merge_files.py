"""Manifests of what git has, stored by theta or not."""

from __future__ import annotations

import os
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor

from theta_nb.engine.clean import Cleaner
from theta_nb.errors import ThetaError
from theta_nb.git.cat_file import CatFile
from theta_nb.git.places import Places
from theta_nb.git.process import child_environment
from theta_nb.manifest.model import Manifest
from theta_nb.manifest.text import MAX_MANIFEST_NBYTES, is_manifest, parse

__all__ = ["manifest_of_blob", "manifest_of_file"]


def manifest_of_blob(places: Places, cat_file: CatFile, blob: str, path: str) -> Manifest:
    """The manifest in a blob, or, of a checkpoint that git holds as it is, the one that storing it gives.

    Raises
    ------
    ManifestError, CheckpointError
        If it is broken.
    """
    found = cat_file.size(blob)
    if found is None:
        raise ThetaError(f"{path}: git has no object {blob[:12]}", hint="Fetch the commit it belongs to.")
    if found[1] <= MAX_MANIFEST_NBYTES:
        data = cat_file.read(found[0])
        if is_manifest(data):
            return parse(data, source=path)
    folder = os.path.join(places.theta_dir, "tmp")
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        # A raw checkpoint may be large: it goes from git to the disk without passing through here.
        subprocess.run(
            ["git", "cat-file", "blob", found[0]], cwd=places.top, env=child_environment(), stdout=file, check=True
        )
        return manifest_of_file(places, file.fileno(), path)


def manifest_of_file(places: Places, fd: int, path: str) -> Manifest:
    """The manifest in an open file, or the one that storing the file gives.

    Raises
    ------
    ManifestError, CheckpointError
        If it is broken.
    """
    if is_manifest(os.pread(fd, 64, 0)):
        with open(fd, "rb", closefd=False) as file:
            file.seek(0)
            return parse(file.read(), source=path)
    encodings = places.encodings()
    try:
        with ThreadPoolExecutor(places.settings.workers) as executor:
            return Cleaner(places.store, executor).file(fd, os.path.basename(path), encodings)[0]
    finally:
        encodings.close()
