"""The selecting methods by their definitions: float64, sorted, one after the other."""

from __future__ import annotations

import numpy as np


def ranks(values: np.ndarray) -> np.ndarray:
    """Place of each magnitude from the largest, 0, to the smallest; of equal ones the first is larger."""
    order = np.argsort(-np.abs(values).reshape(-1), kind="stable")
    out = np.empty(values.size, int)
    out[order] = np.arange(values.size)
    return out.reshape(values.shape)


def elected(deltas: list[np.ndarray], weights: list[float], normalize: bool) -> np.ndarray:
    """Sum of what has the sign of the sum."""
    weighted = [w * d for w, d in zip(weights, deltas, strict=True)]
    sign = np.where(sum(weighted) >= 0, 1, -1)
    votes = [np.sign(d) == sign for d in weighted]
    total = sum(d * v for d, v in zip(weighted, votes, strict=True))
    divisor = sum(w * v for w, v in zip(weights, votes, strict=True))
    return total / np.where(divisor == 0, 1, divisor) if normalize else total


def ties(base: np.ndarray, inputs: list[np.ndarray], density: float) -> np.ndarray:
    """Trim, elect, merge."""
    deltas = [(x - base).astype(np.float64) for x in inputs]
    kept = max(1, int(density * base.size))
    trimmed = [d * (ranks(d) < kept) for d in deltas]
    return base + elected(trimmed, [1.0] * len(deltas), True)


def breadcrumbs(base: np.ndarray, inputs: list[np.ndarray], density: float, gamma: float, election: bool) -> np.ndarray:
    """Drop both ends; of equal magnitudes the last is larger."""
    out = []
    kept, top = int(density * base.size), int(gamma * base.size)
    bottom = max(0, base.size - kept - top)
    for x in inputs:
        delta = (x - base).astype(np.float64)
        order = np.argsort(np.abs(delta).reshape(-1), kind="stable")
        mask = np.zeros(base.size)
        mask[order[bottom : bottom + kept]] = 1
        out.append(delta * mask.reshape(base.shape))
    return base + (elected(out, [1.0] * len(out), False) if election else sum(out))


def sce(base: np.ndarray, inputs: list[np.ndarray], density: float) -> np.ndarray:
    """Select by variance, weight by energy, erase the minority."""
    deltas = np.stack([(x - base).astype(np.float64) for x in inputs])
    if density < 1:
        variance = deltas.var(axis=0)
        kept = int(np.count_nonzero(variance) * density)
        deltas = deltas * (ranks(variance) < kept)
    energy = (deltas**2).reshape(len(inputs), -1).sum(axis=1)
    weights = energy / energy.sum() if energy.sum() else np.full(len(inputs), 1 / len(inputs))
    sign = np.where(deltas.sum(axis=0) >= 0, 1, -1)
    votes = (np.sign(deltas) == sign) * weights.reshape(-1, *[1] * base.ndim)
    total = votes.sum(axis=0)
    return base + (deltas * votes).sum(axis=0) / np.where(total == 0, 1, total)


def importance(base: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, float]:
    """What Arcee fusion goes by, and the least of it that is kept."""

    def softmax(rows: np.ndarray) -> np.ndarray:
        powers = np.exp(rows - rows.max(axis=-1, keepdims=True))
        return powers / powers.sum(axis=-1, keepdims=True) + 1e-8

    before, after = base.astype(np.float64), x.astype(np.float64)
    p, q = softmax(after), softmax(before)
    found = np.abs(after - before) * (p * np.log(p / q)).sum(axis=-1, keepdims=True)
    ordered = np.sort(found.reshape(-1))
    low, median, high = (ordered[int(share * (ordered.size - 1))] for share in (0.25, 0.5, 0.75))
    return found, float(median + 1.5 * (high - low))
