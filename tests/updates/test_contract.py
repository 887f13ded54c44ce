"""Every update type of the table, against the contract."""

from __future__ import annotations

import numpy as np
import pytest

from tests.contracts.update_contract import Step, UpdateContract, of_patterns, step, usual_steps
from theta_nb.tensors.dtypes import DType
from theta_nb.tensors.rounding import narrow, realdtype, widen
from theta_nb.updates.table import UPDATES, Numbers, Update


class _BuiltIn(UpdateContract):
    name: str

    @pytest.fixture
    def update(self) -> Update:
        return UPDATES[self.name]


class TestDense(_BuiltIn):
    name = "dense"

    def steps(self, dtype: DType) -> dict[str, Step]:
        return {name: case for name, case in usual_steps(dtype).items() if name != "empty"}


class TestDelta(_BuiltIn):
    name = "delta"

    def steps(self, dtype: DType) -> dict[str, Step]:
        usual = usual_steps(dtype)
        return {name: usual[name] for name in ("rows", "one row", "a few changed", "nothing changed", "a long run")}


class TestSparse(_BuiltIn):
    name = "sparse"

    def steps(self, dtype: DType) -> dict[str, Step]:
        usual = usual_steps(dtype)
        names = ("a few changed", "nothing changed", "the first and the last changed")
        return {name: usual[name] for name in names}


def _floats(dtype: DType, rows: int, columns: int) -> tuple[str, np.ndarray, np.ndarray] | None:
    """A type's name, patterns of a matrix of moderate numbers and the numbers; none for what is no real float."""
    real = realdtype(dtype)
    if real != dtype.name or dtype.name == "float8_e8m0fnu":
        return None
    values = np.random.default_rng(0).normal(size=(rows, columns))
    patterns = narrow(values, real, np.zeros(values.shape, f"<u{dtype.itemsize}"))
    return real, patterns, widen(patterns, real)


class TestLowRank(_BuiltIn):
    name = "low-rank"

    def steps(self, dtype: DType) -> dict[str, Step]:
        found = _floats(dtype, 96, 80)
        if found is None or dtype.itemsize == 1:  # what rounding to 8 bits adds has full rank
            return {}
        real, old, values = found
        rng = np.random.default_rng(1)
        new = narrow(values + rng.normal(size=(96, 2)) @ rng.normal(size=(2, 80)) / 8, real, old)
        width = Numbers(dtype).width
        return {"rank 2": step(of_patterns(old, width), of_patterns(new, width), dtype, 80)}


class TestIa3(_BuiltIn):
    name = "ia3"

    def steps(self, dtype: DType) -> dict[str, Step]:
        found = _floats(dtype, 96, 80)
        if found is None:
            return {}
        real, old, values = found
        width, cases = Numbers(dtype).width, {}
        # Powers of two: what arises is the same in every type, and nothing else explains it.
        for name, shape in (("by row", (96, 1)), ("by column", (1, 80))):
            factors = np.exp2(np.random.default_rng(2).integers(0, 2, shape))
            new = narrow(values * factors, real, old)
            cases[name] = step(of_patterns(old, width), of_patterns(new, width), dtype, 80)
        return cases


def test_every_type_of_the_table_is_here() -> None:
    assert {case.name for case in _BuiltIn.__subclasses__()} == set(UPDATES.names())
