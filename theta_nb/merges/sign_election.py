"""Sparse task vectors, summed or merged by an election of signs: TIES, DARE, DELLA, breadcrumbs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from theta_nb.merges import sparsify
from theta_nb.merges.group import Array, Group
from theta_nb.merges.method import merge_method
from theta_nb.merges.parameters import PerModel, Range, Seed, Weight, spread
from theta_nb.merges.sparsify import Sparse
from theta_nb.merges.summing import sparse_merge

__all__ = [
    "breadcrumbs",
    "breadcrumbs_ties",
    "dare_linear",
    "dare_ties",
    "della",
    "della_linear",
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
    vectors = [Sparse(sparsify.trim(group, k, share, scope)) for k, share in _each(group, density)]
    return sparse_merge(group, vectors, election=True, weight=weight, normalize=normalize, scale=scale)


def _each(group: Group, value: float | Sequence[float]) -> Iterator[tuple[int, float]]:
    """Position and value of every input."""
    return enumerate(spread(value, len(group.inputs)))


def _dare(group: Group, density: float | Sequence[float], rescale: str, seed: int) -> list[Sparse]:
    vectors = []
    for k, share in _each(group, density):
        start, factor = sparsify.random(group, k, share, seed), 1.0
        if rescale == "density" and 0 < share < 1:
            factor = 1 / share
        elif rescale == "l1":
            factor = sparsify.rescaled(group, k, start)
        vectors.append(Sparse(start, factor))
    return vectors


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
    vectors = _dare(group, density, rescale, seed)
    return sparse_merge(group, vectors, election=False, weight=weight, normalize=normalize, scale=scale)


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
    vectors = _dare(group, density, rescale, seed)
    return sparse_merge(group, vectors, election=True, weight=weight, normalize=normalize, scale=scale)


def _della(
    group: Group,
    density: float | Sequence[float],
    epsilon: float | Sequence[float],
    rescale: str,
    seed: int,
) -> list[Sparse]:
    vectors = []
    for (k, share), (_, width) in zip(_each(group, density), _each(group, epsilon), strict=True):
        start = sparsify.magnitude_draws(group, k, share, width, seed, divide=rescale == "probability")
        factor = sparsify.rescaled(group, k, start, rows=True) if rescale == "l1" else 1.0
        vectors.append(Sparse(start, factor))
    return vectors


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
    vectors = _della(group, density, epsilon, rescale, seed)
    return sparse_merge(group, vectors, election=True, weight=weight, normalize=normalize, scale=scale, rows=True)


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
    vectors = _della(group, density, epsilon, rescale, seed)
    return sparse_merge(group, vectors, election=False, weight=weight, normalize=normalize, scale=scale, rows=True)


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
    vectors = _bands(group, density, gamma)
    return sparse_merge(group, vectors, election=False, weight=weight, normalize=normalize, scale=scale)


def _bands(group: Group, density: float | Sequence[float], gamma: float | Sequence[float]) -> list[Sparse]:
    both = zip(_each(group, density), _each(group, gamma), strict=True)
    return [Sparse(sparsify.band(group, k, share, top)) for (k, share), (_, top) in both]


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
    vectors = _bands(group, density, gamma)
    return sparse_merge(group, vectors, election=True, weight=weight, normalize=normalize, scale=scale)
