"""From what happened and what was chosen to what is done with every parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from theta_nb.engine.merging.choices import Choice, Override, Settings
from theta_nb.engine.merging.inputs import VALUE, TensorInfo
from theta_nb.engine.merging.rules import VALUES, Rule, mergeable, rule_for
from theta_nb.engine.merging.states import Resolution, Unit
from theta_nb.errors import MergeError
from theta_nb.merges.method import Method
from theta_nb.merges.parameters import Value

__all__ = ["BASE", "Decider", "Decision", "decide"]

BASE = -1
"""Position that stands for the ancestor."""

_MOST_PATTERNS = 1000

_TAKES = {"ours": 0, "original": BASE}

SIDES = frozenset({*_TAKES, "theirs"})
"""Methods that take a version as it is."""


@dataclass(frozen=True)
class Decision:
    """What is done with one parameter.

    Parameters
    ----------
    unit
        The parameter.
    take
        Position of the input whose value is taken as it is; ``None`` if a method computes it, or it is dropped.
    method, parameters
        The method and its bound parameters.
    inputs
        Positions of the inputs that it merges.
    reason
        Why, in a phrase.
    open
        Whether somebody has to choose before the result can be kept.
    override
        The override that decided, if one did.
    """

    unit: Unit
    take: int | None = None
    method: Method | None = None
    parameters: Mapping[str, Value] = field(default_factory=dict)
    inputs: tuple[int, ...] = ()
    reason: str = ""
    open: bool = False
    override: Override | None = None

    @property
    def dropped(self) -> bool:
        """Whether the result lacks the parameter."""
        return self.method is None and self.info is None

    @property
    def info(self) -> TensorInfo | None:
        """The version that gives dtype and shape, and, if nothing is computed, the value."""
        if self.method is not None:
            return self.unit.versions[self.inputs[0]]
        if self.take is None:
            return None
        return self.unit.base if self.take == BASE else self.unit.versions[self.take]

    @property
    def label(self) -> str:
        """Name of what is done, for people."""
        if self.method is not None:
            return self.method.name
        return "dropped" if self.dropped else "original" if self.take == BASE else "ours" if not self.take else "theirs"

    def called(self, labels: Sequence[str]) -> str:
        """What is done, with the name of the input that is taken."""
        if self.method is None and self.take is not None and self.take != BASE and not self.dropped:
            return labels[self.take]
        return self.label

    def fingerprint(self, depth: float) -> tuple[Any, ...]:
        """Equal for decisions that give the same value."""
        if self.method is None:
            return ("take", self.info.digest if self.info is not None else b"")
        digests = tuple(self.unit.versions[k].digest for k in self.inputs)  # type: ignore[union-attr]
        base = self.unit.base.digest if self.unit.base is not None else b""
        deep = depth if self.method.name.startswith("lines:") else 0.0
        return (self.method.name, tuple(self.parameters.items()), self.unit.name, deep, base, *digests)


def decide(unit: Unit, settings: Settings, depth: float, labels: Sequence[str]) -> Decision:
    """What is done with one parameter; see :class:`Decider`."""
    return Decider([unit], {unit.name: depth}, labels).all(settings)[unit.name]


class Decider:
    """Decides for all parameters of a merge.

    What does not depend on choices is found out once, since a slider asks again at every step.

    Parameters
    ----------
    units
        The parameters.
    depths
        Their places in the model.
    labels
        Names of the inputs.
    """

    def __init__(self, units: Sequence[Unit], depths: Mapping[str, float], labels: Sequence[str]) -> None:
        self._labels = tuple(labels)
        self._facts = [_Facts.of(unit, depths[unit.name]) for unit in units]
        self._matching: dict[tuple[str, bool], list[_Facts]] = {}

    def all(self, settings: Settings) -> dict[str, Decision]:
        """What is done with every parameter.

        An override that names it counts before everything. Then come the resolution of its state, the rules for what
        is no weight, and the method in use.

        Raises
        ------
        MergeError
            If parameters are wrong for the inputs that have the tensor.
        """
        bound: dict[Any, Mapping[str, Value]] = {}
        overridden = self._overridden(settings.overrides)
        return {
            facts.unit.name: self._one(facts, settings, overridden.get(facts.unit.name), bound) for facts in self._facts
        }

    def undecided(self) -> frozenset[str]:
        """Names of the parameters that the choice for everything is about, unless an override names them."""
        return frozenset(facts.unit.name for facts in self._facts if facts.contested)

    def _overridden(self, overrides: Sequence[Override]) -> dict[str, Override]:
        """The override that counts for every parameter that has one."""
        out: dict[str, Override] = {}
        for override in overrides:
            key = (override.pattern, override.regex)
            if key not in self._matching:
                if len(self._matching) > _MOST_PATTERNS:
                    self._matching.clear()
                self._matching[key] = [facts for facts in self._facts if override.matches(facts.unit.name)]
            for facts in self._matching[key]:
                if facts.contested or not override.contested:
                    out[facts.unit.name] = override
        return out

    def _one(
        self, facts: _Facts, settings: Settings, override: Override | None, bound: dict[Any, Mapping[str, Value]]
    ) -> Decision:
        unit = facts.unit
        if override is not None:
            made = self._chosen(facts, override.choice, f"override {override.pattern}", bound)
            return replace(made, override=override)
        if facts.settled is not None:
            return facts.settled
        if facts.value:
            return self._value(facts, settings, bound)
        if facts.rule is not None:
            reason = f"{facts.rule.name}: {facts.rule.reason}"
            return self._chosen(facts, Choice(facts.rule.method, {}), reason, bound)
        if settings.default is None:
            return Decision(unit, take=0, reason="waits for a choice", open=True)
        return self._chosen(facts, settings.default, unit.state.value, bound)

    def _value(self, facts: _Facts, settings: Settings, bound: dict[Any, Mapping[str, Value]]) -> Decision:
        """What becomes of what is no tensor, and both sides changed: a side that is chosen counts for it as well."""
        unit, default = facts.unit, settings.default
        if default is None:
            return Decision(unit, take=0, reason="waits for a choice", open=True)
        if default.function.name in SIDES:
            return self._chosen(facts, default, unit.state.value, bound)
        return self._chosen(facts, Choice(VALUES.method, {}), f"{VALUES.name}: {VALUES.reason}", bound)

    def _chosen(self, facts: _Facts, choice: Choice, reason: str, bound: dict[Any, Mapping[str, Value]]) -> Decision:
        unit, method, labels, present = facts.unit, choice.function, self._labels, facts.present
        if method.name in _TAKES:
            return Decision(unit, take=_TAKES[method.name], reason=reason)
        if method.name == "theirs":
            which = choice.at(facts.depth, labels)["which"]
            if not isinstance(which, int) or which >= len(labels):
                raise MergeError(f"theirs: which is {which}, and there are {len(labels) - 1} others")
            return Decision(unit, take=which, reason=reason)
        if not facts.numbers:
            return Decision(unit, take=0, reason=f"{reason}; no numbers to merge, ours is kept")
        if method.base == "needed" and unit.base is None:
            choice, reason = _AVERAGE, f"{reason}; no ancestor, so averaged"
            method = choice.function
        if len(present) < method.inputs[0]:
            return Decision(unit, take=present[0], reason=f"{reason}; only {labels[present[0]]} has it")
        key = (id(choice), facts.depth if choice.graded else 0.0, present)
        if key not in bound:
            bound[key] = choice.at(facts.depth, labels, [labels[k] for k in present])
        return Decision(unit, method=method, parameters=bound[key], inputs=present, reason=reason)


_AVERAGE = Choice("linear", {})


@dataclass(frozen=True, slots=True)
class _Facts:
    """What does not depend on choices."""

    unit: Unit
    depth: float
    present: tuple[int, ...]
    numbers: bool
    rule: Rule | None
    settled: Decision | None
    value: bool

    @property
    def contested(self) -> bool:
        """Whether the choice for everything is about it."""
        return self.settled is None and self.rule is None and not self.value

    @classmethod
    def of(cls, unit: Unit, depth: float) -> _Facts:
        present = unit.present
        infos = [info for info in (unit.base, *unit.versions) if info is not None]
        numbers = bool(present) and all(map(mergeable, infos))
        value = any(info.dtype == VALUE for info in infos)
        settled = _settled(unit)
        if value and settled is not None and settled.open:
            settled = None
        return cls(unit, depth, present, numbers, rule_for(unit), settled, value)


def _settled(unit: Unit) -> Decision | None:
    """What its state alone decides; ``None`` where somebody or a rule has to."""
    resolution = unit.resolution
    if resolution is Resolution.OURS:
        return Decision(unit, take=0, reason=unit.state.value)
    if resolution is Resolution.THEIRS:
        return Decision(unit, take=unit.changed[-1] if unit.changed else _first(unit), reason=unit.state.value)
    if resolution is Resolution.DROP:
        return Decision(unit, reason=unit.state.value)
    if resolution is Resolution.CONFLICT:
        return Decision(unit, take=0, reason=f"conflict: {unit.state.value}", open=True)
    return None


def _first(unit: Unit) -> int:
    """The first of the others that has the parameter."""
    return next((k for k, info in enumerate(unit.versions) if k and info is not None), 0)
