"""What was chosen: a method with its parameters, for everything or for what a pattern names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import translate
from functools import cached_property, lru_cache
from typing import Any

from theta_nb.errors import MergeError
from theta_nb.merges.method import Method
from theta_nb.merges.parameters import Value
from theta_nb.merges.table import method_named

__all__ = ["PRESETS", "Choice", "Override", "Settings", "depths", "preset"]

_MAX_PATTERN = 1000


@dataclass(frozen=True)
class Choice:
    """A method and its parameters, as they were given.

    Parameters
    ----------
    method
        Name in the table of methods.
    parameters
        Values by name: a number; a list, which is a gradient over the depth of the model; or a mapping from labels of
        inputs to these.

    Examples
    --------
    >>> Choice("linear", {"weight": {"theirs": [0, 1]}}).at(0.5, ("ours", "theirs"))
    {'weight': (1.0, 0.5), 'normalize': True}
    """

    method: str
    parameters: Mapping[str, Any]

    @cached_property
    def function(self) -> Method:
        """The method itself."""
        return method_named(self.method)

    @cached_property
    def graded(self) -> bool:
        """Whether a parameter changes over the depth of the model."""
        return any(_is_gradient(value) for value in self.parameters.values())

    def at(self, depth: float, labels: Sequence[str], present: Sequence[str] | None = None) -> dict[str, Value]:
        """All parameters at a depth from 0 to 1, checked.

        Parameters
        ----------
        depth
            Place in the model.
        labels
            Names of all inputs.
        present
            Names of those that have the parameter; all by default.

        Raises
        ------
        MergeError
            If a name or a value is wrong.
        """
        values = {name: self._value(name, value, depth) for name, value in self.parameters.items()}
        if present is None or len(present) == len(labels):
            return self.function.bind(values, labels)
        for name, value in values.items():
            if isinstance(value, Mapping):
                self.function.parameter(name).bind(value, labels)
                values[name] = {label: value[label] for label in present if label in value}
        return self.function.bind(values, present)

    def _value(self, name: str, value: Any, depth: float) -> Any:
        if isinstance(value, Mapping):
            return {label: self._value(name, one, depth) for label, one in value.items()}
        if not _is_gradient(value):
            return value
        spec = self.function.parameter(name)
        points = [spec.parse(one) for one in value]
        if not points:
            raise MergeError(f"{self.method}: {name} is an empty gradient")
        place = depth * (len(points) - 1)
        low = min(int(place), max(len(points) - 2, 0))
        high = min(low + 1, len(points) - 1)
        share = place - low
        first, second = points[low], points[high]
        if spec.kind != "float" or not isinstance(first, float) or not isinstance(second, float):
            return second if share >= 0.5 else first
        return first if share == 0 else second if share == 1 else (1 - share) * first + share * second

    def __str__(self) -> str:
        # In the order of the method's own, whatever order they came in: JSON sorts them.
        names = [spec.name for spec in self.function.parameters if spec.name in self.parameters]
        return f"{self.method}({', '.join(f'{name}={_text(self.parameters[name])}' for name in names)})"

    def json(self) -> dict[str, Any]:
        """As plain data."""
        return {"method": self.method, "parameters": _plain(self.parameters)}


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_text(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_text, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _is_gradient(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_is_gradient(one) for one in value.values())
    return isinstance(value, list | tuple)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, bool | int | str) or value is None:
        return value
    return float(value)


@dataclass(frozen=True)
class Override:
    """A choice for the parameters that a pattern names.

    Parameters
    ----------
    pattern
        Glob or regular expression over whole names.
    choice
        What is chosen for them.
    regex
        Whether the pattern is a regular expression.
    contested
        Whether it is only about what both sides changed and no rule decides, as the choice for everything is.
    """

    pattern: str
    choice: Choice
    regex: bool = False
    contested: bool = False

    def matches(self, name: str) -> bool:
        """Whether it is about the parameter."""
        return compiled(self.pattern, self.regex).fullmatch(name) is not None


@lru_cache(maxsize=256)
def compiled(pattern: str, regex: bool) -> re.Pattern[str]:
    """The pattern as a regular expression.

    Raises
    ------
    MergeError
        If it is none, or too long.
    """
    if len(pattern) > _MAX_PATTERN:
        raise MergeError(f"a pattern of {len(pattern)} characters is too long")
    try:
        return re.compile(pattern if regex else translate(pattern))
    except re.error as error:
        raise MergeError(f"{pattern!r} is no regular expression: {error}") from None


@dataclass(frozen=True)
class Settings:
    """Everything that was chosen.

    Parameters
    ----------
    default
        For what no override names; ``None``: nothing is chosen yet.
    overrides
        The last one that matches counts.
    """

    default: Choice | None = None
    overrides: tuple[Override, ...] = ()

    def __str__(self) -> str:
        parts = [] if self.default is None else [str(self.default)]
        return "; ".join([*parts, *(f"{one.pattern}: {one.choice}" for one in self.overrides)]) or "three-way"

    def override_for(self, name: str) -> Override | None:
        """The last override that names the parameter."""
        return next((one for one in reversed(self.overrides) if one.matches(name)), None)

    def with_override(self, override: Override) -> Settings:
        """With one more override, behind all others."""
        key = (override.pattern, override.regex, override.contested)
        kept = tuple(one for one in self.overrides if (one.pattern, one.regex, one.contested) != key)
        return replace(self, overrides=(*kept, override))


PRESETS: Mapping[str, Choice] = {
    "average": Choice("linear", {}),
    "soup": Choice("linear", {}),
    "trimmed-ties": Choice("ties", {"density": 0.2}),
    "dare": Choice("dare_ties", {"density": 0.5}),
    "task-sum": Choice("task_arithmetic", {}),
    "gentle": Choice("task_arithmetic", {"scale": 0.5}),
    "ours-below-theirs-above": Choice("slerp", {"t": [0.0, 0.5, 1.0]}),
    "theirs-below-ours-above": Choice("slerp", {"t": [1.0, 0.5, 0.0]}),
}
"""Choices with names of their own."""


def preset(name: str) -> Choice:
    """The preset called ``name``.

    Raises
    ------
    MergeError
        If there is none.
    """
    if name not in PRESETS:
        raise MergeError(f"no preset is called {name!r}", hint=f"Known: {', '.join(PRESETS)}.")
    return PRESETS[name]


_NUMBER = re.compile(r"(?:^|(?<=[./\[]))(\d{1,6})(?=[./\]]|$)")
_FIRST = re.compile(r"embed|(?:^|[./])(?:wte|wpe|stem|conv_in|patch)(?:[./]|$)")


def depths(names: Iterable[str]) -> dict[str, float]:
    """Depth of every parameter: 0 in the first layer, 1 in the last one, of each stack of layers.

    The number in a name counts layers. Of names without one, embeddings and stems are at 0, everything else (final
    norm, head) at 1.

    Examples
    --------
    >>> depths(["embed.weight", "layers.0.w", "layers.1.w", "layers.2.w", "lm_head.weight"])
    {'embed.weight': 0.0, 'layers.0.w': 0.0, 'layers.1.w': 0.5, 'layers.2.w': 1.0, 'lm_head.weight': 1.0}
    """
    found = {name: _NUMBER.search(name) for name in names}
    stacks: dict[str, set[int]] = {}
    for name, match in found.items():
        if match is not None:
            stacks.setdefault(name[: match.start()], set()).add(int(match[1]))
    out = {}
    for name, match in found.items():
        if match is None:
            out[name] = 0.0 if _FIRST.search(name) else 1.0
            continue
        numbers = stacks[name[: match.start()]]
        last, first = max(numbers), min(numbers)
        out[name] = (int(match[1]) - first) / (last - first) if last > first else 0.0
    return out
