"""Copy and verify many objects on this machine, several at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

from theta_nb.git.object_folders import Advance, ObjectFolders, copy_and_hash

__all__ = ["copy_objects", "damaged"]

_ITEMS_A_TASK = 16


def copy_objects(
    source: ObjectFolders,
    target: ObjectFolders,
    objects: Mapping[str, int],
    *,
    workers: int,
    advance: Advance | None = None,
) -> set[str]:
    """Copy objects, several at a time; what is verified and there stays, whatever happens to the others.

    Parameters
    ----------
    source, target
        Where from and to.
    objects
        Lengths by name.
    workers
        Threads.
    advance
        Called with bytes that were copied, from any thread.

    Returns
    -------
    set of str
        Objects that the source does not have, or only damaged.

    Raises
    ------
    ThetaError
        If one cannot be written; the rest is not begun then.
    """

    def some(oids: Sequence[str]) -> set[str]:
        return {
            oid
            for oid in oids
            if not any(target.take(path, oid, objects[oid], advance) for path in source.candidates(oid))
        }

    return _in_threads(some, list(objects), workers)


def damaged(paths: Iterable[tuple[str, str]], *, workers: int, advance: Advance | None = None) -> set[str]:
    """Objects among ``(name, path)`` whose file does not hold what the name says."""

    def sound(oid: str, path: str) -> bool:
        try:
            read = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            return copy_and_hash(read, None, advance) == oid
        finally:
            os.close(read)

    return _in_threads(lambda items: {oid for oid, path in items if not sound(oid, path)}, list(paths), workers)


_Item = TypeVar("_Item")


def _in_threads(work: Callable[[Sequence[_Item]], set[str]], items: Sequence[_Item], workers: int) -> set[str]:
    """What ``work`` says about all items, asked about a few at a time: a task for each would cost more than it."""
    found: set[str] = set()
    with ThreadPoolExecutor(workers, thread_name_prefix="theta-objects") as executor:
        waiting = [executor.submit(work, items[i : i + _ITEMS_A_TASK]) for i in range(0, len(items), _ITEMS_A_TASK)]
        try:
            for future in as_completed(waiting):
                found |= future.result()
        except BaseException:
            executor.shutdown(wait=True, cancel_futures=True)
            raise
    return found
