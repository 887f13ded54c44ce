"""Raw bytes of a block as numbers to compute with: float32 where that holds every value, else float64.

========================================================  ==========================================================
dtype                                                     numbers
========================================================  ==========================================================
float32, float16, bfloat16, 8-bit floats                  float32, exact
float64                                                   as they are
complex                                                   real and imaginary parts, one after the other
bool, integers up to 16 bits, qint8, quint8               float32, exact; the stored integers, not what they stand for
32-bit integers, qint32                                   float64, exact; likewise
int64, uint64                                             float64, rounded; differences are taken before rounding
float4_e2m1, float4_e2m1fn_x2                             float32, exact; the low half of a byte comes first
float6_*, quint4x2, quint2x4                              none: how elements are packed differs between writers
========================================================  ==========================================================
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from theta_nb.errors import CheckpointError
from theta_nb.tensors.dtypes import DType, dtype_named

__all__ = ["BLOCK_NUMEL", "bits_of", "is_single", "numbers_in", "numbers_of", "parts_of"]

BLOCK_NUMEL = 524288
"""Real numbers in a block. Smaller ones would fit a core's own cache, and yet be slower: between two NumPy operations a
thread asks for the interpreter's lock, and waiting for another thread costs more than the cache saves."""

Array = npt.NDArray[Any]

_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
_STORED = {"qint8": "int8", "quint8": "uint8", "qint32": "int32", "complex32": "float16"}
_OPAQUE = frozenset({"float6_e2m3", "float6_e3m2", "quint4x2", "quint2x4"})
_FLOAT4 = frozenset({"float4_e2m1", "float4_e2m1fn_x2"})


def parts_of(dtype: DType) -> int:
    """Real numbers per element.

    Raises
    ------
    CheckpointError
        If elements of the dtype cannot be told apart.

    Examples
    --------
    >>> parts_of(dtype_named("complex64")), parts_of(dtype_named("bfloat16"))
    (2, 1)
    """
    if dtype.name in _OPAQUE:
        raise CheckpointError(f"{dtype.name} has no numbers that can be read without the library that packed them")
    return 2 if dtype.kind == "c" else 1


@cache
def is_single(dtype: DType) -> bool:
    """Whether float32 holds every value of the dtype."""
    if dtype.kind in "biuq":
        return dtype.bits <= 16
    return dtype.bits <= (64 if dtype.kind == "c" else 32)


def numbers_in(raw: memoryview, dtype: DType) -> int:
    """How many real numbers a block holds."""
    return len(raw) * 2 if dtype.name in _FLOAT4 else len(raw) // dtype.itemsize * parts_of(dtype)


def bits_of(raw: memoryview, dtype: DType) -> Array:
    """The bit patterns of the real numbers of a block, as unsigned integers; the four bits of packed ones unpacked."""
    if dtype.name in _FLOAT4:
        return _nibbles(raw)
    return np.frombuffer(raw, _UNSIGNED[dtype.itemsize // parts_of(dtype)])


def numbers_of(raw: memoryview, dtype: DType, out: Array) -> Array:
    """The real numbers of a block.

    Parameters
    ----------
    raw
        Whole elements.
    dtype
        What they are.
    out
        Where to put them, float32 (only if :func:`is_single`) or float64, at least as long.

    Returns
    -------
    numpy.ndarray
        Of the dtype of ``out``: a part of it, or the raw bytes themselves where they are such numbers.
    """
    name = _STORED.get(dtype.name, dtype.name)
    if name in _FLOAT4:
        return _looked_up(_nibbles(raw), name, out)
    if dtype.bits == 8 and dtype.kind == "f":
        return _looked_up(np.frombuffer(raw, np.uint8), name, out)
    if name == "bfloat16":
        return _from_bfloat16(raw, out)
    if dtype.kind == "c":
        name = f"float{dtype.bits // 2}"
    if name == "float16" and out.dtype == np.float32:
        return _from_float16(raw, out)
    stored = np.frombuffer(raw, "u1" if name == "bool" else name)
    if stored.dtype == out.dtype:
        return stored
    found = out[: len(stored)]
    np.copyto(found, stored != 0 if name == "bool" else stored)
    return found


def _from_bfloat16(raw: memoryview, out: Array) -> Array:
    """A bfloat16 is the upper half of a float32; the cast of ml_dtypes is that shift in one pass instead of two."""
    import ml_dtypes

    stored = np.frombuffer(raw, np.uint16).view(ml_dtypes.bfloat16)
    found = out[: len(stored)]
    np.copyto(found, stored)
    return found


def _from_float16(raw: memoryview, out: Array) -> Array:
    """Move exponent and mantissa into place and correct the exponent's bias: several times as fast as a cast."""
    stored = np.frombuffer(raw, np.int16)
    found = out[: len(stored)]
    wide = found.view(np.int32)
    np.copyto(wide, stored)
    np.left_shift(wide, 13, out=wide)
    np.bitwise_and(wide, np.int32(-0x70002000), out=wide)  # without the copies of the sign bit
    np.multiply(found, np.float32(2.0**112), out=found)
    if len(found) and not (found.max() < 65536 and found.min() > -65536):  # what came out so large was Inf or NaN
        np.copyto(found, stored.view(np.float16))
    return found


def _looked_up(codes: Array, name: str, out: Array) -> Array:
    found = out[: len(codes)]
    if out.dtype == np.float32:
        np.take(_table(name), codes, out=found, mode="clip")
    else:
        np.copyto(found, _table(name)[codes])
    return found


@cache
def _table(name: str) -> npt.NDArray[np.float32]:
    """Value of every code of a float of 8 bits or fewer."""
    import ml_dtypes

    codes = np.arange(256, dtype=np.uint8)
    if name in _FLOAT4:
        # A code of this type is a whole byte in ml_dtypes, the four bits in its lower half.
        small: npt.NDArray[np.float32] = codes[:16].view(ml_dtypes.float4_e2m1fn).astype(np.float32)
        return small
    with np.errstate(invalid="ignore"):
        table: npt.NDArray[np.float32] = codes.view(dtype_named(name).to_numpy()).astype(np.float32)
    return table


def _nibbles(raw: memoryview) -> npt.NDArray[np.uint8]:
    stored = np.frombuffer(raw, np.uint8)
    codes = np.empty((len(stored), 2), np.uint8)
    np.bitwise_and(stored, 15, out=codes[:, 0])
    np.right_shift(stored, 4, out=codes[:, 1])
    return codes.reshape(-1)
