"""Evaluations of a merge: single ones, sweeps and searches, numbered and with their recipes."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from theta_nb.engine.merging.choices import Choice, Settings
from theta_nb.errors import MergeError

if TYPE_CHECKING:
    from theta_nb.engine.merging.session import MergeSession

__all__ = ["Tries", "Try"]

Function = Callable[[Any], Mapping[str, float] | float]
"""Takes the merged model or state dict, and returns metrics by name, or one number."""


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


class Tries(Sequence[Try]):
    """The numbered history of a session's evaluations.

    Parameters
    ----------
    session
        Whose.
    shared
        The history that it adds to, if it is that of another session's fork.

    Examples
    --------
    >>> from theta_nb.engine.merging.inputs import StateInput
    >>> from theta_nb.engine.merging.session import MergeSession
    >>> one = np.ones(1, np.float32)
    >>> base, ours, theirs = ({"w": k * one} for k in (0, 1, 3))
    >>> inputs = [StateInput("ours", ours), StateInput("theirs", theirs)]
    >>> session = MergeSession(StateInput("original", base), inputs).use("slerp")
    >>> tries = session.sweep(lambda state: -abs(float(state["w"][0]) - 2.5), t=[0, 0.25, 0.5, 0.75, 1])
    >>> session.tries.best().settings.default.parameters
    {'t': 0.75}
    """

    def __init__(self, session: MergeSession, shared: Tries | None = None) -> None:
        self._session = session
        self._all: list[Try] = shared._all if shared is not None else []
        self._lock: threading.Lock = shared._lock if shared is not None else threading.Lock()
        self._watchers: list[Callable[[], None]] = shared._watchers if shared is not None else []

    def __len__(self) -> int:
        return len(self._all)

    def __getitem__(self, index: Any) -> Any:
        return self._all[index]

    def __iter__(self) -> Iterator[Try]:
        return iter(self._all)

    def number(self, number: int) -> Try:
        """The try of that number; choose it again with ``session.restore(t.settings)``.

        Raises
        ------
        MergeError
            If there is none.
        """
        if not 1 <= number <= len(self._all):
            raise MergeError(f"there is no try {number}", hint=f"There are {len(self._all)}.")
        return self._all[number - 1]

    def best(self, metric: str = "", *, smallest: bool = False) -> Try:
        """The try with the largest metric, or the smallest; the earliest of equal ones.

        Raises
        ------
        MergeError
            If nothing was tried.
        """
        rated = [one for one in self._all if math.isfinite(one.score(metric))]
        if not rated:
            raise MergeError("nothing was tried yet", hint="Use session.evaluate(FUNCTION).")
        return (min if smallest else max)(rated, key=lambda one: one.score(metric))

    def extend(self, tries: Iterable[Try]) -> None:
        """Add tries of a saved session; they are numbered anew behind those that there are."""
        with self._lock:
            self._all += [replace(one, number=len(self._all) + place) for place, one in enumerate(tries, 1)]
        self._tell()

    def _add(self, *found: Any) -> Try:
        with self._lock:
            made = Try(len(self._all) + 1, *found)
            self._all.append(made)
        self._tell()
        return made

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have a function called whenever there is another try, or something is written about one.

        Returns
        -------
        callable
            Ends it.
        """
        self._watchers.append(callback)

        def end() -> None:
            with suppress(ValueError):
                self._watchers.remove(callback)

        return end

    def _tell(self) -> None:
        for watcher in tuple(self._watchers):
            watcher()

    def annotate(self, number: int, *, note: str | None = None, pinned: bool | None = None) -> Try:
        """Write something about a try, or keep it in sight; ``None`` leaves what there is.

        Raises
        ------
        MergeError
            If there is no try of that number.
        """
        with self._lock:
            one = self.number(number)
            made = replace(
                one, note=one.note if note is None else note, pinned=one.pinned if pinned is None else pinned
            )
            self._all[number - 1] = made
        self._tell()
        return made

    def evaluate(
        self, function: Function, into: Any = None, *, progress: Callable[[int, int], None] | None = None
    ) -> Try:
        """Evaluate the result as it is chosen now.

        Parameters
        ----------
        function
            Gets ``into`` with the result in it, or else a state dict, of torch tensors if torch is in use.
        into
            Model or state dict to put the result into.
        progress
            Told how many parameters are merged; whatever it raises ends the evaluation.

        Raises
        ------
        MergeError
            If the function returns something else than numbers.
        """
        settings = self._session.settings
        return self._add(settings, *self.measured(function, into, progress=progress))

    def measured(
        self, function: Function, into: Any = None, *, progress: Callable[[int, int], None] | None = None
    ) -> tuple[dict[str, float], float]:
        """Metrics of the result as it is chosen now, and seconds; as :meth:`evaluate`, but nothing is remembered."""
        session = self._session
        start = time.perf_counter()
        if into is not None:
            model = session.materialize(into, progress)
        else:
            import sys

            model = session.state_dict(progress) if "torch" in sys.modules else session.arrays(progress)
        metrics = _metrics(function(model))
        return metrics, time.perf_counter() - start

    def sweep(
        self,
        function: Function,
        *,
        into: Any = None,
        progress: Callable[[int, int, Try], None] | None = None,
        **grid: Sequence[Any],
    ) -> list[Try]:
        """Evaluate all combinations of some parameters' values, for the method in use.

        Parameters
        ----------
        function, into
            As for :meth:`evaluate`.
        progress
            Told number, total and try after each; whatever it raises ends the sweep, and the tries until then stay.
        grid
            Values for each parameter; ``method`` takes names of methods.

        Returns
        -------
        list of Try
            In the order of the grid, the last parameter fastest. The choices of the session, and its steps back, stay
            as they are.
        """
        if not grid:
            raise MergeError(
                "a sweep needs a parameter with values", hint="For example session.sweep(f, t=[0, .5, 1])."
            )
        combinations = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
        choices = [self._varied(values) for values in combinations]
        made = []
        bench = self._session.fork()
        for done, choice in enumerate(choices, 1):
            bench.use(choice.method, **choice.parameters)
            made.append(bench.tries.evaluate(function, into))
            if progress is not None:
                progress(done, len(choices), made[-1])
        return made

    def search(
        self,
        function: Function,
        *,
        budget: int,
        into: Any = None,
        metric: str = "",
        smallest: bool = False,
        seed: int = 0,
        progress: Callable[[int, int, Try], None] | None = None,
        **ranges: tuple[float, float],
    ) -> Try:
        """Look for the best values of some parameters with so many evaluations.

        A third of the budget goes to points that fill the ranges evenly (a low-discrepancy sequence), the rest to
        steps along one parameter at a time from the best point so far, halved where they do not help.

        Parameters
        ----------
        function, into
            As for :meth:`evaluate`.
        budget
            Number of evaluations.
        metric, smallest
            Which metric, and whether it is to be small.
        seed
            Of the first points.
        progress
            As for :meth:`sweep`.
        ranges
            Low and high end of each parameter.

        Returns
        -------
        Try
            The best one, which the session then uses.
        """
        names = list(ranges)
        if not names or budget < 1:
            raise MergeError("a search needs parameters with ranges, and a budget")
        low = np.array([float(ranges[name][0]) for name in names])
        high = np.array([float(ranges[name][1]) for name in names])
        before = self._session.settings
        made: list[Try] = []

        def value(point: Any) -> float:
            choice = self._varied(dict(zip(names, (low + point * (high - low)).tolist(), strict=True)))
            self._session.use(choice.method, **choice.parameters)
            made.append(self.evaluate(function, into))
            if progress is not None:
                progress(len(made), budget, made[-1])
            score = made[-1].score(metric)
            return -math.inf if not math.isfinite(score) else -score if smallest else score

        try:
            _climb(value, len(names), budget, seed)
        finally:
            self._session.restore(before)
        best = (min if smallest else max)(made, key=lambda one: one.score(metric))
        self._session.restore(best.settings)
        return best

    def _varied(self, values: Mapping[str, Any]) -> Choice:
        current = self._session.settings.default
        method = values.get("method", current.method if current is not None else "")
        if not method:
            raise MergeError("no method is in use", hint="Choose one first: session.use(METHOD).")
        kept = current.parameters if current is not None and current.method == method else {}
        return Choice(method, {**kept, **{name: value for name, value in values.items() if name != "method"}})


def _metrics(answer: Any) -> dict[str, float]:
    found = answer if isinstance(answer, Mapping) else {"score": answer}
    try:
        metrics = {str(name): float(value) for name, value in found.items()}
    except (TypeError, ValueError):
        raise MergeError("an evaluation must return a number, or a mapping from names to numbers") from None
    if not metrics:
        raise MergeError("an evaluation returned no metric")
    return metrics


def _climb(value: Callable[[Any], float], count: int, budget: int, seed: int) -> None:
    """Maximise over the unit cube: spread points, then steps along the axes."""
    first = max(1, budget // 3)
    # Roberts' generalisation of the golden ratio: each new point falls where the others are not.
    ratio = 2.0
    for _ in range(40):
        ratio = (1 + ratio) ** (1 / (count + 1))
    steps = ratio ** -np.arange(1, count + 1)
    start = np.random.default_rng(seed).random(count)
    points = [(start + k * steps) % 1.0 for k in range(first)]
    best, score = points[0], -math.inf
    for point in points:
        if (found := value(point)) > score:
            best, score = point, found
    width, spent = 0.25, first
    while spent < budget and width > 1e-4:
        improved = False
        for axis, sign in itertools.product(range(count), (1, -1)):
            if spent >= budget:
                break
            moved = best.copy()
            moved[axis] = min(max(moved[axis] + sign * width, 0.0), 1.0)
            if moved[axis] == best[axis]:
                continue
            spent += 1
            if (found := value(moved)) > score:
                best, score, improved = moved, found, True
        if not improved:
            width /= 2
