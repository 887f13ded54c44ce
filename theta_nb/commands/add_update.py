"""``git theta add --update-type``: new weights that are, or are stored as, an update of the committed ones."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

from theta_nb.commands.add import AddResult, matching, stage_files
from theta_nb.commands.terminal import human_size
from theta_nb.commands.work_tree import changed, check_place, check_room, refresh, replacing, state
from theta_nb.engine.chosen import Chosen, encode_as
from theta_nb.engine.side_load import apply_update, plan_update, stored_as
from theta_nb.engine.update_files import UpdateData, read_update
from theta_nb.errors import ManifestError, ThetaError, listed
from theta_nb.git.cat_file import CatFile
from theta_nb.git.index import index_entry, put_entries
from theta_nb.git.on_demand import bring
from theta_nb.git.places import Places
from theta_nb.git.pointers import sync_pointers, uses_pointers
from theta_nb.git.process import GitError, git
from theta_nb.git.tracked import TrackedBlob, tracked_in_index
from theta_nb.git.versions import index_blobs, read_text
from theta_nb.manifest.model import Manifest
from theta_nb.manifest.text import dump, parse
from theta_nb.storage.objects import DirectoryStore
from theta_nb.updates.low_rank import LowRank
from theta_nb.updates.table import UPDATES, Update

__all__ = ["add_as", "add_update"]

Progress = Callable[[int, int], None]


class _Committed(NamedTuple):
    """The version in HEAD of a path that is in the index as well."""

    blob: TrackedBlob
    manifest: Manifest


def add_update(
    places: Places, paths: Sequence[str], data: UpdateData, *, update: str = "", progress: Progress | None = None
) -> AddResult:
    """Apply an update to the committed version of a checkpoint: in the work tree, and staged as that update.

    Parameters
    ----------
    places
        The repository.
    paths
        A pathspec of one checkpoint, relative to the current directory.
    data
        A file, the folder of a PEFT adapter (relative to the current directory), or a mapping.
    update
        Update type; may be empty for a PEFT adapter.
    progress
        Called with bytes done and bytes in all.

    Raises
    ------
    NotTrackedError
        If the path is not tracked.
    ThetaError
        If work tree, index and HEAD do not agree on the path, or the update does not fit: nothing is changed then.
    """
    path = _only(places, paths)
    source = ""
    if isinstance(data, str | os.PathLike):
        source = os.fspath(data)
        data = os.path.join(places.cwd, data)
    loaded = read_update(data, update)
    committed = _committed(places, path)
    _check_work_tree(places, path, committed)
    manifest = committed.manifest
    bring(places, manifest.objects)
    plan = plan_update(loaded, manifest, places.store, source=source)
    check_place(places, path)
    full = os.path.join(places.top, path)
    before = os.lstat(full)
    check_room(os.statvfs(places.top), path, manifest.size)
    done = 0

    def advance(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        if progress is not None:
            progress(done, manifest.size)

    with (
        ThreadPoolExecutor(places.settings.workers, thread_name_prefix="theta") as executor,
        replacing(places, path, manifest.size, stat.S_IMODE(before.st_mode)) as fd,
    ):
        new = apply_update(plan, places.store, executor, fd, advance)
        if new.same_content(manifest):
            return AddResult((path,), ("the update changes nothing",))
        # Whatever happens from here on: a plain 'git add' of the new file stages it as this update, too.
        blob = _blob(places, new)
        after = os.lstat(full)
        if (after.st_ino, after.st_size, after.st_mtime_ns) != (before.st_ino, before.st_size, before.st_mtime_ns):
            raise ThetaError(f"{path} changed while it was updated", hint="Look at it, then run the command again.")
    _stage(places, committed.blob, blob)
    notes = []
    if plan.shared:
        verb = "shares its values and changes" if len(plan.shared) == 1 else "share their values and change"
        notes.append(f"{listed(plan.shared)} {verb} with what the update names")
    return AddResult((path,), tuple(notes), stored_as(new, manifest))


def add_as(
    places: Places,
    paths: Sequence[str],
    update: str,
    *,
    force: bool = False,
    rank: int | None = None,
    tolerance: float | None = None,
) -> AddResult:
    """Stage a checkpoint with its changed tensors stored by one update type, exactly.

    Parameters
    ----------
    places
        The repository.
    paths
        A pathspec of one checkpoint, relative to the current directory.
    update
        Update type.
    force
        Whether an ignored file may be added.
    rank
        Most ranks of ``"low-rank"``; by default as many as may pay.
    tolerance
        Share of the largest singular value below which ``"low-rank"`` leaves the rest to the correction.

    Raises
    ------
    NotTrackedError
        If the path is not tracked.
    ThetaError
        If it does not pay: the message says what it would take, and what dense storage and the automatic choice take.
        Nothing is changed then.
    """
    if update not in UPDATES.names():
        raise ThetaError(
            f"there is no update type {update[:40]!r}", hint=f"Known: {', '.join(sorted(UPDATES.names()))}."
        )
    encoder = _encoder(update, rank, tolerance)
    path = _only(places, paths, force=force)
    committed = _committed(places, path, staged=True)
    bring(places, committed.manifest.objects)
    with (
        ThreadPoolExecutor(places.settings.workers, thread_name_prefix="theta") as executor,
        _scratch_store(places) as scratch,
        _opened(places, path) as fd,
    ):
        chosen = encode_as(fd, os.path.basename(path), committed.manifest, update, encoder, scratch, executor)
        notes = tuple(f"{path}: {warning}" for warning in chosen.warnings)
        if chosen.manifest.same_content(committed.manifest):
            return stage_files(places, [path], force=force, notes=(*notes, "nothing differs from the last commit"))
        _check_pays(path, update, chosen)
        for oid in scratch:
            data = bytearray(scratch.size(oid) or 0)
            scratch.read_into(oid, 0, memoryview(data))
            places.store.write(data)
        blob = _blob(places, chosen.manifest)
    _stage(places, committed.blob, blob)
    return AddResult((path,), notes, chosen.stored)


def _encoder(update: str, rank: int | None, tolerance: float | None) -> Update | None:
    if rank is None and tolerance is None:
        return None
    if update != "low-rank":
        raise ThetaError(f"rank and tolerance mean nothing to {update!r}", hint="Use them with 'low-rank'.")
    if rank is not None and rank < 1:
        raise ThetaError(f"the rank {rank} is not a positive number")
    if tolerance is not None and not 0 <= tolerance < 1:
        raise ThetaError(f"the tolerance {tolerance} is not a share of the largest singular value", hint="Try 1e-3.")
    return LowRank(rank) if tolerance is None else LowRank(rank, tolerance)


def _check_pays(path: str, update: str, chosen: Chosen) -> None:
    """Refuse what is larger than without the wish."""
    if update == "dense":
        return
    sizes = f"dense takes {human_size(chosen.dense)}, the automatic choice {human_size(chosen.automatic)}"
    if update not in chosen.stored.nbytes:
        raise ThetaError(
            f"no change of {path} can be stored as {update} to advantage: {sizes}",
            hint=f"Run 'git add {path}' for the automatic choice.",
        )
    if chosen.nbytes >= chosen.dense or chosen.nbytes > chosen.automatic:
        raise ThetaError(
            f"{update} does not pay for {path}: it takes {human_size(chosen.nbytes)}, {sizes}",
            hint=f"Run 'git add {path}' for the automatic choice.",
        )


def _only(places: Places, paths: Sequence[str], *, force: bool = False) -> str:
    names = matching(places, paths, force=force)
    if len(names) != 1:
        raise ThetaError(f"an update is of one checkpoint, not of {len(names)}", hint="Name one path.")
    return names[0]


def _committed(places: Places, path: str, *, staged: bool = False) -> _Committed:
    """The version in HEAD; unless ``staged``, the index has to hold the same."""
    blobs = [blob for blob in tracked_in_index(places) if blob.path == path]
    if any(blob.stage for blob in blobs):
        raise ThetaError(f"{path} is in conflict", hint="End the merge first.")
    cat_file = CatFile(places.top)
    try:
        head = cat_file.size(f"HEAD:{path}")
        if head is None:
            raise ThetaError(
                f"{path} has no committed version that an update could be of",
                hint=f"Commit the checkpoint first: 'git add {path}', 'git commit'.",
            )
        text = read_text(head[0], cat_file)
    finally:
        cat_file.close()
    if text is None:
        raise ThetaError(
            f"{path} was committed whole, not by parameter",
            hint=f"Run 'git add --renormalize {path}' and commit that first.",
        )
    if not staged and (not blobs or blobs[0].oid != head[0]):
        raise ThetaError(
            f"other content of {path} is staged than committed",
            hint=f"Commit it, or run 'git restore --staged {path}'.",
        )
    blob = blobs[0] if blobs else TrackedBlob(path, head[0])
    try:
        return _Committed(blob, parse(text, source=path))
    except ManifestError as error:
        raise ManifestError(f"the committed version of {error.message}", hint=error.hint) from error


def _check_work_tree(places: Places, path: str, committed: _Committed) -> None:
    found = state(places, path)
    if found == "missing":
        raise ThetaError(f"{path} is missing from the work tree", hint=f"Run 'git checkout -- {path}' first.")
    if not stat.S_ISREG(os.lstat(os.path.join(places.top, path)).st_mode):
        raise ThetaError(f"{path} is not a file")
    if changed(places, [path]):
        raise ThetaError(
            f"{path} has changes that are not committed",
            hint=f"Commit them, or run 'git restore {path}' to lose them: an update is of the committed version.",
        )


@contextmanager
def _opened(places: Places, path: str) -> Iterator[int]:
    full = os.path.join(places.top, path)
    if state(places, path) == "manifest":
        raise ThetaError(f"{path} is only a manifest here", hint=f"Run 'git theta checkout {path}' first.")
    try:
        fd = os.open(full, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise ThetaError(f"cannot read {path} ({error.strerror})") from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ThetaError(f"{path} is not a file")
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _scratch_store(places: Places) -> Iterator[DirectoryStore]:
    """A store for objects that may not be wanted in the end, in front of the real one."""
    folder = os.path.join(places.theta_dir, "tmp")
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="add-") as root:
        yield places.store.in_front(root)


def _blob(places: Places, manifest: Manifest) -> str:
    """Give git the manifest, and remember its encodings; returns the name of the blob."""
    encodings = places.encodings()
    try:
        encodings.remember(manifest)
    finally:
        encodings.close()
    out = git("hash-object", "-w", "--stdin", "--no-filters", cwd=places.top, data=dump(manifest))
    return out.decode("ascii").strip()


def _stage(places: Places, old: TrackedBlob, blob: str) -> None:
    """Put a blob into the index, and have git see that the work tree agrees."""
    try:
        put_entries(places, index_entry(old.path, blob, executable=old.executable))
    except GitError as error:
        raise GitError(
            f"{old.path} cannot be staged: {error.message}",
            returncode=error.returncode,
            hint=f"The work tree is complete: run 'git add {old.path}'.",
        ) from error
    refresh(places, [old.path])
    if index_blobs(old.path, places.top) != [blob]:
        raise ThetaError(
            f"{old.path} was changed by somebody else meanwhile", hint="Look at 'git status', then run it again."
        )
    if uses_pointers(places):
        sync_pointers(places)
