"""The second notebook: every picture, table and number that its text promises."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import nbformat

from tests.notebooks.conftest import NOTEBOOKS, texts

ALL = {f"{layer}.{kind}" for layer in ("features.0", "features.2", "hidden", "head") for kind in ("bias", "weight")}


def data(cell: Any, kind: str) -> list[Any]:
    """What a cell shows of one MIME type."""
    return [output["data"][kind] for output in cell.outputs if kind in output.get("data", {})]


def differing(cell: Any) -> set[str]:
    """Names of the parameters that a diff lists."""
    [shown] = data(cell, "application/vnd.theta.diff+json")
    return {parameter["name"] for parameter in shown["parameters"] if parameter["status"] != "unchanged"}


def test_the_notebook_keeps_its_promises(execute: Callable[[Any], dict[str, Any]]) -> None:
    notebook = nbformat.read(NOTEBOOKS / "02-see-what-changed.ipynb", as_version=4)
    cells = execute(notebook)

    assert "tracking *.safetensors" in texts(cells["track"])
    [log] = data(cells["log"], "application/vnd.theta.history+json")
    assert [step["commit"]["subject"] for step in log["steps"]] == [f"epoch {n}" for n in range(6, 0, -1)]
    accuracy = [step["commit"]["metrics"]["accuracy"] for step in reversed(log["steps"])]
    assert accuracy[-1] > 0.9, "it learned to read"
    assert differing(cells["diff"]) == ALL
    assert len(differing(cells["top"])) == 3
    assert "<table" in data(cells["diff"], "text/html")[0]
    assert len(data(cells["bars"], "image/png")) == len(data(cells["history"], "image/png")) == 1
    assert differing(cells["branch"]) == {"head.bias", "head.weight"}, "only two tensors differ"
    blamed = texts(cells["blame"])
    assert re.search(r"head only, epoch 3 +head\.bias", blamed)
    assert re.search(r"epoch 6 +hidden\.bias", blamed)
    assert differing(cells["memory"]) == {"hidden.bias"}
    assert "HEAD → memory" in texts(cells["memory"])
    terminal = re.sub(r"\x1b\[[0-9;]*m", "", texts(cells["terminal"]))
    assert re.search(r"^-head\.bias\s+float32", terminal, re.MULTILINE), "git names the tensors"
    assert "head     2 of 2" in terminal
    assert terminal.count("head only, epoch") == 3
    [mistake] = cells["mistake"].outputs
    assert len(mistake["traceback"]) == 1, "one line"
    assert "'mian' is neither a commit nor a file here" in mistake["traceback"][0]
