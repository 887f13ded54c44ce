"""LiNeS: scale task vectors by depth, then merge them by any method."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from theta_nb.errors import MergeError
from theta_nb.merges.gram import Combination, Gram
from theta_nb.merges.group import Array, Group
from theta_nb.merges.method import Method
from theta_nb.merges.parameters import ParameterSpec, Range, Value

__all__ = ["ScaledByDepth", "lines"]

_PARAMETERS = (
    ParameterSpec("lines_alpha", "float", 0.5, "factor of the task vectors in the first layer", Range(0, 2, soft=True)),
    ParameterSpec("lines_beta", "float", 0.5, "how much it grows until the last layer", Range(-2, 2, soft=True)),
)


@dataclass(frozen=True, kw_only=True)
class ScaledByDepth(Method):
    """A method whose task vectors are multiplied by ``lines_alpha + lines_beta * depth`` first.

    Parameters
    ----------
    inner
        The method.
    """

    inner: Method

    def delta_scale(self, depth: float, parameters: Mapping[str, Value]) -> float:
        """Factor of the task vectors at a depth from 0 to 1."""
        return _number(parameters["lines_alpha"]) + _number(parameters["lines_beta"]) * depth

    def blocks(self, group: Group, parameters: Mapping[str, Value]) -> Iterator[Array]:
        """The result of the inner method on scaled task vectors."""
        if group.base is None:
            raise MergeError(f"{group.name}: LiNeS scales differences to a common ancestor, and there is none")
        factor = self.delta_scale(group.depth, parameters)
        # Rankings that were made beforehand are those of other numbers.
        scaled = replace(group, scaled=factor, histogram=None, model_cut=None)
        return self.inner.blocks(scaled, self._inner_parameters(parameters))

    def from_gram(self, gram: Gram, parameters: Mapping[str, Value]) -> Combination:
        """The inner method's combination of the scaled task vectors; ``gram`` is theirs."""
        return self.inner.from_gram(gram, self._inner_parameters(parameters))

    def _inner_parameters(self, parameters: Mapping[str, Value]) -> dict[str, Value]:
        return {name: value for name, value in parameters.items() if not name.startswith("lines_")}


def _number(value: Value) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def lines(inner: Method) -> ScaledByDepth:
    """Wrap a method: its parameters, and ``lines_alpha`` and ``lines_beta``.

    Wang et al., https://arxiv.org/abs/2410.17146. Shallow layers keep more of the ancestor, which all tasks share.

    Examples
    --------
    >>> from theta_nb.merges.tensors import merge_tensors
    >>> merge_tensors("lines:task_arithmetic", [[1.0]], base=[0.0], depth=0.0).tolist()
    [0.5]
    >>> merge_tensors("lines:task_arithmetic", [[1.0]], base=[0.0], depth=1.0).tolist()
    [1.0]
    """
    return ScaledByDepth(
        name=f"lines:{inner.name}",
        function=inner.function,
        parameters=(*inner.parameters, *_PARAMETERS),
        summary=f"Scale task vectors by depth, then: {inner.summary}",
        title=f"LiNeS, {inner.title}",
        paper="https://arxiv.org/abs/2410.17146",
        gram=inner.gram,
        base="needed",
        inputs=inner.inputs,
        exact=inner.exact,
        tolerance=inner.tolerance,
        matrices=inner.matrices,
        stochastic=inner.stochastic,
        statistics=inner.statistics,
        sample=inner.sample,
        inner=inner,
    )
