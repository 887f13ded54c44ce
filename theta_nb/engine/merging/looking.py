"""Previews and explanations of a merge."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, Self

from theta_nb.engine.merging import preview as previews
from theta_nb.engine.merging.choices import Settings
from theta_nb.engine.merging.choosing import Choosing
from theta_nb.engine.merging.computing import Kitchen
from theta_nb.engine.merging.decisions import Decision
from theta_nb.engine.merging.inputs import MergeInput
from theta_nb.engine.merging.preview import Preview, PreviewRow
from theta_nb.engine.merging.rules import mergeable, rule_for
from theta_nb.engine.merging.states import State, Unit
from theta_nb.engine.merging.statistics import Statistics, StatisticsCache
from theta_nb.engine.merging.stored_inputs import FileInput, ManifestInput
from theta_nb.errors import MergeError

__all__ = ["Looking", "Progress"]

Progress = Callable[[int, int], None]
"""Told how many of how many parameters are done; whatever it raises ends the work."""


class Looking(Choosing):
    """What would come out of a merge, parameter by parameter; the second part of a session.

    Parameters
    ----------
    base, inputs
        As in :class:`Choosing`.
    executor
        Where parameters are computed; two threads by default.
    cache
        Where statistics are remembered.
    statistics
        Statistics of the training data, one checkpoint for each input, for methods that need them.
    """

    def __init__(
        self,
        base: MergeInput | None,
        inputs: Sequence[MergeInput],
        *,
        executor: Executor | None = None,
        cache: StatisticsCache | None = None,
        statistics: Sequence[MergeInput] = (),
    ) -> None:
        super().__init__(base, inputs)
        if statistics and len(statistics) != len(inputs):
            raise MergeError(f"{len(statistics)} checkpoints with statistics are given for {len(inputs)} inputs")
        self._executor = executor
        self.informed = bool(statistics)
        """Whether there are statistics of the training data."""
        self._measurable = {unit.name for unit in self.units if unit.state is not State.EQUAL and _measurable(unit)}
        self._statistics: dict[str, Statistics] = {}
        self._relations: dict[str, Any] = {}
        self.kitchen = Kitchen(base, inputs, cache or StatisticsCache(), statistics)
        changed = (unit for unit in self.units if unit.state is State.CHANGED_BOTH)
        self.kitchen.rank_over([unit for unit in changed if rule_for(unit) is None])

    def measure(self, progress: Progress | None = None) -> Self:
        """Have the statistics of all parameters at hand: one pass over what differs."""
        missing = [u for u in self.units if u.name in self._measurable and u.name not in self._statistics]

        def work(unit: Unit) -> None:
            self._statistics[unit.name] = self.kitchen.measured(unit)

        self._each(missing, work, progress)
        if missing:
            self.kitchen.statistics.save()
        return self

    def preview(self, *, measure: bool = True, progress: Progress | None = None) -> Preview:
        """What would come out: state, choice, distances, cosines and conflicts of every parameter.

        Parameters
        ----------
        measure
            Whether statistics that are not known yet are measured first; without them their columns are empty.
        progress
            Told how far the measuring is.
        """
        if measure:
            self.measure(progress)
        decisions, predicted = self.predict()
        known = [self._statistics.get(decision.unit.name) for decision in decisions]
        rows = tuple(map(self._row, decisions, known, predicted))
        return Preview(rows, self.labels, self.base is not None)

    def statistics(self, name: str) -> Statistics | None:
        """Statistics of a parameter as far as they are known: nothing is read."""
        return self._statistics.get(name)

    @property
    def measured(self) -> bool:
        """Whether all statistics are known."""
        return len(self._statistics) == len(self._measurable)

    def predict(self, settings: Settings | None = None) -> tuple[list[Decision], list[previews.Prediction | None]]:
        """Norm and distances of all results as far as statistics tell, for what is chosen or for something else.

        Parameters
        ----------
        settings
            What to suppose; nothing is chosen by it.

        Raises
        ------
        MergeError
            If that cannot be chosen.
        """
        decisions = list((self.decisions if settings is None else self.decide(settings)).values())
        known = [self._statistics.get(decision.unit.name) for decision in decisions]
        return decisions, previews.predict(decisions, known, [self._scale(decision) for decision in decisions])

    def explain(self, name: str) -> str:
        """The formula of one parameter with its numbers, and why it is used."""
        decision = self.decision(name)
        known = self.kitchen.measured(decision.unit) if name in self._measurable else None
        return previews.explain(decision, known, self.depths[name], self.labels, self._scale(decision))

    def _scale(self, decision: Decision) -> float:
        if decision.method is None:
            return 1.0
        return decision.method.delta_scale(self.depths[decision.unit.name], decision.parameters)

    def _row(self, decision: Decision, known: Any, predicted: previews.Prediction | None) -> PreviewRow:
        unit = decision.unit
        relations = self._relations.get(unit.name)
        if known is not None and relations is None:
            relations = self._relations[unit.name] = previews.relations(known, unit.base is not None, len(unit.changed))
        cosines, conflict, change = relations or ((), None, None)
        norm, distances = predicted or (None, None)
        return PreviewRow(
            unit.name,
            unit.state.value,
            decision.called(self.labels),
            decision.reason,
            decision.open,
            norm,
            distances,
            cosines,
            conflict,
            change,
        )

    def _each(self, items: Sequence[Any], work: Callable[[Any], Any], progress: Progress | None) -> None:
        """Do the work on all items in parallel; the first error ends it."""
        if not items:
            return
        sources = [source for source in (self.base, *self.inputs) if source is not None]
        for source in sources:
            if isinstance(source, ManifestInput):
                source.prepare(self._names_in(source, items))
        if self._executor is not None:
            self._run(self._executor, items, work, progress)
        else:
            with ThreadPoolExecutor(2) as executor:
                self._run(executor, items, work, progress)
        for source in sources:
            if isinstance(source, FileInput):
                source.verify()

    def _names_in(self, source: MergeInput | None, items: Iterable[Any]) -> list[str]:
        position = 0 if source is self.base else 1 + self.inputs.index(source)
        found = (item.unit if isinstance(item, Decision) else item for item in items)
        has = ((unit.base, *unit.versions)[position] is not None and unit.names[position] for unit in found)
        return [name for name in has if name]

    def _run(
        self, executor: Executor, items: Sequence[Any], work: Callable[[Any], Any], progress: Progress | None
    ) -> None:
        jobs = [executor.submit(work, item) for item in items]
        try:
            for done, job in enumerate(jobs, 1):
                job.result()
                if progress is not None:
                    progress(done, len(jobs))
        except BaseException:
            for job in jobs:
                job.cancel()
            for job in jobs:
                if not job.cancelled():
                    job.exception()
            raise


def _measurable(unit: Unit) -> bool:
    """Whether task vectors can be formed: floats of one shape."""
    infos = [info for info in (unit.base, *unit.versions) if info is not None]
    present = [info for info in unit.versions if info is not None]
    return bool(present) and all(map(mergeable, infos)) and len({info.shape for info in infos}) == 1
