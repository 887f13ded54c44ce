"""Between bit patterns of floats and float64 numbers: exact one way, one rounding the other, the same on every machine.

Patterns are read as unsigned integers, so that no NaN loses its payload on the way. Rounding is to nearest, ties to
even (IEEE 754), from float64 at once: through float32, a bfloat16 would be rounded twice.
"""

from __future__ import annotations

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
    if name == "bfloat16":
        return (patterns.astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)
    if patterns.dtype.itemsize == 1:
        table: Floats = np.arange(256, dtype=np.uint8).view(_numpy(name)).astype(np.float64)
        return np.take(table, patterns)
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

    Examples
    --------
    >>> [hex(p) for p in narrow(np.array([1.0, -2.0, np.inf]), "bfloat16", np.zeros(3, np.uint16))]
    ['0x3f80', '0xc000', '0x7f80']
    """
    unsigned = old.dtype
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        patterns = _to_bfloat16(values) if name == "bfloat16" else values.astype(_numpy(name)).view(unsigned)
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
    """Round to odd in float32 first: its last bit then says whether anything was lost, so rounding again is right."""
    single = values.astype(np.float32)
    bits = single.view(np.uint32)
    lost = single.astype(np.float64) != values
    away = np.abs(single.astype(np.float64)) > np.abs(values)
    # Towards zero where it was rounded away from it; then set the last bit where anything was lost.
    bits = np.where(lost & away & np.isfinite(values), bits - np.uint32(1), bits)
    bits = np.where(lost & np.isfinite(values), bits | np.uint32(1), bits)
    carry = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    infinite = np.isinf(values)
    rounded = np.where(infinite, bits, bits + carry)
    return (rounded >> np.uint32(16)).astype(np.uint16)


def _numpy(name: str) -> np.dtype[Any]:
    from theta_nb.tensors.dtypes import dtype_named

    return dtype_named(name).to_numpy()
