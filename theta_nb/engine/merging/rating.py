"""Evaluations of a merge: what came out, and which one is best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from theta_nb.engine.merging.choices import Settings
from theta_nb.errors import MergeError

__all__ = ["Try", "best_of", "metrics_of", "rank"]


@dataclass(frozen=True)
class Try:
    """One evaluation.

    Parameters
    ----------
    number
        Position in the session's history, from 1.
    settings
        What was chosen.
    metrics
        What came out.
    seconds
        How long it took, merge and evaluation together.
    note
        What somebody wrote about it.
    pinned
        Whether it is to be kept in sight.
    """

    number: int
    settings: Settings
    metrics: Mapping[str, float]
    seconds: float = 0.0
    note: str = ""
    pinned: bool = False

    def score(self, metric: str = "") -> float:
        """One metric; by default the first.

        Raises
        ------
        MergeError
            If there is none of that name.
        """
        if metric and metric not in self.metrics:
            raise MergeError(f"try {self.number} has no metric {metric!r}", hint=f"Known: {', '.join(self.metrics)}.")
        return self.metrics[metric] if metric else next(iter(self.metrics.values()))

    def __str__(self) -> str:
        numbers = ", ".join(
            f"{name} {value:.6g}{'' if math.isfinite(value) else ' (counts as worst)'}"
            for name, value in self.metrics.items()
        )
        return f"try {self.number}: {self.settings}: {numbers}"


def rank(score: float, *, smallest: bool) -> float:
    """Larger is better; what is not finite (training that diverged) is worse than every number."""
    return -math.inf if not math.isfinite(score) else -score if smallest else score


def best_of(tries: Sequence[Try], metric: str = "", *, smallest: bool = False) -> Try:
    """The try with the largest metric, or the smallest; the earliest of equal ones.

    Examples
    --------
    >>> tries = [Try(k, Settings(), {"loss": loss}) for k, loss in enumerate((2.0, 1.0, math.inf), 1)]
    >>> best_of(tries, "loss", smallest=True).number, best_of(tries, "loss").number
    (2, 1)

    Raises
    ------
    MergeError
        If none has a finite number.
    """
    finite = [one for one in tries if math.isfinite(one.score(metric))]
    if not finite:
        what = metric or (next(iter(tries[0].metrics)) if tries else "")
        raise MergeError(
            f"none of {len(tries)} tries gave a finite {what or 'number'}", hint="Look at session.tries, and the data."
        )
    return max(finite, key=lambda one: rank(one.score(metric), smallest=smallest))


def metrics_of(answer: Any) -> dict[str, float]:
    """What an evaluation function returned, by name.

    Raises
    ------
    MergeError
        If it is something else than numbers.
    """
    found = answer if isinstance(answer, Mapping) else {"score": answer}
    try:
        metrics = {str(name): float(value) for name, value in found.items()}
    except (TypeError, ValueError):
        raise MergeError("an evaluation must return a number, or a mapping from names to numbers") from None
    if not metrics:
        raise MergeError("an evaluation returned no metric")
    return metrics
