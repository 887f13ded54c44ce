"""``git theta gc``: delete objects that nothing in the repository can need."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from theta_nb.git.places import Places
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
    """

    kept: int
    kept_bytes: int
    deleted: int
    deleted_bytes: int
    recent: int
    temporary: int


def gc(
    places: Places,
    *,
    dry_run: bool = False,
    grace_days: float = 14.0,
    progress: Callable[[int, int], None] | None = None,
) -> GcReport:
    """Delete what no ref, reflog, index, stash or work tree reaches and is older than the grace period.

    Parameters
    ----------
    places
        The repository.
    dry_run
        Whether to only count.
    grace_days
        Age in days below which unreferenced objects stay.
    progress
        Called with objects looked at and objects in all.

    Raises
    ------
    GitError
        If the history cannot be walked; nothing is deleted then.
    """
    needed: set[str] = set()
    for blob in manifest_blobs(places, everything(places)):
        needed.update(named_objects(blob.text))
    store = places.store
    names = list(store)
    now = time.time()
    kept = kept_bytes = deleted = deleted_bytes = recent = 0
    for done, oid in enumerate(names, 1):
        if progress is not None:
            progress(done, len(names))
        try:
            info = os.stat(store.path(oid))
        except FileNotFoundError:
            continue
        if oid in needed:
            kept += 1
            kept_bytes += info.st_size
        elif now - info.st_mtime < grace_days * 86400:
            recent += 1
        else:
            deleted += 1
            deleted_bytes += info.st_size
            if not dry_run:
                store.delete(oid)
    return GcReport(kept, kept_bytes, deleted, deleted_bytes, recent, _temporary_files(places, now, dry_run=dry_run))


def _temporary_files(places: Places, now: float, *, dry_run: bool) -> int:
    folder = os.path.join(places.theta_dir, "tmp")
    count = 0
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        path = os.path.join(folder, name)
        with suppress(FileNotFoundError):
            if now - os.stat(path).st_mtime > _TEMPORARY_AGE:
                count += 1
                if not dry_run:
                    os.unlink(path)
    return count
