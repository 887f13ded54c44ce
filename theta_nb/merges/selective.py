"""Methods that pick entries by comparing the task vectors: SCE, RAM, Arcee fusion, NearSwap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from theta_nb.merges.gram import dot
from theta_nb.merges.group import Array, Group, keep
from theta_nb.merges.method import merge_method
from theta_nb.merges.parameters import Range
from theta_nb.merges.selection import Picker, histogram, keys, order_statistics, select_largest
from theta_nb.merges.summing import elect

__all__ = ["arcee_fusion", "nearswap", "ram", "ramplus", "sce"]

Tiny = Annotated[float, Range(0, 1, tuned=False), "differences up to this size count as none"]


def _variance(deltas: Sequence[Array]) -> Array:
    """Variance between the models at every position, rounded as float32 unless the tensors are wider."""
    if len(deltas) == 2:
        half: Array = (deltas[0] - deltas[1]) * deltas[0].dtype.type(0.5)
        return half * half
    count = deltas[0].dtype.type(len(deltas))
    mean = sum(deltas[1:], deltas[0].copy()) / count
    made: Array = sum((np.square(delta - mean) for delta in deltas), np.zeros_like(mean)) / count
    return made


def _variances(group: Group) -> Iterator[Array]:
    return (_variance(part.deltas) for part in group.deltas())


@merge_method("sce", title="SCE", paper="https://arxiv.org/abs/2408.07990", base="needed", sample="entries")
def sce(
    group: Group,
    *,
    density: Annotated[float, Range(0, 1), "share of the positions that is merged, those that vary most"] = 1.0,
) -> Iterator[Array]:
    """Select the positions that vary most, weight each model by its energy there, erase the minority's signs, average.

    The weight of a model is its mean squared difference over that of all. mergekit weights all models alike once
    these sum to less than 1e-6, which ordinary fine-tunes do; here only where they are zero.

    Examples
    --------
    >>> from theta_nb.merges.tensors import merge_tensors
    >>> merge_tensors("sce", [[3.0, 0], [1, 0]], base=[0.0, 0]).round(2).tolist()
    [2.8, 0.0]
    """
    pick = _by_variance(group, density)
    weights = group.decide("weights", lambda: _energies(group, pick()))
    mask = pick()
    for part in group.deltas():
        if mask is not None:
            chosen = mask(part.deltas)
            for delta in part.deltas:
                keep(delta, chosen)
        total = elect(part.deltas, [1.0] * len(weights), normalize=True, shares=weights)
        total += part.base
        yield total


def _by_variance(group: Group, density: float) -> Any:
    """Starts a function that says, block after block, which positions are selected; ``None`` where all are."""
    if density >= 1 or not group.size:
        return lambda: None
    # A position where all models agree is never selected: its variance is the smallest number there is.
    nonzero = 0

    def counted() -> Iterator[Array]:
        nonlocal nonzero
        for block in _variances(group):
            nonzero += int(np.count_nonzero(block))
            yield block

    counts = histogram(counted)
    cut = select_largest(lambda: _variances(group), int(nonzero * density), group.size, counts=counts)

    def start() -> Any:
        picker = Picker(cut)
        return lambda deltas: picker.mask(keys(_variance(deltas)))

    return start


def _energies(group: Group, mask: Any) -> tuple[float, ...]:
    sums = np.zeros(len(group.inputs))
    for part in group.deltas():
        chosen = None if mask is None else mask(part.deltas)
        for k, delta in enumerate(part.deltas):
            if chosen is not None:
                keep(delta, chosen)
            sums[k] += dot(wide := delta.astype(np.float64), wide)
    total = float(sums.sum())
    if not np.isfinite(total) or total == 0:
        return (1 / len(sums),) * len(sums)
    return tuple(float(one) / total for one in sums)


def _ram(group: Group, factors: Sequence[float], epsilon: float) -> Iterator[Array]:
    for part in group.deltas():
        changed = [~(np.abs(delta) <= group.number(epsilon)) for delta in part.deltas]
        counts = np.zeros(len(part.base), np.int32)
        for one in changed:
            counts += one
        shared = np.maximum(counts, 1).astype(group.dtype)
        unique = counts == 1
        total = np.zeros_like(part.base)
        for delta, one, factor in zip(part.deltas, changed, factors, strict=True):
            keep(delta, one)
            if factor != 1:
                np.multiply(delta, group.number(factor), out=delta, where=unique)
            np.divide(delta, shared, out=delta)
            total += delta
        total += part.base
        yield total


@merge_method("ram", title="RAM", paper="https://arxiv.org/abs/2601.13572", base="needed", sample="entries")
def ram(group: Group, *, epsilon: Tiny = 1e-5) -> Iterator[Array]:
    """Keep what one model alone changed, average what several changed.

    Examples
    --------
    >>> from theta_nb.merges.tensors import merge_tensors
    >>> merge_tensors("ram", [[3.0, 2, 0], [0, 4, 0]], base=[0.0, 0, 0]).tolist()
    [3.0, 3.0, 0.0]
    """
    return _ram(group, [1.0] * len(group.inputs), epsilon)


@merge_method(
    "ramplus", title="RAM+ (by tensor)", paper="https://arxiv.org/abs/2601.13572", base="needed", sample="entries"
)
def ramplus(
    group: Group,
    *,
    r: Annotated[float, Range(0, 10), "how much unique entries grow with the share of shared ones"] = 0.1,
    alpha: Annotated[float, Range(0, 10), "bound of that ratio"] = 0.2,
    epsilon: Tiny = 1e-5,
) -> Iterator[Array]:
    """As RAM, with the unique entries of a model enlarged by how much of its change it shares with others.

    The factor is ``1 + r * min(shared / unique, alpha)``.

    Examples
    --------
    >>> from theta_nb.merges.tensors import merge_tensors
    >>> merge_tensors("ramplus", [[3.0, 2, 0], [0, 4, 0]], base=[0.0, 0, 0]).round(2).tolist()
    [3.06, 3.0, 0.0]
    """
    shared = np.zeros(len(group.inputs))
    unique = np.zeros(len(group.inputs))
    for part in group.deltas():
        changed = np.stack([~(np.abs(delta) <= group.number(epsilon)) for delta in part.deltas])
        counts = changed.sum(axis=0)
        shared += (changed & (counts > 1)).sum(axis=1)
        unique += (changed & (counts == 1)).sum(axis=1)
    with np.errstate(all="ignore"):
        ratio = np.where(unique > 0, shared / unique, np.where(shared > 0, np.inf, 0.0))
    return _ram(group, [1 + r * min(float(one), alpha) for one in ratio], epsilon)


@merge_method(
    "arcee_fusion",
    title="Arcee fusion",
    paper="https://www.arcee.ai",
    base="needed",
    exact=False,
    tolerance=1e-5,
    sample="rows",
)
def arcee_fusion(group: Group) -> Iterator[Array]:
    """Take over the differences that matter most; of several inputs, one after the other.

    The importance of an entry is its difference times the divergence (Kullback-Leibler, after a softmax) of its row;
    what reaches median + 1.5 interquartile ranges is kept. The quartiles are those of all entries, where mergekit
    draws a sample. The divergence is computed in float64: that of a fine-tune is smaller than what float32 rounds off
    in its sum. Rows are those along the last dimension.

    Examples
    --------
    >>> from theta_nb.merges.tensors import merge_tensors
    >>> x = np.zeros((4, 4)); x[0] = [9, 1, 1, 1]
    >>> merge_tensors("arcee_fusion", [x], base=np.zeros((4, 4)))[0].tolist()
    [9.0, 1.0, 1.0, 1.0]
    """
    flat = _by_last(group)
    important = [_Importance(flat, k) for k in range(len(group.inputs))]
    for part in flat.deltas(rows=True):
        total = part.base.copy()
        for delta, importance in zip(part.deltas, important, strict=True):
            keep(delta, importance.of(part.start, delta) >= importance.threshold)
            total += delta
        yield total


def _by_last(group: Group) -> Group:
    """The same tensor as a matrix whose rows are those along the last dimension."""
    length = group.shape[-1] if group.shape else 1
    return replace(group, shape=(group.size // length, length) if length else (0,))


class _Importance:
    """How much the entries of one task vector matter, and from where on they are kept."""

    def __init__(self, group: Group, index: int) -> None:
        self._length = max(group.shape[-1], 1)
        divergences = [_divergences(part.base, part.deltas[index], self._length) for part in group.deltas(rows=True)]
        self._divergences = np.concatenate(divergences) if divergences else np.empty(0)

        def walk() -> Iterator[Array]:
            return (self.of(part.start, part.deltas[index]) for part in group.deltas(rows=True))

        def threshold() -> float:
            ranks = [int(q * (group.size - 1)) for q in (0.25, 0.5, 0.75)]
            low, median, high = order_statistics(walk, ranks, group.size)
            return median + 1.5 * (high - low)

        self.threshold = group.decide(f"threshold {index}", threshold)[0] if group.size else 0.0

    def of(self, start: int, delta: Array) -> Array:
        """Importance of the entries of a block, float64."""
        rows = np.abs(delta).reshape(-1, self._length)
        first = start // self._length
        made: Array = rows * self._divergences[first : first + len(rows), None]
        return made.reshape(-1)


def _divergences(base: Array, delta: Array, length: int) -> Array:
    """Divergence of every row from what it was, float64."""
    before = base.reshape(-1, length).astype(np.float64)
    q, p = _softmax(before), _softmax(before + delta.reshape(-1, length))
    made: Array = (p * np.log(p / q)).sum(axis=1)
    return made


def _softmax(rows: Array) -> Array:
    """Softmax of every row, plus 1e-8, so that logarithms exist."""
    powers = np.exp(rows - rows.max(axis=1, keepdims=True))
    made: Array = powers / powers.sum(axis=1, keepdims=True) + rows.dtype.type(1e-8)
    return made


@merge_method(
    "nearswap",
    title="NearSwap",
    paper="https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001",
    inputs=(2, 2),
    base="none",
    sample="entries",
)
def nearswap(group: Group, *, t: Annotated[float, Range(0, 1), "how near is near"] = 0.001) -> Iterator[Array]:
    """Go from ours towards theirs where they are near: by t over their distance, at most all the way.

    Examples
    --------
    >>> from theta_nb.merges.tensors import merge_tensors
    >>> merge_tensors("nearswap", [[0.0, 0], [0.5, 4]], t=1).tolist()
    [0.5, 1.0]
    """
    for block in group.blocks():
        mine, other = block.inputs
        share = np.abs(mine - other)
        with np.errstate(all="ignore"):
            np.divide(group.number(t), np.maximum(share, group.number(1e-6)), out=share)
        np.clip(share, 0, 1, out=share)
        out = share * other
        out += (1 - share) * mine
        yield out
