"""Tables of what status, ls-files and fsck find, for notebooks."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from theta_nb.commands.show_checkpoints import facts_of, remark_of
from theta_nb.report.fragments import Markup, details, fragment, grid, text
from theta_nb.report.numbers import size

if TYPE_CHECKING:
    from theta_nb.commands.fsck import FsckReport
    from theta_nb.commands.ls_files import StoredCheckpoint
    from theta_nb.commands.status import CheckpointStatus
    from theta_nb.commands.terminal import Style

__all__ = ["TABLES"]


def _status(_: Namespace, result: Sequence[CheckpointStatus], style: Style) -> str:
    rows = []
    for item in result:
        kind = "dim" if item.state == "unchanged" else "good" if item.staged else "bad"
        names = [
            *(f"~ {name}" for name in item.changed),
            *(f"+ {name}" for name in item.added),
            *(f"- {name}" for name in item.removed),
        ]
        facts = ", ".join(facts_of(item))
        whole = len(item.added) == item.tensors  # a new checkpoint needs no list
        what = details(facts, names) if names and not whole else text(facts)
        note = Markup(f"<div class='warn'>{text(item.note)}</div>") if item.note else Markup("")
        rows.append(
            [
                Markup(f"<span class='{kind}'>{text(item.state)}{' (staged)' if item.staged else ''}</span>"),
                Markup(f"<code>{text(style.path(item.path))}</code>"),
                Markup(what + note),
            ]
        )
    return fragment(grid(["state", "checkpoint", "what changed"], rows))


def _ls_files(_: Namespace, result: Sequence[StoredCheckpoint], style: Style) -> str:
    rows = [
        [
            Markup(f"<code>{text(style.path(item.path))}</code>"),
            item.format,
            f"{item.tensors:,}" if item.digest else "",
            size(item.size) if item.digest else "",
            Markup(f"<code class='dim'>{text(item.digest[:10])}</code>"),
            Markup(f"<span class='warn'>{text(remark_of(item))}</span>"),
        ]
        for item in result
    ]
    return fragment(grid(["checkpoint", "format", "tensors", "size", "digest", ""], rows, numbers=[2, 3]))


def _fsck(_: Namespace, result: FsckReport, style: Style) -> str | None:
    if not result.problems:
        return None  # one line says it
    rows = [
        [
            Markup(f"<span class='bad'>{text(problem.kind)}</span>"),
            problem.path,
            problem.commit,
            problem.parameter,
            problem.message,
        ]
        for problem in result.problems
    ]
    head = f"{result.checked_objects:,} objects and {result.checked_values:,} values checked"
    warnings = [Markup(f"<div class='warn'>{text(warning)}</div>") for warning in result.warnings]
    return fragment(
        Markup(f"<div class='bad'>{text(head)}: {len(result.problems)} problems</div>"),
        grid(["", "checkpoint", "commit", "parameters", "what is wrong"], rows),
        *warnings,
    )


TABLES: dict[str, Callable[[Namespace, Any, Style], str | None]] = {
    "status": _status,
    "ls-files": _ls_files,
    "fsck": _fsck,
}
"""Tables by command; ``None`` where lines of text say it better."""
