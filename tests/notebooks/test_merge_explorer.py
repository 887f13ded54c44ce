"""The third notebook: the merge knows more than both sides, and what is committed is what the session says."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import nbformat

from tests.notebooks.conftest import NOTEBOOKS, texts


def test_the_notebook_keeps_its_promises(execute: Callable[[Any], dict[str, Any]]) -> None:
    notebook = nbformat.read(NOTEBOOKS / "03-merge-explorer.ipynb", as_version=4)
    cells = execute(notebook)

    assert "tracking *.safetensors" in texts(cells["setup"])
    assert "20 changed by both" in texts(cells["open"]), "every tensor has a state"
    shown = {kind: data for output in cells["explore"].outputs for kind, data in output["data"].items()}
    assert "application/vnd.jupyter.widget-view+json" in shown
    assert "blocks.0.up.weight" in shown["text/html"], "a saved notebook shows something, too"
    assert len(re.findall(r"^try \d+ ", texts(cells["sweep"]), re.MULTILINE)) == 6
    assert "the best is try" in texts(cells["ties"])
    assert "with an averaged head" in texts(cells["override"])
    assert "(the best so far)" in texts(cells["later"]), "notes and pins are saved"
    log = re.sub(r"\x1b\[[0-9;]*m", "", texts(cells["commit"]))
    assert "Merge branch 'high': know all digits" in log
    assert "Theta-Merge: digits.safetensors: " in log
    assert log.count("* ") == 4, "the merge and the commits that it merges"
    found = re.findall(r"(\w+) +accuracy ([\d.]+)", texts(cells["proof"]))
    scores = {revision: float(accuracy) for revision, accuracy in found}
    assert set(scores) == {"main", "low", "high", "merged"}
    assert scores["merged"] > max(scores["low"], scores["high"], scores["main"]) + 0.05
    assert "20 parameters the same" in texts(cells["proof"]), "a replay gives the same bits"
