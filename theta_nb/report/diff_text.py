"""A diff as aligned plain text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from theta_nb.engine.diff import NOT_MEASURED
from theta_nb.report.numbers import cosine, percent, short, size
from theta_nb.report.visible import visible
from theta_nb.report.wording import count

if TYPE_CHECKING:
    from theta_nb.engine.diff import Parameter, ParameterChange
    from theta_nb.report.checkpoint_diff import CheckpointDiff

__all__ = ["SIGNS", "heading", "missing", "notes_of", "summary", "table", "what"]

SIGNS = {
    "added": "+",
    "removed": "-",
    "renamed": ">",
    "retyped": "~",
    "reshaped": "~",
    "modified": "~",
    "unchanged": " ",
}
"""What stands before a parameter's name."""

_REASONS = 3
_NUMBERS = ("‖Δ‖/‖old‖", "max |Δ|", "changed", "flips", "cosine")


def heading(diff: CheckpointDiff) -> str:
    """What was compared with what: ``model.safetensors  HEAD~1 → HEAD``.

    Examples
    --------
    >>> from theta_nb.report.checkpoint_diff import CheckpointDiff, Side
    >>> heading(CheckpointDiff(Side("m.pt", "HEAD~1"), Side("m.pt", "HEAD"), ()))
    'm.pt  HEAD~1 → HEAD'
    """
    old, new = diff.old, diff.new
    if old.path == new.path or not (old.path and new.path):
        return visible(f"{new.path or old.path}  {old.label} → {new.label}".strip())
    return visible(f"{old} → {new}")


def summary(diff: CheckpointDiff) -> str:
    """One line: what changed, and by how much."""
    old, new = diff.old, diff.new
    if not new.exists:
        return f"checkpoint removed, {_parameters(old.parameters)}, {size(old.size)}"
    if not old.exists:
        return f"new checkpoint, {_parameters(new.parameters)}, {size(new.size)}"
    counts = diff.counts
    here = len(diff.parameters) - counts.get("added", 0)
    shown = "shown " * bool(diff.hidden)
    parts = [f"{counts.get('modified', 0)} of {here:,} {shown}parameter{'s' * (here != 1)} modified"] if here else []
    parts += [
        f"{counts[status]} {status}"
        for status in ("added", "removed", "renamed", "retyped", "reshaped")
        if counts.get(status)
    ]
    if not any(change.differs for change in diff.parameters):
        parts = ["no parameter differs" if diff.parameters else f"no parameter{' matches' if diff.hidden else 's'}"]
    total = diff.total
    # Where most could not be measured, a zero would read as "no change".
    blind = any(change.status == "modified" and change.statistics is None for change in diff.parameters)
    known = total.delta_norm == total.delta_norm and not (blind and total.delta_norm == 0)
    if diff.measured != "structure" and known:
        parts.append(f"‖Δ‖/‖old‖ {short(total.relative)} over what was compared")
    parts += diff.other
    if diff.hidden:
        parts.append(f"{diff.hidden} not shown")
    return ", ".join(parts)


def _parameters(count: int) -> str:
    return f"{count:,} parameter{'s' * (count != 1)}"


def table(diff: CheckpointDiff, *, limit: int | None = None, unchanged: bool = False, columns: int = 0) -> str:
    """A heading, a summary, and one line per parameter that differs.

    Parameters
    ----------
    diff
        What is shown.
    limit
        Most lines of parameters; the rest is counted.
    unchanged
        Whether to list unchanged parameters as well.
    columns
        Width of the terminal, where there is one: of the numbers, only those are shown that fit.
    """
    rows = list(diff.parameters) if unchanged else list(diff)
    shown = rows if limit is None else rows[: max(0, limit)]
    lines = [heading(diff), summary(diff)]
    lines += missing(diff)
    if shown:
        lines += ["", *_aligned(diff, shown, columns)]
    if len(rows) > len(shown):
        lines.append(f"  … and {len(rows) - len(shown)} more")
    return "\n".join(line for line in lines if line or shown)


def _aligned(diff: CheckpointDiff, rows: Sequence[ParameterChange], columns: int) -> Iterator[str]:
    measured = diff.measured != "structure"
    cells = [["  parameter", "dtype", "shape", *(_NUMBERS if measured else ()), ""]]
    cells += [_cells(change, measured=measured) for change in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    left_out: list[str] = []
    while columns and len(widths) > 5 and sum(widths[:-1]) + 2 * (len(widths) - 2) > columns:
        left_out.insert(0, cells[0][-2])
        for row in (*cells, widths):
            del row[-2]
    for row in cells:
        texts = [
            cell.ljust(width) if column < 3 or column == len(row) - 1 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(texts).rstrip()
    if left_out:
        yield f"  not shown in {columns} columns: {', '.join(left_out)}"


def _cells(change: ParameterChange, *, measured: bool) -> list[str]:
    name = f"{SIGNS[change.status]} {change.name}"
    dtype, shape = what(change.old, change.new)
    return [name, dtype, shape, *(_number_cells(change) if measured else ()), ", ".join(notes_of(change))]


def missing(diff: CheckpointDiff) -> list[str]:
    """A sentence for each reason why parameters were not measured, with their number; of many reasons the first ones.

    Examples
    --------
    >>> from theta_nb.engine.diff import Parameter, ParameterChange
    >>> from theta_nb.report.checkpoint_diff import CheckpointDiff, Side
    >>> changes = tuple(
    ...     ParameterChange("modified", *[Parameter(name, "int8", (4,), side) for side in (b"1", b"2")], note=note)
    ...     for name, note in (("a", "not measured: offline"), ("b", "not measured: offline"), ("c", "tiny"))
    ... )
    >>> missing(CheckpointDiff(Side("m.pt", "HEAD~1"), Side("m.pt", "HEAD"), changes))
    ['2 parameters are not measured: offline']
    """
    reasons = Counter(c.note.removeprefix(NOT_MEASURED) for c in diff.parameters if c.note.startswith(NOT_MEASURED))
    lines = [
        f"{count(number, 'parameter')} {'is' if number == 1 else 'are'} not measured: {visible(reason)}"
        for reason, number in reasons.most_common(_REASONS)
    ]
    if len(reasons) > _REASONS:
        left = sum(number for _, number in reasons.most_common()[_REASONS:])
        lines.append(f"… and {left:,} more are not measured, for {count(len(reasons) - _REASONS, 'other reason')}")
    return lines


def notes_of(change: ParameterChange, *, reason: bool = False) -> list[str]:
    """What else there is to say about a parameter; why it was not measured only if that is wanted as well."""
    notes = []
    if change.status == "renamed":
        notes.append(f"was {change.old_name}")
    if change.tied:
        notes.append(f"tied to {change.tied}")
    notes += _not_finite(change)
    if change.note:
        unread = change.note.startswith(NOT_MEASURED) and not reason
        notes.append("not measured" if unread else visible(change.note))
    return notes


def _number_cells(change: ParameterChange) -> list[str]:
    found = change.statistics
    if found is None:
        return [""] * len(_NUMBERS)
    return [
        short(found.relative),
        short(found.max_abs_delta),
        percent(found.changed_share),
        percent(found.flipped_share),
        cosine(found.cosine),
    ]


def _not_finite(change: ParameterChange) -> Iterator[str]:
    """What became of NaN and Inf, where there are any."""
    found = change.statistics
    if found is None:
        return
    for word, old, new in (("NaN", found.old_nan, found.new_nan), ("Inf", found.old_inf, found.new_inf)):
        if old or new:
            yield f"{word} {old} → {new}" if old != new else f"{word} {new}"


def what(old: Parameter | None, new: Parameter | None) -> tuple[str, str]:
    """Dtype and shape of a parameter, both where they changed."""
    sides = [side for side in (old, new) if side is not None]
    dtypes = dict.fromkeys(side.dtype for side in sides)
    shapes = dict.fromkeys(f"[{','.join(map(str, side.shape))}]" for side in sides)
    return " → ".join(dtypes), " → ".join(shapes)
