"""``git theta compact``: stage checkpoints with shorter chains of updates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from theta_nb.engine.compact import compacted, longest_chain
from theta_nb.engine.storage_cost import new_storage
from theta_nb.errors import ManifestError, ThetaError
from theta_nb.git.cat_file import CatFile
from theta_nb.git.index import index_entry, put_entries
from theta_nb.git.on_demand import bring
from theta_nb.git.places import Places
from theta_nb.git.process import LITERAL, git
from theta_nb.git.tracked import TrackedBlob, tracked_in_index
from theta_nb.git.versions import read_text
from theta_nb.manifest.model import Manifest
from theta_nb.manifest.text import dump, parse

__all__ = ["Compacted", "compact"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Compacted:
    """What became of one checkpoint.

    Parameters
    ----------
    path
        Relative to the top of the work tree.
    before, after
        Longest chain of updates.
    read_before, read_after
        Encoded bytes that reading the whole checkpoint touches.
    new_bytes
        Bytes of the objects that were made.
    """

    path: str
    before: int
    after: int
    read_before: int
    read_after: int
    new_bytes: int = 0


def compact(
    places: Places, paths: Sequence[str] = (), *, depth: int = 0, progress: Progress | None = None
) -> list[Compacted]:
    """Rewrite long chains as dense ones and stage the result, to be committed; the content stays the same.

    Parameters
    ----------
    places
        The repository; needs an index.
    paths
        Pathspecs relative to the current directory; all tracked checkpoints by default, without those that a sparse
        checkout leaves out.
    depth
        Updates that may stay in a chain.
    progress
        Called with raw bytes done and raw bytes in all.

    Raises
    ------
    ThetaError
        If there is no work tree, or a path has a conflict.
    MissingObjectError, CorruptObjectError
        If a checkpoint cannot be read; none is staged then.
    """
    if places.work_tree is None:
        raise ThetaError("there is no index here to stage in", hint="Run it in a work tree.")
    if depth < 0:
        raise ThetaError(f"--depth {depth} is negative")
    # As 'git add' has it: an entry that is replaced would no longer be left out of the work tree.
    blobs = [blob for blob in tracked_in_index(places, paths) if not blob.sparse]
    for blob in blobs:
        if blob.stage:
            raise ThetaError(f"{blob.path} is in an unfinished merge", hint="Resolve it first.")
    cat_file = CatFile(places.top)
    try:
        found = [(blob, _manifest(blob, cat_file)) for blob in blobs]
    finally:
        cat_file.close()
    versions = [(blob, manifest) for blob, manifest in found if manifest is not None]
    bring(places, {oid: size for _, manifest in versions for oid, size in manifest.objects.items()})
    meter = _Meter(sum(_raw(manifest, depth) for _, manifest in versions), progress)
    results, texts = [], {}
    with ThreadPoolExecutor(places.settings.workers, thread_name_prefix="theta") as executor:
        for blob, manifest in versions:
            try:
                new = compacted(manifest, places.store, executor, depth=depth, progress=meter.add)
            except ManifestError as error:
                raise ManifestError(f"{blob.path}: {error.message}", hint=error.hint) from error
            results.append(_result(blob.path, manifest, new))
            if new is not manifest:
                texts[blob] = dump(new)
    _stage(places, texts)
    return results


class _Meter:
    def __init__(self, total: int, progress: Progress | None) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def add(self, nbytes: int) -> None:
        self._done += nbytes
        if self._progress is not None:
            self._progress(self._done, self._total)


def _manifest(blob: TrackedBlob, cat_file: CatFile) -> Manifest | None:
    text = read_text(blob.oid, cat_file)
    return None if text is None else parse(text, source=blob.path)


def _raw(manifest: Manifest, depth: int) -> int:
    values = manifest.values.values()
    return sum(v.nbytes for v in values if any(len(ref.links()) - 1 > depth for ref in v.chunks))


def _result(path: str, old: Manifest, new: Manifest) -> Compacted:
    made = sum(new_storage(new, old.objects).values())
    return Compacted(path, longest_chain(old), longest_chain(new), _read(old), _read(new), made)


def _read(manifest: Manifest) -> int:
    return sum(new_storage(manifest, ()).values())


def _stage(places: Places, texts: dict[TrackedBlob, bytes]) -> None:
    """Put manifests into the index, and have git see that the files hold the same content as before."""
    entries = b""
    for blob, text in texts.items():
        oid = git("hash-object", "-w", "--no-filters", "--stdin", cwd=places.top, data=text).decode("ascii").strip()
        entries += index_entry(blob.path, oid, executable=blob.executable)
    if not entries:
        return
    put_entries(places, entries)
    # Other than 'git add' this takes no change of the file that is the user's.
    paths = [blob.path for blob in texts]
    git("add", "--refresh", "--", *paths, cwd=places.top, env=LITERAL)
