"""Random draws that depend on seed, tensor and model alone.

Each entry of a tensor has one 32-bit number, whatever the density, the size of the blocks or the number of threads: a
merge can be repeated bit for bit, and the entries kept at one density are kept at every higher one.
"""

from __future__ import annotations

import numpy as np
from blake3 import blake3

from theta_nb.merges.group import Array

__all__ = ["Draws"]


class Draws:
    """The numbers of one task vector, in order.

    The bits of SFC64 and of its seeding are guaranteed by NumPy not to change; its distributions are not, so only bits
    are used.

    Parameters
    ----------
    seed
        Of the merge.
    tensor
        Name of the tensor.
    model
        Position of the input.

    Examples
    --------
    >>> a, b = Draws(0, "w", 0), Draws(0, "w", 0)
    >>> first = a.take(5).tolist()
    >>> first == b.take(3).tolist() + b.take(2).tolist()
    True
    """

    def __init__(self, seed: int, tensor: str, model: int) -> None:
        key = blake3(f"{seed}\n{model}\n{tensor}".encode("utf-8", "surrogatepass")).digest(16)
        self._bits = np.random.SFC64(int.from_bytes(key, "little"))
        self._half = np.empty(0, np.uint32)

    def take(self, count: int) -> Array:
        """The next ``count`` numbers, uniform in 0 to 2**32 - 1."""
        missing = count - len(self._half)
        if missing <= 0:
            out, self._half = self._half[:count], self._half[count:]
            return out
        words = self._bits.random_raw((missing + 1) // 2)
        fresh = np.asarray(words, "<u8").view("<u4")
        out = np.concatenate([self._half, fresh[:missing]]) if len(self._half) else fresh[:missing]
        self._half = fresh[missing:]
        return out


def limit(probability: float) -> int:
    """Draws below this number happen with ``probability``.

    Examples
    --------
    >>> limit(0.5) == 2**31, limit(1.0) == 2**32
    (True, True)
    """
    return round(min(max(probability, 0.0), 1.0) * 2**32)
