"""Histories and blames as aligned lines of text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from theta_nb.engine.storage_cost import total_storage
from theta_nb.report.numbers import short, size
from theta_nb.report.visible import visible
from theta_nb.report.wording import PLAIN, Ink, count

if TYPE_CHECKING:
    from theta_nb.engine.history import Commit, Step
    from theta_nb.report.blame import Blame
    from theta_nb.report.history import History

__all__ = ["blame_table", "number", "refs", "summary", "table", "what_changed"]

_MOST_METRICS = 4


def summary(history: History) -> str:
    """One line: how many commits, and what they store."""
    merges = sum(step.is_merge for step in history)
    parts = [count(len(history), "commit")]
    parts += [count(merges, "merge")] if merges else []
    return f"{visible(history.path)}: {', '.join(parts)}, {size(history.stored)} stored"


def table(history: History, *, limit: int | None = None, storage: bool = False, ink: Ink = PLAIN) -> Iterator[str]:
    """A summary, then one line per commit: id, date, what changed, bytes stored, metrics, message.

    Parameters
    ----------
    history
        What is shown.
    limit
        Most commits; the rest is counted.
    storage
        Whether to say for what the stored bytes are, by update type.
    ink
        How words are emphasised.
    """
    yield summary(history)
    steps = history.steps[:limit]
    metrics = [name for name in history.metrics if any(name in step.commit.metrics for step in steps)]
    shown = metrics[:_MOST_METRICS]
    kinds = list(total_storage(step.storage for step in history)) if storage else []
    rows = [["commit", "date", "what changed", "stored", *kinds, *(visible(name) for name in shown)]]
    rows += [_cells(step, shown, kinds) for step in steps]
    if not steps:
        return
    yield ""
    yield from _aligned(rows, ["message", *(_message(step, ink) for step in steps)], ink)
    if len(history) > len(steps):
        yield ink.dim(f"… and {count(len(history) - len(steps), 'earlier commit')}")
    if len(metrics) > len(shown):
        yield ink.dim(f"Not shown: {', '.join(visible(name) for name in metrics[len(shown) :])}")


def _aligned(rows: Sequence[Sequence[str]], tails: Sequence[str], ink: Ink) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for index, (row, tail) in enumerate(zip(rows, tails, strict=True)):
        cells = [
            cell.ljust(width) if column < 3 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        if index == 0:
            yield ink.dim("  ".join([*cells, tail]).rstrip())
            continue
        yield "  ".join([ink.yellow(cells[0]), ink.dim(cells[1]), *cells[2:], tail]).rstrip()


def _cells(step: Step, metrics: Sequence[str], kinds: Sequence[str]) -> list[str]:
    commit = step.commit
    stored = size(step.new_bytes) if step.new_bytes else "-"
    values = [number(commit.metrics.get(name, math.nan)) for name in metrics]
    parts = [size(step.storage[kind]) if kind in step.storage else "-" for kind in kinds]
    return [commit.short, f"{commit.date:%Y-%m-%d}", what_changed(step), stored, *parts, *values]


def _message(step: Step, ink: Ink) -> str:
    words = [visible(step.commit.subject)]
    names = refs(step.commit)
    if names:
        words.append(ink.green(f"({', '.join(visible(name) for name in names)})"))
    if step.renamed_from:
        words.append(ink.dim(f"(renamed from {visible(step.renamed_from)})"))
    if step.recipe:
        words.append(ink.dim("(recipe of the merge kept)"))
    if step.problem:
        words.append(ink.red(f"({visible(step.problem)})"))
    return " ".join(words)


def refs(commit: Commit) -> list[str]:
    """Names of a commit: HEAD, branches, tags."""
    return [*(["HEAD"] if commit.head else []), *commit.branches, *(f"tag: {tag}" for tag in commit.tags)]


def number(value: float) -> str:
    """A metric; as it was written where that is short.

    Examples
    --------
    >>> number(0.31), number(0.020408163), number(3.0), number(float("nan"))
    ('0.31', '0.0204', '3', '')
    """
    if math.isnan(value):
        return ""
    text = f"{value:g}"
    return text if len(text) <= 6 else short(value)


def what_changed(step: Step) -> str:
    """In a few words, what a commit did to the checkpoint."""
    merge = "merge: " if step.is_merge else ""
    if step.state == "deleted":
        return f"{merge}deleted"
    if step.state == "raw":
        return f"{merge}a whole file in git"
    if step.state == "broken":
        return f"{merge}cannot be read"
    if step.state == "added":
        return f"{merge}new, {count(step.tensors, 'tensor')}"
    counts = [
        (len(step.names("modified", "retyped", "reshaped")), f"of {step.tensors} changed"),
        (len(step.names("added")), "added"),
        (len(step.names("removed")), "removed"),
        (len(step.names("renamed")), "renamed"),
    ]
    parts = [f"{number} {words}" for number, words in counts if number]
    if not parts:
        parts = ["no tensor, only metadata"] if step.other else ["file renamed" if step.renamed_from else "nothing new"]
    return merge + ", ".join(parts)


def blame_table(blame: Blame, *, limit: int | None = None, ink: Ink = PLAIN) -> Iterator[str]:
    """One line per parameter: the commit that gave it its value, who, when, what, and the parameter."""
    lines = blame.lines[:limit]
    rows = [
        [line.commit.short, visible(line.commit.author)[:20], f"{line.commit.date:%Y-%m-%d}", line.status]
        for line in lines
    ]
    if not rows:
        return
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    subject = min(40, max(len(visible(line.commit.subject)) for line in lines))
    before = ""
    for row, line in zip(rows, lines, strict=True):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        said = visible(line.commit.subject)
        said = (f"{said[: subject - 1]}…" if len(said) > subject else said).ljust(subject)
        head = "  ".join([ink.yellow(cells[0]), ink.dim(f"{cells[1]}  {cells[2]}"), cells[3], ink.dim(said)])
        again = line.commit.id == before  # what stands above is not said again
        before = line.commit.id
        if again:
            blank = " " * (sum(widths[:3]) + 6)
            head = f"{blank}{cells[3]}  {' ' * subject}"
        yield f"{head}  {visible(line.parameter.name)}"
    if len(blame) > len(lines):
        yield ink.dim(f"… and {len(blame) - len(lines)} more")
