"""What log, show and blame print: lines of text for a result.

The reports import NumPy, which the printing of other commands does not wait for.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from theta_nb.commands.show_checkpoints import NOTHING_STORED

if TYPE_CHECKING:
    from theta_nb.commands.terminal import Style
    from theta_nb.report.history import Blame, History
    from theta_nb.report.version import CheckpointVersion

__all__ = ["blame", "log", "show"]


def log(arguments: Namespace, result: Sequence[History], style: Style) -> list[str]:
    """The commits of each checkpoint, the newest first."""
    from theta_nb.report.history_text import table

    if not result:
        return ["No tracked checkpoint matches."] if arguments.paths else NOTHING_STORED
    lines: list[str] = []
    for history in result:
        first, *rest = table(history, ink=style)
        lines += [*([""] if lines else []), style.bold(first), *rest]
    return lines


def show(_: Namespace, result: CheckpointVersion, style: Style) -> list[str]:
    """A version and its parameters."""
    from theta_nb.report.version import version_table

    return list(version_table(result, ink=style))


def blame(_: Namespace, result: Blame, style: Style) -> list[str]:
    """Each parameter behind the commit that it comes from."""
    from theta_nb.report.history_text import blame_table

    return list(blame_table(result, ink=style))
