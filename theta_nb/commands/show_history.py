"""What diff, log, show and blame print: lines of text for a result.

Reports are imported where they are printed: other commands do not wait for them.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from theta_nb.commands.show_checkpoints import NOTHING_STORED
from theta_nb.commands.terminal import visible

if TYPE_CHECKING:
    from theta_nb.commands.diff import FailedDiff
    from theta_nb.commands.terminal import Style
    from theta_nb.report.blame import Blame
    from theta_nb.report.checkpoint_diff import CheckpointDiff
    from theta_nb.report.history import History
    from theta_nb.report.version import CheckpointVersion

__all__ = ["blame", "diff", "html_page", "log", "show"]


def diff(arguments: Namespace, result: Sequence[CheckpointDiff | FailedDiff], style: Style) -> list[str]:
    """What differs in each checkpoint; nothing where nothing does, as for git."""
    from theta_nb.commands.diff import FailedDiff
    from theta_nb.report.diff_stat import coloured_table, markdown, stat

    lines: list[str] = []
    for one in result:
        shown: Iterable[str]
        if isinstance(one, FailedDiff):
            path, error = visible(one.path), visible(one.error)
            heading = [f"### {path}", ""] if arguments.markdown else [style.bold(path)]
            shown = [*heading, f"{'' if arguments.markdown else '  '}{style.red('cannot be compared:')} {error}"]
        elif arguments.markdown:
            shown = markdown(one)
        else:
            shown = stat(one, ink=style) if arguments.stat else coloured_table(one, ink=style, columns=style.columns)
        lines += [*([""] if lines else []), *shown]
    return lines


def html_page(result: Sequence[CheckpointDiff | FailedDiff]) -> str:
    """A document that shows diffs and needs nothing else."""
    from theta_nb.commands.diff import FailedDiff
    from theta_nb.report.fragments import Markup, fragment, page, text

    names, bodies = [], []
    for one in result:
        if isinstance(one, FailedDiff):
            names.append(one.path)
            said = f"<b>{text(one.path)}</b><div><span class='bad'>cannot be compared:</span> {text(one.error)}</div>"
            bodies.append(fragment(Markup(said)))
        else:
            names.append(one.new.path or one.old.path)
            bodies.append(one.to_html())
    return page(", ".join(names) or "nothing differs", *bodies)


def log(arguments: Namespace, result: Sequence[History], style: Style) -> list[str]:
    """The commits of each checkpoint, the newest first."""
    from theta_nb.report.history_text import table

    if not result:
        return ["No tracked checkpoint matches."] if arguments.paths else NOTHING_STORED
    lines: list[str] = []
    for history in result:
        first, *rest = table(history, storage=arguments.storage, ink=style)
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
