"""Entry point of ``git theta`` and ``python -m theta_nb``."""

from __future__ import annotations

import sys


def main() -> int:
    """Run one command; what git calls for every file is kept apart from the command line's parser."""
    if sys.argv[1:2] == ["filter-process"]:
        from theta_nb.git.filter_process import run

        return run()
    from theta_nb.commands.cli import run_command_line

    return run_command_line(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
