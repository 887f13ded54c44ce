"""What results have in common: how a notebook and a terminal show them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

__all__ = ["Showing"]

_LINES = 60
"""Lines of plain text in a notebook, where something better is usually shown."""


class Showing:
    """A result that shows itself: data where programs read it, static HTML, plain text.

    Subclasses have ``table(limit=…)`` and ``to_html()``, and ``to_dict()`` where :attr:`mime` names a type.

    Examples
    --------
    >>> class Answer(Showing):
    ...     def table(self, *, limit: int | None = None) -> str:
    ...         return "42"
    ...     def to_html(self) -> str:
    ...         return "<b>42</b>"
    >>> print(Answer())
    42
    >>> Answer()._repr_mimebundle_()
    {'text/html': '<b>42</b>', 'text/plain': '42'}
    """

    mime: ClassVar[str] = ""
    """MIME type of the data; empty if no page knows what to do with it."""

    def table(self, *, limit: int | None = None) -> str:
        """Aligned text of at most ``limit`` entries."""
        raise NotImplementedError

    def to_html(self) -> str:
        """A self-contained HTML fragment: no script, nothing loaded from elsewhere."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON types."""
        raise NotImplementedError

    def __str__(self) -> str:
        return self.table()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Mapping[str, Any]:
        """What a notebook shows and saves."""
        data = {self.mime: self.to_dict()} if self.mime else {}
        return {**data, "text/html": self.to_html(), "text/plain": self.table(limit=_LINES)}
