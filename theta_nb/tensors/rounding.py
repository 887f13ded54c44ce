"""Between bit patterns of floats and float64 numbers: exact one way, one rounding the other, the same on every machine.

Patterns are read as unsigned integers, so that no NaN loses its payload on the way. Rounding is to nearest, ties to
even (IEEE 754), from float64 at once: through float32, as ml_dtypes does it, a bfloat16 or a float8 would be rounded
twice. What a manifest promises must not depend on the release of a library either.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theta_nb.tensors.dtypes import DType

__all__ = ["narrow", "realdtype", "widen"]

Floats = NDArray[np.float64]
_REAL = {"complex64": "float32", "complex128": "float64"}


def realdtype(dtype: DType) -> str | None:
    """Name of the real float type of which numbers of ``dtype`` consist, or ``None`` where they are not floats.

    Examples
    --------
    >>> from theta_nb.tensors.dtypes import dtype_named
    >>> [realdtype(dtype_named(name)) for name in ("bfloat16", "complex64", "int8", "float4_e2m1")]
    ['bfloat16', 'float32', None, None]
    """
    name = _REAL.get(dtype.name, dtype.name)
    return name if name in _REAL.values() or (dtype.kind == "f" and dtype.numpy) else None


def widen(patterns: NDArray[Any], name: str) -> Floats:
    """Exact float64 values of bit patterns.

    Parameters
    ----------
    patterns
        Unsigned integers of the type's width.
    name
        A real float type with a NumPy counterpart.

    Examples
    --------
    >>> widen(np.array([0x3F80, 0xC000], np.uint16), "bfloat16")
    array([ 1., -2.])
    """
    if name == "float64":
        same: Floats = patterns.view(np.float64)
        return same
    if patterns.dtype.itemsize == 1:
        return np.take(_table(name), patterns)
    with np.errstate(invalid="ignore"):  # a signalling NaN is a number like others here
        if name == "bfloat16":
            return (patterns.astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)
        return patterns.view(_numpy(name)).astype(np.float64)


def narrow(values: Floats, name: str, old: NDArray[Any]) -> NDArray[Any]:
    """Bit patterns of float64 values.

    Parameters
    ----------
    values
        What to round.
    name
        A real float type with a NumPy counterpart.
    old
        Patterns that stay where they are NaNs: which NaN arithmetic makes of a NaN differs between machines. Other NaNs
        become the quiet one of the type.

    Types without infinities have NaN in their place, and ``float8_e8m0fnu`` also in that of zero and negative numbers.

    Examples
    --------
    >>> [hex(p) for p in narrow(np.array([1.0, -2.0, np.inf]), "bfloat16", np.zeros(3, np.uint16))]
    ['0x3f80', '0xc000', '0x7f80']
    """
    unsigned = old.dtype
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        patterns: NDArray[Any]
        if name == "bfloat16":
            patterns = _to_bfloat16(values)
        elif unsigned.itemsize == 1:
            patterns = _to_float8(values, name)
        else:
            patterns = values.astype(_numpy(name)).view(unsigned)
    undefined = np.isnan(values)
    if undefined.any():
        quiet = np.array([np.nan]).astype(_numpy(name)).view(unsigned)
        sign = unsigned.type(1 << (8 * unsigned.itemsize - 1))
        was = np.isnan(widen(old, name))
        # Types without infinities may have their only NaN where the sign is set.
        quiet = quiet if unsigned.itemsize == 1 else quiet & ~sign
        patterns = np.where(undefined, np.where(was, old, quiet), patterns).astype(unsigned)
    return patterns


def _to_bfloat16(values: Floats) -> NDArray[np.uint16]:
    bits = _to_odd(values)
    carry = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    rounded = np.where(np.isinf(values), bits, bits + carry)
    return (rounded >> np.uint32(16)).astype(np.uint16)


def _to_float8(values: Floats, name: str) -> NDArray[np.uint8]:
    bits = _to_odd(values)
    short = (bits >> np.uint32(16)) | ((bits & np.uint32(0xFFFF)) != 0)
    found: NDArray[np.uint8] = np.take(_float8_of_bfloat16(name), short)
    return found


def _to_odd(values: Floats) -> NDArray[np.uint32]:
    """Patterns of float32, rounded to odd: the last bit says whether anything was lost, so rounding again is right."""
    single = values.astype(np.float32)
    bits = single.view(np.uint32)
    finite = np.isfinite(values)
    wide = single.astype(np.float64)
    lost = (wide != values) & finite
    # Towards zero where it was rounded away from it.
    bits = np.where(lost & (np.abs(wide) > np.abs(values)), bits - np.uint32(1), bits)
    return np.where(lost, bits | np.uint32(1), bits)


@cache
def _float8_of_bfloat16(name: str) -> NDArray[np.uint8]:
    """The float8 nearest to every bfloat16, halfway the even one."""
    values = widen(np.arange(2**16, dtype=np.uint16), "bfloat16")
    unsigned = name == "float8_e8m0fnu"
    numbers = _table(name)[: 256 if unsigned else 128]
    numbers = numbers[np.isfinite(numbers)]
    beyond = 2 * numbers[-1] if unsigned else 2 * numbers[-1] - numbers[-2]
    middle = (numbers + np.append(numbers[1:], beyond)) / 2
    middle[1::2] = np.nextafter(middle[1::2], 0)  # from there on it is the next one, which is even
    # The pattern behind that of the largest number is the infinity, or else the NaN.
    patterns = np.searchsorted(middle, np.abs(values)).astype(np.uint8)
    if unsigned:
        return np.where(values > 0, patterns, np.uint8(255))
    negative = np.signbit(values)
    if name.endswith("fnuz"):  # what would be the negative zero is the NaN
        negative &= patterns != 0
    return np.where(negative, patterns | np.uint8(128), patterns)


@cache
def _table(name: str) -> Floats:
    table: Floats = np.arange(256, dtype=np.uint8).view(_numpy(name)).astype(np.float64)
    return table


def _numpy(name: str) -> np.dtype[Any]:
    from theta_nb.tensors.dtypes import dtype_named

    return dtype_named(name).to_numpy()
