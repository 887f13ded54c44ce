"""``low-rank``: old + scale * (R @ C), as of LoRA (https://arxiv.org/abs/2106.09685) and git-theta.

Evaluated in float64, one rank-1 term after the other, each product and each sum an operation of its own, then rounded
once to the dtype: the same bits whatever the number of threads or the instructions of the processor. Where the old
number is NaN it stays.

The payload, little-endian: index of the dtype (1 byte), a flag for a correction (1), columns (4 bytes), rank (4),
scale (float64); R (rows by rank) and C (rank by columns) as in :mod:`theta_nb.updates.factors`; then, if flagged, a
payload of ``delta`` that turns the rounded result into the exact one.
"""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theta_nb.errors import CorruptObjectError
from theta_nb.tensors.rounding import narrow, realdtype, widen
from theta_nb.updates.delta import DELTA
from theta_nb.updates.factors import dump_array, load_array
from theta_nb.updates.table import Numbers
from theta_nb.updates.zigzag import patterns

__all__ = [
    "LOW_RANK",
    "RESULT_DTYPES",
    "LowRank",
    "add_product",
    "dump_low_rank",
    "most_factors",
    "pattern_width",
]

_HEADER = struct.Struct("<BBIId")
RESULT_DTYPES = ("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz",
           "float8_e5m2fnuz", "float8_e8m0fnu")  # fmt: skip
_BLOCK = 2**15  # elements that are worked on at a time: they stay in the cache of a core


def dump_low_rank(
    dtype: str,
    left: NDArray[Any],
    right: NDArray[Any],
    factor_dtype: str,
    *,
    scale: float = 1.0,
    correction: bytes | None = None,
) -> bytes:
    """Payload for a chunk.

    Parameters
    ----------
    dtype
        Real float dtype of the chunk, one of :data:`RESULT_DTYPES`.
    left, right
        R, of shape (rows, rank), and C, of shape (rank, columns), as bit patterns of ``factor_dtype``.
    scale
        Factor of the product (LoRA's alpha / rank).
    correction
        Payload of ``delta`` to be applied afterwards.
    """
    rank, columns = right.shape
    header = _HEADER.pack(RESULT_DTYPES.index(dtype), correction is not None, columns, rank, scale)
    return header + dump_array(left, factor_dtype) + dump_array(right, factor_dtype) + (correction or b"")


class LowRank:
    """The update type; ``encode`` looks for a small rank by a randomized singular value decomposition.

    Callers with threads of their own keep BLAS from starting more (:mod:`theta_nb.updates.blas`).

    Parameters
    ----------
    rank
        Most ranks to try; ``None`` for a quarter of where a factorisation stops to pay.
    tolerance
        Singular values below this share of the largest are left to the correction.
    """

    name = "low-rank"

    def __init__(self, rank: int | None = None, tolerance: float = 1e-3) -> None:
        self.rank = rank
        self.tolerance = tolerance

    def encode(self, old: memoryview, new: memoryview, numbers: Numbers) -> bytes | None:
        """Factors of the difference and an exact correction; ``None`` where that is longer than the chunk."""
        name = realdtype(numbers.dtype)
        width, columns = numbers.width, numbers.columns
        if name not in RESULT_DTYPES or numbers.dtype.kind != "f" or len(old) != len(new):
            return None
        if not len(new) or len(new) % (width * columns) or min(len(new) // width // columns, columns) < 2:
            return None
        was, becomes = patterns(old, width), patterns(new, width)
        with np.errstate(invalid="ignore", over="ignore"):
            difference = (widen(becomes, name) - widen(was, name)).reshape(-1, columns)
        if not np.isfinite(difference).all():
            return None
        try:
            with np.errstate(invalid="ignore", over="ignore", under="ignore"):
                left, right = _factors(difference, self.rank, self.tolerance)
        except np.linalg.LinAlgError:
            return None
        # Differences near the end of float64's range have no factors in float32.
        if not right.shape[0] or not (np.isfinite(left).all() and np.isfinite(right).all()):
            return None
        factors = dump_low_rank(name, left.view(np.uint32), right.view(np.uint32), "float32")
        approximate = bytearray(old)
        self.apply(memoryview(factors), memoryview(approximate))
        correction = None
        if approximate != new:
            correction = DELTA.encode(memoryview(approximate), new, numbers)
            if correction is None:
                return None
        payload = dump_low_rank(name, left.view(np.uint32), right.view(np.uint32), "float32", correction=correction)
        return payload if len(payload) < len(new) else None

    def apply(self, payload: memoryview, dest: memoryview) -> None:
        """Add the product to the previous numbers, then the correction."""
        if len(payload) < _HEADER.size:
            raise CorruptObjectError("a low-rank update is shorter than its header")
        index, corrected, columns, rank, scale = _HEADER.unpack_from(payload)
        if index >= len(RESULT_DTYPES) or corrected > 1 or not math.isfinite(scale):
            raise CorruptObjectError("a low-rank update has a header that cannot be")
        name = RESULT_DTYPES[index]
        width = pattern_width(name)
        rows = len(dest) // (width * columns) if columns else 0
        if (
            not rows
            or rows * columns * width != len(dest)
            or not 0 < rank * (rows + columns) <= most_factors(len(dest))
        ):
            raise CorruptObjectError(
                f"a low-rank update of rank {rank} with {columns} columns does not fit {len(dest)} bytes"
            )
        left, rest = load_array(payload[_HEADER.size :], rows * rank)
        right, rest = load_array(rest, rank * columns)
        if bool(len(rest)) != bool(corrected):
            raise CorruptObjectError("a low-rank update is longer or shorter than it says")
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = left.reshape(rows, rank) * np.float64(scale)
        add_product(patterns(dest, width).reshape(rows, columns), name, scaled, right.reshape(rank, columns))
        if corrected:
            DELTA.apply(rest, dest)


def add_product(numbers: NDArray[Any], name: str, left: NDArray[np.float64], right: NDArray[np.float64]) -> None:
    """Add ``left @ right`` to numbers in place, in the fixed order of the module's description.

    Parameters
    ----------
    numbers
        Bit patterns, of shape (rows, columns).
    name
        Real float dtype that they are of.
    left, right
        Of shape (rows, rank), scaled already, and (rank, columns).
    """
    rows, columns = numbers.shape
    tall, wide = max(1, _BLOCK // columns), min(columns, _BLOCK)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        for top in range(0, rows, tall):
            for first in range(0, columns, wide):
                block = numbers[top : top + tall, first : first + wide]
                old = np.ascontiguousarray(block)
                total = widen(old, name).copy()
                term = np.empty_like(total)
                for k in range(right.shape[0]):
                    np.multiply(left[top : top + tall, k, None], right[k, None, first : first + wide], out=term)
                    np.add(total, term, out=total)
                block[...] = narrow(total, name, old)


def most_factors(nbytes: int) -> int:
    """How many numbers the factors of a chunk of ``nbytes`` bytes may have: more never pay, and would take memory."""
    return nbytes // 2 + 4096


def pattern_width(name: str) -> int:
    """Bytes of a number of one of :data:`RESULT_DTYPES`."""
    return {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}.get(name, 1)


def _factors(
    difference: NDArray[np.float64], most: int | None, tolerance: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Float32 factors of a matrix (Halko, Martinsson and Tropp, https://arxiv.org/abs/0909.4061, algorithm 4.4)."""
    rows, columns = difference.shape
    pays = rows * columns // (rows + columns)
    limit = min(rows, columns, most if most is not None else max(1, pays // 4))
    width = min(rows, columns, limit + 8)
    sketch = difference @ np.random.default_rng(0).standard_normal((columns, width))
    for _ in range(2):
        sketch = np.linalg.qr(sketch)[0]
        sketch = difference @ np.linalg.qr(difference.T @ sketch)[0]
    basis = np.linalg.qr(sketch)[0]
    u, s, vt = np.linalg.svd(basis.T @ difference, full_matrices=False)
    kept = int((s > tolerance * s[0]).sum()) if len(s) and s[0] > 0 else 0
    kept = min(kept, limit)
    root = np.sqrt(s[:kept])
    left = np.ascontiguousarray(((basis @ u[:, :kept]) * root).astype(np.float32))
    right = np.ascontiguousarray((root[:, None] * vt[:kept]).astype(np.float32))
    return left, right


LOW_RANK = LowRank()
