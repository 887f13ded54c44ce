"""``sparse``: positions that changed, and the differences of their bit patterns.

The payload, little-endian: width of a pattern (1 byte), number of positions (4 bytes), length of the first frame (4
bytes), then two Blosc frames: the positions as 4-byte integers, each less the one before it (the first as it is), and
the zigzag differences. No positions, no frames.
"""

from __future__ import annotations

import struct

import numpy as np

from theta_nb.errors import CorruptObjectError
from theta_nb.storage.encoding import decode_into, encode_differences
from theta_nb.updates.table import Numbers
from theta_nb.updates.zigzag import Patterns, add_zigzag, patterns, subtract_zigzag

__all__ = ["SPARSE", "dump_sparse"]

_HEADER = struct.Struct("<BII")
_MOST_POSITIONS = 2**32 - 1


class _Sparse:
    name = "sparse"

    def encode(self, old: memoryview, new: memoryview, numbers: Numbers) -> bytes | None:
        width = numbers.width
        if len(old) != len(new) or not len(new) or len(new) % width or len(new) // width > _MOST_POSITIONS:
            return None
        was, becomes = patterns(old, width), patterns(new, width)
        positions = np.flatnonzero(was != becomes)
        if len(positions) * (width + 1) > len(new):  # a difference takes about a byte, a gap another
            return None
        differences = np.empty(len(positions), was.dtype)
        subtract_zigzag(becomes[positions], was[positions], differences)
        payload = dump_sparse(positions, differences, width)
        return payload if len(payload) < len(new) else None

    def apply(self, payload: memoryview, dest: memoryview) -> None:
        width, positions, differences = _parse(payload, len(dest))
        if len(positions):
            numbers = patterns(dest, width)
            changed = numbers[positions]
            add_zigzag(changed, differences)
            numbers[positions] = changed


def dump_sparse(positions: Patterns, differences: Patterns, width: int) -> bytes:
    """Payload for a chunk.

    Parameters
    ----------
    positions
        Indices of numbers in the chunk, ascending.
    differences
        Zigzag differences of their bit patterns, as many.
    width
        Bytes of a pattern.
    """
    gaps = np.diff(positions, prepend=0).astype("<u4")
    first = encode_differences(gaps.tobytes(), 4) if len(gaps) else b""
    second = encode_differences(differences.tobytes(), width) if len(gaps) else b""
    return _HEADER.pack(width, len(positions), len(first)) + first + second


def _parse(payload: memoryview, nbytes: int) -> tuple[int, Patterns, Patterns]:
    """Width, positions and differences, checked against a chunk of ``nbytes`` bytes."""
    if len(payload) < _HEADER.size:
        raise CorruptObjectError("a sparse update is shorter than its header")
    width, count, length = _HEADER.unpack_from(payload)
    if width not in (1, 2, 4, 8) or nbytes % width or count > nbytes // width:
        raise CorruptObjectError(f"a sparse update of {count} patterns of {width} bytes does not fit {nbytes} bytes")
    frames = payload[_HEADER.size :]
    if length > len(frames) or (count == 0 and len(frames)):
        raise CorruptObjectError("a sparse update has frames of another length than it says")
    gaps, differences = np.empty(count, "<u4"), np.empty(count, f"<u{width}")
    if count:
        decode_into(frames[:length], gaps.data.cast("B"))
        decode_into(frames[length:], differences.data.cast("B"))
    positions = np.cumsum(gaps, dtype=np.int64)
    if count and (not gaps[1:].all() or positions[-1] >= nbytes // width):
        raise CorruptObjectError("a sparse update has positions that are out of order or outside of its chunk")
    return width, positions, differences


SPARSE = _Sparse()
