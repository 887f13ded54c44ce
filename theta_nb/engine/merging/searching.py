"""A search for the best values of a few parameters, each evaluation being dear."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from theta_nb.errors import MergeError
from theta_nb.merges.method import Method
from theta_nb.merges.parameters import ParameterSpec

__all__ = ["Dimension", "climb", "dimensions", "values_at"]

_FINEST = 1e-4  # of a range; smaller steps are not worth an evaluation

Point = tuple[float | int, ...]
"""A value for each dimension."""


@dataclass(frozen=True, slots=True)
class Dimension:
    """One number that a search varies.

    Parameters
    ----------
    name
        Parameter.
    low, high
        Ends of its range, included.
    whole
        Whether it takes whole numbers only.
    label
        Input whose value it is, where every input has its own; empty for one value for all.
    """

    name: str
    low: float
    high: float
    whole: bool = False
    label: str = ""

    def at(self, place: float) -> float | int:
        """The value at a place from 0 to 1; whole numbers have equal shares of it.

        Examples
        --------
        >>> [Dimension("k", 1, 3, whole=True).at(place) for place in (0, 0.3, 0.5, 0.7, 1)]
        [1, 1, 2, 3, 3]
        """
        if self.whole:
            return int(min(self.low + math.floor(place * (self.high - self.low + 1)), self.high))
        return self.low + place * (self.high - self.low)


def dimensions(method: Method, labels: Sequence[str], ranges: Mapping[str, Any]) -> list[Dimension]:
    """What a search varies: the given ranges, or those that the method's own parameters have.

    Parameters
    ----------
    method
        The method in use.
    labels
        Names of the inputs; without given ranges each has a weight of its own.
    ranges
        Low and high end by parameter; may be empty.

    Raises
    ------
    MergeError
        If a parameter is unknown or no number, a range is none, or nothing is left to vary.

    Examples
    --------
    >>> from theta_nb.merges.table import METHODS
    >>> [(d.name, d.label, d.low, d.high) for d in dimensions(METHODS["slerp"], ("ours", "theirs"), {})]
    [('t', '', 0.0, 1.0)]
    >>> [(d.name, d.label) for d in dimensions(METHODS["linear"], ("ours", "theirs"), {})]
    [('weight', 'ours'), ('weight', 'theirs')]
    """
    if ranges:
        return [_given(method.parameter(name), ends) for name, ends in ranges.items()]
    found = []
    for spec in method.parameters:
        if spec.kind in ("float", "int") and spec.range.searched:
            low, high = float(spec.range.low), float(spec.range.high)
            own = labels if spec.per_model and spec.name == "weight" else ("",)
            found += [Dimension(spec.name, low, high, spec.kind == "int", label) for label in own]
    if not found:
        raise MergeError(f"the merge method {method.name!r} has no parameter to search over by itself")
    return found


def _given(spec: ParameterSpec, ends: Any) -> Dimension:
    if spec.kind not in ("float", "int"):
        raise MergeError(f"{spec.name} is no number, so it has no range", hint="Compare its values by a sweep.")
    try:
        low, high = ends
    except (TypeError, ValueError):
        raise MergeError(f"the range of {spec.name} is {ends!r}, and must be (low, high)") from None
    first, last = spec.parse(low), spec.parse(high)
    if not isinstance(first, float | int) or not isinstance(last, float | int) or first > last:
        raise MergeError(f"the range of {spec.name} is {ends!r}, and must be (low, high)")
    return Dimension(spec.name, float(first), float(last), spec.kind == "int")


def values_at(dimensions: Sequence[Dimension], point: Sequence[float | int]) -> dict[str, Any]:
    """Values of parameters at a point, as a session takes them."""
    values: dict[str, Any] = {}
    for dimension, value in zip(dimensions, point, strict=True):
        if dimension.label:
            values.setdefault(dimension.name, {})[dimension.label] = value
        else:
            values[dimension.name] = value
    return values


def climb(score: Callable[[Point], float], dimensions: Sequence[Dimension], budget: int, seed: int) -> None:
    """Look for a maximum with at most ``budget`` evaluations, none of them twice.

    A third of the budget goes to points that fill the ranges evenly (a low-discrepancy sequence), the rest to steps
    along one dimension at a time from the best point so far, halved where they do not help.

    Parameters
    ----------
    score
        Evaluates a point; -inf for what is no result.
    dimensions
        What is varied.
    budget
        Number of evaluations.
    seed
        Of the first points.

    Examples
    --------
    >>> seen = []
    >>> def score(point):
    ...     seen.append(point)
    ...     return -abs(point[0] - 7)
    >>> climb(score, [Dimension("k", 1, 20, whole=True)], 50, 0)
    >>> max(seen, key=lambda point: -abs(point[0] - 7)), len(seen) == len(set(seen)) <= 20
    ((7,), True)
    """
    known: dict[Point, float] = {}

    def value(place: Any) -> float:
        point = tuple(dimension.at(float(x)) for dimension, x in zip(dimensions, place, strict=True))
        if point not in known and len(known) < budget:
            known[point] = score(point)
        return known.get(point, -math.inf)

    best, top = None, -math.inf
    for place in _spread(len(dimensions), max(1, budget // 3), seed):
        found = value(place)
        if best is None or found > top:
            best, top = place, found
    width = 0.25
    while len(known) < budget and width > _FINEST and best is not None:
        improved = False
        for axis, sign in itertools.product(range(len(dimensions)), (1, -1)):
            moved = best.copy()
            moved[axis] = min(max(moved[axis] + sign * width, 0.0), 1.0)
            if (found := value(moved)) > top:
                best, top, improved = moved, found, True
        if not improved:
            width /= 2


def _spread(count: int, points: int, seed: int) -> list[Any]:
    """Points of the unit cube that fill it evenly."""
    # Roberts' generalisation of the golden ratio: each new point falls where the others are not.
    ratio = 2.0
    for _ in range(40):
        ratio = (1 + ratio) ** (1 / (count + 1))
    steps = ratio ** -np.arange(1, count + 1)
    start = np.random.default_rng(seed).random(count)
    return [(start + k * steps) % 1.0 for k in range(points)]
