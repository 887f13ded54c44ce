"""``git theta gc``: delete objects that nothing in the repository can need, or that a remote keeps."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from theta_nb.git.places import Places
from theta_nb.git.process import git
from theta_nb.git.walk import everything, manifest_blobs, named_objects

__all__ = ["GcReport", "gc"]

_TEMPORARY_AGE = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class GcReport:
    """What was kept and deleted.

    Parameters
    ----------
    kept, kept_bytes
        Objects that a manifest refers to.
    deleted, deleted_bytes
        Objects that were deleted, or would be.
    recent
        Unreferenced objects younger than the grace period, which a command under way may be about to refer to.
    temporary
        Left-over temporary files that were deleted, or would be.
    pushed, pushed_bytes
        Objects of other commits than those in use that were deleted, or would be, because a remote has them.
    remote
        That remote; empty if none was asked.
    """

    kept: int
    kept_bytes: int
    deleted: int
    deleted_bytes: int
    recent: int
    temporary: int
    pushed: int = 0
    pushed_bytes: int = 0
    remote: str = ""


def gc(
    places: Places,
    *,
    dry_run: bool = False,
    grace_days: float = 14.0,
    verify_remote: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> GcReport:
    """Delete what no ref, reflog, index, stash or work tree reaches and is older than the grace period.

    With ``verify_remote`` objects of commits that are not in use go as well, if the remote confirms to have them: on
    this machine its copies are read, a server is asked for each. They come back when they are needed.

    Parameters
    ----------
    places
        The repository.
    dry_run
        Whether to only count.
    grace_days
        Age in days below which objects stay.
    verify_remote
        Name of a remote that may keep what is not in use; the default one where empty, none where ``None``.
    progress
        Called with objects looked at and objects in all.

    Raises
    ------
    GitError
        If the history cannot be walked or has holes; nothing is deleted then.
    TransferError
        If the remote does not answer; nothing is deleted then.
    """
    needed: dict[str, int] = {}
    for blob in manifest_blobs(places, everything(places), holes=False):
        needed.update(named_objects(blob.text))
    store = places.store
    names = list(store)
    now = time.time()
    remote, elsewhere = "", set[str]()
    if verify_remote is not None:
        old = [oid for oid in names if oid in needed and now - _time_of(store.path(oid), now) >= grace_days * 86400]
        remote, elsewhere = _kept_elsewhere(places, verify_remote, needed, old)
    kept = kept_bytes = deleted = deleted_bytes = recent = pushed = pushed_bytes = 0
    for done, oid in enumerate(names, 1):
        if progress is not None:
            progress(done, len(names))
        try:
            info = os.stat(store.path(oid))
        except FileNotFoundError:
            continue
        if oid in elsewhere:
            pushed += 1
            pushed_bytes += info.st_size
            if not dry_run:
                store.delete(oid)
        elif oid in needed:
            kept += 1
            kept_bytes += info.st_size
        elif now - info.st_mtime < grace_days * 86400:
            recent += 1
        else:
            deleted += 1
            deleted_bytes += info.st_size
            if not dry_run:
                store.delete(oid)
    temporary = _temporary_files(places, now, dry_run=dry_run)
    return GcReport(kept, kept_bytes, deleted, deleted_bytes, recent, temporary, pushed, pushed_bytes, remote)


def _time_of(path: str, otherwise: float) -> float:
    try:
        return os.stat(path).st_mtime
    except FileNotFoundError:
        return otherwise


def _kept_elsewhere(places: Places, remote: str, needed: dict[str, int], names: Iterable[str]) -> tuple[str, set[str]]:
    """The remote, and those of some objects that are not in use here and that it confirms to have."""
    from theta_nb.git.endpoints import default_remote
    from theta_nb.git.upload import absent_there

    remote = remote or default_remote(places)
    in_use: set[str] = set()
    revisions = ["--no-walk", "--indexed-objects", *_commits_in_use(places)]
    for blob in manifest_blobs(places, revisions, holes=False):
        in_use.update(named_objects(blob.text))
    candidates = {oid: needed[oid] for oid in names if oid not in in_use}
    return remote, candidates.keys() - absent_there(places, remote, candidates, thorough=True)


def _commits_in_use(places: Places) -> list[str]:
    """What is checked out in any work tree, stashed, or part of a command under way."""
    listed = git("worktree", "list", "--porcelain", cwd=places.top).decode("utf-8", "replace").splitlines()
    heads = [line.split()[1] for line in listed if line.startswith("HEAD ")]
    under_way = [word for word in everything(places) if not word.startswith("--")]
    stashes = git("stash", "list", "--format=%H %P", cwd=places.top).decode("ascii").split()
    return [oid for oid in (*heads, *under_way, *stashes) if oid.strip("0")]


def _temporary_files(places: Places, now: float, *, dry_run: bool) -> int:
    paths = []
    # git-lfs keeps downloads that broke off, to go on with them.
    for parts in (("tmp",), ("carrier", "storage", "incomplete"), ("carrier", "storage", "tmp")):
        folder = os.path.join(places.theta_dir, *parts)
        paths += [os.path.join(folder, name) for name in os.listdir(folder)] if os.path.isdir(folder) else []
    count = 0
    for path in paths:
        if now - _time_of(path, now) > _TEMPORARY_AGE:
            count += 1
            if not dry_run:
                _remove(path)
    return count


def _remove(path: str) -> None:
    """Remove a file, or a folder such as git-lfs makes."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(FileNotFoundError):
            os.unlink(path)
