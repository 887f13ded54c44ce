"""MergeExplorer in a real JupyterLab, as a person uses it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.conftest import Notebook
from tests.browser.test_diff_explorer import cell, wait_for
from tests.browser.test_lost_kernel import REOPEN

Open = Callable[..., Notebook]

CELLS = (
    """
import numpy as np, theta_nb
from tests.browser.models import first_state, trained
from theta_nb.engine.merging.inputs import StateInput
from theta_nb.engine.merging.session import MergeSession
base = first_state()
ours = trained(base, 1, "layer.1", "layer.2", "layer.3", "embeddings", by=0.3)
theirs = trained(base, 2, "layer.0", "layer.2", "layer.3", "head", "embeddings", by=0.4)
session = MergeSession(StateInput("original", base), [StateInput("ours", ours), StateInput("theirs", theirs)])
""",
    "explorer = theta_nb.MergeExplorer(session.use('slerp'))\nexplorer",
)
READY = """() => {
  const root = document.querySelector(".theta-merge");
  return root?.querySelector(".theta-map canvas[data-drawn]") && root.querySelector(".theta-notice").hidden
    && root.querySelector(".theta-right .theta-slider");
}"""
CHOICE = "session.settings.default.parameters"


def opened(open_notebook: Open, *cells: str, **options: Any) -> Notebook:
    notebook = open_notebook(*(cells or CELLS), **options)
    notebook.page.wait_for_function(READY)
    if not cells:
        wait_for(notebook, "session.measured", True)  # while the weights are read, a line above moves the map down
        notebook.page.wait_for_function(READY)
    notebook.page.locator(".theta-merge").first.scroll_into_view_if_needed()
    return notebook


def drag(notebook: Notebook, slider: Any, to: float) -> None:
    """Move a slider to a share of its way, as a hand does."""
    box = slider.bounding_box()
    page = notebook.page
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    for step in (0.25, 0.5, 0.75, 1):
        page.mouse.move(box["x"] + box["width"] * (0.5 + (to - 0.5) * step), box["y"] + box["height"] / 2)
    page.mouse.up()


def test_sliders_methods_and_ways_back(open_notebook: Open) -> None:
    notebook = opened(open_notebook)
    page = notebook.page
    slider = page.locator(".theta-right .theta-slider")
    drawn = page.evaluate("document.querySelector('.theta-map canvas').dataset.drawn")
    drag(notebook, slider, 0.9)
    wait_for(notebook, f"0.8 < {CHOICE}.get('t', 0) < 1", True)
    assert int(page.evaluate("document.querySelector('.theta-map canvas').dataset.drawn")) > int(drawn)
    assert notebook.value("len(session._steps)") == 3, "one step, however far the slider went"
    page.keyboard.press("z")
    wait_for(notebook, CHOICE, {})
    page.locator(".theta-method").select_option("ties")
    wait_for(notebook, "session.settings.default.method", "ties")
    page.wait_for_function("document.querySelector('.theta-recipe').textContent.includes('method: ties')")
    assert page.locator(".theta-control").count() == 5
    page.locator("input[aria-label=density][type=number]").fill("0.3")
    page.keyboard.press("Enter")
    wait_for(notebook, f"{CHOICE}.get('density')", 0.3)
    # The numbers become exact by themselves, and are those of the session.
    page.wait_for_function("!/exactly|estimated/.test(document.querySelector('.theta-foot').textContent)")
    notebook.value("session.use('task_arithmetic', scale=0.5) and 1")
    page.wait_for_function("document.querySelector('.theta-method').value === 'task_arithmetic'")
    assert not notebook.problems


def test_selection_blocks_and_overrides(open_notebook: Open) -> None:
    notebook = opened(open_notebook)
    page = notebook.page
    place = cell(notebook, 0, 0)
    page.mouse.move(**place)
    page.wait_for_function("/slerp\\(t=0.5\\).*norm/s.test(document.querySelector('.theta-tip').textContent)")
    page.mouse.click(**place)
    wait_for(notebook, "explorer.selection", ["embeddings.word.weight"])
    page.locator("[aria-label='select many']").select_option("by kind/all attention")
    wait_for(notebook, "len(explorer.selection)", 32)
    page.locator(".theta-method").select_option("ours")
    wait_for(notebook, "sorted({d.label for n, d in session.decisions.items() if 'attention' in n})", ["ours"])
    patterns = notebook.value("[o.pattern for o in session.settings.overrides]")
    assert len(patterns) < 10, "patterns, not thirty-two names"
    page.locator("text=as the rest").click()
    wait_for(notebook, "len(session.settings.overrides)", 0)

    page.locator("button[role=tab]:has-text('blocks')").click()
    page.locator("[aria-label=shape]").select_option("linear ramp up")
    wait_for(notebook, "[o.choice.parameters['t'] for o in session.settings.overrides]", [0, 0.5, 1])
    page.get_by_label("values of all blocks as text").fill("1, 0.5, 0.25")
    page.keyboard.press("Enter")
    wait_for(notebook, "[o.choice.parameters['t'] for o in session.settings.overrides]", [1, 0.5, 0.25])
    page.locator("button:has-text('mirror')").click()
    wait_for(notebook, "[o.choice.parameters['t'] for o in session.settings.overrides]", [0.25, 0.5, 1])
    drag(notebook, page.locator(".theta-block .theta-slider").nth(2), 0.02)
    wait_for(notebook, "session.settings.overrides[1].choice.parameters['t'] < 0.2", True)
    assert not notebook.problems


@pytest.mark.slow
def test_kinds_a_table_and_shapes_of_ones_own(open_notebook: Open) -> None:
    notebook = opened(open_notebook)
    page = notebook.page
    page.get_by_label("rows of the map").select_option("kind")
    wait_for(notebook, "explorer.rows", "kind")
    place = cell(notebook, 0, 3)
    page.mouse.move(**place)
    page.wait_for_function("/^attention of .*4 parameters/s.test(document.querySelector('.theta-tip').innerText)")
    page.mouse.click(**place)
    wait_for(notebook, "[n.split('.')[3] for n in explorer.selection]", ["attention"] * 4)
    page.keyboard.press("t")
    rows = page.locator(".theta-middle tbody tr")
    assert rows.count() == 55
    rows.filter(has_text="head.bias").get_by_role("button").click()
    wait_for(notebook, "explorer.selection", ["head.bias"])
    assert rows.filter(has_text="head.bias").get_attribute("aria-selected") == "true"
    page.locator(".theta-middle .theta-table").focus()
    page.keyboard.press("t")
    page.keyboard.press("r")
    wait_for(notebook, "explorer.rows", "role")

    page.locator("button:has-text('everything')").click()
    page.get_by_role("tab", name="blocks").click()
    page.get_by_label("values of all blocks as text").fill("1, 0.5, 0.25")
    page.keyboard.press("Enter")
    page.get_by_label("name for these values").fill("falling")
    page.get_by_role("button", name="keep", exact=True).click()
    page.get_by_role("button", name="mirror").click()
    wait_for(notebook, "[o.choice.parameters['t'] for o in session.settings.overrides]", [0.25, 0.5, 1])
    page.get_by_label("shape", exact=True).select_option("falling")
    wait_for(notebook, "[o.choice.parameters['t'] for o in session.settings.overrides]", [1, 0.5, 0.25])
    assert not notebook.problems


@pytest.mark.slow
def test_a_notebook_that_was_saved_shows_a_picture_of_the_merge(open_notebook: Open) -> None:
    notebook = opened(open_notebook)
    page = notebook.page
    page.wait_for_selector(".theta-stand-in img", state="attached")  # what was measured meanwhile is in it
    assert not page.locator(".theta-stand-in").is_visible(), "the widget takes its place"
    page.evaluate("() => jupyterapp.commands.execute('docmanager:save')")
    page.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.shutdown()")
    page.evaluate(REOPEN, False)
    still = page.locator(".theta-stand-in")
    still.wait_for()
    assert still.locator("img").evaluate("(image) => image.naturalWidth") > 300
    assert "slerp(t=0.5)" in still.inner_text()


@pytest.mark.slow
def test_a_kernel_that_is_gone_is_said(open_notebook: Open) -> None:
    notebook = opened(open_notebook)
    page = notebook.page
    page.evaluate("async () => { await jupyterapp.shell.currentWidget.sessionContext.restartKernel(); }")
    page.wait_for_selector(".theta-merge[data-lost]")
    assert "The kernel was restarted" in page.locator(".theta-lost").inner_text()
    assert page.locator(".theta-method").is_disabled()
    assert page.locator("button:has-text('undo')").is_disabled()


@pytest.mark.slow
def test_keys_alone(open_notebook: Open) -> None:
    notebook = opened(open_notebook)
    page = notebook.page
    page.locator(".theta-middle canvas").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    wait_for(notebook, "len(explorer.selection)", 1)
    page.keyboard.press("m")
    wait_for(notebook, "explorer.metric", "to_theirs")
    page.keyboard.press("?")
    assert page.locator("[role=dialog]").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    wait_for(notebook, "explorer.selection", [])
    page.locator(".theta-right .theta-slider").focus()
    page.keyboard.press("ArrowRight")
    wait_for(notebook, f"{CHOICE}.get('t', 0) > 0.5", True)
    assert not notebook.problems


@pytest.mark.slow
@pytest.mark.parametrize("width", [900, 1600])
def test_narrow_and_wide_light_and_dark(open_notebook: Open, width: int) -> None:
    notebook = opened(open_notebook, width=width)
    page = notebook.page
    for theme in ("JupyterLab Light", "JupyterLab Dark"):
        notebook.theme(theme)
        page.wait_for_function(  # nothing is wider than its place, once everything is drawn
            "() => [...document.querySelectorAll('.theta-merge, .theta-merge .theta-right, .theta-merge .theta-left')]"
            ".every((box) => box.scrollWidth <= box.clientWidth + 1)"
        )
    assert not notebook.problems


@pytest.mark.slow
def test_two_explorers_of_two_sessions(open_notebook: Open) -> None:
    cells = (
        *CELLS,
        "other = theta_nb.MergeExplorer(MergeSession(session.base, session.inputs).use('linear'))\nother",
    )
    notebook = opened(open_notebook, *cells)
    page = notebook.page
    page.wait_for_function("document.querySelectorAll('.theta-merge .theta-right .theta-slider').length > 1")
    page.locator(".theta-method").nth(1).select_option("task_arithmetic")
    wait_for(notebook, "other.session.settings.default.method", "task_arithmetic")
    assert notebook.value("session.settings.default.method") == "slerp"
