"""By how much two tensors differ: statistics of a pair, merged from pieces in a fixed order."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from theta_nb.tensors.moments import Piece
from theta_nb.tensors.spec import Shape
from theta_nb.tensors.tallies import Tally

__all__ = ["KERNEL_VERSION", "Histogram", "Statistics"]

KERNEL_VERSION = 2
"""Part of the key under which results are kept: raised whenever a kernel gives other numbers."""

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Histogram:
    """How many entries have which magnitude, by powers of two.

    Bin ``i`` counts the finite entries with ``2**(first + i) <= |x| < 2**(first + i + 1)``. The edges are the same
    for every tensor and known before its values are, so one pass suffices and histograms of pieces can be added.

    Parameters
    ----------
    first
        Exponent of the lower edge of the first bin.
    counts
        Entries per bin, int64; without empty bins at either end.
    zeros
        Entries that are zero, and those smaller than the smallest normal float32, ``2**-126``.
    """

    first: int
    counts: Counts
    zeros: int = 0

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Histogram):
            return NotImplemented
        return (self.first, self.zeros) == (other.first, other.zeros) and bool(
            np.array_equal(self.counts, other.counts)
        )

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def of(cls, tally: Tally) -> Histogram:
        """The finite numbers of a tally."""
        counts = tally.counts[1:-1]
        filled = np.flatnonzero(counts)
        if not len(filled):
            return cls(0, counts[:0].copy(), int(tally.counts[0]))
        first, last = int(filled[0]), int(filled[-1]) + 1
        return cls(first - 126, counts[first:last].copy(), int(tally.counts[0]))

    @property
    def edges(self) -> npt.NDArray[np.float64]:
        """Lower edge of every bin, and the upper one of the last."""
        return np.ldexp(1.0, np.arange(self.first, self.first + len(self.counts) + 1))

    @property
    def total(self) -> int:
        """Entries counted, zeros included."""
        return int(self.counts.sum()) + self.zeros


@dataclass(frozen=True, slots=True)
class Statistics:
    """How the values of one parameter group differ between two versions.

    Norms, means and products are over finite entries (for what needs both sides: entries finite on both), so one NaN
    does not hide the rest; NaN and Inf are counted. They are accumulated in float64, so norms of fp16 tensors do not
    overflow. A complex number counts as two real ones, except in ``numel`` and ``changed``.

    Parameters
    ----------
    numel
        Entries compared.
    changed
        Entries whose bits differ; where the dtype changed, whose values differ (NaN equals NaN there).
    sign_flips
        Entries that are positive on one side and negative on the other.
    old_norm, new_norm, delta_norm
        Euclidean norms of the old values, the new ones, and their difference.
    max_abs_delta
        Largest absolute difference.
    cosine
        Cosine of the angle between old and new; NaN where one of them is all zero.
    old_mean, new_mean, old_std, new_std
        Means and population standard deviations.
    old_nan, old_inf, new_nan, new_inf
        Entries that are no finite numbers.
    overlap
        Shape of the part that was compared, where the shapes differ; else ``None``.
    old_histogram, new_histogram, delta_histogram
        Magnitudes; ``None`` where they were not asked for.
    """

    numel: int
    changed: int
    sign_flips: int
    old_norm: float
    new_norm: float
    delta_norm: float
    max_abs_delta: float
    cosine: float
    old_mean: float
    new_mean: float
    old_std: float
    new_std: float
    old_nan: int = 0
    old_inf: int = 0
    new_nan: int = 0
    new_inf: int = 0
    overlap: Shape | None = None
    old_histogram: Histogram | None = None
    new_histogram: Histogram | None = None
    delta_histogram: Histogram | None = None

    @classmethod
    def of(cls, piece: Piece, overlap: Shape | None = None) -> Statistics:
        """What the pieces of a parameter amount to."""
        old, new = piece.old, piece.new
        return cls(
            numel=piece.numel,
            changed=piece.changed,
            sign_flips=piece.flips,
            old_norm=old.norm,
            new_norm=new.norm,
            delta_norm=piece.delta.norm,
            max_abs_delta=piece.largest,
            cosine=piece.cosine,
            old_mean=math.ldexp(old.mean, old.unit),
            new_mean=math.ldexp(new.mean, new.unit),
            old_std=old.std,
            new_std=new.std,
            old_nan=old.nan,
            old_inf=old.inf,
            new_nan=new.nan,
            new_inf=new.inf,
            overlap=overlap,
            **_histograms(piece),
        )

    @property
    def relative(self) -> float:
        """‖Δ‖/‖old‖; 0 where nothing changed, infinite where the old values are all zero."""
        if self.delta_norm == 0:
            return 0.0
        return self.delta_norm / self.old_norm if self.old_norm else math.inf

    @property
    def changed_share(self) -> float:
        """Share of entries changed, 0 to 1."""
        return self.changed / self.numel if self.numel else 0.0

    @property
    def flipped_share(self) -> float:
        """Share of entries whose sign changed, 0 to 1."""
        return self.sign_flips / self.numel if self.numel else 0.0


def _histograms(piece: Piece) -> dict[str, Histogram]:
    if piece.tallies is None:
        return {}
    names = ("old_histogram", "new_histogram", "delta_histogram")
    return {name: Histogram.of(tally) for name, tally in zip(names, piece.tallies, strict=True)}
