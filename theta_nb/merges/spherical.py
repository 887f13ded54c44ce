"""Averages on the sphere, and the stock average: their coefficients follow from the Gram matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np

from theta_nb.errors import MergeError
from theta_nb.merges.gram import Combination, Gram, cosines
from theta_nb.merges.method import merge_method
from theta_nb.merges.parameters import Range, Weight, spread

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
    return Combination((first, second))


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
        return coefficients
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
    weights = _shares(weight, gram, "multislerp")
    products = gram.space(space)
    unit, norms = cosines(products), _norms(products)
    # Directions are written as coefficients of the unit vectors; a zero vector has none.
    mean = np.where(norms > 0, weights, 0.0)
    length = _length(mean, unit)
    flat = ~(length >= _COLLINEAR) | ~np.isfinite(products).all(axis=(-2, -1)) | (gram.count == 1)
    with np.errstate(all="ignore"):
        mean = mean / length[..., None]
        along = np.einsum("i,...ij,...j->...", weights, unit, mean)[..., None]
        tangent = mean * length[..., None] - along * mean
        size = _length(tangent, unit)[..., None]
        direction = np.cos(size) * mean + np.sinc(size / np.pi) * tangent
        scaled = _from_units(direction * (norms @ weights)[..., None], norms)
    return _listed(np.where(flat[..., None], weights, scaled), shifted=space == "task")


def _shares(weight: float | Sequence[float], gram: Gram, method: str) -> Any:
    """Weights that sum to one."""
    weights = np.array(spread(weight, gram.count))
    if abs(weights.sum()) < 1e-8:
        raise MergeError(f"{gram.name or method}: the weights sum to {weights.sum():g}, and cannot be normalized")
    return weights / weights.sum()


def _norms(products: Any) -> Any:
    return np.sqrt(np.maximum(np.diagonal(products, axis1=-2, axis2=-1), 0))


def _length(coefficients: Any, products: Any) -> Any:
    """Norm of a combination of vectors with the given inner products."""
    square = np.einsum("...i,...ij,...j->...", coefficients, products, coefficients)
    return np.sqrt(np.maximum(square, 0.0))


def _from_units(coefficients: Any, norms: Any) -> Any:
    """Coefficients of the vectors from those of their unit vectors."""
    return np.where(norms > 0, coefficients / np.where(norms > 0, norms, 1.0), 0.0)


def _listed(coefficients: Any, *, shifted: bool = False) -> Combination:
    """A combination from an array whose last axis counts the inputs."""
    return Combination(tuple(coefficients[..., k] for k in range(coefficients.shape[-1])), shifted=shifted)


@merge_method("karcher", title="Karcher mean", paper="https://arxiv.org/abs/2603.04972", base="none")
def karcher(
    gram: Gram,
    *,
    weight: Weight = 1.0,
    max_iter: Annotated[int, Range(1, 1000, tuned=False), "largest number of iterations"] = 10,
    tol: Annotated[float, Range(0, 1, tuned=False), "length of a step that ends the iteration"] = 1e-5,
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
    weights = _shares(weight, gram, "karcher")
    if gram.count == 1:
        return Combination((1.0,))
    products, norms = gram.inputs, gram.norms()
    valid = norms > tol
    shares = np.where(valid, weights, 0.0)
    total = shares.sum(axis=-1, keepdims=True)
    shares = np.divide(shares, total, out=shares.copy(), where=np.abs(total) >= 1e-8)
    with np.errstate(all="ignore"):
        mean = _karcher(cosines(products), shares, valid, max_iter, tol)
        scaled = _from_units(mean * (norms @ weights)[..., None], norms)
    flat: Any = ~np.isfinite(products).all(axis=(-2, -1))
    some: Any = valid.any(axis=-1)
    made = np.where(some[..., None], scaled, 0.0)
    return _listed(np.where(flat[..., None], weights, made))


def _karcher(unit: Any, shares: Any, valid: Any, max_iter: int, tol: float) -> Any:
    """Coefficients of the mean direction over the unit vectors whose Gram matrix is ``unit``."""
    length = _length(shares, unit)[..., None]
    first = np.arange(shares.shape[-1]) == np.argmax(valid, axis=-1)[..., None]
    mean = np.where(length < tol, first, shares / length)
    going = np.ones(mean.shape[:-1], bool)[..., None]
    for _ in range(max_iter):
        cosine = np.clip(np.einsum("...ij,...j->...i", unit, mean), -1, 1)
        theta = np.arccos(cosine)
        sine = np.sin(theta)
        # The opposite point has no direction to go to; its sine is zero, and mergekit would divide by it.
        moved = valid & (theta >= tol) & (sine > 1e-12)
        pull = np.where(moved, shares * theta / sine, 0.0)
        tangent = pull - (pull * cosine).sum(axis=-1, keepdims=True) * mean
        size = _length(tangent, unit)[..., None]
        going = going & (size >= tol)
        if not going.any():
            break
        step = np.cos(size) * mean + np.sin(size) / size * tangent
        norm = _length(step, unit)[..., None]
        mean = np.where(going, np.where(norm > tol, step / norm, step), mean)
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
