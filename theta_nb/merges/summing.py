"""How task vectors become one: summed, or merged by an election of signs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from theta_nb.merges.group import Array, Group, keep
from theta_nb.merges.parameters import spread
from theta_nb.merges.sparsify import Sparse

__all__ = ["elect", "sparse_merge"]


def elect(
    deltas: Sequence[Array], weights: Sequence[float], *, normalize: bool, shares: Sequence[float] | None = None
) -> Array:
    """Sum the weighted entries that have the sign of the sum of all; the deltas are overwritten.

    An entry whose sum is zero counts as positive. Zero entries have no vote. Divided by the weights of those that
    agree, if ``normalize``. With ``shares``, what is left after the election is weighted by these.

    Examples
    --------
    >>> elect([np.array([2.0, 1]), np.array([-1.0, 3])], [1, 1], normalize=True).tolist()
    [2.0, 2.0]
    """
    total: Array = deltas[0] * deltas[0].dtype.type(weights[0])
    deltas[0][:] = total
    for delta, weight in zip(deltas[1:], weights[1:], strict=True):
        if weight != 1:
            delta *= delta.dtype.type(weight)
        total += delta
    negative = total < 0
    divisor = np.empty_like(total)
    share = np.empty_like(total)
    for position, (delta, weight) in enumerate(zip(deltas, shares or weights, strict=True)):
        # Where there is a NaN the sum is one, and counts as positive, so it takes part and shows.
        agrees = (delta < 0) == negative
        keep(delta, agrees)
        if normalize:
            agrees &= delta != 0
            np.multiply(agrees, delta.dtype.type(weight), out=share if position else divisor)
        if shares is not None:
            delta *= delta.dtype.type(weight)
        if position:
            total += delta
            if normalize:
                divisor += share
        else:
            total[:] = delta
    if normalize:
        divisor += divisor == 0
        total /= divisor
    return total


def sparse_merge(
    group: Group,
    vectors: Sequence[Sparse],
    *,
    election: bool,
    weight: float | Sequence[float],
    normalize: bool,
    scale: float,
    rows: bool = False,
) -> Iterator[Array]:
    """Sparsify the task vectors, merge them and add them to the base: what all methods of sparse task vectors do.

    Parameters
    ----------
    group
        The tensor.
    vectors
        What becomes of each task vector beforehand.
    election
        Whether signs are elected, or all entries summed.
    weight
        Of each task vector, or of all.
    normalize
        Whether the sum is divided by the weights; in an election, by those of the task vectors that agree.
    scale
        Factor of the merged task vector.
    rows
        Whether the sparsifiers need blocks of whole rows.
    """
    weights = spread(weight, len(vectors))
    sparsifiers = [vector.start() for vector in vectors]
    divisor = sum(weights)
    divide = normalize and not election and abs(divisor) >= 1e-8
    for part in group.deltas(rows=rows):
        for delta, sparsifier, vector in zip(part.deltas, sparsifiers, vectors, strict=True):
            sparsifier(delta)
            if vector.factor != 1:
                delta *= group.number(vector.factor)
        if election:
            total = elect(part.deltas, weights, normalize=normalize)
        else:
            total = _sum(part.deltas, weights)
            if divide:
                total /= group.number(divisor)
        if scale != 1:
            total *= group.number(scale)
        total += part.base
        yield total


def _sum(deltas: Sequence[Array], weights: Sequence[float]) -> Array:
    total = deltas[0]
    if weights[0] != 1:
        total *= total.dtype.type(weights[0])
    for delta, weight in zip(deltas[1:], weights[1:], strict=True):
        if weight != 1:
            delta *= delta.dtype.type(weight)
        total += delta
    return total
