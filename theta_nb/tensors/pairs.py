"""One pair of blocks after the other: the same elements of a tensor before and after."""

from __future__ import annotations

import math
from copy import copy
from typing import Any

import numpy as np
import numpy.typing as npt

from theta_nb.tensors.lanes import BLOCK_NUMEL, bits_of, is_single, numbers_in, numbers_of, parts_of
from theta_nb.tensors.moments import (
    Doubles,
    Moments,
    Piece,
    RowSums,
    Singles,
    double_moments,
    double_products,
    moments_of,
    row_products,
    single_moments,
    unit_of,
)
from theta_nb.tensors.spec import TensorSpec
from theta_nb.tensors.tallies import Tallies, Tally, settle_together

__all__ = ["PairKernel"]

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


class PairKernel:
    """Computes statistics of pairs of blocks in buffers of its own; not to be shared between threads.

    Parameters
    ----------
    old, new
        Views whose elements come; dtype and lazy conjugation or negation are used.
    histograms
        Whether to count magnitudes.

    Raises
    ------
    CheckpointError
        If elements of a dtype cannot be told apart.

    Examples
    --------
    >>> from theta_nb.tensors.dtypes import dtype_named
    >>> spec = TensorSpec("w", dtype_named("float32"), (2,), (1,), 0)
    >>> raw = [memoryview(np.array(x, "float32").tobytes()) for x in ([3, 4], [3, -4])]
    >>> piece = PairKernel(spec, spec).block(*raw)
    >>> piece.old.norm, piece.delta.norm, piece.changed, piece.flips
    (5.0, 8.0, 1, 1)
    """

    def __init__(self, old: TensorSpec, new: TensorSpec, *, histograms: bool = False) -> None:
        self._old, self._new = old, new
        self._parts = parts_of(old.dtype)
        self._new_parts = parts_of(new.dtype)
        self._single = self._parts == self._new_parts and is_single(old.dtype) and is_single(new.dtype)
        self._same_bits = (old.dtype, old.conj, old.neg) == (new.dtype, new.conj, new.neg)
        self._tallies = (Tally(), Tally(), Tally()) if histograms else None
        self._patterns: Array = np.empty(0, np.uint8)
        self._masks = np.empty(BLOCK_NUMEL, np.bool_)
        self._singles = [np.empty(BLOCK_NUMEL, np.float32) for _ in range(3)] if self._single else []
        self._sums = RowSums()

    def block(self, old: memoryview, new: memoryview) -> Piece:
        """Statistics of the same elements on both sides.

        Parameters
        ----------
        old, new
            Raw bytes of equally many elements.
        """
        changed, signs = self._bits(old, new)
        # Overflow is looked for where it may happen; NaN and Inf are part of the data.
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            piece = self._single_block(old, new, changed, signs) if self._single else None
            return self._double_block(old, new, changed) if piece is None else piece

    def take_tallies(self) -> Tallies | None:
        """Magnitudes of all blocks so far, to be put into one of their pieces; counting begins anew."""
        if self._tallies is None:
            return None
        old, new, delta = self._tallies
        settle_together(old, new)
        return old.take(), new.take(), delta.take()

    def _bits(self, old: memoryview, new: memoryview) -> tuple[int | None, Mask | None]:
        """How many elements differ in their bits, and where the sign bit does; ``None`` where bits do not compare."""
        if not self._same_bits:
            return None, None
        before, after = bits_of(old, self._old.dtype), bits_of(new, self._new.dtype)
        differing = np.bitwise_xor(before, after, out=self._bits_buffer(before))
        if self._parts == 2:
            changed = int(np.count_nonzero(differing.reshape(-1, 2).any(axis=1)))
        else:
            changed = int(np.count_nonzero(differing))
        dtype = self._old.dtype
        if not changed or not self._single or dtype.kind not in "fci" or "float4" in dtype.name:
            return changed, None  # the first bit is no sign, or not the first
        signs = self._masks[: len(differing)] if len(differing) <= len(self._masks) else None
        return changed, np.less(differing.view(f"i{differing.itemsize}"), 0, out=signs)

    def _bits_buffer(self, like: Array) -> Array:
        """Memory for bit patterns, used again: fresh pages cost more than what is computed on them."""
        if self._patterns.dtype != like.dtype or len(self._patterns) < len(like):
            self._patterns = np.empty(max(len(like), BLOCK_NUMEL), like.dtype)
        return self._patterns[: len(like)]

    # --- float32 ------------------------------------------------------------------------------------------------------

    def _single_block(
        self, raw_old: memoryview, raw_new: memoryview, changed: int | None, signs: Mask | None
    ) -> Piece | None:
        buffers = self._buffers(numbers_in(raw_old, self._old.dtype))
        old: Singles = _signed(numbers_of(raw_old, self._old.dtype, buffers[0]), self._old)
        numel = len(old) // self._parts
        if changed == 0:
            same = single_moments(old, self._sums)
            if same is None:
                return None
            self._tally(old, None, None, (raw_old, raw_new))
            square = same.square
            return Piece(numel, 0, 0, same, copy(same), Moments(len(old)), 0.0, square, square, square)
        new: Singles = _signed(numbers_of(raw_new, self._new.dtype, buffers[1]), self._new)
        delta: Singles = np.subtract(new, old, out=buffers[2][: len(old)])
        sums = self._sums_of(old, new, delta)
        if sums is None:
            return None
        before, after, square = sums
        dot = _dot(old, new, before.square, after.square, square)
        if dot is None:
            return None
        if changed is None:
            changed = _changed_values(old, new, self._parts)
        flips = _flips(old, new) if signs is None else _flips_where(signs, old, new)
        largest = max(float(np.maximum.reduce(delta)), -float(np.minimum.reduce(delta)))
        moved = Moments(len(delta), 0.0, square)
        self._tally(old, new, delta, (raw_old, raw_new))
        return Piece(numel, changed, flips, before, after, moved, largest, dot, before.square, after.square)

    def _sums_of(self, old: Singles, new: Singles, delta: Singles) -> tuple[Moments, Moments, float] | None:
        """Moments of both sides and the square of their difference, or ``None`` where float32 does not do."""
        totals = self._sums.totals((old, new, delta), (old, new))
        if totals is None:
            return None
        before = moments_of(old, totals[0], totals[3], self._sums)
        after = moments_of(new, totals[1], totals[4], self._sums)
        return None if before is None or after is None else (before, after, totals[2])

    def _buffers(self, numel: int) -> list[Singles]:
        if numel > len(self._singles[0]):
            # A row of a view that is no stretch of memory may be longer than a block.
            self._singles = [np.empty(numel, np.float32) for _ in range(3)]
        return self._singles

    def _tally(self, old: Array, new: Array | None, delta: Array | None, raws: tuple[memoryview, memoryview]) -> None:
        """Count magnitudes where that is wanted; a block without ``new`` has equal sides."""
        if self._tallies is None:
            return
        before, after, moved = self._tallies
        if before.full(len(old)):
            settle_together(before, after)
        for tally, numbers, raw, spec in ((before, old, raws[0], self._old), (after, new, raws[1], self._new)):
            if spec.dtype.name == "bfloat16":
                tally.add_bfloat16(np.frombuffer(raw, np.uint16))
            else:
                tally.add(old if numbers is None else numbers)
        if delta is None:
            moved.add_zeros(len(old))
        else:
            moved.add(delta)

    # --- float64 ------------------------------------------------------------------------------------------------------

    def _double_block(self, raw_old: memoryview, raw_new: memoryview, changed: int | None) -> Piece:
        old = self._doubles(raw_old, self._old)
        new = self._doubles(raw_new, self._new)
        parts = self._parts
        if self._parts != self._new_parts:  # a real number is a complex one without imaginary part
            old, new = (_as_complex(x, n) for x, n in ((old, self._parts), (new, self._new_parts)))
            parts = 2
        finite_old, finite_new = _finite(old), _finite(new)
        before, scaled_old = double_moments(old, finite_old)
        after, scaled_new = double_moments(new, finite_new)
        both = _both(finite_old, finite_new)
        delta, halved = self._difference(old, new, both, raw_old, raw_new)
        unit = unit_of(delta)
        scaled = np.ldexp(delta, -unit) if unit else delta
        count = len(delta) if both is None else int(np.count_nonzero(both))
        moved = Moments(count, 0.0, double_products(scaled, scaled), unit + halved)
        largest = max(float(scaled.max()), -float(scaled.min()))
        if both is not None:
            scaled_old, scaled_new = np.where(both, scaled_old, 0.0), np.where(both, scaled_new, 0.0)
        piece = Piece(
            len(old) // parts,
            _changed_values(old, new, parts) if changed is None else changed,
            _flips(old, new),
            before,
            after,
            moved,
            _ldexp(largest, unit + halved),
            double_products(scaled_old, scaled_new),
            double_products(scaled_old, scaled_old),
            double_products(scaled_new, scaled_new),
        )
        if self._tallies is not None:
            whole = np.ldexp(delta, halved)
            for tally, numbers in zip(
                self._tallies, (old, new, whole if both is None else np.where(both, whole, np.nan)), strict=True
            ):
                tally.add(numbers)
        return piece

    @staticmethod
    def _doubles(raw: memoryview, spec: TensorSpec) -> Doubles:
        found: Doubles = _signed(numbers_of(raw, spec.dtype, np.empty(numbers_in(raw, spec.dtype), np.float64)), spec)
        return found

    def _difference(
        self, old: Doubles, new: Doubles, both: Mask | None, raw_old: memoryview, raw_new: memoryview
    ) -> tuple[Doubles, int]:
        """New minus old with 0 where a side is not finite; halved (1) where it would leave the range of float64."""
        if self._old.dtype == self._new.dtype and self._old.dtype.name in ("int64", "uint64"):
            return _integer_difference(raw_old, raw_new, self._old.dtype.name), 0
        delta: Doubles = new - old
        if both is not None:
            delta = np.where(both, delta, 0.0)
        if np.isfinite(delta).all():
            return delta, 0
        half = new * 0.5 - old * 0.5
        return (half if both is None else np.where(both, half, 0.0)), 1


def _dot(old: Singles, new: Singles, old_square: float, new_square: float, square: float) -> float | None:
    """Sum of the products: it follows from the squares, unless one side is so much larger that digits would be lost."""
    if old_square < 100 * new_square and new_square < 100 * old_square:
        return (old_square + new_square - square) / 2
    return row_products(old, new)


def _signed(numbers: Any, spec: TensorSpec) -> Any:
    """Apply the lazy conjugate and negative bits."""
    if spec.conj and spec.dtype.kind == "c":
        numbers = numbers.copy()
        np.negative(numbers[1::2], out=numbers[1::2])
    return -numbers if spec.neg else numbers


def _as_complex(numbers: Doubles, parts: int) -> Doubles:
    if parts == 2:
        return numbers
    wide = np.zeros(2 * len(numbers), np.float64)
    wide[::2] = numbers
    return wide


def _finite(numbers: Doubles) -> Mask | None:
    """Where numbers are finite; ``None`` for everywhere."""
    found = np.isfinite(numbers)
    return None if found.all() else found


def _both(old: Mask | None, new: Mask | None) -> Mask | None:
    if old is None or new is None:
        return new if old is None else old
    return old & new


def _changed_values(old: Array, new: Array, parts: int) -> int:
    """Elements whose values differ; NaN equals NaN."""
    differing = (old != new) & ~(np.isnan(old) & np.isnan(new))
    if parts == 2:
        differing = differing.reshape(-1, 2).any(axis=1)
    return int(np.count_nonzero(differing))


def _flips(old: Array, new: Array) -> int:
    """Numbers that are positive on one side and negative on the other."""
    down = np.count_nonzero((old > 0) & (new < 0))
    return int(down + np.count_nonzero((old < 0) & (new > 0)))


def _flips_where(signs: Mask, old: Array, new: Array) -> int:
    """The same, where the sign bits differ, which is seldom: what remains is to leave out zeros."""
    count = int(np.count_nonzero(signs))
    if count > len(signs) // 32:
        return _flips(old, new)
    if not count:
        return 0
    places = np.flatnonzero(signs)
    return int(np.count_nonzero((old[places] != 0) & (new[places] != 0)))


def _integer_difference(old: memoryview, new: memoryview, name: str) -> Doubles:
    """Differences of 64-bit integers: float64 cannot hold the integers, but it holds differences of their halves."""
    before, after = np.frombuffer(old, name), np.frombuffer(new, name)
    low = before.dtype.type(0xFFFFFFFF)
    shift = before.dtype.type(32)
    high = (after >> shift).astype(np.float64) - (before >> shift).astype(np.float64)
    rest = (after & low).astype(np.float64) - (before & low).astype(np.float64)
    found: Doubles = high * 4294967296.0 + rest
    return found


def _ldexp(value: float, exponent: int) -> float:
    try:
        return math.ldexp(value, exponent)
    except OverflowError:
        return math.inf
