"""Pickles that are written again: what came in goes out, and nothing else, whatever it is."""

from __future__ import annotations

import io
import pickle
import pickletools
from collections import OrderedDict
from typing import Any

import pytest
import torch

from theta_nb.checkpoints.pickle_graph import read_graph, write_graph
from theta_nb.checkpoints.pickle_objects import Global, Instance
from theta_nb.errors import CheckpointError

VALUES: dict[str, Any] = {
    "scalars": [None, True, False, 0, -1, 255, 2**31, 2**70, -(2**70), 1.5, float("inf"), "", "é\n☃", "\ud800"],
    "bytes": [b"", b"\x00\xff", bytearray(b"abc")],
    "nested": {"a": [1, (2, (3,)), {"b": OrderedDict(c=4)}], 5: (), None: []},
    "shared": (lambda part: [part, part, {"x": part}])([1, 2]),
    "torch": [torch.Size([2, 3]), torch.float16, {1, 2}],
}


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("case", VALUES)
def test_what_comes_in_goes_out(case: str, protocol: int) -> None:
    data = pickle.dumps(VALUES[case], protocol)
    found = write_graph(read_graph(data, {}), lambda node: (node.key, node.numel))
    assert pickle.loads(found) == VALUES[case]
    again = write_graph(read_graph(found, {}), lambda node: (node.key, node.numel))
    assert pickle.loads(again) == VALUES[case]
    assert write_graph(read_graph(data, {}), lambda node: (node.key, node.numel)) == found, "not the same twice"


def test_what_is_shared_stays_shared() -> None:
    one, two, three = pickle.loads(write_graph(read_graph(pickle.dumps(VALUES["shared"], 2), {}), lambda node: ("", 0)))
    assert one is two
    assert three["x"] is one


@pytest.mark.parametrize("name", ["os\nsystem", "x\ncos\nsystem\n(S'id'\ntR", "", "a b", "a.", "é"])
def test_names_that_would_be_operations_are_refused(name: str) -> None:
    for made in (Global(name, "f"), Global("m", name)):
        with pytest.raises(CheckpointError, match="not the name of anything"):
            write_graph([Instance(made, ())], lambda node: ("", 0))


def test_nothing_but_nodes_is_written() -> None:
    with pytest.raises(CheckpointError, match="no place in a pickle"):
        write_graph({"x": io.BytesIO()}, lambda node: ("", 0))


def test_depth_is_an_error_and_not_a_crash() -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(CheckpointError, match="cannot be written"):
        write_graph(deep, lambda node: ("", 0))


def test_nothing_is_run() -> None:
    class Attack:
        def __reduce__(self) -> Any:
            return exec, ("raise SystemExit",)

    written = write_graph(read_graph(pickle.dumps(Attack(), 2), {}), lambda node: ("", 0))
    assert [arg for op, arg, _ in pickletools.genops(written) if op.name == "GLOBAL"] == ["__builtin__ exec"]
