"""``git theta status``: each tracked checkpoint, what changed since HEAD, and what keeping it costs."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from theta_nb.engine.clean import Cleaner
from theta_nb.engine.compare import Changes, compare
from theta_nb.engine.known import KnownChunks
from theta_nb.engine.previous import Previous
from theta_nb.engine.storage_cost import new_storage
from theta_nb.errors import ManifestError, ThetaError
from theta_nb.git.cat_file import CatFile
from theta_nb.git.places import Places
from theta_nb.git.process import LITERAL, git, git_ok
from theta_nb.git.tracked import TrackedBlob, tracked_in_commit, tracked_in_index, untracked_checkpoints
from theta_nb.git.versions import read_text
from theta_nb.manifest.model import Manifest
from theta_nb.manifest.text import is_manifest, parse

__all__ = ["CheckpointStatus", "status"]


@dataclass(frozen=True, slots=True)
class CheckpointStatus:
    """State of one checkpoint.

    Parameters
    ----------
    path
        Relative to the top of the work tree.
    state
        ``"unchanged"``, ``"modified"``, ``"added"``, ``"deleted"``, ``"manifest only"``, ``"missing"``,
        ``"not stored yet"`` or ``"conflict"``.
    staged
        Whether the change is in the index.
    changed, added, removed
        Parameter names, since HEAD.
    tensors
        Number of tensors.
    size
        Length of the checkpoint in bytes.
    new_bytes
        What the change costs: bytes of new objects if staged, raw bytes of changed chunks if not; ``None`` if unknown.
    storage
        Bytes of the new objects by update type, if staged.
    note
        Further sentence, or empty.
    """

    path: str
    state: str
    staged: bool = False
    changed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    tensors: int = 0
    size: int = 0
    new_bytes: int | None = None
    note: str = ""
    storage: Mapping[str, int] = field(default_factory=dict)


def status(
    places: Places, paths: Sequence[str] = (), *, progress: Callable[[int, int], None] | None = None
) -> list[CheckpointStatus]:
    """State of every tracked checkpoint, by path.

    A file that git takes for modified is hashed, but nothing is encoded or written.

    Parameters
    ----------
    places
        The repository.
    paths
        Pathspecs relative to the current directory; everything by default.
    progress
        Called with bytes hashed and bytes in all.

    Raises
    ------
    ThetaError
        If a pathspec is outside the repository.
    """
    if places.work_tree is None:
        raise ThetaError("there is no work tree here", hint="'git theta ls-files' lists what a bare repository holds.")
    blobs = tracked_in_index(places, paths)
    has_head = git_ok("rev-parse", "--verify", "--quiet", "HEAD", cwd=places.top)
    heads = {blob.path: blob.oid for blob in tracked_in_commit(places, "HEAD", paths)} if has_head else {}
    with ThreadPoolExecutor(places.settings.workers, thread_name_prefix="theta") as executor:
        survey = _Survey(places, executor, heads, progress)
        try:
            found = survey.run(blobs)
        finally:
            survey.close()
    known = {item.path for item in found}
    for name in untracked_checkpoints(places, paths):
        size = _file_size(places, name)
        if name not in known and size is not None:
            found.append(CheckpointStatus(name, "not stored yet", size=size, note=f"Run 'git add {name}'."))
    return sorted(found, key=lambda item: item.path)


class _Survey:
    def __init__(
        self,
        places: Places,
        executor: Executor,
        heads: Mapping[str, str],
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._places = places
        self._heads = heads
        self._cat_file = CatFile(places.top)
        self._executor = executor
        self._progress = progress
        self._done = self._total = 0

    def close(self) -> None:
        self._cat_file.close()

    def run(self, blobs: Sequence[TrackedBlob]) -> list[CheckpointStatus]:
        staged = [blob for blob in blobs if blob.stage == 0]
        conflicts = sorted({blob.path for blob in blobs if blob.stage})
        dirty = self._dirty([blob.path for blob in staged])
        self._total = sum(_file_size(self._places, path) or 0 for path in dirty)
        found = [self._one(blob, dirty=blob.path in dirty) for blob in staged]
        found += [CheckpointStatus(path, "conflict", note=self._conflict_note(path)) for path in conflicts]
        return found + self._removed({blob.path for blob in blobs})

    def _dirty(self, paths: Sequence[str]) -> set[str]:
        """Paths whose times or sizes differ from the index; their content is looked at by us, not by a filter."""
        if not paths:
            return set()
        out = git("diff-files", "--name-only", "-z", "--", *paths, cwd=self._places.top, env=LITERAL)
        return {os.fsdecode(name) for name in out.split(b"\0") if name}

    def _manifest(self, oid: str | None) -> Manifest | None:
        try:
            return self._parsed(oid)
        except ManifestError:
            return None

    def _parsed(self, oid: str | None) -> Manifest | None:
        text = None if oid is None else read_text(oid, self._cat_file)
        return None if text is None else parse(text)

    def _one(self, blob: TrackedBlob, *, dirty: bool) -> CheckpointStatus:
        note = f"Run 'git theta add {blob.path}' to store it by parameter."
        try:
            index = self._parsed(blob.oid)
        except ManifestError as error:
            index, note = None, f"Its manifest cannot be read: {error}"
        if index is None:
            size = _file_size(self._places, blob.path) or 0
            return CheckpointStatus(blob.path, "not stored yet", size=size, note=note)
        head = self._manifest(self._heads.get(blob.path))
        changes = compare(head, index)
        staged = head is None or not head.same_content(index)
        stored_anew = _stored_anew(head, index) if blob.oid != self._heads.get(blob.path) and not staged else ""
        staged = staged or bool(stored_anew)
        state = "added" if head is None else "modified" if staged else "unchanged"
        new_bytes = _new_objects(index, head) if staged else 0
        work = self._work_tree(blob.path, index, head, dirty=dirty)
        if isinstance(work, str):
            note = f"Run 'git theta checkout {blob.path}'." if work == "manifest only" else ""
            return _status(blob.path, work, index, changes, staged=staged, new_bytes=new_bytes, note=note)
        if work is not None:
            manifest, layout_note, raw = work
            note = "Also has changes that are not staged." if staged and not stored_anew else layout_note
            changes = compare(head, manifest)
            return _status(blob.path, "modified", manifest, changes, staged=False, new_bytes=raw, note=note)
        found = _status(blob.path, state, index, changes, staged=staged, new_bytes=new_bytes, note=stored_anew)
        return replace(found, storage=new_storage(index, head.objects if head is not None else ())) if staged else found

    def _work_tree(
        self, path: str, index: Manifest, head: Manifest | None, *, dirty: bool
    ) -> str | tuple[Manifest, str, int] | None:
        """``None`` if the file is the index's; a state; or its manifest, a note, and the bytes that are new."""
        full = os.path.join(self._places.top, path)
        if _file_size(self._places, path) is None:
            return "missing"
        with open(full, "rb") as file:
            if is_manifest(file.read(64)):
                return "manifest only"
            if not dirty:
                return None
            name = os.path.basename(path)
            cleaner = Cleaner(self._places.store, self._executor, write=False, previous=self._tolerant(head))
            manifest, layout = cleaner.file(file.fileno(), name, KnownChunks([index]), self._advance)
        if manifest.same_content(index):
            return None
        return manifest, " ".join(layout.warnings), _new_raw(manifest, index)

    def _tolerant(self, head: Manifest | None) -> Previous | None:
        """What 'git add' would take small changes for."""
        tolerance = self._places.settings.tolerance
        return None if head is None or tolerance is None else Previous(head, tolerance=tolerance)

    def _advance(self, nbytes: int) -> None:
        self._done += nbytes
        if self._progress is not None:
            self._progress(self._done, self._total)

    def _conflict_note(self, path: str) -> str:
        return (
            f"Merge it with 'git theta merge --continue --method METHOD', or take a side with 'git checkout --ours "
            f"{path}' or '--theirs', then 'git add {path}'."
        )

    def _removed(self, known: set[str]) -> list[CheckpointStatus]:
        manifests = {path: self._manifest(oid) for path, oid in self._heads.items() if path not in known}
        return [
            _status(path, "deleted", manifest, Changes(), staged=True, new_bytes=0)
            for path, manifest in manifests.items()
            if manifest is not None
        ]


def _file_size(places: Places, path: str) -> int | None:
    """Length of a regular file; ``None`` for what git would not clean: nothing, a folder, a link, a pipe."""
    try:
        info = os.lstat(os.path.join(places.top, path))
    except OSError:
        return None
    return info.st_size if stat.S_ISREG(info.st_mode) else None


def _status(
    path: str,
    state: str,
    manifest: Manifest,
    changes: Changes,
    *,
    staged: bool,
    new_bytes: int | None,
    note: str = "",
) -> CheckpointStatus:
    if changes.other and not note and not (changes.changed or changes.added or changes.removed):
        note = "Only what is no tensor changed (metadata, pickled values)."
    tensors = sum(entry.dtype != "bytes" for entry in manifest.entries.values())
    return CheckpointStatus(
        path, state, staged, changes.changed, changes.added, changes.removed, tensors, manifest.size, new_bytes, note
    )


def _stored_anew(head: Manifest | None, index: Manifest) -> str:
    """A sentence about a staged version that has the same content as the committed one, and is another text."""
    if head is not None and head.recipe != index.recipe and head.objects == index.objects:
        return "The content is the same; the recipe of its merge differs."
    return "The content is the same; how it is stored changed ('git theta compact')."


def _new_objects(index: Manifest, head: Manifest | None) -> int:
    known = head.objects if head is not None else {}
    return sum(size for oid, size in index.objects.items() if oid not in known)


def _new_raw(manifest: Manifest, index: Manifest) -> int:
    """Raw bytes of the chunks that the index does not have."""
    known = {ref.digest for ref in index.chunk_refs()}
    total = 0
    for entry in manifest.entries.values():
        if entry.owner:
            continue
        value = manifest.values[entry.digest]
        for extent, ref in zip(entry.extents(value.nbytes), value.chunks, strict=True):
            if ref.digest not in known:
                known.add(ref.digest)
                total += extent.nbytes
    return total
