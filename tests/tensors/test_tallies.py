"""Counts of exponents: two sides counted together give what each gives alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from theta_nb.tensors.tallies import Tally, settle_together

Singles = npt.NDArray[np.float32]


def counts_of(numbers: Singles) -> list[int]:
    """Exponents counted one by one, by another way than the tally's."""
    exponents = (np.abs(numbers).view(np.uint32) >> 23).astype(int)
    found: list[int] = np.histogram(exponents, np.arange(257))[0].tolist()
    return found


@pytest.mark.parametrize("length", [1, 63, 1000, 65_537, 300_001])
@pytest.mark.parametrize("change", [0.0, 1e-3, 0.05, 10.0], ids=["equal", "near", "less near", "far"])
def test_two_sides_together(length: int, change: float) -> None:
    rng = np.random.default_rng(length)
    old = rng.standard_normal(length).astype(np.float32)
    new = (old * (1 + change * rng.standard_normal(length))).astype(np.float32)
    new[::997] = [0.0, np.inf, np.nan, 1e-42][length % 4]
    before, after = Tally(), Tally()
    for start in range(0, length, 70_000):
        before.add(old[start : start + 70_000])
        after.add(new[start : start + 70_000])
    settle_together(before, after)
    assert before.counts.tolist() == counts_of(old)
    assert after.counts.tolist() == counts_of(new)
    settle_together(before, after)
    assert int(before.counts.sum()) == length, "what is counted is noted no longer"


def test_sides_of_different_lengths_are_counted_alone() -> None:
    before, after = Tally(), Tally()
    sides: tuple[Any, Any] = (np.ones(3, np.float32), np.full(5, 2, np.float32))
    before.add(sides[0])
    after.add(sides[1])
    settle_together(before, after)
    assert (before.counts[127], after.counts[128]) == (3, 5)
    assert (int(before.counts.sum()), int(after.counts.sum())) == (3, 5)
