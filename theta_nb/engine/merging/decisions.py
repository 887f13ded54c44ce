"""From what happened and what was chosen to what is done with every parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from theta_nb.engine.merging.choices import Choice, Settings
from theta_nb.engine.merging.inputs import TensorInfo
from theta_nb.engine.merging.rules import mergeable, rule_for
from theta_nb.engine.merging.states import Resolution, Unit
from theta_nb.merges.method import Method
from theta_nb.merges.parameters import MergeError, Value
from theta_nb.merges.table import method_named

__all__ = ["BASE", "Decision", "decide"]

BASE = -1
"""Position that stands for the ancestor."""

_TAKES = {"ours": 0, "original": BASE}


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
    """

    unit: Unit
    take: int | None = None
    method: Method | None = None
    parameters: Mapping[str, Value] = field(default_factory=dict)
    inputs: tuple[int, ...] = ()
    reason: str = ""
    open: bool = False

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

    def fingerprint(self, depth: float) -> tuple[Any, ...]:
        """Equal for decisions that give the same value."""
        if self.method is None:
            return ("take", self.info.digest if self.info is not None else b"")
        digests = tuple(self.unit.versions[k].digest for k in self.inputs)  # type: ignore[union-attr]
        base = self.unit.base.digest if self.unit.base is not None else b""
        deep = depth if self.method.name.startswith("lines:") else 0.0
        return (self.method.name, tuple(self.parameters.items()), self.unit.name, deep, base, *digests)


def decide(unit: Unit, settings: Settings, depth: float, labels: Sequence[str]) -> Decision:
    """What is done with a parameter.

    An override that names it counts before everything. Then come the resolution of its state, the rules for what is
    no weight, and the method in use.

    Raises
    ------
    MergeError
        If parameters are wrong for the inputs that have the tensor.
    """
    override = settings.override_for(unit.name)
    if override is not None:
        return _chosen(unit, override.choice, depth, labels, f"override {override.pattern}")
    resolution = unit.resolution
    if resolution is Resolution.OURS:
        return Decision(unit, take=0, reason=unit.state.value)
    if resolution is Resolution.THEIRS:
        return Decision(unit, take=unit.changed[-1] if unit.changed else _first(unit), reason=unit.state.value)
    if resolution is Resolution.DROP:
        return Decision(unit, reason=unit.state.value)
    if resolution is Resolution.CONFLICT:
        return Decision(unit, take=0, reason=f"conflict: {unit.state.value}", open=True)
    rule = rule_for(unit)
    if rule is not None:
        return _chosen(unit, Choice(rule.method, {}), depth, labels, f"{rule.name}: {rule.reason}")
    if settings.default is None:
        return Decision(unit, take=0, reason="waits for a choice", open=True)
    return _chosen(unit, settings.default, depth, labels, unit.state.value)


def _first(unit: Unit) -> int:
    """The first of the others that has the parameter."""
    return next((k for k, info in enumerate(unit.versions) if k and info is not None), 0)


def _chosen(unit: Unit, choice: Choice, depth: float, labels: Sequence[str], reason: str) -> Decision:
    method = choice.function
    if method.name in _TAKES:
        return Decision(unit, take=_TAKES[method.name], reason=reason)
    if method.name == "theirs":
        which = choice.at(depth, labels)["which"]
        if not isinstance(which, int) or which >= len(unit.versions):
            raise MergeError(f"theirs: which is {which}, and there are {len(unit.versions) - 1} others")
        return Decision(unit, take=which, reason=reason)
    present = tuple(k for k, info in enumerate(unit.versions) if info is not None)
    infos = [info for info in (unit.base, *unit.versions) if info is not None]
    if not present or not all(map(mergeable, infos)):
        return Decision(unit, take=0, reason=f"{reason}; no numbers to merge, ours is kept")
    if method.base == "needed" and unit.base is None:
        method, choice, reason = method_named("linear"), Choice("linear", {}), f"{reason}; no ancestor, so averaged"
    if len(present) < method.inputs[0]:
        return Decision(unit, take=present[0], reason=f"{reason}; only {labels[present[0]]} has it")
    parameters = choice.at(depth, labels, [labels[k] for k in present])
    return Decision(unit, method=method, parameters=parameters, inputs=present, reason=reason)
