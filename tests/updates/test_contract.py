"""Every update type of the table, against the contract."""

from __future__ import annotations

import pytest

from tests.contracts.update_contract import Step, UpdateContract, usual_steps
from tests.updates.matrices import rank_two, scaled
from theta_nb.tensors.dtypes import DType
from theta_nb.updates.low_rank import LowRank
from theta_nb.updates.table import UPDATES, Update


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


class TestLowRank(_BuiltIn):
    name = "low-rank"

    def steps(self, dtype: DType) -> dict[str, Step]:
        return rank_two(dtype) if dtype.itemsize > 1 else {}  # what rounding to 8 bits adds has full rank


class TestLowRankOfKnownRank(TestLowRank):
    """With the rank that a person names it expresses 8-bit floats as well: the correction takes what rounding adds."""

    @pytest.fixture
    def update(self) -> Update:
        return LowRank(rank=2)

    def steps(self, dtype: DType) -> dict[str, Step]:
        return rank_two(dtype)


class TestIa3(_BuiltIn):
    name = "ia3"

    def steps(self, dtype: DType) -> dict[str, Step]:
        return scaled(dtype)


def test_every_type_of_the_table_is_here() -> None:
    assert {case.name for case in _BuiltIn.__subclasses__()} == set(UPDATES.names())
