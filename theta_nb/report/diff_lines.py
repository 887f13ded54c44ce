"""A diff as lines for a terminal: parameters under their modules, folded where there are many."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from theta_nb.report.change_group import ChangeGroup
from theta_nb.report.diff_text import SIGNS, missing, notes_of, summary, what
from theta_nb.report.numbers import short
from theta_nb.report.tree import Module, module_tree

if TYPE_CHECKING:
    from theta_nb.engine.diff import ParameterChange
    from theta_nb.report.checkpoint_diff import CheckpointDiff

__all__ = ["PLAIN", "Colours", "diff_lines"]

_SHOWN = 60
"""Up to this many changed parameters are listed one by one; of more, modules are counted."""


@dataclass(frozen=True, slots=True)
class Colours:
    """What switches colours on and off; all empty where there are none.

    Parameters
    ----------
    added, removed, changed, module
        Before a parameter that is new, gone, another one; before the name of a module.
    reset
        Behind each.
    """

    added: str = ""
    removed: str = ""
    changed: str = ""
    module: str = ""
    reset: str = ""

    def of(self, sign: str) -> str:
        """What to put before a sign."""
        return {"+": self.added, "-": self.removed}.get(sign, self.changed)


PLAIN = Colours()


@dataclass(frozen=True, slots=True)
class _Line:
    indent: str
    sign: str  # empty for a module
    name: str
    what: str
    number: str
    notes: str


def diff_lines(diff: CheckpointDiff, *, colours: Colours = PLAIN, shown: int = _SHOWN) -> Iterator[str]:
    """A summary, then one line per parameter that differs, under its module.

    Parameters
    ----------
    diff
        In any order; shown in that of names.
    colours
        For a terminal.
    shown
        Most parameters that are listed one by one; of more, each module is one line.
    """
    yield summary(diff)
    yield from missing(diff)
    if not len(diff):
        return
    lines = list(_lines(module_tree(diff.sort("name").parameters), "", folded=len(diff) > shown, top=True))
    widths = [max(len(text) for text in column) for column in zip(*map(_columns, lines), strict=True)]
    for line in lines:
        yield _coloured(line, widths, colours)


def _lines(module: Module[ParameterChange], indent: str, *, folded: bool, top: bool = False) -> Iterator[_Line]:
    group = ChangeGroup(module.label, tuple(module.changes))
    if not group.differing:
        return
    if module.label or not top:
        counts = ", ".join(f"{count} {status}" for status, count in group.counts.items() if status != "unchanged")
        yield _Line(indent, "", module.label, counts, _number(group.relative), "")
        indent += "  "
    if not folded or top:
        for name, change in module.rows:
            if change.differs:
                yield _parameter(indent, name, change)
    for below in module.modules:
        yield from _lines(below, indent, folded=folded)


def _parameter(indent: str, name: str, change: ParameterChange) -> _Line:
    found = change.statistics
    number = math.nan if found is None else found.relative
    text = " ".join(what(change.old, change.new))
    return _Line(indent, SIGNS[change.status], name, text, _number(number), ", ".join(notes_of(change)))


def _number(value: float) -> str:
    return "" if math.isnan(value) else short(value)


def _columns(line: _Line) -> tuple[str, str, str]:
    sign = f"{line.sign} " if line.sign else ""
    return f"{line.indent}{sign}{line.name}", line.what, line.number


def _coloured(line: _Line, widths: list[int], colours: Colours) -> str:
    first, second, third = _columns(line)
    text = f"{first:<{widths[0]}}  {second:<{widths[1]}}  {third:>{widths[2]}}  {line.notes}".rstrip()
    if not colours.reset:
        return text
    if not line.sign:
        return text.replace(line.name, f"{colours.module}{line.name}{colours.reset}", 1)
    start = len(line.indent)
    return f"{text[:start]}{colours.of(line.sign)}{text[start : len(first)]}{colours.reset}{text[len(first) :]}"
