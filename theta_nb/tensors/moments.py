"""The kernel of the statistics: what one pass over a pair of blocks gives, and how such pieces are added up.

A dozen NumPy operations go over a block, which is small enough to stay in the caches. Sums over it are taken in float32
by rows of 8192 numbers, and added up in float64 from there; where float32 would overflow, underflow or meet NaN or Inf,
the block is done in float64 instead, scaled by a power of two. Blocks are merged in their order by the update of Chan,
Golub & LeVeque (1979), so a result depends neither on the number of threads nor on what finished first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from theta_nb.tensors.tallies import Tallies, Tally

__all__ = ["Moments", "Piece"]

Array = npt.NDArray[Any]
Singles = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

_ROW = 8192
_ONES = np.ones(_ROW, np.float32)
_SMALL = 1e-24  # a row of float32 whose squares sum to less may have lost some to underflow


@dataclass(slots=True)
class Moments:
    """Count, mean and scatter of the finite numbers of one side, in units of ``2**unit``.

    Parameters
    ----------
    count
        Finite numbers.
    mean
        Their mean.
    scatter
        Sum of the squared deviations from it.
    unit
        Exponent of the unit; not 0 only for float64 far from 1, whose squares would leave the range.
    nan, inf
        Numbers that are not finite.
    """

    count: int = 0
    mean: float = 0.0
    scatter: float = 0.0
    unit: int = 0
    nan: int = 0
    inf: int = 0

    @property
    def square(self) -> float:
        """Sum of squares, in the square of the unit."""
        return self.scatter + self.count * self.mean**2

    @property
    def norm(self) -> float:
        """Euclidean norm."""
        return _scaled(math.sqrt(self.square), self.unit)

    @property
    def std(self) -> float:
        """Population standard deviation; 0 of nothing."""
        return _scaled(math.sqrt(self.scatter / self.count), self.unit) if self.count else 0.0

    def add(self, other: Moments) -> None:
        """Take the numbers of another piece as well."""
        self.nan += other.nan
        self.inf += other.inf
        if not other.count:
            return
        if not self.count:
            self.count, self.mean, self.scatter, self.unit = other.count, other.mean, other.scatter, other.unit
            return
        unit = max(self.unit, other.unit)
        if self.unit == other.unit:  # nearly always
            mean, scatter, other_mean, other_scatter = self.mean, self.scatter, other.mean, other.scatter
        else:
            mean, scatter = _in_unit(self, unit)
            other_mean, other_scatter = _in_unit(other, unit)
        total = self.count + other.count
        gap = other_mean - mean
        self.mean = mean + gap * (other.count / total)
        self.scatter = scatter + other_scatter + gap * gap * (self.count * (other.count / total))
        self.count, self.unit = total, unit


def _in_unit(moments: Moments, unit: int) -> tuple[float, float]:
    shift = moments.unit - unit
    return _scaled(moments.mean, shift), _scaled(moments.scatter, 2 * shift)


def _scaled(value: float, exponent: int) -> float:
    try:
        return math.ldexp(value, exponent)
    except OverflowError:
        return math.copysign(math.inf, value)


@dataclass(slots=True)
class Piece:
    """Everything that is known of a pair of blocks, or of many.

    Parameters
    ----------
    numel
        Elements compared.
    changed, flips
        As in :class:`theta_nb.tensors.statistics.Statistics`.
    old, new
        Moments of the two sides.
    delta
        Moments of the difference, of which only ``count``, ``scatter`` (the sum of squares: its mean is taken as 0)
        and ``unit`` are used.
    largest
        Largest absolute difference.
    dot, old_square, new_square
        Sums of products over numbers that are finite on both sides, in the units of ``old`` and ``new``.
    tallies
        Magnitudes of old, new and difference, where they are wanted.
    """

    numel: int = 0
    changed: int = 0
    flips: int = 0
    old: Moments = field(default_factory=Moments)
    new: Moments = field(default_factory=Moments)
    delta: Moments = field(default_factory=Moments)
    largest: float = 0.0
    dot: float = 0.0
    old_square: float = 0.0
    new_square: float = 0.0
    tallies: Tallies | None = None

    def add(self, other: Piece) -> None:
        """Take another piece as well; the order of additions decides about the last bits."""
        before = self.old.unit, self.new.unit
        first = not self.numel
        self.numel += other.numel
        self.changed += other.changed
        self.flips += other.flips
        self.old.add(other.old)
        self.new.add(other.new)
        self.delta.add(other.delta)
        self.largest = max(self.largest, other.largest)
        units = self.old.unit, self.new.unit
        mine = (0.0, 0.0, 0.0) if first else _products(self, before, units)
        theirs = _products(other, (other.old.unit, other.new.unit), units)
        self.dot, self.old_square, self.new_square = (a + b for a, b in zip(mine, theirs, strict=True))
        if other.tallies is not None:
            mine_, theirs_ = self.tallies or (Tally(), Tally(), Tally()), other.tallies
            self.tallies = mine_
            for tally, more in zip(mine_, theirs_, strict=True):
                tally.counts += more.counts

    @property
    def cosine(self) -> float:
        """Cosine of the angle between the two sides, over what is finite on both; NaN where one of them is zero."""
        old, new = math.sqrt(self.old_square), math.sqrt(self.new_square)
        if not old or not new:
            return math.nan
        direct = self.dot / old / new
        if direct < 0.9 or self.old.unit != self.new.unit or not math.isfinite(direct):
            return max(-1.0, min(1.0, direct))
        # Close to 1 the product has lost the digits that tell how close; the difference still has them.
        shift = self.delta.unit - self.old.unit
        delta = _scaled(self.delta.scatter, 2 * shift)
        return max(-1.0, min(1.0, 1.0 - (delta - (old - new) ** 2) / (2.0 * old * new)))


def _products(piece: Piece, units: tuple[int, int], wanted: tuple[int, int]) -> tuple[float, float, float]:
    old, new = units[0] - wanted[0], units[1] - wanted[1]
    if not old and not new:
        return piece.dot, piece.old_square, piece.new_square
    return _scaled(piece.dot, old + new), _scaled(piece.old_square, 2 * old), _scaled(piece.new_square, 2 * new)


# --- one block --------------------------------------------------------------------------------------------------------


class RowSums:
    """Takes several sums over blocks of float32 at once, in memory of its own.

    Each row gives a sum in float32, and the sums of the rows are added in float64: those of all blocks together, as one
    such addition of a few numbers takes as long as summing a third of a block.
    """

    def __init__(self) -> None:
        self._sums = np.empty(0, np.float32)

    def totals(self, squared: Sequence[Singles], summed: Sequence[Singles]) -> list[float] | None:
        """Sums of squares of some blocks, then plain sums of others, all of one length.

        Returns
        -------
        list or None
            ``None`` where float32 does not do: a row overflows, or is not finite.
        """
        blocks, width = (*squared, *summed), -(-len(squared[0]) // _ROW)
        if len(self._sums) < len(blocks) * width:
            self._sums = np.empty(len(blocks) * width, np.float32)
        sums: Array = self._sums[: len(blocks) * width].reshape(-1, width)
        for index, (block, found) in enumerate(zip(blocks, sums, strict=True)):
            start = 0
            for rows, others in _rows(block, block if index < len(squared) else None):
                np.vecdot(rows, others, out=found[start : start + len(rows)])
                start += len(rows)
        if not np.minimum.reduce(sums[: len(squared)], axis=None) >= _SMALL:
            sums = _with_exact_rows(sums, squared)
        totals: list[float] = np.add.reduce(sums, axis=1, dtype=np.float64).tolist()
        return totals if all(map(math.isfinite, totals)) else None


def _with_exact_rows(sums: Singles, squared: Sequence[Singles]) -> Doubles:
    """Sums in float64, those of squares so small that some underflow taken anew."""
    exact: Doubles = sums.astype(np.float64)
    for index, row in np.argwhere(sums[: len(squared)] < _SMALL):
        numbers = squared[index][row * _ROW : (row + 1) * _ROW].astype(np.float64)
        exact[index, row] = np.dot(numbers, numbers)
    return exact


def single_moments(numbers: Singles, sums: RowSums) -> Moments | None:
    """Moments of a block of float32, or ``None`` where float32 does not do."""
    totals = sums.totals((numbers,), (numbers,))
    return None if totals is None else moments_of(numbers, totals[0], totals[1], sums)


def moments_of(numbers: Singles, square: float, total: float, sums: RowSums) -> Moments | None:
    """Moments of a block of float32 whose sum of squares and sum are known already."""
    count = len(numbers)
    mean = total / count
    scatter = square - count * mean * mean
    if scatter < 0.5 * square:
        # Mostly mean: what is left of the squares has lost digits, so it is taken from the deviations.
        deviations = numbers - np.float32(mean)
        totals = sums.totals((deviations,), (deviations,))
        if totals is None:
            return None
        around, rest = totals
        scatter = around - rest * rest / count
        mean = float(np.float32(mean)) + rest / count
    return Moments(count, mean, max(scatter, 0.0))


def row_products(left: Singles, right: Singles) -> float | None:
    """Sum of the products of two blocks of float32, or ``None`` if it is not finite."""
    total = sum(float(np.vecdot(*rows).sum(dtype=np.float64)) for rows in _rows(left, right))
    return total if math.isfinite(total) else None


def _rows(left: Array, right: Array | None) -> list[tuple[Array, Array]]:
    """Both blocks as matrices of short rows, and what is left over as a single one; ``None`` stands for ones."""
    whole = len(left) // _ROW * _ROW
    found = []
    for start, stop, length in ((0, whole, _ROW), (whole, len(left), len(left) - whole)):
        if start < stop:
            others = _ONES[:length] if right is None else right[start:stop].reshape(-1, length)
            found.append((left[start:stop].reshape(-1, length), others))
    return found


def double_moments(numbers: Doubles, finite: npt.NDArray[np.bool_] | None) -> tuple[Moments, Doubles]:
    """Moments of a block of float64, and its numbers in the unit of the moments, with 0 for what is not finite."""
    nan = inf = 0
    count = len(numbers)
    if finite is not None:
        nan = int(np.count_nonzero(np.isnan(numbers)))
        count = int(np.count_nonzero(finite))
        inf = len(numbers) - count - nan
        numbers = np.where(finite, numbers, 0.0)
    if not count:
        return Moments(nan=nan, inf=inf), numbers
    unit = unit_of(numbers)
    if unit:
        numbers = np.ldexp(numbers, -unit)
    chosen = numbers if finite is None else numbers[finite]
    mean = float(chosen.mean())
    deviations = chosen - mean
    rest = float(deviations.mean())
    scatter = double_products(deviations, deviations) - count * rest * rest
    return Moments(count, mean + rest, max(scatter, 0.0), unit, nan, inf), numbers


def double_products(left: Doubles, right: Doubles) -> float:
    """Sum of the products of two blocks of float64, by short rows: BLAS would split long ones between threads."""
    return math.fsum(float(sums) for rows in _rows(left, right) for sums in np.vecdot(*rows))


def unit_of(numbers: Doubles) -> int:
    """Exponent of a unit in which squares of the numbers stay in the range of float64; 0 where they do anyway."""
    largest = max(float(numbers.max()), -float(numbers.min())) if len(numbers) else 0.0
    if largest == 0 or 1e-120 < largest < 1e120:
        return 0
    return math.frexp(largest)[1] if math.isfinite(largest) else 1024
