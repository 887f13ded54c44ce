"""Averages on the sphere, and the stock average: their coefficients follow from the Gram matrix."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np

from theta_nb.merges.gram import Combination, Gram, cosines
from theta_nb.merges.method import merge_method
from theta_nb.merges.parameters import MergeError, Range, Weight, spread

__all__ = ["karcher", "model_stock", "multislerp", "nuslerp", "slerp"]

Space = Annotated[
    Literal["weights", "task"], "whether the weights themselves are merged, or the differences to the ancestor"
]
Axis = Annotated[
    Literal["tensor", "row", "column"],
    "what is one vector: the tensor, each row (last dimension), or each column",
]

_COLLINEAR = 1e-6
"""Below this sine (the rounding of float32 weights) two vectors have no plane, and interpolation is linear."""


def _arc(cosine: Any, t: float, threshold: float) -> tuple[Any, Any]:
    """Coefficients of spherical interpolation; linear where the absolute cosine is above the threshold or no number."""
    with np.errstate(all="ignore"):
        straight = ~(np.abs(cosine) <= threshold)
        theta = np.arccos(np.where(straight, 0.0, cosine))
        sine = np.sin(theta)
        first = np.where(straight, 1 - t, np.sin((1 - t) * theta) / sine)
        second = np.where(straight, t, np.sin(t * theta) / sine)
    return first, second


@merge_method("slerp", title="SLERP", paper="https://en.wikipedia.org/wiki/Slerp", base="none", inputs=(2, 2))
def slerp(gram: Gram, *, t: Annotated[float, Range(0, 1, soft=True), "0 is ours, 1 is theirs"] = 0.5) -> Combination:
    """Interpolate along the arc between two tensors, each taken as one vector.

    Linear where they are nearly parallel (absolute cosine above 0.9995), zero, or hold NaN or Inf.

    Examples
    --------
    >>> from theta_nb.merges.tensors import merge_tensors
    >>> merge_tensors("slerp", [[1.0, 0], [0, 1]]).round(4).tolist()
    [0.7071, 0.7071]
    """
    first, second = _arc(gram.cosines("weights")[..., 0, 1], t, 0.9995)
    return Combination((float(first), float(second)))


@merge_method("nuslerp", title="NuSLERP", inputs=(2, 2), paper="https://github.com/arcee-ai/mergekit")
def nuslerp(gram: Gram, *, weight: Weight = 1.0, space: Space = "weights", axis: Axis = "tensor") -> Combination:
    """Interpolate along the arc between two tensors or two task vectors, with a weight for each.

    The place on the arc is weight 2 over the sum of the weights (the middle where they cancel). Linear only where the
    vectors are parallel. Coefficients come from float64 sums, also for bfloat16 weights. A vector is one row and one
    column.

    Examples
    --------
    >>> from theta_nb.merges.tensors import merge_tensors
    >>> merge_tensors("nuslerp", [[1.0, 0], [0, 1]], weight=[1, 3]).round(4).tolist()
    [0.3827, 0.9239]
    """
    weights = spread(weight, 2)
    total = sum(weights)
    t = 0.5 if abs(total) < 1e-6 else weights[1] / total
    along = gram.by(axis)
    cosine = along.cosines(space)[..., 0, 1]
    sine = np.sqrt(np.maximum(1 - np.square(cosine), 0))
    first, second = _arc(np.where(sine <= _COLLINEAR, 1.0, cosine), t, 1 - 1e-16)
    return Combination(_placed(first, second, axis=axis), shifted=space == "task")


def _placed(*coefficients: Any, axis: str) -> tuple[Any, ...]:
    """Coefficients in a shape that broadcasts to the tensor."""
    if axis == "tensor":
        return tuple(float(c) for c in coefficients)
    return tuple(np.expand_dims(c, 0 if axis == "column" else -1) for c in coefficients)


@merge_method("multislerp", title="Multi-SLERP", paper="https://goddard.blog/posts/multislerp-wow-what-a-cool-idea")
def multislerp(gram: Gram, *, weight: Weight = 1.0, space: Space = "weights") -> Combination:
    """Average any number of tensors or task vectors in the tangent space of the sphere at their mean direction.

    The norm is the weighted mean of the norms. Where the directions cancel out there is no mean direction, and the
    average is linear.

    Examples
    --------
    >>> from theta_nb.merges.tensors import merge_tensors
    >>> merge_tensors("multislerp", [[2.0, 0], [0, 2]]).round(4).tolist()
    [1.4142, 1.4142]
    """
    weights = np.array(spread(weight, gram.count))
    if abs(weights.sum()) < 1e-8:
        raise MergeError(f"{gram.name or 'multislerp'}: the weights sum to {weights.sum():g}")
    weights = weights / weights.sum()
    products = gram.space(space)
    unit, norms = cosines(products), np.sqrt(np.maximum(np.diag(products), 0))
    # Directions are written as coefficients of the unit vectors; a zero vector has none.
    present = norms > 0
    mean = np.where(present, weights, 0.0)
    length = np.sqrt(np.maximum(mean @ unit @ mean, 0.0))
    if not np.isfinite(products).all() or length < _COLLINEAR or gram.count == 1:
        return Combination(tuple(weights), shifted=space == "task")
    mean = mean / length
    tangent = mean * length - (weights @ unit @ mean) * mean
    size = np.sqrt(np.maximum(tangent @ unit @ tangent, 0.0))
    direction = np.cos(size) * mean + np.sinc(size / np.pi) * tangent
    scale = weights @ norms
    return Combination(_from_units(direction * scale, norms), shifted=space == "task")


def _from_units(coefficients: Any, norms: Any) -> tuple[float, ...]:
    """Coefficients of the vectors from those of their unit vectors."""
    safe = np.where(norms > 0, norms, 1.0)
    return tuple(float(c) for c in np.where(norms > 0, coefficients / safe, 0.0))


@merge_method("karcher", title="Karcher mean", paper="https://arxiv.org/abs/2603.04972", base="none")
def karcher(
    gram: Gram,
    *,
    weight: Weight = 1.0,
    max_iter: Annotated[int, Range(1, 1000), "largest number of iterations"] = 10,
    tol: Annotated[float, Range(0, 1), "length of a step that ends the iteration"] = 1e-5,
) -> Combination:
    """Mean on the sphere: the direction with the least weighted sum of squared angles, times the mean norm.

    Iterated in the space of coefficients, in float64: nothing is read again. Inputs no longer than ``tol`` have no
    direction.

    Examples
    --------
    >>> from theta_nb.merges.tensors import merge_tensors
    >>> merge_tensors("karcher", [[1.0, 0], [0, 1]]).round(4).tolist()
    [0.7071, 0.7071]
    """
    weights = np.array(spread(weight, gram.count))
    if abs(weights.sum()) < 1e-8:
        raise MergeError(f"{gram.name or 'karcher'}: the weights sum to {weights.sum():g}")
    weights = weights / weights.sum()
    products, norms = gram.inputs, gram.norms()
    if not np.isfinite(products).all():
        return Combination(tuple(weights))
    valid = norms > tol
    if gram.count == 1 or not valid.any():
        return Combination((1.0,) if gram.count == 1 else (0.0,) * gram.count)
    unit = cosines(products)
    shares = np.where(valid, weights, 0.0)
    total = shares.sum()
    shares = shares / total if abs(total) >= 1e-8 else shares
    mean = _karcher(unit, shares, valid, max_iter, tol)
    return Combination(_from_units(mean * (weights @ norms), norms))


def _karcher(unit: Any, shares: Any, valid: Any, max_iter: int, tol: float) -> Any:
    """Coefficients of the mean direction over the unit vectors whose Gram matrix is ``unit``."""

    def length(c: Any) -> float:
        return float(np.sqrt(max(c @ unit @ c, 0.0)))

    mean = shares.copy()
    if length(mean) < tol:
        mean = np.where(np.arange(len(shares)) == int(np.argmax(valid)), 1.0, 0.0)
    else:
        mean /= length(mean)
    for _ in range(max_iter):
        cosine = np.clip(unit @ mean, -1, 1)
        theta = np.arccos(cosine)
        moved = valid & (theta >= tol)
        # The opposite point has no direction to go to; its sine is zero, and mergekit would divide by it.
        sine = np.where(np.sin(theta) > 1e-12, np.sin(theta), np.inf)
        pull = np.where(moved, shares * theta / sine, 0.0)
        tangent = pull - (pull @ cosine) * mean
        size = length(tangent)
        if size < tol:
            break
        mean = np.cos(size) * mean + np.sin(size) / size * tangent
        if (norm := length(mean)) > tol:
            mean /= norm
    return mean


@merge_method(
    "model_stock", title="Model stock", paper="https://arxiv.org/abs/2403.19522", base="needed", inputs=(2, 0)
)
def model_stock(gram: Gram, *, axis: Axis = "tensor") -> Combination:
    """Go from the ancestor to the mean of the inputs as far as the angle between the task vectors says.

    ``t = N c / (1 + (N - 1) c)`` with the mean cosine ``c``. The cosine is that of the paper at every scale; mergekit
    divides by no less than 1e-6 and so makes short task vectors (biases, norms) orthogonal. Where ``1 + (N - 1) c``
    vanishes, the ancestor is kept.

    Examples
    --------
    >>> from theta_nb.merges.tensors import merge_tensors
    >>> merge_tensors("model_stock", [[1.0, 1], [1, 0]], base=[0.0, 0]).round(4).tolist()
    [0.8284, 0.4142]
    """
    along = gram.by(axis)
    count = gram.count
    cosine = cosines(along.differences)
    upper = np.triu_indices(count, 1)
    mean = cosine[..., upper[0], upper[1]].mean(axis=-1)
    denominator = 1 + (count - 1) * mean
    singular = ~(np.abs(denominator) >= 1e-6)
    t = np.where(singular, 0.0, count * mean / np.where(singular, 1.0, denominator))
    return Combination(_placed(*[t / count] * count, axis=axis), shifted=True)
