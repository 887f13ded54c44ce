"""Methods that mergekit lacks, against their papers' formulas written out in float64."""

from __future__ import annotations

import numpy as np
import pytest

from tests.contracts.merge_contract import tensors
from theta_nb.merges.tensors import merge_tensors

BASE, *INPUTS = tensors(3, (14, 9), seed=4)
DELTAS = [x.astype(np.float64) - BASE for x in INPUTS]
SUM = sum(DELTAS)


def close(made: np.ndarray, expected: np.ndarray, tolerance: float = 2e-6) -> None:
    np.testing.assert_allclose(made, expected, rtol=tolerance, atol=tolerance)


def test_consensus_keeps_what_enough_tasks_need() -> None:
    masks = [np.abs(d) >= 0.5 * np.abs(SUM - d) for d in DELTAS]
    expected = BASE + 0.7 * SUM * (np.sum(masks, axis=0) >= 2)
    close(merge_tensors("consensus", INPUTS, base=BASE, tall=0.5, scale=0.7), expected)


def test_emr_unifies_and_rebuilds() -> None:
    sign = np.sign(SUM)
    size = np.max([np.abs(d) * (np.sign(d) == sign) for d in DELTAS], axis=0)
    unified = sign * size
    close(merge_tensors("emr", INPUTS, base=BASE), BASE + unified)
    mask = DELTAS[1] * unified > 0
    factor = np.abs(DELTAS[1]).sum() / np.abs(mask * unified).sum()
    close(merge_tensors("emr", INPUTS, base=BASE, task=2), BASE + factor * mask * unified)


def test_iso_c_has_one_singular_value() -> None:
    made = merge_tensors("iso_c", INPUTS, base=BASE).astype(np.float64) - BASE
    values = np.linalg.svd(made, compute_uv=False)
    mean = np.linalg.svd(SUM, compute_uv=False).mean()
    close(values, np.full(9, mean), 1e-5)
    close(merge_tensors("iso_c", [x[0] for x in INPUTS], base=BASE[0]), np.mean([x[0] for x in INPUTS], axis=0))


def test_tsv_m_whitens_the_leading_singular_vectors() -> None:
    parts = [np.linalg.svd(d, full_matrices=False) for d in DELTAS]
    rank = 9 // 3
    u = np.hstack([p[0][:, :rank] for p in parts])
    s = np.hstack([p[1][:rank] for p in parts])
    v = np.vstack([p[2][:rank] for p in parts])

    def whiten(x: np.ndarray) -> np.ndarray:
        # Another route to the polar factor: x (x^T x)^(-1/2).
        values, vectors = np.linalg.eigh(x.T @ x)
        return x @ (vectors / np.sqrt(values)) @ vectors.T

    expected = BASE + whiten(u) @ np.diag(s) @ whiten(v.T).T
    close(merge_tensors("tsv_m", INPUTS, base=BASE), expected, 1e-5)


def test_widen_scores_columns_by_rank() -> None:
    wide = [x.astype(np.float64) for x in INPUTS]
    lengths = [np.linalg.norm(x, axis=0) for x in wide]
    original = np.linalg.norm(BASE.astype(np.float64), axis=0)
    by_length = [np.abs(n - original) for n in lengths]
    by_angle = [1 - (x * BASE).sum(axis=0) / n / original for x, n in zip(wide, lengths, strict=True)]

    def scores(changes: list[np.ndarray]) -> np.ndarray:
        rank = np.array([np.argsort(np.argsort(c)) / len(c) for c in changes])
        soft = np.exp(rank) / np.exp(rank).sum(axis=0)
        return np.where(rank > rank.mean(axis=1, keepdims=True), 1.0, soft)

    both = (scores(by_length) + scores(by_angle)) / 2
    expected = BASE + sum(d * s for d, s in zip(DELTAS, both, strict=True))
    close(merge_tensors("widen", INPUTS, base=BASE), expected, 1e-5)


def test_pcb_keeps_the_winners_and_averages_them() -> None:
    made = merge_tensors("pcb", INPUTS, base=BASE, density=0.25).astype(np.float64) - BASE
    winners = []
    for d in DELTAS:
        unit = (np.abs(d) - np.abs(d).min()) / (np.abs(d).max() - np.abs(d).min())
        score = np.exp(3 * unit**2) * np.tanh(d * SUM)
        winners.append(score >= np.sort(score.ravel())[-int(0.25 * d.size)])
    assert np.array_equal(np.abs(made) > 1e-6, np.any(winners, axis=0))
    low, high = np.min(DELTAS, axis=0), np.max(DELTAS, axis=0)
    inside = np.any(winners, axis=0)
    assert ((made >= low - 1e-6) & (made <= high + 1e-6))[inside].all()
    alone = np.sum(winners, axis=0) == 1
    picked = sum(d * w for d, w in zip(DELTAS, winners, strict=True))
    close(made[alone], picked[alone], 1e-5)


def test_fisher_weights_entries() -> None:
    random = np.random.default_rng(1)
    information = [random.random(BASE.shape) for _ in INPUTS]
    weights = [0.2, 0.3, 0.5]
    top = sum(w * f * x for w, f, x in zip(weights, information, INPUTS, strict=True))
    bottom = sum(w * f for w, f in zip(weights, information, strict=True))
    close(merge_tensors("fisher", INPUTS, statistics=information, weight=weights), top / bottom)


def test_regmean_solves_the_regression() -> None:
    random = np.random.default_rng(2)
    data = [random.standard_normal((50, 9)) for _ in INPUTS]
    grams = [x.T @ x for x in data]
    made = merge_tensors("regmean", INPUTS, statistics=grams, alpha=1.0)
    # The merged layer is the least squares fit of what each layer says on its own data.
    stacked = np.vstack(data)
    answers = np.vstack([x @ w.T for x, w in zip(data, INPUTS, strict=True)])
    close(made, np.linalg.lstsq(stacked, answers, rcond=None)[0].T, 1e-5)


@pytest.mark.parametrize(
    ("name", "parameters", "expected"),
    [
        ("average-ours-theirs", {}, 6.0),
        ("average-ours-theirs", {"alpha": 0.75}, 5.0),
        ("average-all", {}, 8.0),
        ("average-all", {"alpha1": 0.5, "alpha2": 0.25}, 7.0),
        ("average-ours-original", {"alpha": 0.25}, 10.0),
        ("average-theirs-original", {"alpha": 0.25}, 11.0),
        ("average", {}, 6.0),
        ("take_us", {}, 4.0),
        ("take_them", {}, 8.0),
        ("take_original", {}, 12.0),
    ],
)
def test_the_names_of_git_theta_mean_what_they_say(name: str, parameters: dict[str, float], expected: float) -> None:
    made = merge_tensors(name, [np.full(3, 4.0), np.full(3, 8.0)], base=np.full(3, 12.0), **parameters)
    close(made, np.full(3, expected))
