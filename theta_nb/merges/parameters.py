"""Parameters of merge methods, derived from their signatures.

A method declares ``density: Annotated[PerModel, Range(0, 1), "share of entries kept"] = 1.0`` once; the command line,
the magics, the widget and the schema of recipes all follow from it.
"""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from theta_nb.errors import MergeError

__all__ = ["ParameterSpec", "PerModel", "Range", "Seed", "Value", "Weight", "signature", "spread"]


@dataclass(frozen=True, slots=True)
class _PerModel:
    """Marks a parameter of which every input has its own value."""


PerModel = Annotated[float | Sequence[float], _PerModel()]
"""One number for all inputs, or one for each."""

Value = bool | int | float | str | tuple[float, ...]
"""What a parameter can be, once it is bound."""


@dataclass(frozen=True, slots=True)
class Range:
    """Closed interval of the values that make sense; ``soft`` ends only guide sliders.

    Parameters
    ----------
    low, high
        The ends.
    soft
        Whether values beyond them are allowed.
    tuned
        Whether it is worth a search: not so for tolerances, seeds and what picks one input.
    """

    low: float = -math.inf
    high: float = math.inf
    soft: bool = False
    tuned: bool = True

    @property
    def searched(self) -> bool:
        """Whether a search that is given no ranges takes this one."""
        return self.tuned and math.isfinite(self.low) and math.isfinite(self.high)


Weight = Annotated[PerModel, Range(-1, 2, soft=True), "weight of each input"]
Seed = Annotated[int, Range(0, 2**63 - 1, tuned=False), "seed of the random draws; equal seeds give equal results"]


@dataclass(frozen=True, slots=True)
class ParameterSpec:
    """One parameter of a method.

    Parameters
    ----------
    name
        Keyword.
    kind
        ``"float"``, ``"int"``, ``"bool"`` or ``"choice"``.
    default
        Value if none is given.
    help
        One phrase for people.
    range
        Interval of numbers.
    choices
        Allowed texts of a choice.
    per_model
        Whether every input may have a value of its own.
    """

    name: str
    kind: str
    default: Value
    help: str
    range: Range = Range()
    choices: tuple[str, ...] = ()
    per_model: bool = False

    def parse(self, value: object) -> Value:
        """A single value, checked; numbers and truth values may come as text.

        Raises
        ------
        MergeError
            If the value has the wrong type or lies outside the range.

        Examples
        --------
        >>> spec = ParameterSpec("density", "float", 1.0, "share kept", Range(0, 1))
        >>> spec.parse("0.3")
        0.3
        >>> spec.parse(3)
        Traceback (most recent call last):
        theta_nb.errors.MergeError: density is 3, and must lie in 0 to 1
        """
        if self.kind == "choice":
            if value not in self.choices:
                raise MergeError(f"{self.name} is {value!r}", hint=f"Known: {', '.join(self.choices)}.")
            return str(value)
        if self.kind == "bool":
            truth = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
            found = truth.get(str(value).lower())
            if found is None:
                raise MergeError(f"{self.name} is {value!r}, and must be true or false")
            return found
        return self._number(value)

    def _number(self, value: object) -> float | int:
        if isinstance(value, bool) or not (isinstance(value, str | int) or hasattr(value, "__float__")):
            raise MergeError(f"{self.name} is {value!r}, and must be a number")
        try:
            number = float(value)
            whole = int(value) if self.kind == "int" and isinstance(value, str | int) else number
        except (ValueError, OverflowError):
            raise MergeError(f"{self.name} is {str(value)[:40]!r}, and must be a number") from None
        if not math.isfinite(number):
            raise MergeError(f"{self.name} is {value}, and must be finite")
        if self.kind == "int" and not float(whole).is_integer():
            raise MergeError(f"{self.name} is {value}, and must be a whole number")
        if not self.range.soft and not self.range.low <= number <= self.range.high:
            raise MergeError(f"{self.name} is {value}, and must lie in {self.range.low:g} to {self.range.high:g}")
        return int(whole) if self.kind == "int" else number

    def bind(self, value: object, labels: Sequence[str]) -> Value:
        """Value for a merge of the inputs ``labels``: a tuple, one for each, where every input has its own.

        Parameters
        ----------
        value
            One value for all, a sequence in the order of the inputs, or a mapping from their labels (those left out
            have the default).
        labels
            Names of the inputs.

        Raises
        ------
        MergeError
            If a value is wrong, or there is another number of them than of inputs.
        """
        if not self.per_model:
            return self.parse(value)
        if isinstance(value, Mapping):
            unknown = [key for key in value if key not in labels]
            if unknown:
                raise MergeError(
                    f"{self.name} is given for {unknown[0]!r}, which is no input", hint=f"Inputs: {', '.join(labels)}."
                )
            each = [value.get(label, self.default) for label in labels]
        elif isinstance(value, Iterable) and not isinstance(value, str):
            each = list(value)
            if len(each) != len(labels):
                raise MergeError(f"{self.name} has {len(each)} values for {len(labels)} inputs")
        else:
            each = [value] * len(labels)
        return tuple(float(self._number(one)) for one in each)

    def schema(self) -> dict[str, Any]:
        """JSON Schema of a single value."""
        if self.kind == "choice":
            return {"enum": list(self.choices), "description": self.help}
        kind = {"float": "number", "int": "integer", "bool": "boolean"}[self.kind]
        out: dict[str, Any] = {"type": kind, "description": self.help}
        if self.kind != "bool" and not self.range.soft:
            if math.isfinite(self.range.low):
                out["minimum"] = self.range.low
            if math.isfinite(self.range.high):
                out["maximum"] = self.range.high
        return out


def signature(function: Callable[..., Any]) -> tuple[ParameterSpec, ...]:
    """Parameters of a merge method: its keyword-only ones.

    Raises
    ------
    TypeError
        If one has no default, or a type that no parameter can have: a mistake of whoever wrote the method.

    Examples
    --------
    >>> def blend(gram, *, t: Annotated[float, Range(0, 1), "how far"] = 0.5): ...
    >>> signature(blend)[0].help, signature(blend)[0].default
    ('how far', 0.5)
    """
    # Names of the module in which the method stands, since annotations are text.
    hints = get_type_hints(function, include_extras=True)
    keywords = [p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    return tuple(_spec(p.name, hints.get(p.name), p.default) for p in keywords)


def _spec(name: str, hint: Any, default: Any) -> ParameterSpec:
    extras: tuple[Any, ...] = ()
    if get_origin(hint) is Annotated:
        hint, *rest = get_args(hint)
        extras = tuple(rest)
    if default is inspect.Parameter.empty:
        raise TypeError(f"parameter {name!r} of a merge method has no default")
    text = next((extra for extra in reversed(extras) if isinstance(extra, str)), "")
    interval = next((extra for extra in reversed(extras) if isinstance(extra, Range)), Range())
    if any(isinstance(extra, _PerModel) for extra in extras):
        return ParameterSpec(name, "float", default, text, interval, per_model=True)
    if get_origin(hint) is Literal:
        return ParameterSpec(name, "choice", default, text, choices=tuple(get_args(hint)))
    kinds = {bool: "bool", int: "int", float: "float"}
    if hint not in kinds:
        raise TypeError(f"parameter {name!r} of a merge method is a {hint}, and must be a number, a bool or a Literal")
    return ParameterSpec(name, kinds[hint], default, text, interval)


def spread(value: float | Sequence[float], count: int) -> tuple[float, ...]:
    """One value for each of ``count`` inputs.

    Examples
    --------
    >>> spread(0.5, 3), spread([1, 2], 2)
    ((0.5, 0.5, 0.5), (1.0, 2.0))
    """
    if isinstance(value, Sequence):
        if len(value) != count:
            raise MergeError(f"{len(value)} values are given for {count} inputs")
        return tuple(float(one) for one in value)
    return (float(value),) * count


_SHOWN = 50


def nearest(name: str, known: Iterable[str]) -> str:
    """Hint for a name that does not exist: one that is close to it or begins like it, or all.

    Examples
    --------
    >>> nearest("dare", ["ties", "dare_ties"]), nearest("bogus", ["ours"])
    ("Did you mean 'dare_ties'?", 'Known: ours.')
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, 1, 0.7) or [one for one in names if name and one.startswith(name)]
    if close:
        return f"Did you mean {close[0]!r}?"
    return f"Known: {', '.join(names[:_SHOWN])}{', …' if len(names) > _SHOWN else ''}." if names else ""
