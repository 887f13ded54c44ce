"""A bounded pipeline: fill reused buffers in order, work on them in parallel, take the results in order.

Fresh memory is dear (each new page is zeroed by the kernel), so a few large buffers go round: the caller fills one, a
worker computes on it, the result is taken in submission order, and the buffer is free again. Memory is bounded whatever
the size of the model.
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import Generic, TypeVar

from theta_nb.tensors.chunks import CHUNK_NBYTES

__all__ = ["Pipeline", "fresh_buffer"]

T = TypeVar("T")


def fresh_buffer(nbytes: int) -> memoryview:
    """A writable buffer of zeros that is to be used again and again.

    Its pages are made as they are touched, where a ``bytearray`` would touch all of them for a small file too. Large
    pages are not asked for: with so few buffers they made no difference.
    """
    return memoryview(mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


class Pipeline(Generic[T]):
    """Reused buffers between one producer and the workers of an executor.

    Parameters
    ----------
    executor
        Where the work runs.
    depth
        Number of buffers: how much may be in flight.
    take
        Called in the producer's thread with each result and its buffer, in submission order, before the buffer is
        used again.

    Examples
    --------
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> done = []
    >>> with ThreadPoolExecutor(2) as executor:
    ...     pipeline = Pipeline(executor, 2, lambda result, buffer: done.append(result))
    ...     for i in range(4):
    ...         buffer = pipeline.buffer()
    ...         buffer[0] = i
    ...         pipeline.submit(lambda b: b[0] * 10, buffer)
    ...     pipeline.finish()
    >>> done
    [0, 10, 20, 30]
    """

    def __init__(self, executor: Executor, depth: int, take: Callable[[T, memoryview], None]) -> None:
        self._executor = executor
        self._take = take
        self._unmade = depth
        self._free: list[memoryview] = []
        self._running: deque[tuple[Future[T], memoryview]] = deque()

    def buffer(self) -> memoryview:
        """A writable buffer of the largest chunk's size; waits for the oldest work if all are in use."""
        if self._free:
            return self._free.pop()
        if self._unmade:
            self._unmade -= 1
            return fresh_buffer(CHUNK_NBYTES)
        self._take_oldest()
        return self._free.pop()

    def submit(self, work: Callable[[memoryview], T], buffer: memoryview) -> None:
        """Run ``work(buffer)`` in the executor."""
        self._running.append((self._executor.submit(work, buffer), buffer))

    def finish(self) -> None:
        """Take all outstanding results."""
        while self._running:
            self._take_oldest()

    def abandon(self) -> None:
        """Drop outstanding work and wait for what already runs, so that no buffer is used behind the caller's back."""
        for future, _ in self._running:
            future.cancel()
        for future in self._futures():
            if not future.cancelled():
                future.exception()
        self._running.clear()

    def _futures(self) -> Iterator[Future[T]]:
        return (future for future, _ in self._running)

    def _take_oldest(self) -> None:
        future, buffer = self._running[0]
        result = future.result()
        self._running.popleft()
        self._take(result, buffer)
        self._free.append(buffer)
