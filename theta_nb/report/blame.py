"""Which commit gave each parameter its value: frozen data that can show itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

from theta_nb.engine.diff import Parameter
from theta_nb.engine.history import Attribution, Commit
from theta_nb.report.showing import Showing

__all__ = ["Blame"]


@dataclass(frozen=True)
class Blame(Showing, Sequence[Attribution]):
    """The commit that gave each parameter its present value.

    Parameters
    ----------
    path
        Name of the checkpoint.
    revision
        Which version was asked about, in the words of whoever asked.
    lines
        One per parameter, in the order in which people count.
    """

    path: str
    revision: str
    lines: tuple[Attribution, ...]

    def __len__(self) -> int:
        return len(self.lines)

    @overload
    def __getitem__(self, index: int | str) -> Attribution: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Attribution, ...]: ...
    def __getitem__(self, index: int | str | slice) -> Attribution | tuple[Attribution, ...]:
        """One line, by position or by name of the parameter."""
        if not isinstance(index, str):
            return self.lines[index]
        for line in self.lines:
            if line.parameter.name == index:
                return line
        raise KeyError(index)

    def __iter__(self) -> Iterator[Attribution]:
        return iter(self.lines)

    def commits(self) -> dict[Commit, tuple[Parameter, ...]]:
        """Parameters by the commit that last changed them, newest commit first."""
        found: dict[str, list[Attribution]] = {}
        for line in self.lines:
            found.setdefault(line.commit.id, []).append(line)
        order = sorted(found.values(), key=lambda lines: lines[0].commit.date, reverse=True)
        return {lines[0].commit: tuple(line.parameter for line in lines) for lines in order}

    def table(self, *, limit: int | None = None) -> str:
        """Aligned text, one line per parameter."""
        from theta_nb.report.history_text import blame_table

        return "\n".join(blame_table(self, limit=limit))

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON types."""
        from theta_nb.report.history_json import blame_to_dict

        return blame_to_dict(self)

    def to_html(self) -> str:
        """A self-contained HTML fragment: no script, nothing loaded from elsewhere."""
        from theta_nb.report.history_html import blame_to_html

        return blame_to_html(self)
