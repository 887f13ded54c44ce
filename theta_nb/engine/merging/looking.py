"""Previews and explanations of a merge."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from threading import Event
from typing import Any, Self

import numpy as np

from theta_nb.engine.merging import outcomes
from theta_nb.engine.merging import preview as previews
from theta_nb.engine.merging.choices import Choice, Settings
from theta_nb.engine.merging.choosing import Choosing
from theta_nb.engine.merging.computing import Kitchen
from theta_nb.engine.merging.decisions import Decision
from theta_nb.engine.merging.explaining import explain
from theta_nb.engine.merging.inputs import MergeInput
from theta_nb.engine.merging.outcomes import Outcome
from theta_nb.engine.merging.preview import Lengths, Preview, parents_of
from theta_nb.engine.merging.rules import mergeable, rule_for
from theta_nb.engine.merging.sampling import Sample
from theta_nb.engine.merging.states import State, Unit
from theta_nb.engine.merging.statistics import Grams, Statistics, StatisticsCache
from theta_nb.engine.merging.stored_inputs import FileInput, ManifestInput
from theta_nb.engine.merging.working import Progress, run_all
from theta_nb.errors import MergeError
from theta_nb.merges.gram import Gram

__all__ = ["Looking", "Progress"]


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
        self._relations: tuple[int, previews.Relations] | None = None
        self._outcomes: dict[str, Outcome] = {}
        self._weighed: dict[str, Any] = {}  # of which choice the outcome is
        self._estimates: dict[str, tuple[Any, Outcome]] = {}
        self.kitchen = Kitchen(base, inputs, cache or StatisticsCache(), statistics)
        changed = (unit for unit in self.units if unit.state is State.CHANGED_BOTH)
        self.kitchen.ranks.over([unit for unit in changed if rule_for(unit) is None])

    def checked(self, method: str, parameters: Mapping[str, Any]) -> Choice:
        """As :meth:`Choosing.checked`; a method that needs statistics of the training data gets nowhere without any."""
        choice = super().checked(method, parameters)
        if choice.function.statistics and not self.kitchen.spare:
            raise MergeError(
                f"the merge method {choice.method!r} needs statistics of the training data, and none are given",
                hint="Begin the merge with a file for each input, ours first: --statistics FILE, or statistics=[…] "
                "from Python; theta_nb.merges.gathering makes them.",
            )
        return choice

    def measure(self, progress: Progress | None = None) -> Self:
        """Have the statistics of all parameters at hand: one pass over what differs."""
        missing = [u for u in self.units if u.name in self._measurable and u.name not in self._statistics]

        def work(unit: Unit) -> None:
            self._statistics[unit.name] = self.kitchen.measured(unit)

        self._each(missing, work, progress)
        if missing:
            self.kitchen.statistics.save()
        return self

    @property
    def measured(self) -> bool:
        """Whether all statistics are known."""
        return len(self._statistics) == len(self._measurable)

    def statistics(self, name: str) -> Statistics | None:
        """Statistics of a parameter as far as they are known: nothing is read."""
        return self._statistics.get(name)

    def preview(
        self,
        *,
        settings: Settings | None = None,
        measure: bool = True,
        exact: bool = False,
        progress: Progress | None = None,
    ) -> Preview:
        """What would come out: state, choice, distances, cosines and conflicts of every parameter.

        The numbers of copies and of Gram-determined methods are exact and cost next to nothing after the first pass.
        Those of other methods are estimated from a sample, always the same one, of 4,096 entries of a parameter, fast
        enough to follow a slider; methods that only the whole tells about (decompositions) have none until they are
        asked for with ``exact``. What has been computed exactly is remembered until the choice changes.

        Parameters
        ----------
        settings
            What to suppose instead of what is chosen; nothing is chosen by it.
        measure
            Whether statistics that are not known yet are measured first; without them their columns are empty.
        exact
            Whether results that can only be estimated are computed, without being kept: a pass over the parameters
            whose choice has changed.
        progress
            Told how far the measuring is, then how far the computing, also in between; whatever it raises ends the
            work within a block, and what was done until then is remembered.

        Examples
        --------
        >>> from theta_nb.engine.merging.inputs import StateInput
        >>> from theta_nb.engine.merging.session import MergeSession
        >>> states = [np.random.default_rng(k).standard_normal((200, 100)) for k in range(3)]
        >>> base, *inputs = (StateInput(label, {"w": x}) for label, x in zip("oab", states))
        >>> session = MergeSession(base, inputs).use("ties", density=0.3)
        >>> fast, slow = session.preview()["w"], session.preview(exact=True)["w"]
        >>> fast.estimated, slow.estimated, abs(fast.norm / slow.norm - 1) < 0.05
        (True, False, True)
        """
        if measure:
            self.measure(progress)
        decisions = tuple((self.decisions if settings is None else self.decide(settings)).values())
        known = [self._statistics.get(decision.unit.name) for decision in decisions]
        lengths = self._lengths(decisions, known)
        others = [d for d in decisions if d.method is not None and not self._predictable(d)]
        if measure and not exact:
            self._sample(others, progress)
        if exact:
            self._weigh(others, progress)
        places = {decision.unit.name: index for index, decision in enumerate(decisions)} if others else {}
        for decision in others:
            outcome = self._outcome(decision)
            if outcome is not None:
                columns = parents_of(decision, self.base is not None)
                lengths.put(places[decision.unit.name], outcome, columns)
        if self._relations is None or self._relations[0] != len(self._statistics):
            made = previews.Relations.of(decisions, known, len(self.inputs))
            self._relations = (len(self._statistics), made)
        return Preview(decisions, self.labels, self.base is not None, lengths, self._relations[1])

    def explain(self, name: str, *, exact: bool = True) -> str:
        """The formula of one parameter with its numbers, and why it is used.

        Parameters
        ----------
        name
            The parameter.
        exact
            Whether it is computed where only that tells; otherwise its numbers are an estimate.
        """
        decision = self.decision(name)
        known = self.kitchen.measured(decision.unit) if name in self._measurable else None
        if known is not None:
            self._statistics[name] = known
            self.kitchen.statistics.save()
        decided: dict[str, tuple[float, ...]] = {}
        outcome: Outcome | None = None
        if decision.method is not None and self._predictable(decision):
            lengths = self._lengths((decision,), [known])
            if lengths.known[0]:
                columns = parents_of(decision, self.base is not None)
                outcome = Outcome(float(lengths.norms[0]), tuple(lengths.distances[0, columns].tolist()))
        elif decision.method is not None and exact:
            outcome = self._outcomes[name] = self.kitchen.weigh(decision, self.depths[name], decided)
            self._weighed[name] = self._fingerprint(decision)
        elif decision.method is not None:
            self._sample([decision], None)
            outcome = self._outcome(decision)
        gram = None if known is None else Gram(known.gram, decision.unit.base is not None, name)
        return explain(
            decision,
            gram,
            outcome,
            self.labels,
            depth=self.depths[name],
            scale=self._scale(decision),
            decided=decided,
        )

    def gram(self, names: Iterable[str] | None = None) -> Grams:
        """Inner products of ancestor and task vectors, for whoever computes previews of linear merges himself.

        Parameters
        ----------
        names
            Parameters; all that can be compared by default.

        Raises
        ------
        MergeError
            If a name is unknown, or its versions cannot be compared (other shapes, integers).
        """
        wanted = [unit.name for unit in self.units if unit.name in self._measurable] if names is None else list(names)
        for name in wanted:
            if name not in self._measurable:
                self.decision(name)
                raise MergeError(f"the versions of {name!r} are equal, or cannot be compared, so nothing is measured")
        self.measure()
        return Grams.of([self._by_name[name] for name in wanted], self._statistics, self.labels)

    def samples(self, names: Iterable[str]) -> dict[str, Sample]:
        """Samples of the entries of some parameters, for whoever computes estimates himself.

        They are those of the preview. What has no task vectors, or no :meth:`statistics` yet, is left out.
        """
        units = [self._by_name[name] for name in names if name in self._statistics]
        units = [unit for unit in units if unit.base is not None]
        missing = [unit for unit in units if (unit.name, "entries", "") not in self.kitchen.samples]
        self._each(missing, lambda unit: self.kitchen.take_sample(unit, "entries"), None)
        found = {unit.name: self.kitchen.samples[unit.name, "entries", ""] for unit in units}
        return {name: sample for name, sample in found.items() if sample is not None}

    # --- lengths --------------------------------------------------------------------------------------------------

    def _scale(self, decision: Decision) -> float:
        if decision.method is None:
            return 1.0
        return decision.method.delta_scale(self.depths[decision.unit.name], decision.parameters)

    def _predictable(self, decision: Decision) -> bool:
        """Whether the Gram matrix tells the lengths of the result."""
        return (decision.method is None or decision.method.gram) and decision.unit.name in self._measurable

    def _lengths(self, decisions: Sequence[Decision], known: Sequence[Statistics | None]) -> Lengths:
        """What follows from Gram matrices, for equal choices at once."""
        out = Lengths.unknown(len(decisions), len(self.labels) + (self.base is not None))
        grams = [None if one is None else one.gram for one in known]
        scales = [self._scale(decision) for decision in decisions]
        for indices in outcomes.stacked(decisions, grams, scales):
            first, scale = decisions[indices[0]], scales[indices[0]]
            gram = Gram(np.stack([grams[i] for i in indices]), first.unit.base is not None)  # type: ignore[misc]
            made = outcomes.predict(first, gram, scale)
            columns = parents_of(first, self.base is not None)
            if made is not None:
                out.norms[indices] = made[0]
                out.distances[np.ix_(indices, columns)] = made[1]
                out.known[indices] = True
                continue
            for index in indices:  # rows differ in number: each parameter has matrices of its own
                unit = decisions[index].unit
                alone = Gram(grams[index], gram.has_base, unit.name, partial(self.kitchen.along, unit))  # type: ignore[arg-type]
                found = outcomes.predict(decisions[index], alone, scale)
                if found is not None:
                    out.put(index, Outcome(float(found[0][0]), tuple(found[1][0].tolist())), columns)
        return out

    def _outcome(self, decision: Decision) -> Outcome | None:
        """Lengths of a result that no Gram matrix tells: what was computed, or else an estimate."""
        name = decision.unit.name
        fingerprint = self._fingerprint(decision)
        if self._weighed.get(name) == fingerprint:
            return self._outcomes[name]
        kept = self._estimates.get(name)
        if kept is not None and kept[0] == fingerprint:
            return kept[1]
        statistics, method = self._statistics.get(name), decision.method
        sample = self.kitchen.samples.get((name, method.sample, method.statistics)) if method is not None else None
        if sample is None or statistics is None or method is None:
            return None
        made = outcomes.estimate(
            method,
            decision.parameters,
            sample,
            Gram(statistics.gram, decision.unit.base is not None, name),
            name=name,
            depth=self.depths[name],
            model_cut=self.kitchen.ranks.sampled_cut(
                self.kitchen.samples, decision.inputs, wide=sample.inputs[0].dtype == np.float64
            ),
        )
        self._estimates[name] = (fingerprint, made)
        return made

    def _sample(self, decisions: Sequence[Decision], progress: Progress | None) -> None:
        """Have samples at hand for all estimates."""
        wanted = {
            decision.unit.name: (decision.method.sample, decision.method.statistics)
            for decision in decisions
            if decision.method is not None and decision.method.sample and decision.unit.name in self._statistics
        }
        units = [self._by_name[name] for name, kind in wanted.items() if (name, *kind) not in self.kitchen.samples]
        self._each(units, lambda unit: self.kitchen.take_sample(unit, *wanted[unit.name]), progress)

    def _weigh(self, decisions: Sequence[Decision], progress: Progress | None) -> None:
        """Compute the lengths of all results that are not known exactly; the largest first, to end together."""
        stopped = Event()
        stale = [d for d in decisions if self._weighed.get(d.unit.name) != self._fingerprint(d)]
        stale.sort(key=lambda decision: decision.info.count if decision.info is not None else 0, reverse=True)

        def work(decision: Decision) -> None:
            name = decision.unit.name
            self._weighed.pop(name, None)
            self._outcomes[name] = self.kitchen.weigh(decision, self.depths[name], {}, stopped)
            self._weighed[name] = self._fingerprint(decision)

        self._each(stale, work, progress, stopped)

    def _each(
        self,
        items: Sequence[Any],
        work: Callable[[Any], Any],
        progress: Progress | None,
        stopped: Event | None = None,
    ) -> None:
        """Do the work on all items in parallel; the first error ends it, and sets ``stopped``."""
        if not items:
            return
        sources = [source for source in (self.base, *self.inputs) if source is not None]
        for source in sources:
            if isinstance(source, ManifestInput):
                source.prepare(self._names_in(source, items))
        run_all(items, work, executor=self._executor, progress=progress, stopped=stopped)
        for source in sources:
            if isinstance(source, FileInput):
                source.verify()

    def _names_in(self, source: MergeInput | None, items: Iterable[Any]) -> list[str]:
        position = 0 if source is self.base else 1 + self.inputs.index(source)
        found = (item.unit if isinstance(item, Decision) else item for item in items)
        has = ((unit.base, *unit.versions)[position] is not None and unit.names[position] for unit in found)
        return [name for name in has if name]


def _measurable(unit: Unit) -> bool:
    """Whether task vectors can be formed: floats of one shape."""
    infos = [info for info in (unit.base, *unit.versions) if info is not None]
    present = [info for info in unit.versions if info is not None]
    return bool(present) and all(map(mergeable, infos)) and len({info.shape for info in infos}) == 1
