"""The rows of the table, their goals, and the table as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from contenders import GIT_LFS, REFERENCE, THETA_NB
from journeys import Results
from measuring import BenchmarkError

__all__ = ["CASES", "Measured", "Row", "replace_between_markers", "table"]

Measured = dict[str, list[Results]]
"""Results of every repetition, by contender."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Parameters
    ----------
    case, work
        Where it is measured, and what is said about it.
    ours
        Name of theta-nb's result.
    rival, theirs
        Whom it is compared with, and the name of that result; no rival: the result itself is judged.
    goal
        Largest ratio (or result) that is good enough; a ``faster`` one says how many times faster.
    unit
        ``s`` or ``MB``.
    """

    case: str
    work: str
    ours: str
    rival: str = ""
    theirs: str = ""
    goal: float = 1.0
    unit: str = "s"
    faster: bool = False


def _matrices_rows(case: str, dtype: str, stored: float) -> list[Row]:
    return [
        Row(case, f"`git add`, all tensors new, {dtype}", "add", GIT_LFS, "add", 0.75),
        Row(case, f"stored for it, {dtype}", "add stored", GIT_LFS, "add stored", stored, "MB"),
        Row(case, f"`git add`, 1 of 20 tensors changed, {dtype}", "changed", GIT_LFS, "changed", 0.35),
        Row(case, f"`git add` after `touch`, against a full add, {dtype}", "touched", GIT_LFS, "add", 0.3),
        Row(case, f"`git checkout`, {dtype}", "checkout", GIT_LFS, "checkout", 1.05),
        Row(case, f"`git theta checkout` against `git checkout`, {dtype}", "direct", GIT_LFS, "checkout", 0.5),
    ]


ROWS = [
    *_matrices_rows("fp32", "fp32", 0.88),
    *_matrices_rows("bf16", "bf16", 0.77),
    Row("minilm", "`git add`, MiniLM `.pt`, 91 MB", "add", REFERENCE, "add", 10, faster=True),
    Row("minilm", "`git checkout`, MiniLM `.pt`, 91 MB", "checkout", REFERENCE, "checkout", 5, faster=True),
    Row("startup", "filter, start to the first byte of a checkpoint", "first byte", goal=0.3),
    Row("startup", "`import theta_nb`, above bare Python", "import", goal=0.1),
    Row("memory", "peak of the filter above bare Python, `git add`, fp32", "add", goal=300, unit="MB"),
    Row("memory", "peak of the filter above bare Python, `git checkout`, fp32", "checkout", goal=300, unit="MB"),
]

CASES = list(dict.fromkeys(row.case for row in ROWS))


def table(
    measured: dict[str, Measured], rows: Sequence[Row] = ROWS, rivals: Sequence[str] = (GIT_LFS, REFERENCE)
) -> str:
    """The Markdown table of everything that was measured."""
    lines = [
        f"| work | {THETA_NB} | {' | '.join(rivals)} | ratio, median (min to max) | CPU time ratio | goal | met |",
        f"|---|--:|{'--:|' * len(rivals)}--:|--:|--:|:-:|",
    ]
    lines += [_line(row, measured[row.case], rivals) for row in rows if row.case in measured]
    return "\n".join(lines)


def _line(row: Row, measured: Measured, rivals: Sequence[str]) -> str:
    ours = _column(measured, THETA_NB, row.ours)
    if not ours:
        return f"| {row.work} | not there yet | {'| ' * len(rivals)}| | {_goal(row)} | |"
    if row.rival:
        theirs = _column(measured, row.rival, row.theirs)
        judged = [b / a if row.faster else a / b for a, b in zip(ours, theirs, strict=True)]
        spread = f"{_ratio(row, statistics.median(judged))} ({_ratio(row, min(judged))} to {_ratio(row, max(judged))})"
    else:
        judged, spread = ours, ""
    middle = statistics.median(judged)
    limit = row.goal * 1e6 if row.unit == "MB" and not row.rival else row.goal
    met = middle >= limit if row.faster else middle <= limit
    shown = [_shown(row, ours)]
    for name in rivals:
        shown.append(_shown(row, _column(measured, name, row.theirs or row.ours)))
    shown += [spread, _processor_time(row, measured), _goal(row), "yes" if met else "**no**"]
    return f"| {row.work} | {' | '.join(shown)} |"


def _processor_time(row: Row, measured: Measured) -> str:
    """Ratio of user and system time, which says something even where other programs take the processors."""
    ours = _column(measured, THETA_NB, f"{row.ours} cpu")
    theirs = _column(measured, row.rival, f"{row.theirs} cpu")
    if not ours or not theirs or row.unit == "MB":
        return ""
    return _ratio(row, statistics.median(b / a if row.faster else a / b for a, b in zip(ours, theirs, strict=True)))


def _column(measured: Measured, contender: str, name: str) -> list[float]:
    return [results[name] for results in measured.get(contender, []) if name in results]


def _shown(row: Row, values: list[float]) -> str:
    if not values:
        return ""
    value = statistics.median(values)
    if row.unit != "MB":
        return f"{value:.2f} s"
    return f"{value / 1e6:.0f} MB" if value >= 1e6 else f"{value / 1e3:.0f} kB"


def _ratio(row: Row, value: float) -> str:
    if row.faster:
        return f"{value:.1f}x"
    return f"{value:.2f}" if value >= 0.01 else f"{value:.1g}"


def _goal(row: Row) -> str:
    if row.faster:
        return f"≥ {row.goal:g}x faster"
    return f"≤ {row.goal:g}" if row.rival else f"≤ {row.goal:g} {row.unit}"


def replace_between_markers(path: Path, text: str, name: str = "versioning") -> None:
    """Put ``text`` between the two markers of a file, in place of what stands there.

    Raises
    ------
    BenchmarkError
        If the file does not hold both markers, in this order, once.
    """
    begin, end = f"<!-- benchmark:{name} -->", f"<!-- /benchmark:{name} -->"
    whole = path.read_text(encoding="utf-8")
    if whole.count(begin) != 1 or whole.count(end) != 1 or whole.index(begin) > whole.index(end):
        raise BenchmarkError(f"{path} does not hold {begin} and {end} once each")
    before, _, rest = whole.partition(begin)
    _, _, after = rest.partition(end)
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
