"""How many directions a change has: the singular values of a matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from theta_nb.tensors.spec import Shape

__all__ = ["Spectrum", "spectrum_of_matrix"]


@dataclass(frozen=True, slots=True)
class Spectrum:
    """The largest singular values of a matrix, and ranks that follow from them.

    Parameters
    ----------
    singular_values
        In descending order: all of a small matrix, the largest ones of a large one.
    shape
        Of the matrix: a tensor of more dimensions is seen as its first one against all others.
    stable_rank
        ‖A‖²/σ₁² (Frobenius norm over the largest singular value): exact up to the accuracy of σ₁.
    effective_rank
        exp(H(p)) with p the singular values over their sum and H the entropy (Roy & Vetterli, EUSIPCO 2007). Where not
        all singular values are known, the rest of the norm is taken as spread evenly over the others: an upper bound.
    exact
        Whether all singular values were computed; else by a randomized, seeded method (Halko, Martinsson & Tropp,
        SIAM Review 2011).
    """

    singular_values: tuple[float, ...]
    shape: Shape
    stable_rank: float
    effective_rank: float
    exact: bool = True

    def __repr__(self) -> str:
        return (
            f"Spectrum(shape={self.shape}, singular_values=<{len(self.singular_values)}, largest "
            f"{max(self.singular_values, default=0):.4g}>, stable_rank={self.stable_rank:.4g}, "
            f"effective_rank={self.effective_rank:.4g}, exact={self.exact})"
        )


_EXACT = 384
"""Matrices whose shorter side is at most this long are decomposed completely."""


def spectrum_of_matrix(matrix: npt.NDArray[np.float32], *, count: int = 64, seed: int = 0) -> Spectrum:
    """Singular values of a real matrix.

    Parameters
    ----------
    matrix
        Of shape (m, n), finite.
    count
        How many singular values are wanted where the matrix is large.
    seed
        Of the random directions.

    Examples
    --------
    >>> spectrum = spectrum_of_matrix(np.diag([3.0, 4.0]).astype("float32"))
    >>> spectrum
    Spectrum(shape=(2, 2), singular_values=<2, largest 4>, stable_rank=1.562, effective_rank=1.98, exact=True)
    >>> spectrum.singular_values, spectrum.stable_rank
    ((4.0, 3.0), 1.5625)
    """
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    square = sum(float(np.sum(np.square(rows, dtype=np.float64))) for rows in np.array_split(matrix, _parts(matrix)))
    exact = tall.shape[1] <= max(_EXACT, count)
    values = _all(tall) if exact else _largest(tall, count, seed)
    known = tuple(float(value) for value in values)
    if not square:
        return Spectrum(known, matrix.shape, 0.0, 0.0, exact)
    rest = 0.0 if exact else max(0.0, square - math.fsum(value**2 for value in known))
    return Spectrum(
        known, matrix.shape, square / known[0] ** 2, _effective_rank(known, rest, tall.shape[1] - len(known)), exact
    )


def _parts(matrix: npt.NDArray[np.float32]) -> int:
    return max(1, matrix.size // 2**20)


def _all(tall: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """All singular values, through a QR decomposition: its triangle has the same ones and is small."""
    triangle = np.linalg.qr(tall.astype(np.float64), mode="r")
    found: npt.NDArray[np.float64] = np.linalg.svd(triangle, compute_uv=False)
    return found


def _largest(tall: npt.NDArray[np.float32], count: int, seed: int) -> npt.NDArray[np.float64]:
    """The largest singular values, by a random range that two power iterations turn towards them."""
    random = np.random.default_rng(seed)
    directions = random.standard_normal((tall.shape[1], min(count + 16, tall.shape[1])), dtype=np.float32)
    scale = np.float32(max(float(tall.max()), -float(tall.min()))) or np.float32(1)
    scaled = tall / scale
    for _ in range(2):
        range_, _ = np.linalg.qr(scaled @ directions)
        directions, _ = np.linalg.qr(scaled.T @ range_)
    found: npt.NDArray[np.float64] = np.linalg.svd((scaled @ directions).astype(np.float64), compute_uv=False)
    return found[:count] * float(scale)


def _effective_rank(known: tuple[float, ...], rest: float, missing: int) -> float:
    values = [value for value in known if value > 0]
    if rest and missing:
        values += [min(math.sqrt(rest / missing), known[-1])] * missing
    total = math.fsum(values)
    return math.exp(-math.fsum(value / total * math.log(value / total) for value in values))
