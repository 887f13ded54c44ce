"""From revisions and blobs to the inputs of a merge session."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

from theta_nb.engine.clean import Cleaner
from theta_nb.engine.merging.inputs import ManifestInput
from theta_nb.engine.merging.session import Committer, MergeSession
from theta_nb.engine.merging.statistics import StatisticsCache
from theta_nb.errors import ThetaError
from theta_nb.git.on_demand import bring
from theta_nb.git.places import Places
from theta_nb.git.process import CatFile, child_environment
from theta_nb.manifest.model import Manifest
from theta_nb.manifest.text import MAX_MANIFEST_NBYTES, is_manifest, parse

__all__ = ["Origin", "manifest_of_blob", "manifest_of_file", "open_session", "session_of"]

Progress = Callable[[int, int], None]

BASE_LABEL = "original"


@dataclass(frozen=True, slots=True)
class Origin:
    """One version that takes part in a merge.

    Parameters
    ----------
    label
        Its name in parameters and messages.
    revision
        Where it can be found again: a commit, or a blob; part of the recipe.
    blob
        Blob id of its manifest.
    """

    label: str
    revision: str
    blob: str


def open_session(
    places: Places,
    path: str,
    base: Origin | None,
    origins: Sequence[Origin],
    *,
    executor: Executor | None = None,
    committer: Committer | None = None,
    progress: Progress | None = None,
) -> MergeSession:
    """A merge session over versions that git has.

    Parameters
    ----------
    places
        The repository.
    path
        Path of the checkpoint, for messages and to tell the format of what is not stored by theta yet.
    base
        The common ancestor, if there is one.
    origins
        The versions, ours first.
    executor, committer
        As for :class:`MergeSession`.
    progress
        Told about bytes that are fetched.

    Raises
    ------
    ThetaError
        If a version is none, or cannot be read.
    """
    wanted = [*([base] if base is not None else []), *origins]
    cat_file = CatFile(places.top)
    try:
        manifests = [manifest_of_blob(places, cat_file, one.blob, path) for one in wanted]
    finally:
        cat_file.close()
    parts = [(one.label, one.revision, manifest) for one, manifest in zip(wanted, manifests, strict=True)]
    return session_of(
        places, parts, has_base=base is not None, executor=executor, committer=committer, progress=progress
    )


def session_of(
    places: Places,
    parts: Sequence[tuple[str, str, Manifest]],
    *,
    has_base: bool,
    executor: Executor | None = None,
    committer: Committer | None = None,
    progress: Progress | None = None,
) -> MergeSession:
    """A merge session over manifests: label, revision and manifest of each, the ancestor first if there is one."""
    fetch = _Fetch(places, [manifest for _, _, manifest in parts], progress)
    inputs = [ManifestInput(label, manifest, places.store, revision, fetch) for label, revision, manifest in parts]
    cache = StatisticsCache(os.path.join(places.theta_dir, "merge-statistics.sqlite"))
    base = inputs.pop(0) if has_base else None
    return MergeSession(base, inputs, executor=executor, cache=cache, committer=committer)


class _Fetch:
    """Brings what a merge reads, of all versions at once: the first object that is missing brings the others along."""

    def __init__(self, places: Places, manifests: Sequence[Manifest], progress: Progress | None) -> None:
        self._places = places
        self._manifests = manifests
        self._progress = progress

    def __call__(self, missing: Mapping[str, int]) -> None:
        bring(self._places, {**self._differing(), **missing}, progress=self._progress)

    def _differing(self) -> dict[str, int]:
        """Objects of layouts, and of the tensors that are not the same everywhere."""
        names = {name for manifest in self._manifests for name in manifest.entries}
        found = {name: {getattr(m.entries.get(name), "digest", b"") for m in self._manifests} for name in names}
        wanted: dict[str, int] = {}
        for manifest in self._manifests:
            values = [manifest.values[manifest.layout]]
            values += [manifest.value_of(name) for name in manifest.entries if len(found[name]) > 1]
            wanted.update((oid, manifest.objects[oid]) for value in values for oid in value.oids)
        return wanted


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


_REVISION = re.compile(r"(?:[0-9a-f]{40}|[0-9a-f]{64})(?::.+)?", re.DOTALL)


def blob_of_revision(cat_file: CatFile, revision: str, path: str) -> str | None:
    """Blob that a recipe's revision means: a blob, ``COMMIT:PATH``, or a commit that has the path; else ``None``.

    Recipes come from others: nothing but ids in full is looked up.
    """
    if not _REVISION.fullmatch(revision):
        return None
    found = cat_file.size(revision) or cat_file.size(f"{revision}:{path}")
    return found[0] if found is not None else None
