"""How long a result is and how far from its parents: predicted, estimated from a sample, or weighed.

A result is ``base + c · differences + rest``, with the rest at right angles to base and differences. Where the rest is
nothing (Gram-determined methods) everything follows from the coefficients and the Gram matrix. Elsewhere a sample of
the entries tells coefficients and rest, and the Gram matrix of the whole tensor, which is known, does not have to be
guessed: the estimate is far better than one that scales the lengths themselves. ``weigh`` guesses nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from theta_nb.engine.merging.decisions import Decision
from theta_nb.engine.merging.sampling import Sample
from theta_nb.merges import group as groups
from theta_nb.merges.gram import Combination, Gram, dot
from theta_nb.merges.group import Array, Group
from theta_nb.merges.method import Method
from theta_nb.merges.parameters import Value

__all__ = ["Outcome", "Split", "estimate", "predict", "split", "weigh"]

_TINY = 1e-30  # squares of float32 numbers that sum to less have lost their digits
_RANK = 1e-10


@dataclass(frozen=True, slots=True)
class Outcome:
    """Lengths of one result, before it is rounded to the dtype of the file.

    Parameters
    ----------
    norm
        Of the result.
    distances
        To the ancestor (if there is one), then to every input that has the parameter; empty where shapes differ.
    estimated
        Whether it comes from a sample.
    """

    norm: float
    distances: tuple[float, ...] = ()
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Split:
    """A result as a combination of its parents and what no combination gives.

    Parameters
    ----------
    coordinates
        Of the origin and of the differences of the inputs to it.
    rest
        Norm of what is at right angles to them.
    """

    coordinates: tuple[float, ...]
    rest: float


def _parents(gram: Gram) -> Array:
    """Coordinates of the parents: the ancestor, if there is one, and every input."""
    parents = np.eye(gram.count + 1)
    parents[1:, 0] = 1  # an input is the origin plus its difference
    return parents if gram.has_base else parents[1:]


def predict(decision: Decision, gram: Gram, scale: float) -> tuple[Array, Array] | None:
    """Norms and distances of the results of one choice for a stack of Gram matrices.

    Parameters
    ----------
    decision
        A choice that takes a version, or one of a Gram-determined method.
    gram
        Matrices of shape (N, K+1, K+1); or, with ``along``, a single one.
    scale
        Factor that the method puts on the task vectors.

    Returns
    -------
    tuple of arrays
        Norms of shape (N,), distances of shape (N, parents); ``None`` if the method looks at rows and ``gram`` cannot
        tell about them.
    """
    if decision.method is None:
        present = [k for k, info in enumerate(decision.unit.versions) if info is not None]
        take = decision.take
        row = np.zeros(gram.count + 1)
        row[0] = 1
        if take is not None and take >= 0:
            row[1 + present.index(take)] = 1
        return _lengths(gram, row[None])
    factors = np.array([1.0] + [scale] * gram.count)
    axis = decision.parameters.get("axis", "tensor")
    if axis == "tensor":
        made: Combination = decision.method.from_gram(gram.scaled(scale), decision.parameters)
        return _lengths(gram, made.coordinates(gram) * factors)
    if gram.along is None:
        return None
    vectors = gram.by(str(axis))
    made = decision.method.from_gram(gram.scaled(scale), decision.parameters)
    flat = Combination(tuple(_in_rows(c, vectors) for c in made.inputs), _in_rows(made.base, vectors), made.shifted)
    norms, distances = _lengths(vectors, flat.coordinates(vectors) * factors)
    # A tensor is all of its rows.
    count = norms.size
    square = np.square(distances.reshape(count, -1)).sum(axis=0)
    return np.sqrt(np.square(norms).sum()).reshape(1), np.sqrt(square)[None]


def _in_rows(coefficient: Any, vectors: Gram) -> Any:
    """Coefficients that broadcast to a tensor, in the shape that counts its vectors."""
    return coefficient if np.ndim(coefficient) == 0 else np.reshape(coefficient, vectors.matrix.shape[:-2])


def _lengths(gram: Gram, coordinates: Array) -> tuple[Array, Array]:
    differences = coordinates[..., None, :] - _parents(gram)
    far = np.einsum("...pi,...ij,...pj->...p", differences, gram.matrix, differences, optimize=False)
    return gram.length(coordinates), np.sqrt(np.maximum(far, 0.0))


def estimate(
    method: Method,
    parameters: Mapping[str, Value],
    sample: Sample,
    gram: Gram,
    *,
    name: str,
    depth: float,
    model_cut: Callable[[int, float], Any] | None = None,
) -> Outcome:
    """Merge a sample, and conclude from it to the tensor.

    Parameters
    ----------
    method, parameters
        What is done.
    sample
        Of the inputs.
    gram
        Of the whole tensor.
    name, depth
        Of the tensor.
    model_cut
        As in :class:`Group`, for the sample.
    """
    group = sample.group(name, depth, model_cut)
    with np.errstate(all="ignore"):
        made = np.concatenate([block.copy() for block in method.blocks(group, parameters)])
        if sample.share == 1:
            return weigh(group, [made])
        change = made - sample.vectors[0]
        coordinates = _solve(sample.products, sample.vectors @ change)
        rest = change - coordinates @ sample.vectors
        square = float(rest @ rest) * sample.share
        coordinates[0] += 1
        norm, distances = _lengths(gram, coordinates)
        with_rest = np.sqrt(np.square(distances) + square)
    return Outcome(float(np.sqrt(norm * norm + square)), tuple(with_rest.tolist()), estimated=True)


def _solve(products: Array, projections: Array) -> Array:
    """Coefficients of a projection onto vectors with the given inner products; 0 for vectors that add nothing."""
    norms = np.sqrt(np.maximum(np.diag(products), 0))
    safe = np.where(norms > 0, norms, 1.0)
    scaled = products / safe / safe[:, None]
    if not np.isfinite(scaled).all() or not np.isfinite(projections).all():
        return np.full(len(products), np.nan)
    solved: Array = np.linalg.lstsq(scaled, projections / safe, rcond=_RANK)[0] / safe
    return solved


def weigh(group: Group, blocks: Iterable[Array], check: Callable[[], None] | None = None) -> Outcome:
    """Norm and distances of a result as it is made, block by block.

    Parameters
    ----------
    group
        Where the blocks come from.
    blocks
        The result, flat.
    check
        Called before every block; whatever it raises ends the work.
    """
    parents = [reader for reader in (group.base, *group.inputs) if reader is not None]
    squares = np.zeros(1 + len(parents))
    buffer = np.empty(0, group.dtype)
    position = 0
    for block in blocks:
        if check is not None:
            check()
        for start in range(0, len(block), groups.BLOCK):
            part = block[start : start + groups.BLOCK]
            if len(buffer) < len(part):
                buffer = np.empty(len(part), group.dtype)
            difference = buffer[: len(part)]
            squares[0] += _square(part)
            for k, reader in enumerate(parents):
                np.subtract(part, reader.read(position, position + len(part)), out=difference)
                squares[k + 1] += _square(difference)
            position += len(part)
    norm, *distances = np.sqrt(squares).tolist()
    return Outcome(norm, tuple(distances))


def _square(values: Array) -> float:
    """Squared norm: pieces in the dtype of the values, which are summed in float64."""
    found = dot(values, values)
    if values.dtype == np.float32 and not _TINY < found < np.inf:
        wide = values.astype(np.float64)
        found = dot(wide, wide)
    return found


def split(outcome: Outcome, gram: Gram) -> Split | None:
    """Which combination of its parents a result is nearest to, from its lengths alone.

    Parameters
    ----------
    outcome
        Of a tensor.
    gram
        Its Gram matrix, with an ancestor.

    Returns
    -------
    Split
        Or ``None`` where there is no ancestor, or a number is not finite.

    Examples
    --------
    >>> gram = Group.of([np.array([3.0, 0, 0]), np.array([0, 4.0, 0])], np.zeros(3)).gram()
    >>> found = split(Outcome(13 ** 0.5, (13 ** 0.5, 2.0, 29 ** 0.5)), gram)
    >>> found.coordinates, round(found.rest, 6)
    ((1.0, 1.0, 0.0), 2.0)
    """
    matrix = gram.matrix
    if not gram.has_base or len(outcome.distances) != len(matrix):
        return None
    far = outcome.distances[0] ** 2
    sizes = np.diag(matrix)
    # |r|² = |b|² + 2 b·d + |d|², and |r - x|² = |d|² - 2 δ·d + |δ|², for r = b + d and x = b + δ.
    along_base = (outcome.norm**2 - sizes[0] - far) / 2
    along = [(far + size - distance**2) / 2 for size, distance in zip(sizes[1:], outcome.distances[1:], strict=True)]
    projections = np.array([along_base, *along])
    with np.errstate(all="ignore"):
        coordinates = _solve(matrix, projections)
        square = far - float(coordinates @ projections)
    if not np.isfinite(square):
        return None
    coordinates[0] += 1
    rounded = square if square > 1e-6 * far else 0.0
    return Split(tuple(np.round(coordinates, 12).tolist()), float(np.sqrt(rounded)))


def stacked(decisions: Sequence[Decision], known: Sequence[Array | None], scales: Sequence[float]) -> list[list[int]]:
    """Positions of the decisions that can be predicted at once: equal choices with Gram matrices of one size."""
    batches: dict[Any, list[int]] = {}
    for index, (decision, gram) in enumerate(zip(decisions, known, strict=True)):
        method = decision.method
        if gram is None or (method is not None and not method.gram) or decision.dropped:
            continue
        if method is not None and len(decision.inputs) != len(gram) - 1:
            continue
        key = (
            decision.take,
            method.name if method is not None else "",
            tuple(decision.parameters.values()),
            scales[index],
            len(gram),
            decision.unit.base is not None,
            tuple(info is not None for info in decision.unit.versions) if method is None else (),
        )
        batches.setdefault(key, []).append(index)
    return list(batches.values())
