"""What a diff can be sorted by."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Literal

from theta_nb.engine.diff import STATUSES, ParameterChange, natural
from theta_nb.errors import ThetaError

__all__ = ["SORT_KEYS", "SortKey", "sorted_by"]

SortKey = Literal["name", "relative", "delta", "max", "changed", "flips", "cosine", "size", "status"]

_KEYS: dict[str, Callable[[ParameterChange], float]] = {
    "relative": lambda c: _number(c, "relative"),
    "delta": lambda c: _number(c, "delta_norm"),
    "max": lambda c: _number(c, "max_abs_delta"),
    "changed": lambda c: _number(c, "changed_share"),
    "flips": lambda c: _number(c, "flipped_share"),
    "cosine": lambda c: -_number(c, "cosine", math.inf),
    "size": lambda c: float(c.current.nbytes),
    "status": lambda c: float(-STATUSES.index(c.status)),
}

SORT_KEYS: tuple[str, ...] = ("name", *_KEYS)
"""What a diff can be sorted by, largest change first (by name: ascending)."""


def _number(change: ParameterChange, attribute: str, missing: float = -1.0) -> float:
    """A statistic as a key to sort by; what was not measured, and what is no number, comes last."""
    value = missing if change.statistics is None else float(getattr(change.statistics, attribute))
    return missing if math.isnan(value) else value


def sorted_by(
    changes: Iterable[ParameterChange], key: SortKey | str, *, reverse: bool = False
) -> tuple[ParameterChange, ...]:
    """Changes in an order: the largest first, equal ones by name.

    Raises
    ------
    ThetaError
        If there is no such key.
    """
    ordered = sorted(changes, key=lambda c: natural(c.name), reverse=reverse)
    if key != "name":
        if key not in _KEYS:
            raise ThetaError(f"a diff cannot be sorted by {key!r}", hint=f"Use one of {', '.join(SORT_KEYS)}.")
        ordered.sort(key=_KEYS[key], reverse=not reverse)
    return tuple(ordered)
