"""Every method of the table keeps to the contract."""

from __future__ import annotations

import pytest

from tests.contracts.merge_contract import MergeContract
from theta_nb.merges.method import Method
from theta_nb.merges.table import METHODS, method_named


@pytest.mark.parametrize("name", [*METHODS.names(), "lines:ties", "lines:slerp", "lines:task_arithmetic"])
class TestBuiltin(MergeContract):
    """The methods that come with theta-nb."""

    @pytest.fixture
    def method(self, name: str) -> Method:
        return method_named(name)
