"""Entry point of ``git theta`` and ``python -m theta_nb``."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable


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
        from theta_nb.git.filter_process import run

        return run
    from theta_nb.commands.cli import run_command_line

    return lambda: run_command_line(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
