"""Work on many parameters in parallel, that tells how far it is and can be given up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, wait
from contextlib import nullcontext
from threading import Event
from typing import Any

__all__ = ["Progress", "run_all"]

_BEAT = 0.05  # seconds between two looks at whoever waits

Progress = Callable[[int, int], None]
"""Told how many of how many parameters are done; whatever it raises ends the work."""


def run_all(
    items: Sequence[Any],
    work: Callable[[Any], Any],
    *,
    executor: Executor | None = None,
    progress: Progress | None = None,
    stopped: Event | None = None,
) -> None:
    """Do the work on all items; the first error ends it, once what has begun is done.

    Parameters
    ----------
    items
        What is worked on.
    work
        Called with each of them.
    executor
        Where; two threads by default.
    progress
        Told how far it is.
    stopped
        Set by the first error, so that what has begun can end soon.

    Examples
    --------
    >>> done, seen = [], []
    >>> run_all([1, 2], done.append, progress=lambda number, total: seen.append((number, total)))
    >>> sorted(done), seen[-1]
    ([1, 2], (2, 2))
    """
    with nullcontext(executor) if executor is not None else ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(work, item) for item in items]
        try:
            for done, job in enumerate(jobs, 1):
                # Asked also while one large parameter takes long, so that whoever waits can give up.
                while progress is not None and not wait([job], _BEAT).done:
                    progress(done - 1, len(jobs))
                job.result()
                if progress is not None:
                    progress(done, len(jobs))
        except BaseException:
            if stopped is not None:
                stopped.set()
            for job in jobs:
                job.cancel()
            for job in jobs:
                if not job.cancelled():
                    job.exception()
            raise
