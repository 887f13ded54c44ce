"""Entry point of ``git theta`` and ``python -m theta_nb``."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

_FILTER_OBJECTS = 100_000  # imports make tens of thousands of objects, and none of them is garbage


def main() -> int:
    """Run one command; what git calls for every file is kept apart from the command line's parser."""
    # Until there is anything to clean up, Ctrl-C ends the process as it ends git: without a traceback of the imports.
    python_handles = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if python_handles:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    run = _command()
    if python_handles:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return run()


def _command() -> Callable[[], int]:
    if sys.argv[1:2] == ["filter-process"]:
        gc.set_threshold(_FILTER_OBJECTS)
        from theta_nb.git.filter_process import run

        return lambda: _leave(run())
    from theta_nb.commands.cli import run_command_line

    return lambda: run_command_line(sys.argv[1:])


def _leave(status: int) -> NoReturn:
    """End at once: git waits for its filter, and taking an interpreter apart takes longer than a small checkout.

    The filter has closed what it opened; only the standard streams of Python itself are left.
    """
    if sys.stderr is not None:  # git may have been started without one
        with contextlib.suppress(OSError):
            sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    sys.exit(main())
