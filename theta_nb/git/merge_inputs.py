"""From revisions and blobs to the inputs of a merge session."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from theta_nb.engine.merging.inputs import MergeInput
from theta_nb.engine.merging.session import Committer, MergeSession
from theta_nb.engine.merging.statistics import StatisticsCache
from theta_nb.engine.merging.stored_inputs import FileInput, ManifestInput
from theta_nb.errors import ThetaError
from theta_nb.git.cat_file import CatFile
from theta_nb.git.merge_files import manifest_of_blob
from theta_nb.git.on_demand import bring
from theta_nb.git.places import Places
from theta_nb.manifest.model import Manifest

__all__ = ["BASE_LABEL", "Origin", "blob_of_revision", "open_session", "session_of", "statistics_of_data"]

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
    statistics: Sequence[MergeInput] = (),
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
    executor, committer, statistics
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
        places,
        parts,
        has_base=base is not None,
        executor=executor,
        committer=committer,
        statistics=statistics,
        progress=progress,
    )


def session_of(
    places: Places,
    parts: Sequence[tuple[str, str, Manifest]],
    *,
    has_base: bool,
    executor: Executor | None = None,
    committer: Committer | None = None,
    statistics: Sequence[MergeInput] = (),
    progress: Progress | None = None,
) -> MergeSession:
    """A merge session over manifests: label, revision and manifest of each, the ancestor first if there is one."""
    fetch = _Fetch(places, [manifest for _, _, manifest in parts], progress)
    inputs = [ManifestInput(label, manifest, places.store, revision, fetch) for label, revision, manifest in parts]
    cache = StatisticsCache(os.path.join(places.theta_dir, "merge-statistics.sqlite"))
    base = inputs.pop(0) if has_base else None
    return MergeSession(base, inputs, executor=executor, cache=cache, committer=committer, statistics=statistics)


def statistics_of_data(places: Places, names: Sequence[str]) -> list[FileInput]:
    """Checkpoints in the work tree that hold statistics of the training data, for the methods that need them.

    A recipe knows them by their names and digests.

    Parameters
    ----------
    places
        The repository.
    names
        Paths relative to the top, ours first.

    Raises
    ------
    ThetaError
        If one cannot be read.
    """
    found: list[FileInput] = []
    for number, name in enumerate(names):
        try:
            found.append(FileInput(f"statistics {number}", os.path.join(places.top, name), name))
        except OSError as error:
            raise ThetaError(f"the statistics {name} cannot be read: {error.strerror}") from error
    return found


class _Fetch:
    """Brings what a merge reads, of all versions at once: the first object that is missing brings the others along."""

    def __init__(self, places: Places, manifests: Sequence[Manifest], progress: Progress | None) -> None:
        self._places = places
        self._manifests = manifests
        self._progress = progress

    def __call__(self, missing: Mapping[str, int]) -> None:
        bring(self._places, {**self._differing(), **missing}, progress=self._progress)

    def _differing(self) -> dict[str, int]:
        """Objects of layouts, of skeletons, and of the tensors that are not the same everywhere."""
        names = {name for manifest in self._manifests for name in manifest.entries}
        found = {name: {getattr(m.entries.get(name), "digest", b"") for m in self._manifests} for name in names}
        wanted: dict[str, int] = {}
        skeletons = len({manifest.skeleton for manifest in self._manifests}) > 1
        for manifest in self._manifests:
            values = [manifest.values[manifest.layout]]
            values += [manifest.values[manifest.skeleton]] * skeletons
            values += [manifest.value_of(name) for name in manifest.entries if len(found[name]) > 1]
            wanted.update((oid, manifest.objects[oid]) for value in values for oid in value.oids)
        return wanted


_REVISION = re.compile(r"(?:[0-9a-f]{40}|[0-9a-f]{64})(?::.+)?", re.DOTALL)


def blob_of_revision(cat_file: CatFile, revision: str, path: str) -> str | None:
    """Blob that a recipe's revision means: a blob, ``COMMIT:PATH``, or a commit that has the path; else ``None``.

    Recipes come from others: nothing but ids in full is looked up.
    """
    if not _REVISION.fullmatch(revision):
        return None
    found = cat_file.size(revision) or cat_file.size(f"{revision}:{path}")
    return found[0] if found is not None else None
