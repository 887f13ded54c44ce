"""Versions of a matrix that the update types of floats are for."""

from __future__ import annotations

import numpy as np

from tests.contracts.update_contract import Step, of_patterns, step
from theta_nb.tensors.dtypes import DType
from theta_nb.tensors.rounding import narrow, realdtype, widen
from theta_nb.updates.table import Numbers

ROWS, COLUMNS = 96, 80


def rank_two(dtype: DType) -> dict[str, Step]:
    """A matrix and its sum with one of rank two; none for what is no real float."""
    found = _floats(dtype)
    if found is None:
        return {}
    old, values = found
    rng = np.random.default_rng(1)
    return {"rank 2": _step(old, values + rng.normal(size=(ROWS, 2)) @ rng.normal(size=(2, COLUMNS)) / 8, dtype)}


def scaled(dtype: DType) -> dict[str, Step]:
    """A matrix and its product with one number for every row, or column; none for what is no real float."""
    found = _floats(dtype)
    if found is None:
        return {}
    old, values = found
    rng = np.random.default_rng(2)
    # Powers of two: exact in every type, and nothing else explains the result.
    shapes = {"by row": (ROWS, 1), "by column": (1, COLUMNS)}
    return {name: _step(old, values * np.exp2(rng.integers(0, 2, shape)), dtype) for name, shape in shapes.items()}


def _floats(dtype: DType) -> tuple[np.ndarray, np.ndarray] | None:
    """Patterns of moderate numbers, and the numbers."""
    if realdtype(dtype) != dtype.name or dtype.name == "float8_e8m0fnu":  # that one has no sign
        return None
    values = np.random.default_rng(0).normal(size=(ROWS, COLUMNS))
    patterns = narrow(values, dtype.name, np.zeros(values.shape, f"<u{dtype.itemsize}"))
    return patterns, widen(patterns, dtype.name)


def _step(old: np.ndarray, values: np.ndarray, dtype: DType) -> Step:
    width = Numbers(dtype).width
    new = narrow(values, dtype.name, old)
    return step(of_patterns(old, width), of_patterns(new, width), dtype, COLUMNS)
