"""The merge session: what is to be merged, what was chosen, what would come out, and the result."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from theta_nb.engine.merging import preview as previews
from theta_nb.engine.merging import writing
from theta_nb.engine.merging.choices import Choice, Override, Settings, compiled, depths, preset
from theta_nb.engine.merging.computing import Kitchen, nbytes_of
from theta_nb.engine.merging.decisions import Decider, Decision
from theta_nb.engine.merging.inputs import MergeInput
from theta_nb.engine.merging.preview import Preview, PreviewRow
from theta_nb.engine.merging.recipe import Recipe
from theta_nb.engine.merging.rules import mergeable, rule_for
from theta_nb.engine.merging.states import State, Unit, units
from theta_nb.engine.merging.statistics import Statistics, StatisticsCache
from theta_nb.engine.merging.tries import Tries, Try
from theta_nb.merges.group import Array
from theta_nb.merges.parameters import MergeError, nearest
from theta_nb.tensors.dtypes import DTYPES

if TYPE_CHECKING:
    import torch

__all__ = ["Committer", "MergeSession", "Progress"]

Progress = Callable[[int, int], None]
"""Told how many of how many parameters are done; whatever it raises ends the work."""

_SHOWN = 3


class Committer(Protocol):
    """Keeps the result of a session: implemented over git elsewhere."""

    def commit(self, session: MergeSession, message: str) -> str:
        """Make the merge commit and return its name; on failure nothing has changed."""
        ...


class MergeSession:
    """Merges checkpoints: choose, look, evaluate, and only then keep the result.

    Parameters
    ----------
    base
        The common ancestor; ``None`` if the histories are unrelated.
    inputs
        The checkpoints, ours first.
    executor
        Where parameters are computed; two threads by default.
    cache
        Where statistics are remembered.
    statistics
        Statistics of the training data, one checkpoint for each input, for methods that need them.
    committer
        What :meth:`commit` calls.

    Examples
    --------
    >>> from theta_nb.engine.merging.inputs import StateInput
    >>> one = np.ones(2, np.float32)
    >>> inputs = [StateInput("ours", {"w": one}), StateInput("theirs", {"w": 3 * one})]
    >>> session = MergeSession(StateInput("original", {"w": 0 * one}), inputs)
    >>> session.use("linear").arrays()["w"].tolist()
    [2.0, 2.0]
    """

    def __init__(
        self,
        base: MergeInput | None,
        inputs: Sequence[MergeInput],
        *,
        executor: Executor | None = None,
        cache: StatisticsCache | None = None,
        statistics: Sequence[MergeInput] = (),
        committer: Committer | None = None,
    ) -> None:
        if not inputs:
            raise MergeError("a merge needs at least one checkpoint")
        self.base = base
        self.inputs = tuple(inputs)
        self.labels = tuple(source.label for source in inputs)
        if len(set(self.labels)) < len(self.labels):
            raise MergeError(f"two inputs are called alike: {', '.join(self.labels)}")
        if statistics and len(statistics) != len(inputs):
            raise MergeError(f"{len(statistics)} checkpoints with statistics are given for {len(inputs)} inputs")
        self.units: tuple[Unit, ...] = units(base.tensors if base else None, [source.tensors for source in inputs])
        self._by_name = {unit.name: unit for unit in self.units}
        self.depths: Mapping[str, float] = depths(self._by_name)
        self._decider = Decider(self.units, self.depths, self.labels)
        self._measurable = {unit.name for unit in self.units if unit.state is not State.EQUAL and _measurable(unit)}
        self._statistics: dict[str, Statistics] = {}
        self.kitchen = Kitchen(base, inputs, cache or StatisticsCache(), statistics)
        changed = (unit for unit in self.units if unit.state is State.CHANGED_BOTH)
        self.kitchen.rank_over([unit for unit in changed if rule_for(unit) is None])
        self._executor = executor
        self._committer = committer
        self._steps: list[Settings] = [Settings()]
        self._place = 0
        self._decided: dict[str, tuple[Any, dict[str, tuple[float, ...]]]] = {}
        self._held: dict[str, tuple[Any, Array]] = {}
        self._filled: dict[int, dict[str, Any]] = {}
        self.tries = Tries(self)

    # --- choosing -------------------------------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """What is chosen now."""
        return self._steps[self._place]

    def use(self, method: str, **parameters: Any) -> MergeSession:
        """Merge by a method whatever both sides changed.

        Parameters
        ----------
        method
            Name in the table of methods.
        parameters
            A number; a list, which is a gradient over the depth of the model (``weight=[0, .5, 1]``); or a mapping
            from labels of inputs to these (``weight={"theirs": .3}``).

        Raises
        ------
        MergeError
            If a name or a value is wrong, or the method does not fit these inputs. Nothing has changed then.
        """
        return self._choose(replace(self.settings, default=self._checked(method, parameters)))

    def override(self, pattern: str | re.Pattern[str], method: str, **parameters: Any) -> MergeSession:
        """Merge by another method what a pattern names, whatever happened to it; later overrides count.

        Parameters
        ----------
        pattern
            Glob, or compiled regular expression, over whole names.
        method, parameters
            As for :meth:`use`.

        Raises
        ------
        MergeError
            As :meth:`use`, and if the pattern names nothing.
        """
        regex = not isinstance(pattern, str)
        text = pattern if isinstance(pattern, str) else pattern.pattern
        expression = compiled(text, regex)
        if not any(expression.fullmatch(name) for name in self._by_name):
            hint = "Patterns are globs over whole names." if not regex else "It has to match a whole name."
            raise MergeError(f"no parameter matches {text!r}", hint=f"{hint} {nearest(text, self._by_name)}"[:200])
        choice = self._checked(method, parameters)
        return self._choose(self.settings.with_override(Override(text, choice, regex)))

    def preset(self, name: str) -> MergeSession:
        """Use a choice that has a name of its own."""
        choice = preset(name)
        return self.use(choice.method, **choice.parameters)

    def reset(self) -> MergeSession:
        """Forget all choices; :meth:`undo` brings them back."""
        return self._choose(Settings())

    def undo(self) -> MergeSession:
        """Go back to the choices before the last one; at the beginning nothing happens."""
        self._place = max(self._place - 1, 0)
        self._forget()
        return self

    def redo(self) -> MergeSession:
        """Take an undo back; at the end nothing happens."""
        self._place = min(self._place + 1, len(self._steps) - 1)
        self._forget()
        return self

    def restore(self, settings: Settings) -> MergeSession:
        """Choose everything at once, as an earlier try had it."""
        return self._choose(settings)

    def _checked(self, method: str, parameters: Mapping[str, Any]) -> Choice:
        choice = Choice(method, dict(parameters))
        choice = replace(choice, method=choice.function.name)
        if choice.function.base == "needed" and self.base is None:
            raise MergeError(
                f"the merge method {method!r} needs a common ancestor, and these checkpoints have none",
                hint="Use a method without one, such as linear or slerp.",
            )
        for depth in (0.0, 0.5, 1.0):
            choice.at(depth, self.labels)
        return choice

    def _choose(self, settings: Settings) -> MergeSession:
        if settings != self.settings:
            self._steps[self._place + 1 :] = [settings]
            self._place += 1
            self._forget()
        return self

    def _forget(self) -> None:
        self.__dict__.pop("decisions", None)

    # --- looking --------------------------------------------------------------------------------------------------

    @cached_property
    def decisions(self) -> Mapping[str, Decision]:
        """What is done with every parameter."""
        return self._decider.all(self.settings)

    @property
    def open(self) -> tuple[str, ...]:
        """Parameters about which somebody has to choose before the result can be kept."""
        return tuple(name for name, decision in self.decisions.items() if decision.open)

    def measure(self, progress: Progress | None = None) -> MergeSession:
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
        decisions = list(self.decisions.values())
        known = [self._statistics.get(decision.unit.name) for decision in decisions]
        predicted = previews.predict(decisions, known, [self._scale(decision) for decision in decisions])
        rows = tuple(map(self._row, decisions, known, predicted))
        return Preview(rows, self.labels, self.base is not None)

    def explain(self, name: str) -> str:
        """The formula of one parameter with its numbers, and why it is used."""
        decision = self.decision(name)
        known = self.kitchen.measured(decision.unit) if name in self._measurable else None
        return previews.explain(decision, known, self.depths[name], self.labels, self._scale(decision))

    def decision(self, name: str) -> Decision:
        """What is done with one parameter.

        Raises
        ------
        MergeError
            If there is none of that name.
        """
        if name not in self.decisions:
            raise MergeError(f"no parameter is called {name!r}", hint=nearest(name, self.decisions))
        return self.decisions[name]

    def _scale(self, decision: Decision) -> float:
        if decision.method is None:
            return 1.0
        return decision.method.delta_scale(self.depths[decision.unit.name], decision.parameters)

    def _row(self, decision: Decision, known: Any, predicted: previews.Prediction | None) -> PreviewRow:
        unit = decision.unit
        relations = self._relations.get(unit.name)
        if known is not None and relations is None:
            relations = self._relations[unit.name] = previews.relations(known, unit.base is not None)
        cosines, conflict, change = relations or ((), None, None)
        norm, distances = predicted or (None, None)
        return PreviewRow(
            unit.name,
            unit.state.value,
            decision.label,
            decision.reason,
            decision.open,
            norm,
            distances,
            cosines,
            conflict,
            change,
        )

    @cached_property
    def _relations(self) -> dict[str, Any]:
        return {}

    # --- results --------------------------------------------------------------------------------------------------

    def arrays(self, progress: Progress | None = None) -> dict[str, Array]:
        """The result as NumPy arrays, tied ones being one array; only what was chosen anew is computed again.

        Raises
        ------
        MergeError
            If both sides changed something and no method was chosen.
        """
        self._require_choice()
        wanted = [d for d in self.decisions.values() if not d.dropped]
        stale = [d for d in wanted if self._held.get(d.unit.name, (None,))[0] != self._fingerprint(d)]
        self._each(stale, self._hold, progress)
        out = {d.unit.name: self._held[d.unit.name][1] for d in wanted}
        return writing.with_views(self, out)

    def state_dict(self, progress: Progress | None = None) -> dict[str, torch.Tensor]:
        """The result as torch tensors that share memory with the session; tied ones are one tensor."""
        return {name: writing.as_torch(array) for name, array in self.arrays(progress).items()}

    def materialize(self, into: Any, progress: Progress | None = None) -> Any:
        """Put the result into a model or a state dict that exists already, in place.

        Only the parameters whose choice changed since the last time are computed, and nothing new is allocated.

        Parameters
        ----------
        into
            A torch module, or a mapping from names to torch tensors or NumPy arrays.
        progress
            Told how far it is.

        Returns
        -------
        object
            ``into``.

        Raises
        ------
        MergeError
            If it lacks a parameter of the result, or one has another shape or dtype; nothing was changed then.
        """
        self._require_choice()
        places = writing.places(into, self)
        filled = self._filled.setdefault(id(into), {})
        if filled.get("\0owner") is not into:
            filled.clear()
            filled["\0owner"] = into
        wanted = [d for d in self.decisions.values() if not d.dropped and d.unit.name in places]
        stale = [d for d in wanted if filled.get(d.unit.name) != self._fingerprint(d)]

        def fill(decision: Decision) -> None:
            name = decision.unit.name
            filled.pop(name, None)
            target = places[name]

            def sink(offset: int, data: Array) -> None:
                target[offset : offset + len(data)] = data

            self.produce(decision, sink)
            filled[name] = self._fingerprint(decision)

        self._each(stale, fill, progress)
        return into

    def write(self, path: str, progress: Progress | None = None) -> None:
        """Write the result as a checkpoint file: in ours' form where names and shapes allow, else a new one.

        The file appears whole or not at all. Memory is bounded by a few blocks for safetensors files and wherever
        ours' form is kept.

        Raises
        ------
        MergeError
            If choices are open.
        CheckpointError
            If the format cannot hold the result.
        """
        self.require_closed()
        writing.write(self, path, progress)

    def commit(self, message: str) -> str:
        """Keep the result through the committer, and return the commit's name.

        Raises
        ------
        MergeError
            If choices are open, or the session has nowhere to commit.
        """
        self.require_closed()
        if self._committer is None:
            raise MergeError("this session has nowhere to commit to", hint="Write the result with session.write(path).")
        return self._committer.commit(self, message)

    def produce(self, decision: Decision, sink: Callable[[int, Array], None]) -> None:
        """Hand the bytes of one parameter's result to ``sink``, block by block."""
        name = decision.unit.name
        fingerprint = self._fingerprint(decision)
        kept = self._decided.get(name)
        decided = dict(kept[1]) if kept is not None and kept[0] in (fingerprint, None) else {}
        self.kitchen.produce(decision, self.depths[name], sink, decided)
        if decided:
            self._decided[name] = (fingerprint, decided)

    def require_closed(self) -> None:
        """Refuse to keep a result while choices are open.

        Raises
        ------
        MergeError
            If there are any; it names them.
        """
        if self.open:
            names = ", ".join(self.open[:_SHOWN]) + (", …" if len(self.open) > _SHOWN else "")
            raise MergeError(
                f"{len(self.open)} parameters wait for a choice: {names}",
                hint="Choose with session.use(METHOD), or session.override(NAME, METHOD).",
            )

    def _require_choice(self) -> None:
        waiting = [name for name, d in self.decisions.items() if d.open and not d.reason.startswith("conflict")]
        if waiting:
            raise MergeError(
                f"{len(waiting)} parameters were changed by both sides, and no method was chosen ({waiting[0]}, …)",
                hint="Choose with session.use(METHOD).",
            )

    def _fingerprint(self, decision: Decision) -> tuple[Any, ...]:
        return decision.fingerprint(self.depths[decision.unit.name])

    def _hold(self, decision: Decision) -> None:
        name, info = decision.unit.name, decision.info
        if info is None:
            return
        kept = self._held.pop(name, None)
        nbytes = nbytes_of(info)
        # An array that somebody still looks at would change under their eyes, so a new one is made.
        flat = np.empty(nbytes, np.uint8)
        del kept

        def sink(offset: int, data: Array) -> None:
            nonlocal flat
            if offset == 0 and len(data) > len(flat):
                flat = np.empty(len(data), np.uint8)  # an embedding that has grown
            flat[offset : offset + len(data)] = data

        self.produce(decision, sink)
        shape = writing.shape_of(decision)
        dtype = np.dtype(np.uint8) if info.dtype == "bytes" else DTYPES[info.dtype].to_numpy()
        self._held[name] = (self._fingerprint(decision), flat.view(dtype).reshape(shape))

    def _each(self, items: Sequence[Any], work: Callable[[Any], Any], progress: Progress | None) -> None:
        """Do the work on all items in parallel; the first error ends it."""
        for source in (self.base, *self.inputs):
            prepare = getattr(source, "prepare", None)
            if prepare is not None and items:
                prepare(self._names_in(source, items))
        if self._executor is not None:
            self._run(self._executor, items, work, progress)
        elif len(items) < 2:
            for item in items:
                work(item)
        else:
            with ThreadPoolExecutor(2) as executor:
                self._run(executor, items, work, progress)

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

    # --- trying out -----------------------------------------------------------------------------------------------

    def evaluate(self, function: Callable[[Any], Mapping[str, float] | float], into: Any = None) -> Try:
        """Evaluate the result as it is chosen now, and remember it as a numbered try; see :class:`Tries`."""
        return self.tries.evaluate(function, into)

    def sweep(self, function: Callable[[Any], Any], *, into: Any = None, **grid: Any) -> list[Try]:
        """Evaluate all combinations of some parameters' values; see :meth:`Tries.sweep`."""
        return self.tries.sweep(function, into=into, **grid)

    def search(self, function: Callable[[Any], Any], *, budget: int, **options: Any) -> Try:
        """Look for the best values of some parameters; see :meth:`Tries.search`."""
        return self.tries.search(function, budget=budget, **options)

    # --- recipes --------------------------------------------------------------------------------------------------

    def recipe(self) -> Recipe:
        """What was chosen, as data; with the numbers that were decided for what has been computed."""
        decided = {
            name: kept[1]
            for name, kept in sorted(self._decided.items())
            if name in self.decisions and kept[0] == self._fingerprint(self.decisions[name])
        }
        return Recipe.of(self.base, self.inputs, self.settings, decided)

    def apply(self, recipe: Recipe, *, check: bool = True) -> MergeSession:
        """Choose what a recipe says, and take the numbers that it decided.

        Parameters
        ----------
        recipe
            From :meth:`recipe`, a file, or a commit.
        check
            Whether its inputs must be the ones of this session.

        Raises
        ------
        MergeError
            If they are not, or the recipe does not fit them.
        """
        if check:
            recipe.check(self.base, self.inputs)
        for choice in (recipe.settings.default, *(one.choice for one in recipe.settings.overrides)):
            if choice is not None:
                self._checked(choice.method, choice.parameters)
        self._choose(recipe.settings)
        if check:
            self.take_decided(recipe)
        return self

    def take_decided(self, recipe: Recipe) -> None:
        """Use the numbers that a recipe of these inputs and choices decided, instead of computing them."""
        for name, numbers in recipe.decided.items():
            if name in self.decisions:
                self._decided[name] = (self._fingerprint(self.decisions[name]), dict(numbers))

    def save(self, path: str) -> None:
        """Write choices, history and tries as a JSON file, to be read by :meth:`load`."""
        writing.save_session(self, path)

    def load(self, path: str) -> MergeSession:
        """Go on where a saved session was; its inputs must be the same.

        Raises
        ------
        MergeError
            If the file is none of ours, or from a merge of other checkpoints. Nothing has changed then.
        """
        return writing.load_session(self, path)


def _measurable(unit: Unit) -> bool:
    """Whether task vectors can be formed: floats of one shape."""
    infos = [info for info in (unit.base, *unit.versions) if info is not None]
    present = [info for info in unit.versions if info is not None]
    return bool(present) and all(map(mergeable, infos)) and len({info.shape for info in infos}) == 1
