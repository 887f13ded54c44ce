"""Methods that look at a matrix as one: isotropic and decorrelated task vectors, WIDEN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np

from theta_nb.errors import MergeError
from theta_nb.merges.group import Array, Group
from theta_nb.merges.method import merge_method
from theta_nb.merges.parameters import Range, Weight, spread
from theta_nb.merges.sign_election import Scale

__all__ = ["iso_c", "tsv_m", "widen"]


def _task_vectors(group: Group) -> tuple[Array, list[Array]]:
    block = group.whole()
    if block.base is None:
        raise MergeError(f"{group.name}: there is no common ancestor, so there are no task vectors")
    return block.base, [x - block.base for x in block.inputs]


def _is_matrix(group: Group) -> bool:
    return len(group.shape) == 2 and min(group.shape) > 1


def _mean(deltas: Sequence[Array], weights: Sequence[float]) -> Array:
    """Weighted mean: what the papers do to vectors (biases, norms)."""
    total = sum(weights)
    divisor = total if abs(total) >= 1e-8 else 1.0
    made: Array = np.zeros_like(deltas[0])
    for delta, weight in zip(deltas, weights, strict=True):
        made += delta * delta.dtype.type(weight / divisor)
    return made


def _plus_mean(base: Array, deltas: Sequence[Array], weights: Sequence[float], scale: float) -> Array:
    made: Array = base + _mean(deltas, weights) * base.dtype.type(scale)
    return made


def _svd(matrix: Array) -> tuple[Array, Array, Array] | None:
    """Thin singular value decomposition in float64, or ``None`` where the matrix holds NaN or Inf."""
    if not np.isfinite(matrix).all():
        return None
    u, s, v = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    return u, s, v


@merge_method(
    "iso_c",
    title="Iso-C",
    paper="https://arxiv.org/abs/2502.04959",
    base="needed",
    exact=False,
    tolerance=1e-5,
    matrices=True,
)
def iso_c(group: Group, *, weight: Weight = 1.0, scale: Scale = 1.0) -> Array:
    """Sum the task vectors and set all singular values of the sum to their mean.

    What is no matrix, or holds NaN or Inf, is averaged.

    Examples
    --------
    >>> from theta_nb.merges.tensors import merge_tensors
    >>> merge_tensors("iso_c", [[[3.0, 0], [0, 0]], [[0, 0], [0, 1.0]]], base=np.zeros((2, 2))).round(6).tolist()
    [[2.0, 0.0], [0.0, 2.0]]
    """
    base, deltas = _task_vectors(group)
    weights = spread(weight, len(deltas))
    if not _is_matrix(group):
        return _plus_mean(base, deltas, weights, scale)
    total = sum((w * delta.astype(np.float64) for w, delta in zip(weights, deltas, strict=True)), np.zeros(group.shape))
    parts = _svd(total)
    if parts is None:
        return _plus_mean(base, deltas, weights, scale)
    u, s, v = parts
    made: Array = (base + (scale * s.mean()) * (u @ v)).astype(group.dtype)
    return made


@merge_method(
    "tsv_m",
    title="TSV-M",
    paper="https://arxiv.org/abs/2412.00081",
    base="needed",
    exact=False,
    tolerance=1e-4,
    matrices=True,
)
def tsv_m(group: Group, *, weight: Weight = 1.0, scale: Scale = 1.0) -> Array:
    """Keep the leading singular vectors of each task vector, decorrelate them between tasks, and sum.

    Each of N tasks keeps a share 1/N of its singular vectors. What is no matrix, or holds NaN or Inf, is averaged.

    Examples
    --------
    >>> from theta_nb.merges.tensors import merge_tensors
    >>> merge_tensors("tsv_m", [[[3.0, 0], [0, 0]], [[0, 0], [0, 1.0]]], base=np.zeros((2, 2))).round(6).tolist()
    [[3.0, 0.0], [0.0, 1.0]]
    """
    base, deltas = _task_vectors(group)
    weights = spread(weight, len(deltas))
    parts = [_svd(delta) for delta in deltas] if _is_matrix(group) else [None]
    found = [part for part in parts if part is not None]
    if len(found) < len(deltas):
        return _plus_mean(base, deltas, weights, scale)
    rank = max(min(group.shape) // len(deltas), 1)
    u = np.concatenate([part[0][:, :rank] for part in found], axis=1)
    s = np.concatenate([w * part[1][:rank] for w, part in zip(weights, found, strict=True)])
    v = np.concatenate([part[2][:rank] for part in found], axis=0)
    made: Array = (base + scale * ((_orthogonal(u) * s) @ _orthogonal(v))).astype(group.dtype)
    return made


def _orthogonal(matrix: Array) -> Array:
    """The nearest matrix with orthonormal rows or columns (the Procrustes problem); directions of none are left out."""
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    made: Array = (u * (s > s.max(initial=0) * 1e-12)) @ v
    return made


@merge_method(
    "widen", title="WIDEN", paper="https://arxiv.org/abs/2408.03092", base="needed", exact=False, tolerance=1e-5
)
def widen(
    group: Group,
    *,
    above: Annotated[float, Range(0, 10), "multiple of the mean rank from which a column counts as important"] = 1.0,
    calibration: Annotated[float, Range(0, 2), "score of important columns"] = 1.0,
    scale: Scale = 1.0,
) -> Array:
    """Split weights into magnitudes and directions, rank their changes, and add the task vectors by these ranks.

    Columns (along the first dimension) of a matrix are ranked by the change of their length and of their direction,
    each within its model; a softmax across models turns ranks into scores, and what ranks above the mean scores
    ``calibration``. Entries of a vector are ranked by their change. Tensors of more dimensions are matrices of their
    first against the rest.

    Examples
    --------
    >>> from theta_nb.merges.tensors import merge_tensors
    >>> merge_tensors("widen", [[1.0, 9.0], [0, 0]], base=[0.0, 0]).round(3).tolist()
    [0.5, 9.0]
    """
    base, deltas = _task_vectors(group)
    if not group.size:
        return base
    shape = (group.shape[0], -1) if len(group.shape) > 1 else (1, -1)
    flat = base.reshape(shape).astype(np.float64)
    changes = [delta.reshape(shape).astype(np.float64) for delta in deltas]
    if len(group.shape) > 1:
        lengths = np.stack([np.linalg.norm(flat + d, axis=0) for d in changes])
        original = np.linalg.norm(flat, axis=0)
        by_length = _scores(np.abs(lengths - original), above, calibration)
        dots = np.stack([((flat + d) * flat).sum(axis=0) for d in changes])
        product = lengths * original
        cosine = np.where(product > 0, dots / np.where(product > 0, product, 1), 0)
        scores = (by_length + _scores(1 - cosine, above, calibration)) / 2
    else:
        scores = _scores(np.abs(np.concatenate(changes)), above, calibration)
    merged = sum((d * score for d, score in zip(changes, scores, strict=True)), np.zeros_like(flat))
    made: Array = (flat + scale * merged).astype(group.dtype).reshape(group.shape)
    return made


def _scores(change: Array, above: float, calibration: float) -> Array:
    """Scores of columns, shape (models, columns), from how much they changed."""
    columns = change.shape[1]
    rank = np.empty(change.shape)
    order = np.argsort(change, axis=1, kind="stable")
    np.put_along_axis(rank, order, np.broadcast_to(np.arange(columns) / columns, change.shape), axis=1)
    powers = np.exp(rank - rank.max(axis=0))
    scores = powers / powers.sum(axis=0)
    # A model that changed nothing has no important columns, whatever their order.
    important = (rank > rank.mean(axis=1, keepdims=True) * above) & (change > 0)
    made: Array = np.where(important, calibration, scores)
    return made
