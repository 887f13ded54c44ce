"""Exact methods give the same bits as when the golden values were made, on whatever machine that was."""

from __future__ import annotations

import json

import numpy as np
import pytest
from blake3 import blake3

from tests.merges.golden import NAMES, PATH, merged

GOLDEN = json.loads(PATH.read_text())


@pytest.mark.parametrize("name", NAMES)
def test_recorded_numbers_give_the_recorded_bits(name: str) -> None:
    decided = {key: tuple(map(float.fromhex, found)) for key, found in GOLDEN[name]["decided"].items()}
    assert blake3(merged(name, dict(decided))).hexdigest() == GOLDEN[name]["digest"]


@pytest.mark.parametrize("name", [name for name in NAMES if GOLDEN[name]["decided"]])
def test_numbers_that_are_decided_anew_are_nearly_the_recorded_ones(name: str) -> None:
    decided: dict[str, tuple[float, ...]] = {}
    merged(name, decided)
    for key, numbers in GOLDEN[name]["decided"].items():
        np.testing.assert_allclose(decided[key], [float.fromhex(n) for n in numbers], rtol=1e-9)
