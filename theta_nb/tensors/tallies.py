"""Histograms of magnitudes: how many numbers have which binary exponent.

An exponent is a byte, cut out of the bits of a number. Bytes are noted for a while and then counted together, and of
two sides that are nearly equal only one is counted.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Tallies", "Tally", "settle_together"]

Array = npt.NDArray[Any]
Codes = npt.NDArray[np.uint8]
Counts = npt.NDArray[np.int64]

_BINS = 256
_CODES = 2**20  # exponents noted before they are counted
_LOWEST = -127  # exponent of bin 0: zeros and what is below the normal float32 numbers
_FEW = 64  # finding one number in so many costs less than counting all


class Tally:
    """Counts of magnitudes by binary exponent: bin ``i`` counts ``2**(i-127) <= |x| < 2**(i-126)``, bin 0 the rest.

    Attributes
    ----------
    counts
        int64, 256 bins; the last one is for what is not finite. Complete after :meth:`settle`.
    """

    def __init__(self, counts: Counts | None = None) -> None:
        self.counts = np.zeros(_BINS, np.int64) if counts is None else counts
        self._codes = np.empty(0, np.uint8)
        self._filled = 0

    def add(self, numbers: Array) -> None:
        """Count a block."""
        if numbers.dtype == np.float32:
            np.right_shift(numbers.view(np.uint32), 23, out=self._space(len(numbers)), casting="unsafe")
        else:
            self._add_doubles(numbers)

    def add_bfloat16(self, bits: npt.NDArray[np.uint16]) -> None:
        """Count a block of bfloat16, given their bits: half as many bytes to go over."""
        np.right_shift(bits, 7, out=self._space(len(bits)), casting="unsafe")

    def add_zeros(self, count: int) -> None:
        """Count zeros."""
        self.counts[0] += count

    def _space(self, count: int) -> Codes:
        """Where to put the exponents of the next numbers."""
        if self.full(count):
            self.settle()
            if count > len(self._codes):
                self._codes = np.empty(max(count, _CODES), np.uint8)
        self._filled += count
        return self._codes[self._filled - count : self._filled]

    def full(self, count: int) -> bool:
        """Whether the next ``count`` numbers have what is noted counted first."""
        return self._filled + count > len(self._codes)

    @property
    def noted(self) -> Codes:
        """Exponents that are not counted yet."""
        return self._codes[: self._filled]

    def settle(self) -> None:
        """Count what was only noted so far."""
        self.count(_counted(self.noted))

    def count(self, counts: Counts) -> None:
        """Take counts of what was noted so far, in place of it."""
        self.counts += counts
        self._filled = 0

    def take(self) -> Tally:
        """What was counted so far; this tally begins anew, in the same memory."""
        self.settle()
        found = Tally(self.counts)
        self.counts = np.zeros(_BINS, np.int64)
        return found

    def _add_doubles(self, numbers: Array) -> None:
        bits = numbers.view(np.uint64)
        np.take(_double_codes(), (bits >> np.uint64(52)).view(np.int64), out=self._space(len(numbers)), mode="clip")


@cache
def _double_codes() -> npt.NDArray[np.uint8]:
    """Bin of a float64 by the 12 bits of its sign and exponent."""
    exponents = np.arange(4096) % 2048
    codes = np.clip(exponents - 1023 - _LOWEST, 0, _BINS - 2)
    codes[exponents == 2047] = _BINS - 1
    return codes.astype(np.uint8)


Tallies = tuple[Tally, Tally, Tally]
"""Magnitudes of old values, new values and differences."""


def settle_together(old: Tally, new: Tally) -> None:
    """Count what is noted of the same numbers before and after.

    Training seldom moves a number to another power of two: where few exponents differ, those of one side are counted,
    and of the other only the ones that differ.

    Examples
    --------
    >>> old, new = Tally(), Tally()
    >>> values = np.arange(1, 1001, dtype=np.float32)
    >>> old.add(values), new.add(values + 1)
    (None, None)
    >>> settle_together(old, new)
    >>> old.counts[[127, 136]].tolist(), new.counts[[127, 136]].tolist()
    ([1, 489], [0, 490])
    """
    before, after = old.noted, new.noted
    if len(before) == len(after):
        differing = before != after
        if np.count_nonzero(differing) <= len(differing) // _FEW:
            places = np.flatnonzero(differing)
            counts = _counted(before)
            old.count(counts)
            new.count(counts - _counted(before[places]) + _counted(after[places]))
            return
    old.settle()
    new.settle()


def _counted(codes: Codes) -> Counts:
    """How often each code occurs.

    Two codes are counted at once, as one number of 16 bits, and told apart afterwards. Counting is the dearest step;
    the table of pairs stays in the cache, as only some exponents ever occur.
    """
    if len(codes) < _BINS * _BINS:
        return np.bincount(codes, minlength=_BINS)
    even = len(codes) & ~1
    pairs = np.bincount(codes[:even].view(np.uint16), minlength=_BINS * _BINS).reshape(_BINS, _BINS)
    found: Counts = pairs.sum(axis=0) + pairs.sum(axis=1) + np.bincount(codes[even:], minlength=_BINS)
    return found
