"""``dense``: all numbers, whatever they were before."""

from __future__ import annotations

from theta_nb.storage.encoding import decode_into, encode_numbers
from theta_nb.updates.table import Numbers

__all__ = ["DENSE"]


class _Dense:
    """Replaces every number; the root of every chain."""

    name = "dense"

    def encode(self, old: memoryview, new: memoryview, numbers: Numbers) -> bytes | None:
        # No chunk is empty, and no frame of nothing can be decoded.
        return encode_numbers(new, numbers.dtype.itemsize) if len(new) else None

    def apply(self, payload: memoryview, dest: memoryview) -> None:
        decode_into(payload, dest)


DENSE = _Dense()
