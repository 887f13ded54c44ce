"""What a merge method is: a function, what follows from its signature, and what it says about itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_type_hints

import numpy as np

from theta_nb.errors import MergeError
from theta_nb.merges.gram import Combination, Gram, combine
from theta_nb.merges.group import Array, Group
from theta_nb.merges.parameters import ParameterSpec, Value, nearest, signature

__all__ = ["Method", "merge_method"]


@dataclass(frozen=True)
class Method:
    """A merge method.

    Parameters
    ----------
    name
        Name in the table.
    function
        Takes a :class:`Gram` and returns a :class:`Combination` (the method is *Gram-determined*), or takes a
        :class:`Group` and yields the blocks of the result in order.
    parameters
        Derived from its signature.
    summary
        First line of its documentation.
    title, paper
        For people: written name, and where it is defined.
    gram
        Whether it is Gram-determined: previews need no pass over the weights.
    base
        ``"needed"`` (task vectors), ``"used"`` if there is one, or ``"none"``.
    inputs
        Smallest and largest number of inputs; the largest 0 stands for any.
    exact
        Whether every machine computes the same bits, given the numbers that the recipe records.
    tolerance
        Relative tolerance of a replay where it is not exact.
    matrices
        Whether it is defined for matrices only; other shapes are then merged by what its documentation says.
    stochastic
        Whether it draws random numbers, from its ``seed``.
    statistics
        What it needs beside the weights, given as checkpoints: ``""``, ``"fisher"`` or ``"regmean"``.
    sample
        What tells as much as the whole tensor, on average: ``"entries"`` or ``"rows"`` (first dimension) picked at
        random; ``""`` if nothing does. Previews estimate by it.
    """

    name: str
    function: Callable[..., Any]
    parameters: tuple[ParameterSpec, ...]
    summary: str
    title: str
    paper: str = ""
    gram: bool = False
    base: str = "used"
    inputs: tuple[int, int] = (1, 0)
    exact: bool = True
    tolerance: float = 0.0
    matrices: bool = False
    stochastic: bool = False
    statistics: str = ""
    sample: str = ""

    def __post_init__(self) -> None:
        # Documentation, help() and doctest see the function.
        for name in ("__doc__", "__module__", "__name__", "__qualname__"):
            object.__setattr__(self, name, getattr(self.function, name))
        object.__setattr__(self, "__wrapped__", self.function)

    def __call__(self, *arguments: Any, **parameters: Any) -> Any:
        """Call the function itself."""
        return self.function(*arguments, **parameters)

    def parameter(self, name: str) -> ParameterSpec:
        """The parameter called ``name``.

        Raises
        ------
        MergeError
            If the method has none of that name; the message offers the nearest.
        """
        for spec in self.parameters:
            if spec.name == name:
                return spec
        hint = nearest(name, [spec.name for spec in self.parameters])
        raise MergeError(f"the merge method {self.name!r} has no parameter {name!r}", hint=hint)

    def bind(self, values: Mapping[str, object], labels: Sequence[str]) -> dict[str, Value]:
        """All parameters with checked values, defaults filled in.

        Parameters
        ----------
        values
            What was asked for.
        labels
            Names of the inputs, in order.

        Raises
        ------
        MergeError
            If a name is unknown, a value wrong, or the number of inputs is not one that the method takes.
        """
        self.check(len(labels))
        for name in values:
            self.parameter(name)
        try:
            return {spec.name: spec.bind(values.get(spec.name, spec.default), labels) for spec in self.parameters}
        except MergeError as error:
            raise MergeError(f"{self.name}: {error.message}", hint=error.hint) from error

    @property
    def support(self) -> str:
        """What it takes, in a line for people.

        Examples
        --------
        >>> from theta_nb.merges.table import METHODS
        >>> METHODS["iso_c"].support
        'any number of inputs; needs a common ancestor; made for matrices, averages other shapes; floats and complex'
        """
        low, high = self.inputs
        count = "any number of" if low < 2 and not high else f"at least {low}" if not high else f"{low}"
        parts = [f"{count} inputs"]
        if self.base == "needed":
            parts.append("needs a common ancestor")
        parts.append("made for matrices, averages other shapes" if self.matrices else "any shape")
        parts.append("floats and complex")
        if self.statistics:
            parts.append(f"wants {self.statistics} statistics")
        return "; ".join(parts)

    def check(self, count: int) -> None:
        """Refuse a number of inputs that the method does not take."""
        low, high = self.inputs
        if count < low or (high and count > high):
            wanted = f"{low}" if high == low else f"at least {low}" if not high else f"{low} to {high}"
            raise MergeError(f"the merge method {self.name!r} takes {wanted} inputs, and there are {count}")

    def blocks(self, group: Group, parameters: Mapping[str, Value]) -> Iterator[Array]:
        """The result, flat, in blocks that are valid until the next one is asked for.

        Raises
        ------
        MergeError
            If the method needs a base or statistics and the group has none.
        """
        if self.base == "needed" and group.base is None:
            raise MergeError(
                f"{group.name}: the merge method {self.name!r} needs a common ancestor, and there is none",
                hint="Use a method without one, such as linear or slerp.",
            )
        if self.base == "none" and group.base is not None and group.scaled == 1.0:
            # Nobody looks at it, so nobody reads it. Nor is a Gram matrix used that was made with it: the last bits of
            # the result would tell whether there was one.
            known = group.known_gram
            group = replace(group, base=None, known_gram=known if known is not None and not known.has_base else None)
        if self.gram:
            return combine(group, self.combination(group, parameters))
        made = self.function(group, **parameters)
        return iter((made.reshape(-1),)) if isinstance(made, np.ndarray) else iter(made)

    def combination(self, group: Group, parameters: Mapping[str, Value]) -> Combination:
        """The linear combination that a Gram-determined method makes of a group, recorded with what it decided."""
        recorded = group.decided.get("combination")
        if recorded is not None:
            return Combination.from_numbers(recorded, len(group.inputs))
        found = self.from_gram(group.gram(), parameters)
        if found.scalar:
            group.decided["combination"] = found.numbers()
        return found

    def delta_scale(self, depth: float, parameters: Mapping[str, Value]) -> float:
        """Factor that the method puts on the task vectors of a tensor at a depth from 0 to 1."""
        return 1.0

    def from_gram(self, gram: Gram, parameters: Mapping[str, Value]) -> Combination:
        """The linear combination, from the Gram matrix alone."""
        made = self.function(gram, **parameters)
        if not isinstance(made, Combination):
            raise TypeError(f"the merge method {self.name!r} returned {type(made).__name__}, not a Combination")
        return made


def merge_method(
    name: str,
    *,
    title: str,
    paper: str = "",
    base: str = "used",
    inputs: tuple[int, int] = (1, 0),
    exact: bool = True,
    tolerance: float = 0.0,
    matrices: bool = False,
    statistics: str = "",
    sample: str = "",
) -> Callable[[Callable[..., Any]], Method]:
    """Turn a function into a :class:`Method`; the arguments are described there.

    Examples
    --------
    >>> from theta_nb.merges.gram import Combination, Gram
    >>> @merge_method("half", title="Half of each", inputs=(2, 2))
    ... def half(gram: Gram) -> Combination:
    ...     '''Average two inputs.'''
    ...     return Combination((0.5, 0.5))
    >>> half.gram, half.summary
    (True, 'Average two inputs.')
    """

    def wrap(function: Callable[..., Any]) -> Method:
        parameters = signature(function)
        first = next(iter(get_type_hints(function).values()), None)
        return Method(
            name=name,
            function=function,
            parameters=parameters,
            summary=(function.__doc__ or "").strip().partition("\n")[0].strip(),
            title=title,
            paper=paper,
            gram=first is Gram,
            base=base,
            inputs=inputs,
            exact=exact,
            tolerance=tolerance,
            matrices=matrices,
            stochastic=any(spec.name == "seed" for spec in parameters),
            statistics=statistics,
            sample=sample,
        )

    return wrap
