"""A reused buffer for every thread: fresh memory is dear."""

from __future__ import annotations

import mmap
import threading

from theta_nb.tensors.chunks import CHUNK_NBYTES

__all__ = ["scratch"]

_buffers = threading.local()


def scratch(nbytes: int) -> memoryview:
    """Writable memory of ``nbytes`` bytes, this thread's until the next call; its content is arbitrary.

    Examples
    --------
    >>> scratch(0).nbytes, scratch(12).nbytes
    (0, 12)
    """
    memory: memoryview | None = getattr(_buffers, "memory", None)
    if memory is None or len(memory) < nbytes:
        # Zeroed page by page as it is touched.
        size = max(nbytes, CHUNK_NBYTES)
        memory = _buffers.memory = memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    return memory[:nbytes]
