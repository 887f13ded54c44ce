"""What is kept of a task vector: its largest entries, a band of them, or a random share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from theta_nb.merges.draws import Draws, limit
from theta_nb.merges.group import Array, Group, keep
from theta_nb.merges.selection import Cut, Picker, keys, select_largest

__all__ = ["Make", "Sparse", "Sparsifier", "band", "keep_all", "magnitude_draws", "random", "rescaled", "trim"]


class Sparsifier(Protocol):
    """Drops entries of one task vector, block after block."""

    def __call__(self, delta: Array, /) -> None:
        """Set the dropped entries of the next block to zero."""
        ...


Make = Callable[[], Sparsifier]
"""Starts a sparsifier at the first block."""


@dataclass(frozen=True, slots=True)
class Sparse:
    """What becomes of one task vector before it is merged.

    Parameters
    ----------
    start
        Starts what drops entries.
    factor
        Of what is kept, to make up for the dropped.
    """

    start: Make
    factor: float = 1.0


def keep_all() -> Sparsifier:
    """Drops nothing."""
    return lambda delta: None


def _masking(mask: Callable[[Array], Array]) -> Sparsifier:
    def apply(delta: Array) -> None:
        keep(delta, mask(delta))

    return apply


def trim(group: Group, index: int, density: float, scope: str = "tensor") -> Make:
    """Keep the largest entries of task vector ``index``: a share of the tensor's, or of the whole model's."""
    if density >= 1 or not group.size:
        return keep_all
    if scope == "model" and group.model_cut is not None:
        cut = group.model_cut(index, density)
    else:
        cut = _largest(group, index, max(1, int(density * group.size)) if density > 0 else 0)

    def make() -> Sparsifier:
        picker = Picker(cut)
        return _masking(lambda delta: picker.mask(keys(delta)))

    return make


def _largest(group: Group, index: int, count: int) -> Cut:
    counts = group.histogram(index) if group.histogram is not None and count else None
    return select_largest(lambda: group.delta(index), count, group.size, counts=counts)


def band(group: Group, index: int, density: float, gamma: float) -> Make:
    """Drop the largest share ``gamma`` and, below it, all but a share ``density``; fewer large ones if need be."""
    if density >= 1 or not group.size:
        return keep_all
    kept = int(density * group.size)
    bottom = max(0, group.size - kept - int(gamma * group.size))
    low = _largest(group, index, group.size - bottom)
    high = _largest(group, index, group.size - bottom - kept)

    def make() -> Sparsifier:
        # Of equal numbers the later ones count as larger, as in a stable ascending sort.
        lower, upper = _LastPicker(low, group, index), _LastPicker(high, group, index)

        def mask(delta: Array) -> Array:
            found = keys(delta)
            above: Array = lower.mask(found) & ~upper.mask(found)
            return above

        return _masking(mask)

    return make


class _LastPicker:
    """Applies a cut, taking the last of the numbers that are equal to it."""

    def __init__(self, cut: Cut, group: Group, index: int) -> None:
        self._cut = cut
        self._skip = 0
        if not cut.all_equal:
            total = sum(int((keys(block) == block_key(block, cut)).sum()) for block in group.delta(index))
            self._skip = total - cut.equal

    def mask(self, found: Array) -> Array:
        if self._cut.all_equal:
            return Picker(self._cut).mask(found)
        key = found.dtype.type(self._cut.key)
        mask: Array = found > key
        equal = np.flatnonzero(found == key)
        mask[equal[self._skip :]] = True
        self._skip = max(0, self._skip - len(equal))
        return mask


def block_key(block: Array, cut: Cut) -> np.unsignedinteger:
    """The cut's key in the type of a block's keys."""
    return np.uint64(cut.key) if block.dtype == np.float64 else np.uint32(cut.key)


def random(group: Group, index: int, density: float, seed: int) -> Make:
    """Keep every entry with probability ``density``."""
    if density >= 1:
        return keep_all
    bound = limit(density)

    def make() -> Sparsifier:
        draws = Draws(seed, group.name, index)
        return _masking(lambda delta: draws.take(len(delta)) < bound)

    return make


def magnitude_draws(group: Group, index: int, density: float, epsilon: float, seed: int, *, divide: bool) -> Make:
    """Keep an entry with a probability that grows with its rank within its row, from density - epsilon to + epsilon.

    Parameters
    ----------
    group, index
        The task vector; blocks must hold whole rows.
    density, epsilon
        The middle and half the width of the probabilities; the width shrinks where they would leave 0 to 1.
    seed
        Of the draws.
    divide
        Whether what is kept is divided by its own probability, so that the expectation stays.
    """
    if density >= 1 or not group.size:
        return keep_all
    epsilon = max(min(epsilon, density, 1 - density), 0.0)
    length = group.rows[1]

    def make() -> Sparsifier:
        draws = Draws(seed, group.name, index)

        def apply(delta: Array) -> None:
            drawn = draws.take(len(delta))
            rows = delta.reshape(-1, length)
            if not divide:
                keep(delta, _kept_by_rank(rows, drawn.reshape(rows.shape), density, epsilon).reshape(-1))
                return
            probability = _by_rank(rows, density, epsilon).reshape(-1)
            kept = drawn < probability * 2.0**32
            np.divide(delta, np.where(kept, probability, 1), out=delta)
            keep(delta, kept)

        return apply

    return make


def _kept_by_rank(rows: Array, drawn: Array, density: float, epsilon: float) -> Array:
    """What :func:`_by_rank` would keep, without anybody's rank: each draw says which rank is enough.

    Sorting the values alone is several times as fast as finding out where each of them stands.
    """
    length = rows.shape[1]
    if length == 1 or epsilon == 0:
        return drawn < limit(density)
    size = np.abs(rows)
    wanted = np.multiply(drawn, (length - 1) / (2 * epsilon * 2.0**32), dtype=np.float32)
    wanted -= np.float32((density - epsilon) * (length - 1) / (2 * epsilon))
    enough = np.clip(wanted + 1, 0, length - 1)  # truncated, that is the first rank above what is wanted
    place = enough.astype(np.int32)
    ordered = np.sort(size, axis=1)
    place += np.arange(0, rows.size, length, dtype=np.int32)[:, None]
    kept: Array = size >= np.take(ordered, place)
    kept &= wanted < length - 1
    return kept


def _by_rank(rows: Array, density: float, epsilon: float) -> Array:
    """Probability of every entry from the rank of its magnitude within its row; the middle for rows of one entry."""
    length = rows.shape[1]
    if length == 1:
        return np.full(rows.shape, density)
    order = _ascending(rows)
    steps = (density - epsilon) + np.arange(length) * (2 * epsilon / (length - 1))
    out = np.empty(rows.shape)
    np.put_along_axis(out, order, np.broadcast_to(steps, rows.shape), axis=1)
    return out


def _ascending(rows: Array) -> Array:
    """Positions of each row's entries by magnitude, of equal ones the first first.

    The fast sorts of NumPy order equal numbers differently on different processors. With the position in the lower half
    of the key there are none.
    """
    if rows.dtype == np.float64:
        return np.argsort(np.abs(rows), axis=1, kind="stable")
    packed = keys(rows).astype(np.uint64)
    packed <<= np.uint64(32)
    packed |= np.arange(rows.shape[1], dtype=np.uint64)
    packed.sort(axis=1)
    packed &= np.uint64(2**32 - 1)
    order: Array = packed.astype(np.intp)
    return order


def rescaled(group: Group, index: int, make: Make, *, rows: bool = False) -> float:
    """Factor that gives the kept entries the sum of magnitudes of the whole; 1 where either vanishes."""

    def compute() -> float:
        sparsifier = make()
        before = after = 0.0
        for delta in _walk(group, index, rows=rows):
            before += float(np.abs(delta).sum(dtype=np.float64))
            sparsifier(delta)
            after += float(np.abs(delta).sum(dtype=np.float64))
        ratio = before / after if after > 0 else 1.0
        return ratio if np.isfinite(ratio) and ratio > 0 else 1.0

    return group.decide(f"rescale {index}", compute)[0]


def _walk(group: Group, index: int, *, rows: bool) -> Iterator[Array]:
    if not rows:
        return group.delta(index)
    return (part.deltas[index] for part in group.deltas(rows=True))
