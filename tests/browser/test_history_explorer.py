"""HistoryExplorer in a real JupyterLab."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.conftest import Notebook
from tests.browser.test_diff_explorer import DRAWN, wait_for

Open = Callable[..., Notebook]

CELLS = (
    "import theta_nb\nrepo = theta_nb.Repository('.')",
    "explorer = theta_nb.HistoryExplorer(repo.history('model.safetensors'))\nexplorer",
)
SELECTED = "[explorer.history.step(c).commit.subject for c in explorer.selected_commits]"


def opened(open_notebook: Open, **options: Any) -> Notebook:
    notebook = open_notebook(*CELLS, **options)
    notebook.page.wait_for_selector(DRAWN)
    return notebook


def test_brush_two_commits_and_look_at_their_diff(open_notebook: Open) -> None:
    notebook = opened(open_notebook, height=1400)
    page = notebook.page
    # A canvas that is not laid out yet is 300 pixels wide.
    page.wait_for_function("() => document.querySelector('.theta-timeline canvas').getBoundingClientRect().width > 300")
    box = page.locator(".theta-timeline canvas").bounding_box()
    width = box["width"]
    notebook.page.get_by_role("button", name="measure").click()
    wait_for(notebook, "explorer.history.measured", True)
    page.locator(".theta-map canvas").first.focus()
    page.keyboard.press("]")
    wait_for(notebook, SELECTED, ["first weights"])
    page.keyboard.press("]")
    wait_for(notebook, SELECTED, ["epoch 1"])
    assert "epoch 1" in page.locator(".theta-commit").inner_text()
    # From the middle of the drawing to its right end, wherever the columns lie.
    page.mouse.move(box["x"] + width / 2, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + width - 30, box["y"] + 30, steps=4)
    page.mouse.up()
    wait_for(notebook, "len(explorer.selected_commits)", 2)
    page.get_by_role("button", name="open diff").click()
    page.wait_for_selector(f".theta-diff-box {DRAWN}")
    wait_for(notebook, "explorer.diff.measured", "scalars")
    page.locator(".theta-diff-box .theta-tree-row").first.click()
    page.wait_for_function("() => document.querySelectorAll('.theta-panel-body[aria-busy=true]').length === 0")
    assert page.locator(".theta-diff-box .theta-inspector .theta-problem").count() == 0
    page.get_by_role("button", name="close diff").click()
    assert page.locator(".theta-diff-box .theta-explorer").count() == 0
    assert notebook.problems == []


@pytest.mark.slow
def test_play_rows_table_and_themes(open_notebook: Open) -> None:
    notebook = opened(open_notebook, width=900)
    page = notebook.page
    page.get_by_role("button", name="play").click()
    wait_for(notebook, SELECTED, ["epoch 2"])
    page.get_by_role("button", name="pause").click()
    page.get_by_label("what the rows are").select_option("parameter")
    wait_for(notebook, "explorer.by", "parameter")
    page.get_by_role("button", name="table", exact=True).click()
    assert page.locator(".theta-table tbody tr").count() == 8
    assert "tag: v1" in page.locator(".theta-table").inner_text()
    page.get_by_role("button", name="map", exact=True).click()
    notebook.theme("JupyterLab Dark")
    notebook.run("explorer.selected_commits = [explorer.history[0].commit.short]")
    page.wait_for_function("() => document.querySelector('.theta-commit').textContent.includes('two more classes')")
    page.keyboard.press("Escape")
    assert notebook.problems == []
    notebook.theme("JupyterLab Light")
