"""Choices of a merge: methods, overrides, presets, and the way back."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from typing import Any, Self

import numpy as np

from theta_nb.engine.merging.choices import Choice, Override, Settings, compiled, depths, preset
from theta_nb.engine.merging.decisions import Decider, Decision
from theta_nb.engine.merging.inputs import MergeInput
from theta_nb.engine.merging.states import Unit, contested, contested_ties, units
from theta_nb.engine.merging.values import decide_attribute, is_attribute, outlines, value_units
from theta_nb.errors import MergeError
from theta_nb.merges.gram import Gram
from theta_nb.merges.parameters import nearest

__all__ = ["Choosing"]

_SHOWN = 3


class Choosing:
    """What is to be merged, and what was chosen for it; the first part of a session.

    Parameters
    ----------
    base
        The common ancestor, or ``None``.
    inputs
        The checkpoints, ours first.
    """

    def __init__(self, base: MergeInput | None, inputs: Sequence[MergeInput]) -> None:
        if not inputs:
            raise MergeError("a merge needs at least one checkpoint")
        self.base = base
        self.inputs = tuple(inputs)
        self.labels = tuple(source.label for source in inputs)
        if len(set(self.labels)) < len(self.labels):
            raise MergeError(f"two inputs are called alike: {', '.join(self.labels)}")
        self.units: tuple[Unit, ...] = units(base.tensors if base else None, [source.tensors for source in inputs])
        self.outlines = outlines(base, inputs)
        self.values = value_units(self.outlines, {unit.name for unit in self.units})
        named = tuple(unit for unit in self.values if not is_attribute(unit.name))
        self._by_name = {unit.name: unit for unit in (*self.units, *named)}
        # What is no tensor has no place in the model.
        self.depths: Mapping[str, float] = {
            **dict.fromkeys((unit.name for unit in self.values), 0.0),
            **depths(unit.name for unit in self.units),
        }
        self._decider = Decider((*self.units, *named), self.depths, self.labels)
        self._steps: list[Settings] = [Settings()]
        self._place = 0
        self._watchers: list[Callable[[], None]] = []

    @property
    def settings(self) -> Settings:
        """What is chosen now."""
        return self._steps[self._place]

    def use(self, method: str, **parameters: Any) -> Self:
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
        return self._choose(replace(self.settings, default=self.checked(method, parameters)))

    def override(self, pattern: str | re.Pattern[str], method: str, **parameters: Any) -> Self:
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
        choice = self.checked(method, parameters)
        return self._choose(self.settings.with_override(Override(text, choice, regex)))

    def preset(self, name: str) -> Self:
        """Use a choice that has a name of its own."""
        choice = preset(name)
        return self.use(choice.method, **choice.parameters)

    def reset(self) -> Self:
        """Forget all choices; :meth:`undo` brings them back."""
        return self._choose(Settings())

    def undo(self) -> Self:
        """Go back to the choices before the last one; at the beginning nothing happens."""
        self._place = max(self._place - 1, 0)
        self._forget()
        return self

    def redo(self) -> Self:
        """Take an undo back; at the end nothing happens."""
        self._place = min(self._place + 1, len(self._steps) - 1)
        self._forget()
        return self

    def restore(self, settings: Settings) -> Self:
        """Choose everything at once, as an earlier try had it."""
        return self._choose(settings)

    def check(self, settings: Settings) -> Settings:
        """Settings, if they can be chosen; nothing is.

        Raises
        ------
        MergeError
            As :meth:`use`.
        """
        for choice in (settings.default, *(one.choice for one in settings.overrides)):
            if choice is not None:
                self.checked(choice.method, choice.parameters)
        self.decide(settings)
        return settings

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have a function called whenever something else is chosen; the function that is returned ends that."""
        self._watchers.append(callback)

        def end() -> None:
            with suppress(ValueError):
                self._watchers.remove(callback)

        return end

    @property
    def can_undo(self) -> bool:
        """Whether :meth:`undo` has something to go back to."""
        return self._place > 0

    @property
    def can_redo(self) -> bool:
        """Whether :meth:`redo` has something to bring back."""
        return self._place + 1 < len(self._steps)

    def checked(self, method: str, parameters: Mapping[str, Any]) -> Choice:
        """A choice that fits these inputs, without choosing it.

        Raises
        ------
        MergeError
            As :meth:`use`.
        """
        choice = Choice(method, dict(parameters))
        choice = replace(choice, method=choice.function.name)
        if choice.function.base == "needed" and self.base is None:
            raise MergeError(
                f"the merge method {method!r} needs a common ancestor, and these checkpoints have none",
                hint="Use a method without one, such as linear or slerp.",
            )
        # Tried out on orthogonal inputs, so that weights that cancel are refused now and not in the middle of a merge.
        square = np.eye(len(self.labels) + 1)
        rows = Gram(square[None], self.base is not None)
        for depth in (0.0, 0.5, 1.0):
            parameters = choice.at(depth, self.labels)
            if choice.function.gram:
                choice.function.from_gram(Gram(square, rows.has_base, "", lambda _axis: rows), parameters)
        return choice

    @contextmanager
    def trying(self) -> Iterator[None]:
        """Choices within are tried out: afterwards everything is as before, and what can be undone, too."""
        steps, place = list(self._steps), self._place
        try:
            yield
        finally:
            self._steps, self._place = steps, place
            self._forget()

    def _choose(self, settings: Settings) -> Self:
        if settings != self.settings:
            self._steps[self._place + 1 :] = [settings]
            self._place += 1
            self._forget()
        return self

    def _forget(self) -> None:
        self.__dict__.pop("decisions", None)
        for watcher in tuple(self._watchers):
            watcher()

    def decide(self, settings: Settings) -> Mapping[str, Decision]:
        """What would be done with every parameter if that was chosen; nothing is."""
        return self._decider.all(settings)

    @cached_property
    def decisions(self) -> Mapping[str, Decision]:
        """What is done with every parameter."""
        return self.decide(self.settings)

    @property
    def tensor_decisions(self) -> list[Decision]:
        """What is done with every tensor."""
        return [self.decisions[unit.name] for unit in self.units]

    @property
    def value_decisions(self) -> dict[str, Decision]:
        """What is done with what is no tensor, by name: also with attributes, about which nobody is asked."""
        known = self.decisions
        return {
            unit.name: known[unit.name] if unit.name in known else decide_attribute(unit, self.labels)
            for unit in self.values
        }

    @property
    def contested(self) -> tuple[str, ...]:
        """What both sides changed differently, tensors first, whatever was chosen for it."""
        ties = () if self.base is None else contested_ties(self.base.tensors, [one.tensors for one in self.inputs])
        return tuple(dict.fromkeys((*contested(self._by_name.values()), *ties)))

    @property
    def open(self) -> tuple[str, ...]:
        """Parameters about which somebody has to choose before the result can be kept."""
        return tuple(name for name, decision in self.decisions.items() if decision.open)

    @cached_property
    def undecided(self) -> frozenset[str]:
        """Names of the parameters that a choice for everything is about, unless an override names them."""
        return self._decider.undecided()

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

    def require_closed(self) -> None:
        """Refuse to keep a result while choices are open.

        Raises
        ------
        MergeError
            If there are any; it names them.
        """
        if self.open:
            names = ", ".join(self.open[:_SHOWN]) + (", …" if len(self.open) > _SHOWN else "")
            what = "parameters wait" if len(self.open) > 1 else "parameter waits"
            settled = any(self.decisions[name].reason.startswith("conflict") for name in self.open)
            hint = f"session.override({self.open[0]!r}, 'ours')" if settled else "session.use(METHOD)"
            raise MergeError(f"{len(self.open)} {what} for a choice: {names}", hint=f"Choose with {hint}.")

    def _require_choice(self) -> None:
        waiting = [name for name, d in self.decisions.items() if d.open and not d.reason.startswith("conflict")]
        if waiting:
            raise MergeError(
                f"{len(waiting)} parameters were changed by both sides, and no method was chosen ({waiting[0]}, …)",
                hint="Choose with session.use(METHOD).",
            )

    def _fingerprint(self, decision: Decision) -> tuple[Any, ...]:
        return decision.fingerprint(self.depths[decision.unit.name])
