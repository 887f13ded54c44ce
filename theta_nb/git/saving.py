"""Store a state dict as a version of a checkpoint, without touching the work tree."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Any

from theta_nb.checkpoints.detection import format_for_name
from theta_nb.engine.clean import Cleaner
from theta_nb.engine.known import KnownChunks
from theta_nb.git.attributes import filters_of
from theta_nb.git.cat_file import CatFile
from theta_nb.git.commits import parent_of
from theta_nb.git.places import Places
from theta_nb.git.versions import previous_of, text_of, versions_at

__all__ = ["is_tracked", "manifest_of_state"]


def is_tracked(places: Places, name: str, branch: str | None) -> bool:
    """Whether theta stores a path: by the work tree's attributes, or those of the branch in a bare repository."""
    if places.work_tree is not None:
        return filters_of([name], places).get(name) == "theta"
    # A bare repository has no attributes but those of the commit that the new one stands on.
    parent = parent_of(places, branch)
    return parent is not None and filters_of([name], places, revision=parent).get(name) == "theta"


def manifest_of_state(
    places: Places,
    executor: Executor,
    state: Mapping[str, Any],
    name: str,
    metadata: Mapping[str, str],
    parent: str | None,
) -> bytes:
    """Store a state dict, and return the text of its manifest.

    Parameters
    ----------
    places
        The repository.
    executor
        Threads for encoding.
    state, metadata
        What the file holds.
    name
        Its path; the ending decides the format.
    parent
        Commit whose version it is stored as an update of, where that pays; ``None`` for none.

    Raises
    ------
    CheckpointError
        If the format cannot hold the state dict.
    """
    folder = os.path.join(places.theta_dir, "tmp")
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="save-") as scratch:
        file = os.path.join(scratch, os.path.basename(name))
        format_for_name(name).write(state, file, metadata)
        return _clean_file(places, executor, file, name, parent)


def _clean_file(places: Places, executor: Executor, file: str, name: str, parent: str | None) -> bytes:
    cat_file = CatFile(places.top)
    encodings = places.encodings()
    try:
        versions = versions_at(name, places, cat_file)
        known = KnownChunks((version.manifest for version in versions), behind=encodings)
        previous = previous_of(name, places, cat_file, versions, revision=parent) if parent else None
        cleaner = Cleaner(places.store, executor, previous=previous)
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            manifest, _ = cleaner.file(fd, os.path.basename(name), known)
        finally:
            os.close(fd)
        encodings.remember(manifest)
    finally:
        encodings.close()
        cat_file.close()
    return text_of(manifest, versions)
