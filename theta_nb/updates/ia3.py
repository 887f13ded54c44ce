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
        """The scaling by row or by column that gives exactly ``new``, if there is one."""
        name = realdtype(numbers.dtype)
        width, columns = numbers.width, numbers.columns
        if name not in RESULT_DTYPES or numbers.dtype.kind != "f" or len(old) != len(new):
            return None
        if not len(new) or len(new) % (width * columns):
            return None
        was = patterns(old, width).reshape(-1, columns)
        becomes = patterns(new, width).reshape(-1, columns)
        for by_row in (False, True):
            scaling = _scaling(was, becomes, name, by_row=by_row)
            if scaling is None:
                continue
            # What was computed from float32 numbers is found again as such; what was not, as near as it can be.
            for factors in (scaling.astype(np.float32), scaling):
                raw = factors.view(f"<u{factors.itemsize}")
                payload = dump_ia3(name, raw, factors.dtype.name, by_row=by_row, columns=columns)
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


def _scaling(was: NDArray[Any], becomes: NDArray[Any], name: str, *, by_row: bool) -> NDArray[np.float64] | None:
    """The numbers, one for each row or column, that best explain the step between two matrices of bit patterns.

    Every element bounds its factor: the exact product lies between the middles to the neighbours of the new number. All
    of a line together leave little room, and the middle of that room is taken; ``None`` if there is none.
    """
    rows, columns = was.shape
    count = rows if by_row else columns
    low, high, sign = np.full(count, -np.inf), np.full(count, np.inf), np.zeros(count)
    tall = max(1, 8 * _BLOCK // columns)
    for top in range(0, rows, tall):
        part = slice(top, top + tall)
        least, most, direction = _bounds(was[part], becomes[part], name)
        axis, place = (1, part) if by_row else (0, slice(None))
        low[place] = np.maximum(low[place], least.max(axis=axis))
        high[place] = np.minimum(high[place], most.min(axis=axis))
        sign[place] += direction.sum(axis=axis)
    if (low > high).any():
        return None
    known = np.isfinite(low) & np.isfinite(high)
    with np.errstate(invalid="ignore"):
        middle = np.where(known, low + (high - low) / 2, 1.0)
    return np.where(sign < 0, -middle, middle)


def _bounds(
    was: NDArray[Any], becomes: NDArray[Any], name: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Least and greatest size of the factor that each element allows, and its sign; infinite where it says nothing."""
    unsigned = becomes.dtype.type
    sign_bit = unsigned(1 << (8 * becomes.dtype.itemsize - 1))
    size = becomes & ~sign_bit
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        old, new = np.abs(widen(was, name)), widen(size, name)
        above, below = widen(size + unsigned(1), name), widen(size - np.minimum(size, unsigned(1)), name)
        least, most = (new + (below - new) / 2) / old, (new + (above - new) / 2) / old
    tells = np.isfinite(least) & np.isfinite(most) & (old > 0)
    direction = np.where(tells & (size > 0), np.where((was ^ becomes) & sign_bit, -1.0, 1.0), 0.0)
    return np.where(tells, least, -np.inf), np.where(tells, most, np.inf), direction


IA3 = _Ia3()
