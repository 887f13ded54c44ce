"""A diff in short: how much of each block differs; and as tables of Markdown, for issues and reviews."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from theta_nb.report.diff_text import SIGNS, heading, missing, notes_of, summary, table, what
from theta_nb.report.numbers import cosine, percent, short
from theta_nb.report.visible import visible
from theta_nb.report.wording import PLAIN, Ink, count

if TYPE_CHECKING:
    from theta_nb.engine.diff import ParameterChange
    from theta_nb.report.checkpoint_diff import ChangeGroup, CheckpointDiff

__all__ = ["coloured_table", "markdown", "stat"]

_BAR = 20


def stat(diff: CheckpointDiff, *, ink: Ink = PLAIN) -> Iterator[str]:
    """What was compared, the counts of the whole, and one line for each block that differs."""
    yield ink.bold(visible(heading(diff)))
    yield f"  {visible(summary(diff))}"
    groups = [group for group in diff.groups("block") if group.differing]
    if not (diff.old.exists and diff.new.exists):
        return
    width = max((len(visible(group.key)) for group in groups), default=0)
    for group in groups:
        length = len(group.changes)
        bar = "█" * max(1, round(_BAR * group.differing / length))
        numbers = f"{group.differing:>4} of {length:<4}"
        yield f"  {visible(group.key):<{width}}  {numbers} {_coloured_bar(group, bar, ink)}"


def _coloured_bar(group: ChangeGroup, bar: str, ink: Ink) -> str:
    counts = group.counts
    if counts.get("added") == group.differing:
        return ink.green(bar)
    if counts.get("removed") == group.differing:
        return ink.red(bar)
    return ink.yellow(bar)


def coloured_table(diff: CheckpointDiff, *, ink: Ink, columns: int = 0) -> Iterator[str]:
    """The lines of a table for a terminal of some columns, what was added green, what was removed red."""
    emphasis = {"+": ink.green, "-": ink.red}
    for index, line in enumerate(table(diff, columns=columns).split("\n")):
        text = visible(line)
        if index == 0:
            yield ink.bold(text)
        elif text.startswith(("  parameter", "  not shown")):
            yield ink.dim(text)
        elif text[:2] in ("+ ", "- "):
            yield emphasis[text[0]](text)
        else:
            yield text


def markdown(diff: CheckpointDiff, *, limit: int = 200) -> Iterator[str]:
    """A heading, the summary, and a table of the parameters that differ.

    Parameters
    ----------
    diff
        What is shown.
    limit
        Most rows; the rest is counted.
    """
    yield f"### {_cell(heading(diff))}"
    yield ""
    yield _cell(summary(diff))
    for reason in missing(diff):
        yield ""
        yield _cell(reason)
    rows = list(diff)
    if not rows:
        return
    measured = diff.measured != "structure"
    notes = [_cell(", ".join(_notes(change))) for change in rows[:limit]]
    head = ["", "parameter", "dtype", "shape"]
    head += ["‖Δ‖/‖old‖", "max \\|Δ\\|", "changed", "cosine"] if measured else []
    rules = ["---"] * 4 + ["--:"] * (len(head) - 4)
    noted = any(notes)
    yield ""
    yield _row([*head, *[""] * noted])
    yield f"|{'|'.join([*rules, *['---'] * noted])}|"
    for change, note in zip(rows, notes, strict=False):  # the rest is counted
        yield _row([*_cells(change, measured=measured), *[note] * noted])
    if len(rows) > limit:
        yield ""
        yield f"… and {count(len(rows) - limit, 'more parameter')}"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _notes(change: ParameterChange) -> list[str]:
    """All notes but the former name, which stands beside the present one."""
    notes = notes_of(change)
    return notes[1:] if change.status == "renamed" else notes


def _cells(change: ParameterChange, *, measured: bool) -> list[str]:
    dtype, shape = what(change.old, change.new)
    name = f"{change.old_name} → {change.name}" if change.status == "renamed" else change.name
    cells = [SIGNS[change.status], f"`{_cell(name).replace('`', chr(39))}`", dtype, shape]
    found = change.statistics
    if measured and found is not None:
        cells += [short(found.relative), short(found.max_abs_delta), percent(found.changed_share), cosine(found.cosine)]
    elif measured:
        cells += [""] * 4
    return cells


def _cell(text: str) -> str:
    """Text that cannot end a cell or a line, nor become HTML."""
    return visible(text).replace("|", "\\|").replace("<", "&lt;")
