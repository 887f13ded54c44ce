"""Small arrays of floats inside payloads: the factors of low-rank updates and the scalings of ia3.

An array, little-endian: index of its dtype in the list below (1 byte), length of its frame (4 bytes), and a Blosc frame
of its elements in row-major order.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theta_nb.errors import CorruptObjectError
from theta_nb.storage.encoding import decode_into, encode_numbers
from theta_nb.tensors.dtypes import dtype_named
from theta_nb.tensors.rounding import widen

__all__ = ["FACTOR_DTYPES", "dump_array", "load_array"]

FACTOR_DTYPES = ("float64", "float32", "float16", "bfloat16")
"""Dtypes that factors may have; others are converted by whoever reads them."""

_HEADER = struct.Struct("<BI")


def dump_array(raw: NDArray[Any], dtype: str) -> bytes:
    """Bytes of an array given as bit patterns (unsigned integers) of ``dtype``."""
    data = np.ascontiguousarray(raw)
    frame = encode_numbers(data.tobytes(), data.dtype.itemsize)
    return _HEADER.pack(FACTOR_DTYPES.index(dtype), len(frame)) + frame


def load_array(payload: memoryview, count: int) -> tuple[NDArray[np.float64], memoryview]:
    """Float64 values of an array of ``count`` elements, and what follows it.

    Raises
    ------
    CorruptObjectError
        If the payload is cut short or holds another array.
    """
    if len(payload) < _HEADER.size:
        raise CorruptObjectError("an array of an update is cut short")
    index, length = _HEADER.unpack_from(payload)
    rest = payload[_HEADER.size :]
    if index >= len(FACTOR_DTYPES) or length > len(rest):
        raise CorruptObjectError("an array of an update has a header that cannot be")
    dtype = dtype_named(FACTOR_DTYPES[index])
    patterns = np.empty(count, f"<u{dtype.itemsize}")
    decode_into(rest[:length], patterns.data.cast("B"))
    return widen(patterns, dtype.name), rest[length:]
