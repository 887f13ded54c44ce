"""``ia3``: every number times a scaling that is one for all rows or one for all columns.

As of (IA)³ (https://arxiv.org/abs/2205.05638) and git-theta. Evaluated in float64, one product for every number, then
rounded once to the dtype. Where the old number is NaN it stays.

The payload, little-endian: index of the dtype as in :mod:`theta_nb.updates.low_rank` (1 byte), whether the scaling is
by row (1) or by column (0) (1 byte), columns (4 bytes), then the scaling as in :mod:`theta_nb.updates.factors`.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theta_nb.errors import CorruptObjectError
from theta_nb.tensors.rounding import narrow, realdtype, widen
from theta_nb.updates.factors import dump_array, load_array
from theta_nb.updates.low_rank import RESULT_DTYPES, pattern_width
from theta_nb.updates.table import Numbers
from theta_nb.updates.zigzag import patterns

__all__ = ["IA3", "dump_ia3"]

_HEADER = struct.Struct("<BBI")
_BLOCK = 2**15


def dump_ia3(dtype: str, scaling: NDArray[Any], factor_dtype: str, *, by_row: bool, columns: int) -> bytes:
    """Payload for a chunk.

    Parameters
    ----------
    dtype
        Real float dtype of the chunk.
    scaling
        One number for each row, or for each column, as bit patterns of ``factor_dtype``.
    by_row
        Which of both.
    columns
        Elements of a row.
    """
    return _HEADER.pack(RESULT_DTYPES.index(dtype), by_row, columns) + dump_array(scaling, factor_dtype)


class _Ia3:
    name = "ia3"

    def encode(self, old: memoryview, new: memoryview, numbers: Numbers) -> bytes | None:
        """The scaling by row or column that gives exactly ``new``, if there is one; in float32 where that suffices."""
        name = realdtype(numbers.dtype)
        width, columns = numbers.width, numbers.columns
        if name not in RESULT_DTYPES or numbers.dtype.kind != "f" or len(old) != len(new):
            return None
        if not len(new) or len(new) % (width * columns):
            return None
        was = widen(patterns(old, width), name).reshape(-1, columns)
        becomes = patterns(new, width).reshape(-1, columns)
        for by_row in (False, True):
            scaling = _scaling(was, becomes, name, axis=1 if by_row else 0)
            with np.errstate(over="ignore", under="ignore"):
                single = scaling.astype(np.float32)
            for dtype, raw in (("float32", single.view(np.uint32)), ("float64", scaling.view(np.uint64))):
                payload = dump_ia3(name, raw, dtype, by_row=by_row, columns=columns)
                result = bytearray(old)
                self.apply(memoryview(payload), memoryview(result))
                if result == new and len(payload) < len(new):
                    return payload
        return None

    def apply(self, payload: memoryview, dest: memoryview) -> None:
        """Scale the previous numbers."""
        if len(payload) < _HEADER.size:
            raise CorruptObjectError("an ia3 update is shorter than its header")
        index, by_row, columns = _HEADER.unpack_from(payload)
        if index >= len(RESULT_DTYPES) or by_row > 1:
            raise CorruptObjectError("an ia3 update has a header that cannot be")
        name = RESULT_DTYPES[index]
        width = pattern_width(name)
        rows = len(dest) // (width * columns) if columns else 0
        if not rows or rows * columns * width != len(dest):
            raise CorruptObjectError(f"an ia3 update with {columns} columns does not fit {len(dest)} bytes")
        scaling, rest = load_array(payload[_HEADER.size :], rows if by_row else columns)
        if len(rest):
            raise CorruptObjectError("an ia3 update is longer than it says")
        numbers = patterns(dest, width).reshape(rows, columns)
        tall, wide = max(1, _BLOCK // columns), min(columns, _BLOCK)
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            for top in range(0, rows, tall):
                for first in range(0, columns, wide):
                    block = numbers[top : top + tall, first : first + wide]
                    old = np.ascontiguousarray(block)
                    factor = scaling[top : top + tall, None] if by_row else scaling[None, first : first + wide]
                    block[...] = narrow(widen(old, name) * factor, name, old)


def _scaling(was: NDArray[np.float64], becomes: NDArray[Any], name: str, *, axis: int) -> NDArray[np.float64]:
    """For each row or column the middle of the factors that lead from all its numbers to the new ones, if any do."""
    value = widen(becomes, name)
    one = becomes.dtype.type(1)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        # Half-way to the neighbours of the new number, then by the old one.
        ends = [(value + widen(neighbour, name)) / 2 / was for neighbour in (becomes - one, becomes + one)]
        usable = np.isfinite(ends[0]) & np.isfinite(ends[1]) & (was != 0) & (value != 0)
        low = np.where(usable, np.minimum(*ends), -np.inf).max(axis=axis)
        high = np.where(usable, np.maximum(*ends), np.inf).min(axis=axis)
        middle = (low + high) / 2
    known = np.isfinite(low) & np.isfinite(high)
    zero = ((value == 0) & (was != 0)).any(axis=axis) & ~known
    return np.where(known, middle, np.where(zero, 0.0, 1.0))


IA3 = _Ia3()
