"""Singular values of a difference."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from theta_nb.errors import CheckpointError
from theta_nb.tensors.lanes import numbers_in, numbers_of, parts_of
from theta_nb.tensors.spec import Shape, TensorSpec
from theta_nb.tensors.spectrum import Spectrum, spectrum_of_matrix

__all__ = ["spectrum_of"]

_MAX_NUMEL = 2**29
"""Larger differences are refused: the matrix is held in memory as float32."""


def spectrum_of(
    pairs: Iterable[tuple[memoryview, memoryview]],
    old: TensorSpec,
    new: TensorSpec,
    shape: Shape,
    *,
    count: int,
    seed: int,
) -> Spectrum:
    """Spectrum of new minus old.

    Parameters
    ----------
    pairs
        Blocks of the elements, in row-major order.
    old, new
        Their dtypes.
    shape
        Of what is compared; its first dimension is seen against all others.
    count
        Singular values wanted of a large matrix.
    seed
        Of the randomized method.

    Raises
    ------
    CheckpointError
        If there is no matrix of real, finite numbers, or it is too large.
    """
    numel = math.prod(shape)
    if parts_of(old.dtype) != 1 or parts_of(new.dtype) != 1:
        raise CheckpointError(f"{new.name} is complex, and spectra are of real matrices")
    if len(shape) < 2 or not numel:
        raise CheckpointError(f"{new.name} of shape {list(shape)} is no matrix", hint="Choose a weight.")
    if numel > _MAX_NUMEL:
        raise CheckpointError(f"{new.name} has {numel} elements, more than the {_MAX_NUMEL} that fit in memory")
    matrix = np.empty(numel, np.float32)
    position = 0
    for before, after in pairs:
        size = numbers_in(after, new.dtype)
        space = [np.empty(size, np.float64) for _ in range(2)]
        delta = _signed(numbers_of(after, new.dtype, space[0]), new) - _signed(
            numbers_of(before, old.dtype, space[1]), old
        )
        matrix[position : position + size] = delta
        position += size
    if not np.isfinite(matrix).all():
        raise CheckpointError(f"{new.name} has NaN or Inf, so its difference has no spectrum")
    return spectrum_of_matrix(matrix.reshape(shape[0], -1), count=count, seed=seed)


def _signed(numbers: npt.NDArray[np.float64], spec: TensorSpec) -> npt.NDArray[np.float64]:
    return -numbers if spec.neg else numbers
