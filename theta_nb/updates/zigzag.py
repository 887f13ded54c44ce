"""Differences of bit patterns as small unsigned integers.

Patterns are read as little-endian unsigned integers of 1, 2, 4 or 8 bytes and subtracted modulo 2^n. Neighbouring
floats of one sign have neighbouring patterns, so a small relative change is a small integer, and NaNs, infinities and
negative zeros are integers like others: nothing is lost. The zigzag of a difference d, (d << 1) ^ -(d >> (n - 1)), maps
0, -1, 1, -2, … to 0, 1, 2, 3, …, so that the high bits are zero for either sign (Protocol Buffers, "sint").
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["add_zigzag", "patterns", "subtract_zigzag"]

_BLOCK_NBYTES = 2**18  # the operands of one block stay in the cache of a core

Patterns = NDArray[Any]


def patterns(data: bytes | bytearray | memoryview, width: int) -> Patterns:
    """Bit patterns of ``width`` bytes each, as unsigned integers; a view, writable where the data are."""
    return np.frombuffer(data, dtype=np.dtype(f"<u{width}"))


def subtract_zigzag(new: Patterns, old: Patterns, out: Patterns) -> None:
    """Put the zigzag of ``new - old`` into ``out``; all of one length and width.

    Examples
    --------
    >>> new, old = np.array([5, 4, 0], "<u2"), np.array([5, 5, 65535], "<u2")
    >>> out = np.empty_like(new)
    >>> subtract_zigzag(new, old, out)
    >>> out
    array([0, 1, 2], dtype=uint16)
    """
    width = out.dtype.itemsize
    top = out.dtype.type(8 * width - 1)
    one = out.dtype.type(1)
    step = _BLOCK_NBYTES // width
    sign = np.empty(min(step, len(out)), out.dtype)
    for start in range(0, len(out), step):
        d = out[start : start + step]
        s = sign[: len(d)]
        np.subtract(new[start : start + step], old[start : start + step], out=d)
        np.right_shift(d, top, out=s)
        np.negative(s, out=s)
        np.left_shift(d, one, out=d)
        np.bitwise_xor(d, s, out=d)


def add_zigzag(dest: Patterns, zigzag: Patterns) -> None:
    """Add differences to ``dest`` in place; ``zigzag`` is overwritten.

    Examples
    --------
    >>> dest = np.array([5, 5, 65535], "<u2")
    >>> add_zigzag(dest, np.array([0, 1, 2], "<u2"))
    >>> dest
    array([5, 4, 0], dtype=uint16)
    """
    one = dest.dtype.type(1)
    step = _BLOCK_NBYTES // dest.dtype.itemsize
    sign = np.empty(min(step, len(dest)), dest.dtype)
    for start in range(0, len(dest), step):
        z = zigzag[start : start + step]
        s = sign[: len(z)]
        np.bitwise_and(z, one, out=s)
        np.negative(s, out=s)
        np.right_shift(z, one, out=z)
        np.bitwise_xor(z, s, out=z)
        part = dest[start : start + step]
        np.add(part, z, out=part)
