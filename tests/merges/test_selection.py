"""Selecting the largest numbers by histogram gives what sorting gives."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from theta_nb.merges.selection import Picker, histogram, keys, order_statistics, select_largest

RANDOM = np.random.default_rng(0)

NUMBERS = {
    "normal": RANDOM.standard_normal(100_000).astype(np.float32),
    "few": RANDOM.standard_normal(11).astype(np.float32),
    "equal": np.ones(100_000, np.float32),
    "zeros": np.zeros(50_000, np.float32),
    "coarse": np.round(RANDOM.standard_normal(100_000) * 3).astype(np.float32),
    "wide": (10.0 ** RANDOM.uniform(-40, 38, 100_000)).astype(np.float32),
    "float64": RANDOM.standard_normal(100_000) * 1e200,
    "infinite": np.where(RANDOM.random(100_000) < 0.1, np.inf, RANDOM.standard_normal(100_000)).astype(np.float32),
}


def blocks(values: np.ndarray, step: int = 7_001) -> Iterator[np.ndarray]:
    return (values[start : start + step] for start in range(0, len(values), step))


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("share", [0.0, 1e-5, 0.3, 0.5, 0.999, 1.0])
def test_the_largest_magnitudes_are_found_first_of_equal_ones_first(name: str, share: float) -> None:
    values = NUMBERS[name]
    count = int(share * len(values))
    cut = select_largest(lambda: blocks(values), count, len(values))
    picker = Picker(cut)
    mask = np.concatenate([picker.mask(keys(block)) for block in blocks(values)])
    expected = np.zeros(len(values), bool)
    expected[np.argsort(-np.abs(values), kind="stable")[:count]] = True
    assert np.array_equal(mask, expected)


@pytest.mark.parametrize("name", NUMBERS)
def test_a_known_histogram_changes_nothing(name: str) -> None:
    values = NUMBERS[name]
    counts = histogram(lambda: blocks(values))
    assert counts.sum() == len(values)
    for count in (1, len(values) // 3, len(values)):
        known = select_largest(lambda: blocks(values), count, len(values), counts=counts)
        assert known == select_largest(lambda: blocks(values), count, len(values))


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_of_given_ranks_with_their_signs(name: str) -> None:
    values = NUMBERS[name]
    ranks = [0, len(values) // 4, len(values) - 1]
    assert order_statistics(lambda: blocks(values), ranks, len(values)) == np.sort(values)[ranks].tolist()


def test_nan_counts_as_largest() -> None:
    values = np.array([1, np.nan, 3, -np.inf], np.float32)
    cut = select_largest(lambda: blocks(values), 1, 4)
    assert Picker(cut).mask(keys(values)).tolist() == [False, True, False, False]
