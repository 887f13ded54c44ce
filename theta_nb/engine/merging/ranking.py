"""Ranks over tensors and over the whole model: where the largest entries of a task vector end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any

import numpy as np

from theta_nb.engine.merging.sampling import Sample
from theta_nb.engine.merging.states import Unit
from theta_nb.errors import MergeError
from theta_nb.merges.group import Array, Group
from theta_nb.merges.selection import NOTHING, Cut, histogram, select_largest

__all__ = ["Ranks"]

Samples = Mapping[tuple[str, str, str], Sample | None]
"""Samples by name of the parameter, kind and statistics."""


class Ranks:
    """Histograms of task vectors, and cuts through them; safe to share between threads.

    Parameters
    ----------
    group
        Makes the group of some inputs of a parameter.
    """

    def __init__(self, group: Callable[[Unit, Sequence[int]], Group]) -> None:
        self._group = group
        self._histograms: dict[tuple[bytes, bytes], tuple[Array, Array]] = {}
        self._cuts: dict[tuple[int, float], Cut] = {}
        self._ranked: tuple[Unit, ...] = ()
        self._sampled: dict[int, tuple[int, Array, Array]] = {}
        self._lock = Lock()

    def over(self, units: Sequence[Unit]) -> None:
        """Say which parameters count as the whole model."""
        self._ranked = tuple(units)

    def histogram(self, unit: Unit, position: int) -> Array:
        """Histogram of the magnitudes of a task vector, remembered by the digests of its ends."""
        version, base = unit.versions[position], unit.base
        if version is None or base is None:
            raise MergeError(f"{unit.name}: there is no task vector")
        key = (version.digest, base.digest)
        found = self._histograms.get(key)
        if found is None:
            group = self._group(unit, [position])
            counts = histogram(lambda: (delta.astype(np.float32, copy=False) for delta in group.delta(0)))
            filled = np.flatnonzero(counts)
            found = filled.astype(np.uint16), counts[filled].astype(np.min_scalar_type(int(counts.max())))
            self._histograms[key] = found
        counts = np.zeros(2**16, np.int64)
        counts[found[0]] = found[1]
        return counts

    def model_cut(self, position: int, density: float, *, wide: bool) -> Cut:
        """Where the largest entries of a task vector end, ranked over all parameters; equal ones are all kept."""
        with self._lock:
            cut = self._cuts.get((position, density))
            if cut is None:
                cut = self._cuts[position, density] = self._rank(position, density)
        return _widened(cut) if wide else cut

    def _rank(self, position: int, density: float) -> Cut:
        ranked = [unit for unit in self._ranked if unit.versions[position] is not None and unit.base is not None]
        ranked = [unit for unit in ranked if unit.base.shape == unit.versions[position].shape]  # type: ignore[union-attr]

        def walk() -> Any:
            for unit in ranked:
                for delta in self._group(unit, [position]).delta(0):
                    yield delta.astype(np.float32, copy=False)

        total = sum(unit.base.count for unit in ranked if unit.base is not None)
        counts = sum((self.histogram(unit, position) for unit in ranked), np.zeros(2**16, np.int64))
        cut = select_largest(walk, int(density * total), total, counts=counts)
        return cut if cut == NOTHING else Cut(cut.key, cut.equal, True)

    def sampled_cut(self, samples: Samples, positions: Sequence[int], *, wide: bool) -> Callable[[int, float], Cut]:
        """What a group of the inputs at ``positions`` takes for ``model_cut``, ranked over samples alone."""

        def cut(index: int, density: float) -> Cut:
            found = self._cut_samples(samples, positions[index], density)
            return _widened(found) if wide else found

        return cut

    def _cut_samples(self, samples: Samples, position: int, density: float) -> Cut:
        kept = self._sampled.get(position)
        if kept is None or kept[0] != len(samples):
            sizes, shares = [], []
            for unit in self._ranked:
                sample = samples.get((unit.name, "entries", ""))
                if sample is None or unit.base is None or unit.versions[position] is None:
                    continue
                row = 1 + sum(info is not None for info in unit.versions[:position])
                sizes.append(np.abs(sample.vectors[row]).astype(np.float32))
                shares.append(np.full(len(sizes[-1]), sample.share))
            size = np.concatenate(sizes)
            order = np.argsort(-size, kind="stable")
            kept = self._sampled[position] = (
                len(samples),
                size[order],
                np.cumsum(np.concatenate(shares)[order]),
            )
        _, size, above = kept
        last = int(np.searchsorted(above, density * above[-1], side="right")) - 1
        return Cut(int(size[last : last + 1].view(np.uint32)[0]), 1, True) if last >= 0 else NOTHING


def _widened(cut: Cut) -> Cut:
    """A cut through float32 numbers as one through float64 ones."""
    if cut == NOTHING:
        return cut
    value = np.array([cut.key], np.uint32).view(np.float32).astype(np.float64)
    return Cut(int(value.view(np.uint64)[0]), cut.equal, cut.all_equal)
