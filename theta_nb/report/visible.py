"""Text of others on a terminal or a page: names and messages that cannot move a cursor or turn a line round."""

from __future__ import annotations

import re

__all__ = ["visible"]

_ESCAPED = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    r"""Text from elsewhere, fit for a terminal: on one line, control characters spelled out.

    Examples
    --------
    >>> print(visible("a\tb\x1b[2J"))
    a\tb\x1b[2J
    """
    return _ESCAPED.sub(lambda match: match[0].encode("unicode_escape", "surrogatepass").decode("ascii"), text)
