"""Evaluations of a merge: single ones, sweeps and searches, numbered and with their recipes."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from theta_nb.engine.merging.choices import Choice, Settings
from theta_nb.engine.merging.rating import Try, best_of, metrics_of, rank
from theta_nb.engine.merging.recipe import complete_settings
from theta_nb.engine.merging.searching import climb, dimensions, values_at
from theta_nb.errors import MergeError

if TYPE_CHECKING:
    from theta_nb.engine.merging.session import MergeSession

__all__ = ["Tries", "Try"]

Function = Callable[[Any], Mapping[str, float] | float]
"""Takes the merged model or state dict, and returns metrics by name, or one number."""


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
    >>> import numpy as np
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

        Tries without the metric do not count, and those where it is NaN or infinite count as worst.

        Raises
        ------
        MergeError
            If nothing was tried, or no try has a finite number.
        """
        if not self._all:
            raise MergeError("nothing was tried yet", hint="Use session.evaluate(FUNCTION).")
        if metric and not any(metric in one.metrics for one in self._all):
            known = dict.fromkeys(name for one in self._all for name in one.metrics)
            raise MergeError(f"no try has a metric {metric!r}", hint=f"Known: {', '.join(known)}.")
        return best_of([one for one in self._all if not metric or metric in one.metrics], metric, smallest=smallest)

    def having(self, settings: Settings) -> list[Try]:
        """The tries of some choices; whether defaults are written out makes no difference."""
        wanted = complete_settings(settings)
        return [one for one in tuple(self._all) if complete_settings(one.settings) == wanted]

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
            Gets ``into`` with the result in it, or else a state dict of torch tensors.
        into
            Model or state dict to put the result into.
        progress
            Told how many parameters are merged; whatever it raises ends the evaluation.

        Raises
        ------
        MergeError
            If the function returns something else than numbers.
        Exception
            What the function raises, with a note that says which try it was.
        """
        settings = self._session.settings
        return self._add(settings, *self.measured(function, into, progress=progress))

    def measured(
        self, function: Function, into: Any = None, *, progress: Callable[[int, int], None] | None = None
    ) -> tuple[dict[str, float], float]:
        """Metrics of the result as it is chosen now, and seconds; as :meth:`evaluate`, but nothing is remembered."""
        session = self._session
        start = time.perf_counter()
        model = session.materialize(into, progress) if into is not None else session.state_dict(progress)
        try:
            metrics = metrics_of(function(model))
        except Exception as error:
            error.add_note(f"in try {len(self._all) + 1}: {session.settings}")
            raise
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
            as they are, and ``into`` holds what they say, however the sweep ends.
        """
        if not grid:
            raise MergeError(
                "a sweep needs a parameter with values", hint="For example session.sweep(f, t=[0, .5, 1])."
            )
        combinations = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
        # All are checked beforehand: a mistake is not found out after hours.
        choices = [self._varied(values) for values in combinations]
        made = []
        with self._trying(into):
            for done, choice in enumerate(choices, 1):
                self._session.use(choice.method, **choice.parameters)
                made.append(self.evaluate(function, into))
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
        """Look for the best values of some parameters with at most so many evaluations.

        A third of the budget goes to points that fill the ranges evenly (a low-discrepancy sequence), the rest to
        steps along one parameter at a time from the best point so far, halved where they do not help. Nothing is
        evaluated twice, so whole numbers may need less than the budget. Scores that are NaN or infinite count as
        worst.

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
            Low and high end of each parameter; without any, the ranges of all numbers of the method in use, and a
            weight for each input.

        Returns
        -------
        Try
            The best one, which the session then uses.

        Raises
        ------
        MergeError
            If there is nothing to search over, or no evaluation gave a finite number.
        """
        current = self._session.settings.default
        if budget < 1:
            raise MergeError(f"a search needs evaluations, and its budget is {budget}")
        if current is None:
            raise MergeError("no method is in use", hint="Choose one first: session.use(METHOD).")
        varied = dimensions(current.function, self._session.labels, ranges)
        made: list[Try] = []
        refused: list[MergeError] = []

        def score(point: Sequence[float | int]) -> float:
            try:
                choice = self._varied(values_at(varied, point))
            except MergeError as error:  # weights that cancel, say: a hole in the ranges
                refused.append(error)
                return -math.inf
            self._session.use(choice.method, **choice.parameters)
            made.append(self.evaluate(function, into))
            if progress is not None:
                progress(len(made), budget, made[-1])
            return rank(made[-1].score(metric), smallest=smallest)

        with self._trying(into):
            climb(score, varied, budget, seed)
            if refused and not made:
                raise refused[0]
            best = best_of(made, metric, smallest=smallest)
        self._session.restore(best.settings)
        if into is not None:
            self._session.materialize(into)
        return best

    @contextmanager
    def _trying(self, into: Any) -> Iterator[None]:
        """Choices within are tried out: afterwards session and model are as chosen, also after an interrupt."""
        try:
            with self._session.trying():
                yield
        finally:
            if into is not None and (self._session.settings.default is not None or not self._session.contested):
                self._session.materialize(into)

    def _varied(self, values: Mapping[str, Any]) -> Choice:
        current = self._session.settings.default
        method = values.get("method", current.method if current is not None else "")
        if not method:
            raise MergeError("no method is in use", hint="Choose one first: session.use(METHOD).")
        kept = current.parameters if current is not None and current.method == method else {}
        given = {name: value for name, value in values.items() if name != "method"}
        return self._session.checked(method, {**kept, **given})
