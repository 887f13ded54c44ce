"""Sparse task vectors, summed or merged by an election of signs: TIES, DARE, DELLA, breadcrumbs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import numpy as np

from theta_nb.merges import sparsify
from theta_nb.merges.group import Array, Group, keep
from theta_nb.merges.method import merge_method
from theta_nb.merges.parameters import PerModel, Range, Seed, Weight, spread

__all__ = [
    "breadcrumbs",
    "breadcrumbs_ties",
    "dare_linear",
    "dare_ties",
    "della",
    "della_linear",
    "elect",
    "sparse_merge",
    "ties",
]

Density = Annotated[PerModel, Range(0, 1), "share of the entries of each task vector that is kept"]
Normalize = Annotated[bool, "divide by the sum of the weights that take part in an entry"]
Scale = Annotated[float, Range(0, 2, soft=True), "factor of the merged task vector"]
Rescale = Annotated[
    Literal["density", "l1", "none"],
    "how the kept entries make up for the dropped: divided by the density (the paper), by the ratio of the sums of "
    "magnitudes (mergekit), or not",
]
RankRescale = Annotated[
    Literal["probability", "l1", "none"],
    "how the kept entries make up for the dropped: divided by their probability (the paper), by the ratio of the sums "
    "of magnitudes (mergekit), or not",
]
Epsilon = Annotated[PerModel, Range(0, 0.5), "half the spread of the probabilities around the density"]
Gamma = Annotated[PerModel, Range(0, 1), "share of the largest entries that is dropped"]


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
    make: Sequence[sparsify.Make],
    factors: Sequence[float],
    *,
    weights: Sequence[float],
    election: bool,
    normalize: bool,
    scale: float,
    rows: bool = False,
) -> Iterator[Array]:
    """Sparsify the task vectors, multiply them by ``factors``, merge them and add them to the base.

    Parameters
    ----------
    group
        The tensor.
    make, factors
        For each task vector.
    weights, normalize, scale
        As in the methods below.
    election
        Whether signs are elected, or all entries summed.
    rows
        Whether the sparsifiers need blocks of whole rows.
    """
    sparsifiers = [start() for start in make]
    divisor = sum(weights)
    divide = normalize and not election and abs(divisor) >= 1e-8
    for part in group.deltas(rows=rows):
        for delta, sparsifier, factor in zip(part.deltas, sparsifiers, factors, strict=True):
            sparsifier(delta)
            if factor != 1:
                delta *= group.number(factor)
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


@merge_method("ties", title="TIES", paper="https://arxiv.org/abs/2306.01708", base="needed", sample="entries")
def ties(
    group: Group,
    *,
    weight: Weight = 1.0,
    density: Density = 1.0,
    normalize: Normalize = True,
    scale: Scale = 1.0,
    scope: Annotated[
        Literal["tensor", "model"], "whether the largest entries are those of each tensor, or of the model (the paper)"
    ] = "tensor",
) -> Iterator[Array]:
    """Trim each task vector to its largest entries, elect a sign for each entry, average those that have it.

    At least one entry of a tensor is kept unless the density is 0. Of equal magnitudes the first are kept.

    Examples
    --------
    >>> from theta_nb.merges.tensors import merge_tensors
    >>> merge_tensors("ties", [[4.0, 1, 0], [-1, 3, 1]], base=[0.0, 0, 0], density=0.7).tolist()
    [4.0, 2.0, 0.0]
    """
    count = len(group.inputs)
    densities, weights = spread(density, count), spread(weight, count)
    make = [sparsify.trim(group, k, densities[k], scope) for k in range(count)]
    return sparse_merge(group, make, [1.0] * count, weights=weights, election=True, normalize=normalize, scale=scale)


def _dare(group: Group, densities: Sequence[float], rescale: str, seed: int) -> tuple[list[sparsify.Make], list[float]]:
    make = [sparsify.random(group, k, density, seed) for k, density in enumerate(densities)]
    if rescale == "density":
        return make, [1 / density if 0 < density < 1 else 1.0 for density in densities]
    if rescale == "l1":
        return make, [sparsify.rescaled(group, k, start) for k, start in enumerate(make)]
    return make, [1.0] * len(make)


@merge_method("dare_linear", title="DARE", paper="https://arxiv.org/abs/2311.03099", base="needed", sample="entries")
def dare_linear(
    group: Group,
    *,
    weight: Weight = 1.0,
    density: Density = 0.5,
    rescale: Rescale = "density",
    normalize: Normalize = False,
    scale: Scale = 1.0,
    seed: Seed = 0,
) -> Iterator[Array]:
    """Drop entries of the task vectors at random, rescale the rest, and sum.

    Entries kept at one density are kept at every higher one.

    Examples
    --------
    >>> from theta_nb.merges.tensors import merge_tensors
    >>> merge_tensors("dare_linear", [[4.0, 4, 4, 4]], base=[0.0, 0, 0, 0], density=0.5, seed=2).tolist()
    [8.0, 0.0, 8.0, 0.0]
    """
    count = len(group.inputs)
    make, factors = _dare(group, spread(density, count), rescale, seed)
    weights = spread(weight, count)
    return sparse_merge(group, make, factors, weights=weights, election=False, normalize=normalize, scale=scale)


@merge_method("dare_ties", title="DARE-TIES", paper="https://arxiv.org/abs/2311.03099", base="needed", sample="entries")
def dare_ties(
    group: Group,
    *,
    weight: Weight = 1.0,
    density: Density = 0.5,
    rescale: Rescale = "density",
    normalize: Normalize = False,
    scale: Scale = 1.0,
    seed: Seed = 0,
) -> Iterator[Array]:
    """Drop entries of the task vectors at random, rescale the rest, and merge by an election of signs.

    Examples
    --------
    >>> from theta_nb.merges.tensors import merge_tensors
    >>> merge_tensors("dare_ties", [[4.0, 4, 4, 4]], base=[0.0, 0, 0, 0], density=0.5, seed=2).tolist()
    [8.0, 0.0, 8.0, 0.0]
    """
    count = len(group.inputs)
    make, factors = _dare(group, spread(density, count), rescale, seed)
    weights = spread(weight, count)
    return sparse_merge(group, make, factors, weights=weights, election=True, normalize=normalize, scale=scale)


def _della(
    group: Group, densities: Sequence[float], epsilons: Sequence[float], rescale: str, seed: int
) -> tuple[list[sparsify.Make], list[float]]:
    make = [
        sparsify.magnitude_draws(group, k, density, epsilon, seed, divide=rescale == "probability")
        for k, (density, epsilon) in enumerate(zip(densities, epsilons, strict=True))
    ]
    if rescale == "l1":
        return make, [sparsify.rescaled(group, k, start, rows=True) for k, start in enumerate(make)]
    return make, [1.0] * len(make)


@merge_method("della", title="DELLA", paper="https://arxiv.org/abs/2406.11617", base="needed", sample="rows")
def della(
    group: Group,
    *,
    weight: Weight = 1.0,
    density: Density = 0.5,
    epsilon: Epsilon = 0.15,
    rescale: RankRescale = "probability",
    normalize: Normalize = True,
    scale: Scale = 1.0,
    seed: Seed = 0,
) -> Iterator[Array]:
    """Drop entries at random, small ones more often, rescale the rest, and merge by an election of signs.

    Ranks are taken within a row (first dimension against the rest); a vector is one row. Where density plus or minus
    epsilon would leave 0 to 1, epsilon shrinks.

    Examples
    --------
    >>> from theta_nb.merges.tensors import merge_tensors
    >>> merge_tensors("della", [[4.0, 1]], base=[0.0, 0], density=0.5, epsilon=0.5, rescale="none").tolist()
    [4.0, 0.0]
    """
    count = len(group.inputs)
    make, factors = _della(group, spread(density, count), spread(epsilon, count), rescale, seed)
    return sparse_merge(
        group, make, factors, weights=spread(weight, count), election=True, normalize=normalize, scale=scale, rows=True
    )


@merge_method(
    "della_linear", title="DELLA, linear", paper="https://arxiv.org/abs/2406.11617", base="needed", sample="rows"
)
def della_linear(
    group: Group,
    *,
    weight: Weight = 1.0,
    density: Density = 0.5,
    epsilon: Epsilon = 0.15,
    rescale: RankRescale = "probability",
    normalize: Normalize = False,
    scale: Scale = 1.0,
    seed: Seed = 0,
) -> Iterator[Array]:
    """Drop entries at random, small ones more often, rescale the rest, and sum.

    Examples
    --------
    >>> from theta_nb.merges.tensors import merge_tensors
    >>> merge_tensors("della_linear", [[4.0, 1]], base=[0.0, 0], density=0.5, epsilon=0.5, rescale="none").tolist()
    [4.0, 0.0]
    """
    count = len(group.inputs)
    make, factors = _della(group, spread(density, count), spread(epsilon, count), rescale, seed)
    return sparse_merge(
        group, make, factors, weights=spread(weight, count), election=False, normalize=normalize, scale=scale, rows=True
    )


@merge_method(
    "breadcrumbs", title="Model breadcrumbs", paper="https://arxiv.org/abs/2312.06795", base="needed", sample="entries"
)
def breadcrumbs(
    group: Group,
    *,
    weight: Weight = 1.0,
    density: Density = 0.9,
    gamma: Gamma = 0.01,
    normalize: Normalize = False,
    scale: Scale = 1.0,
) -> Iterator[Array]:
    """Drop the largest and the smallest entries of the task vectors, and sum the rest.

    Examples
    --------
    >>> from theta_nb.merges.tensors import merge_tensors
    >>> merge_tensors("breadcrumbs", [[4.0, 3, 2, 1]], base=[0.0, 0, 0, 0], density=0.5, gamma=0.25).tolist()
    [0.0, 3.0, 2.0, 0.0]
    """
    count = len(group.inputs)
    make = _bands(group, spread(density, count), spread(gamma, count))
    weights = spread(weight, count)
    return sparse_merge(group, make, [1.0] * count, weights=weights, election=False, normalize=normalize, scale=scale)


def _bands(group: Group, densities: Sequence[float], gammas: Sequence[float]) -> list[sparsify.Make]:
    both = zip(densities, gammas, strict=True)
    return [sparsify.band(group, k, density, gamma) for k, (density, gamma) in enumerate(both)]


@merge_method(
    "breadcrumbs_ties",
    title="Breadcrumbs-TIES",
    paper="https://arxiv.org/abs/2312.06795",
    base="needed",
    sample="entries",
)
def breadcrumbs_ties(
    group: Group,
    *,
    weight: Weight = 1.0,
    density: Density = 0.9,
    gamma: Gamma = 0.01,
    normalize: Normalize = False,
    scale: Scale = 1.0,
) -> Iterator[Array]:
    """Drop the largest and the smallest entries of the task vectors, and merge the rest by an election of signs.

    Examples
    --------
    >>> from theta_nb.merges.tensors import merge_tensors
    >>> merge_tensors("breadcrumbs_ties", [[4.0, 3, 2, 1]], base=[0.0, 0, 0, 0], density=0.5, gamma=0.25).tolist()
    [0.0, 3.0, 2.0, 0.0]
    """
    count = len(group.inputs)
    make = _bands(group, spread(density, count), spread(gamma, count))
    weights = spread(weight, count)
    return sparse_merge(group, make, [1.0] * count, weights=weights, election=True, normalize=normalize, scale=scale)
