"""Counts, names and text from elsewhere in words for people; and how words may be emphasised."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from theta_nb.errors import count

__all__ = ["PLAIN", "Ink", "count", "folded", "shown_path"]

_CONTROL = re.compile(r'[\x00-\x1f\x7f"\\\udc80-\udcff]')


class Ink(Protocol):
    """How text is emphasised: by escape sequences on a terminal, or not at all."""

    def bold(self, text: str) -> str:
        """What a line is about."""
        ...

    def dim(self, text: str) -> str:
        """What may be skipped."""
        ...

    def red(self, text: str) -> str:
        """What is wrong or removed."""
        ...

    def green(self, text: str) -> str:
        """What is right or added."""
        ...

    def yellow(self, text: str) -> str:
        """What needs attention."""
        ...


class _Plain:
    """No emphasis."""

    def _same(self, text: str) -> str:
        return text

    bold = dim = red = green = yellow = _same


PLAIN: Ink = _Plain()
"""Text as it is."""


def folded(items: Sequence[str], most: int = 10) -> list[str]:
    """At most so many items, and how many more there are.

    Examples
    --------
    >>> folded(list("abcd"), 2)
    ['a', 'b', '… and 2 more']
    """
    if len(items) <= most + 1:  # a line that says "1 more" is no shorter than the one it hides
        return list(items)
    return [*items[:most], f"… and {len(items) - most} more"]


def shown_path(path: str) -> str:
    r"""A path on one line: quoted as git quotes it where it holds control characters, quotes or broken UTF-8.

    Examples
    --------
    >>> print(shown_path("modèle 1.pt"), shown_path("a\nb.pt"))
    modèle 1.pt "a\nb.pt"
    """
    if not _CONTROL.search(path):
        return path

    def escape(match: re.Match[str]) -> str:
        character = match[0]
        short = {"\n": "\\n", "\t": "\\t", "\r": "\\r", '"': '\\"', "\\": "\\\\"}.get(character)
        return short or f"\\{ord(character) & 0xFF:03o}"

    return f'"{_CONTROL.sub(escape, path)}"'
