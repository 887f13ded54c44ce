"""Matrix products on the calling thread alone: ours run on several threads already, and BLAS brings its own to each."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["single_threaded_blas"]

# The setting is the process's, and OpenBLAS takes it back only in the thread that made it: one user after the other.
_turn = threading.RLock()


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Keep BLAS from starting threads, in any thread, while the block runs.

    Threads that wait for each other by spinning make small decompositions forty times slower on a busy machine.
    """
    from threadpoolctl import threadpool_limits

    with _turn, threadpool_limits(1, user_api="blas"):
        yield
