"""Work in the background, answered when it is done, replaced when something newer is asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor

__all__ = ["Stop", "Stopped", "Worker"]

Stop = Callable[[], None]
"""Called now and then by work; raises :class:`Stopped` when nobody wants its outcome any more."""


class Stopped(Exception):  # noqa: N818 - no error: someone moved on
    """The outcome is not wanted any more."""


class Worker:
    """A few threads and one piece of work per channel.

    Work begins in the order in which it came. Newer work on a channel replaces what waits there and stops what runs.
    Threads begin with the first piece of work and end with :meth:`close`.

    Parameters
    ----------
    threads
        How many pieces of work run at once.

    Examples
    --------
    >>> done = threading.Event()
    >>> worker = Worker()
    >>> worker.submit("channel", lambda stop: done.set())
    >>> done.wait(10)
    True
    >>> worker.close()
    """

    def __init__(self, threads: int = 2) -> None:
        self._threads = threads
        self._lock = threading.Lock()
        self._latest: dict[Hashable, int] = {}
        self._count = 0
        self._executor: ThreadPoolExecutor | None = None
        self._closed = False

    def submit(self, channel: Hashable, work: Callable[[Stop], None]) -> None:
        """Have something done; nothing happens after :meth:`close`."""
        with self._lock:
            if self._closed:
                return
            self._count += 1
            number = self._latest[channel] = self._count
            if self._executor is None:
                self._executor = ThreadPoolExecutor(self._threads, thread_name_prefix="theta-explorer")
            self._executor.submit(self._run, channel, number, work)

    def cancel(self, channel: Hashable) -> None:
        """Stop what a channel does, and forget what waits there."""
        with self._lock:
            self._latest.pop(channel, None)

    def close(self) -> None:
        """Stop everything; the threads end as soon as their work notices."""
        with self._lock:
            self._closed = True
            self._latest.clear()
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False, cancel_futures=True)

    def _run(self, channel: Hashable, number: int, work: Callable[[Stop], None]) -> None:
        def stop() -> None:
            if self._latest.get(channel) != number:
                raise Stopped

        try:
            stop()
            work(stop)
        except Stopped:
            pass
        finally:
            with self._lock:
                if self._latest.get(channel) == number:
                    del self._latest[channel]
