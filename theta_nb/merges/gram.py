"""Gram matrices: all that linear, spherical and stock averages need to know about the weights.

The matrix is that of the base and the *differences* to it, in float64: the Gram matrix of the inputs themselves loses
the differences to cancellation (4 % of a squared norm at a relative change of 1e-6). Subtraction in float32 is rounded
correctly, so differences are formed there and widened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from theta_nb.errors import MergeError

if TYPE_CHECKING:
    from theta_nb.merges.group import Array, Group

__all__ = ["Combination", "Gram", "combine", "dot", "gram_along", "gram_of", "inner_products"]

_DOT = 2**13

Coefficient = Any
"""A float, or an array of one number for each vector along an axis, broadcastable to the tensor."""


class Gram:
    """Inner products of an origin and the differences of the inputs to it.

    Parameters
    ----------
    matrix
        Float64, shape (..., K+1, K+1) for K inputs: first the origin, then the differences. Leading dimensions count
        vectors, where a tensor is taken as many of them. Or a function that computes it when it is first looked at:
        many methods never do.
    has_base
        Whether the origin is the common ancestor; else it is the first input, whose difference is then zero.
    name
        Tensor, for messages.
    along
        Computes the matrices of the vectors along an axis (``"row"``, ``"column"``) from the weights.
    count
        Number of inputs; needed where the matrix is not known yet.

    Examples
    --------
    >>> from theta_nb.merges.group import Group
    >>> gram = Group.of([np.array([3.0, 0]), np.array([0, 4.0])], np.zeros(2)).gram()
    >>> gram.norms(), gram.cosines()[0, 1]
    (array([3., 4.]), np.float64(0.0))
    """

    def __init__(
        self,
        matrix: Array | Callable[[], Array],
        has_base: bool,
        name: str = "",
        along: Callable[[str], Gram] | None = None,
        count: int = 0,
    ) -> None:
        self._matrix = matrix
        self.has_base = has_base
        self.name = name
        self.along = along
        self.count = count if callable(matrix) else int(matrix.shape[-1]) - 1

    @property
    def matrix(self) -> Array:
        """The inner products."""
        if callable(self._matrix):
            self._matrix = self._matrix()
        return self._matrix

    @property
    def differences(self) -> Array:
        """Inner products of the task vectors, shape (..., K, K).

        Raises
        ------
        MergeError
            If there is no common ancestor.
        """
        if not self.has_base:
            raise MergeError(
                f"{self.name}: there is no common ancestor, so there are no task vectors",
                hint="Merge the weights themselves: space=weights.",
            )
        return self.matrix[..., 1:, 1:]

    @property
    def inputs(self) -> Array:
        """Inner products of the inputs, shape (..., K, K)."""
        m = self.matrix
        made: Array = m[..., :1, :1] + m[..., 1:, :1] + m[..., :1, 1:] + m[..., 1:, 1:]
        return made

    def space(self, space: str) -> Array:
        """Inner products of the inputs (``"weights"``) or of the task vectors (``"task"``)."""
        return self.differences if space == "task" else self.inputs

    def norms(self) -> Array:
        """Norms of the inputs."""
        made: Array = np.sqrt(np.maximum(np.diagonal(self.inputs, axis1=-2, axis2=-1), 0))
        return made

    def cosines(self, space: str = "task") -> Array:
        """Cosines between task vectors or inputs; 0 where one is zero."""
        return cosines(self.space(space))

    def scaled(self, factor: float) -> Gram:
        """The matrix after the differences are multiplied by ``factor``."""
        if factor == 1:
            return self
        scale = np.ones(self.count + 1)
        scale[1:] = factor
        along = self.along
        return Gram(
            lambda: self.matrix * scale[:, None] * scale,
            self.has_base,
            self.name,
            None if along is None else lambda axis: along(axis).scaled(factor),
            self.count,
        )

    def by(self, axis: str) -> Gram:
        """The matrices of the vectors along ``axis``; of the whole tensor for ``"tensor"``."""
        if axis == "tensor":
            return self
        if self.along is None:
            raise MergeError(f"{self.name}: the weights are needed for a merge by {axis}s")
        return self.along(axis)

    def length(self, coordinates: Array) -> Array:
        """Norm of vectors given by their coordinates, shape (..., K+1)."""
        square = np.einsum("...i,...ij,...j->...", coordinates, self.matrix, coordinates)
        made: Array = np.sqrt(np.maximum(square, 0.0))
        return made


@dataclass(frozen=True)
class Combination:
    """What a Gram-determined method makes: a linear combination of the inputs.

    Parameters
    ----------
    inputs
        Coefficient of every input.
    base
        Coefficient of the base.
    shifted
        Whether the result is ``base + sum(c * (input - base))`` instead of ``base * b + sum(c * input)``: exact where
        an input equals the base.
    """

    inputs: tuple[Coefficient, ...]
    base: Coefficient = 0.0
    shifted: bool = False

    @property
    def scalar(self) -> bool:
        """Whether every coefficient is one number for the whole tensor."""
        return all(np.ndim(c) == 0 for c in (*self.inputs, self.base))

    def finite(self) -> bool:
        """Whether all coefficients are finite; those of a tensor that holds NaN or Inf may not be."""
        return all(np.all(np.isfinite(c)) for c in (*self.inputs, self.base))

    def numbers(self) -> tuple[float, ...]:
        """Flat record of a scalar combination."""
        return (float(self.shifted), float(self.base), *(float(c) for c in self.inputs))

    @classmethod
    def from_numbers(cls, numbers: Sequence[float], count: int) -> Combination:
        """Back from the record.

        Raises
        ------
        MergeError
            If the record is one of another number of inputs.
        """
        if len(numbers) != count + 2:
            raise MergeError(f"a recorded combination has {len(numbers)} numbers for {count} inputs")
        return cls(tuple(numbers[2:]), numbers[1], bool(numbers[0]))

    def coordinates(self, gram: Gram) -> Array:
        """Coordinates of the result in the basis of ``gram.matrix``, shape (..., K+1).

        Raises
        ------
        MergeError
            If task vectors are combined and there is no common ancestor.
        """
        if self.shifted and not gram.has_base:
            raise MergeError(f"{gram.name}: there is no common ancestor, so there are no task vectors")
        leading = gram.matrix.shape[:-2]
        c = np.stack([np.broadcast_to(np.asarray(x, np.float64), leading) for x in self.inputs], axis=-1)
        origin = np.ones(leading) if self.shifted else np.asarray(self.base) + c.sum(axis=-1)
        return np.concatenate([np.broadcast_to(origin, leading)[..., None], c], axis=-1)


def cosines(products: Array) -> Array:
    """Cosines from inner products, 0 where a vector is zero.

    Examples
    --------
    >>> cosines(np.array([[4.0, 2.0], [2.0, 4.0]]))[0, 1]
    np.float64(0.5)
    """
    norms = np.sqrt(np.maximum(np.diagonal(products, axis1=-2, axis2=-1), 0))
    product = norms[..., :, None] * norms[..., None, :]
    safe = np.where(product > 0, product, 1.0)
    return np.where(product > 0, np.clip(products / safe, -1, 1), 0.0)


def gram_of(group: Group) -> Gram:
    """Gram matrix of a group, computed when it is first looked at."""
    return Gram(
        lambda: inner_products(group),
        group.base is not None,
        group.name,
        lambda axis: gram_along(group, axis),
        len(group.inputs),
    )


def inner_products(group: Group, watch: Callable[[list[Array]], None] | None = None) -> Array:
    """The matrix of :class:`Gram` in one pass over the blocks of a group, accumulated in float64.

    Parameters
    ----------
    group
        The tensor.
    watch
        Shown the differences of every block, as they pass.
    """
    count = len(group.inputs)
    has_base = group.base is not None
    matrix = np.zeros((count + 1, count + 1))
    first = 0 if has_base else 1  # the difference of the first input to itself is zero
    used = [0, *range(first + 1, count + 1)]
    wide: list[Array] = []
    for block in group.blocks():
        origin = block.base if block.base is not None else block.inputs[0]
        length = len(origin)
        if not wide:
            wide = [np.zeros(length) for _ in range(count + 1)]
            narrow = np.empty(length, group.dtype)
        rows = [row[:length] for row in wide]
        rows[0][:] = origin
        for k in range(first, count):
            np.subtract(block.inputs[k], origin, out=narrow[:length])
            rows[k + 1][:] = narrow[:length]
        if watch is not None:
            watch(rows[1:])
        for position, i in enumerate(used):
            for j in used[position:]:
                matrix[i, j] += dot(rows[i], rows[j])
    made: Array = np.triu(matrix) + np.triu(matrix, 1).T
    return made


def dot(left: Array, right: Array) -> float:
    """Inner product of flat arrays: pieces in their dtype, summed in float64.

    Not by BLAS, which would spread it over threads that fight with ours for the cores; nor by ``numpy.vecdot``, which
    keeps the interpreter's lock, so that two threads are no faster than one.

    Examples
    --------
    >>> dot(np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    11.0
    """
    even = len(left) // _DOT * _DOT
    pieces = np.einsum("ij,ij->i", left[:even].reshape(-1, _DOT), right[:even].reshape(-1, _DOT))
    return float(pieces.sum(dtype=np.float64)) + float(np.einsum("i,i", left[even:], right[even:]))


def gram_along(group: Group, axis: str) -> Gram:
    """Gram matrices of the rows (vectors along the last dimension) or columns (along the first) of a tensor."""
    block = group.whole()
    has_base = block.base is not None
    origin = block.base if block.base is not None else block.inputs[0]
    stack = np.stack([origin, *(x - origin for x in block.inputs)]).astype(np.float64)
    if stack.ndim > 1:
        stack = np.moveaxis(stack, 1 if axis == "column" else -1, -1)
    # Shape (..., K+1, n): the remaining dimensions count vectors.
    stack = np.moveaxis(stack, 0, -2) if stack.ndim > 1 else stack[:, None]
    matrix = stack @ np.swapaxes(stack, -1, -2)
    return Gram(matrix, has_base, group.name)


def combine(group: Group, combination: Combination) -> Iterator[Array]:
    """The blocks of a combination: one multiplication, one addition at a time, so that every machine rounds alike."""
    if not combination.finite():
        raise MergeError(f"{group.name}: the coefficients of the merge are not finite")
    if not combination.scalar:
        yield _combine_along(group, combination)
        return
    out = scratch = np.empty(0, group.dtype)
    if combination.shifted:
        factors = [float(c) for c in combination.inputs]
        for part in group.deltas():
            if len(out) < len(part.base):
                out = np.empty(len(part.base), group.dtype)
            total = out[: len(part.base)]
            for position, (factor, delta) in enumerate(zip(factors, part.deltas, strict=True)):
                delta *= factor
                if position:
                    total += delta
                else:
                    total[:] = delta
            total += part.base
            yield total
        return
    for block in group.blocks():
        terms = list(zip(map(float, combination.inputs), block.inputs, strict=True))
        if block.base is not None:
            terms.append((float(combination.base), block.base))
        terms = [term for term in terms if term[0] != 0.0]
        length = len(block.inputs[0])
        if len(out) < length:
            out, scratch = np.empty(length, group.dtype), np.empty(length, group.dtype)
        total, product = out[:length], scratch[:length]
        if not terms:
            total[:] = 0
        for position, (factor, values) in enumerate(terms):
            np.multiply(values, factor, out=product if position else total)
            if position:
                total += product
        yield total


def _combine_along(group: Group, combination: Combination) -> Array:
    block = group.whole()
    total = np.zeros(group.shape, group.dtype)
    for c, x in zip(combination.inputs, block.inputs, strict=True):
        term = x - block.base if combination.shifted else x
        total += np.asarray(c, group.dtype) * term
    if block.base is not None:
        total += block.base if combination.shifted else np.asarray(combination.base, group.dtype) * block.base
    return total.reshape(-1)
