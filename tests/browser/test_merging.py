"""Notebook 03 in a real JupyterLab: two fine-tunes are merged as a person does it, and git says whether it is true."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from safetensors.numpy import load_file

import theta_nb
from tests.browser.conftest import Notebook
from tests.notebooks.conftest import NOTEBOOKS
from theta_nb.engine.merging.recipe import Recipe
from theta_nb.manifest.text import parse

Open = Callable[..., Notebook]
NAME = "digits.safetensors"


def cells(*ids: str) -> list[str]:
    """Cells of the notebook, as they are there."""
    notebook = nbformat.read(NOTEBOOKS / "03-merge-explorer.ipynb", as_version=4)
    return [cell.source for cell in notebook.cells if cell.id in ids]


def opened(open_notebook: Open, **options: Any) -> Notebook:
    """The notebook, run up to its explorer."""
    notebook = open_notebook(*cells("setup", "train", "branches", "open", "explore"), height=1400, **options)
    notebook.page.wait_for_selector(".theta-merge .theta-map canvas[data-drawn]", timeout=90_000)
    notebook.page.wait_for_function("() => document.querySelector('.theta-message')?.value.startsWith('Merge')")
    notebook.page.locator(".theta-merge").scroll_into_view_if_needed()
    return notebook


def panel(notebook: Notebook, name: str) -> Any:
    return notebook.page.locator(f".theta-slot[data-panel={name}]")


def wait_for(notebook: Notebook, expression: str, wanted: Any) -> None:
    """Wait until the kernel says that an expression has a value."""
    for _ in range(300):
        if (found := notebook.value(expression)) == wanted:
            return
        notebook.page.wait_for_timeout(50)
    raise AssertionError(f"{expression} is {found}, not {wanted}")


def git(folder: str, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def sweep(notebook: Notebook) -> None:
    panel(notebook, "sweep").get_by_role("button", name=re.compile("^sweep")).click()
    notebook.page.wait_for_selector("[data-panel=sweep] .theta-bestline b", timeout=60_000)
    notebook.page.wait_for_function("() => document.querySelector('[data-panel=sweep] .theta-busy').hidden")


def test_drag_select_sweep_adopt_and_commit(open_notebook: Open) -> None:
    notebook = opened(open_notebook)
    page = notebook.page
    folder = notebook.value("folder.name")
    base, ours, theirs = (theta_nb.Repository(folder).load(NAME, rev) for rev in ("main", "low", "high"))

    page.get_by_label("merge method").select_option("task_arithmetic")
    wait_for(notebook, "session.settings.default.method", "task_arithmetic")
    slider = page.locator(".theta-control", has_text="factor of the merged").locator("input[type=range]")
    box = slider.bounding_box()
    steps = notebook.value("len(session._steps)")
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    for share in (0.5, 0.45, 0.4, 0.35):
        page.mouse.move(box["x"] + share * box["width"], box["y"] + box["height"] / 2)
    page.mouse.up()
    wait_for(notebook, "session.settings.default.parameters.get('scale', 1) < 0.9", wanted=True)
    assert notebook.value("len(session._steps)") == steps + 1, "one drag is one step"

    rows = page.locator(".theta-left .theta-tree-row")
    rows.filter(has_text="head.bias").click()
    rows.filter(has_text="head.weight").click(modifiers=["Control"])
    wait_for(notebook, "explorer.selection", ["head.bias", "head.weight"])
    page.get_by_label("merge method").select_option("ours")
    wait_for(notebook, "[(one.pattern, one.choice.method) for one in session.settings.overrides]", [["head.*", "ours"]])
    page.locator(".theta-merge").press("Escape")
    wait_for(notebook, "explorer.selection", [])

    panel(notebook, "evaluation").get_by_role("button", name="evaluate", exact=True).click()
    page.wait_for_function("() => document.querySelectorAll('.theta-scores thead th').length === 6", timeout=30_000)
    assert notebook.value("len(session.tries)") == 1, "the scores of the inputs are no tries"
    sweep(notebook)
    assert notebook.value("len(session.tries)") == 10
    curve = panel(notebook, "sweep").locator("canvas").first
    curve.scroll_into_view_if_needed()
    place = curve.bounding_box()
    curve.click(position={"x": 54, "y": place["height"] / 2})  # the first point, which is the leftmost
    wait_for(notebook, "session.settings.default.parameters['scale']", 0)
    panel(notebook, "sweep").get_by_role("button", name="adopt the best").click()
    best = notebook.value("session.tries.best('accuracy').settings.default.parameters['scale']")
    wait_for(notebook, "session.settings.default.parameters['scale']", best)

    keep = panel(notebook, "keeping")
    page.wait_for_function("() => document.querySelector('.theta-message').value.includes('Measured: accuracy')")
    keep.get_by_label("commit message").fill("Know all digits")
    keep.get_by_role("button", name="commit", exact=True).dblclick()
    keep.locator(".theta-committed").wait_for(timeout=30_000)
    assert "on merged: Know all digits" in keep.inner_text()
    assert "This merge is committed on merged" in keep.inner_text()
    assert keep.get_by_role("button", name="commit", exact=True).is_disabled(), "nobody commits twice"

    assert git(folder, "log", "-1", "--format=%s").strip() == "Know all digits"
    assert git(folder, "log", "-1", "--format=%P").split() == git(folder, "rev-parse", "low", "high").split()
    assert git(folder, "status", "--porcelain").splitlines() == []
    accuracy = notebook.value("session.tries.best('accuracy').metrics['accuracy']")
    assert f"Theta-Metric: accuracy={accuracy}" in git(folder, "log", "-1", "--format=%B")
    wait_for(notebook, "accuracy(model)['accuracy']", accuracy)  # the notebook's own model holds it
    made = load_file(Path(folder) / NAME)
    recipe = Recipe.parse(parse(git(folder, "cat-file", "blob", f"HEAD:{NAME}").encode()).recipe)
    for name, value in made.items():
        start, one, other = (state[name].numpy().astype(np.float64) for state in (base, ours, theirs))
        wanted = one if name.startswith("head.") else start + best * ((one - start) + (other - start))
        np.testing.assert_allclose(value, wanted.astype(np.float32), rtol=1e-5, atol=1e-7)
    git(folder, "switch", "-q", "low")
    again = theta_nb.Repository(folder).merge(NAME, "high").apply(recipe)
    for name, value in again.arrays().items():
        assert value.tobytes() == made[name].tobytes(), "the recipe gives the same bits"
    assert notebook.problems == []


@pytest.mark.slow
def test_an_error_of_the_function_is_shown_where_it_is(open_notebook: Open) -> None:
    notebook = opened(open_notebook)
    page = notebook.page
    notebook.run("def wrong(network):\n    layers = list(network)\n    return layers[99]\n\nexplorer.evaluate = wrong")
    evaluation = panel(notebook, "evaluation")
    evaluation.get_by_text("wrong(a Sequential of this notebook)").wait_for()
    evaluation.get_by_role("button", name="evaluate", exact=True).click()
    evaluation.locator(".theta-trace li").first.wait_for()
    said = evaluation.locator(".theta-failure").inner_text()
    assert "IndexError: list index out of range" in said
    assert "cell, line 3, in wrong" in said
    assert "return layers[99]" in said
    assert "theta_nb" not in said
    assert notebook.value("len(session.tries)") == 0
    notebook.run("explorer.evaluate = accuracy")
    evaluation.get_by_text("accuracy(a Sequential of this notebook)").wait_for()
    evaluation.get_by_role("button", name="evaluate", exact=True).click()
    page.wait_for_function("() => document.querySelectorAll('.theta-scores tbody tr').length === 3")
    assert not evaluation.locator(".theta-failure").is_visible()
    assert notebook.problems == []


@pytest.mark.slow
def test_automatically_after_a_pause_and_stopped(open_notebook: Open) -> None:
    notebook = opened(open_notebook)
    evaluation = panel(notebook, "evaluation")
    evaluation.get_by_label("automatically").check()
    wait_for(notebook, "len(session.tries)", 1)
    notebook.run("for t in (0.2, 0.4, 0.6):\n    session.use('slerp', t=t)")
    wait_for(notebook, "len(session.tries)", 2)
    assert notebook.value("session.tries.number(2).settings.default.parameters['t']") == 0.6
    evaluation.get_by_label("automatically").uncheck()
    notebook.run("import time\ndef slow(network):\n    while True: time.sleep(0.01)\nexplorer.evaluate = slow")
    evaluation.get_by_text("slow(a Sequential of this notebook)").wait_for()
    evaluation.get_by_role("button", name="evaluate", exact=True).click()
    evaluation.get_by_role("button", name="stop").click()
    notebook.run("explorer.evaluate = accuracy")
    evaluation.get_by_text("accuracy(a Sequential of this notebook)").wait_for()
    evaluation.get_by_role("button", name="evaluate", exact=True).click()
    wait_for(notebook, "len(session.tries)", 3)
    assert notebook.problems == []


@pytest.mark.slow
def test_a_grid_notes_comparison_and_export(open_notebook: Open) -> None:
    notebook = opened(open_notebook)
    page = notebook.page
    notebook.run("_ = session.use('ties', density=0.4)")
    wait_for(notebook, "session.settings.default.method", "ties")
    controls = panel(notebook, "sweep")
    controls.get_by_label("second parameter").select_option(label="and density")
    controls.get_by_label("how many").nth(0).fill("3")
    controls.get_by_label("how many").nth(1).fill("2")
    controls.get_by_text("6 evaluations").wait_for()
    sweep(notebook)
    wait_for(notebook, "len(session.tries)", 6)
    grid = controls.locator(".theta-map canvas").nth(1)
    grid.focus()
    for key in ("ArrowDown", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    wait_for(notebook, "sorted(session.settings.default.parameters.items())", [["density", 1], ["scale", 1]])
    tries = panel(notebook, "tries")
    note = tries.get_by_label("note of try 4")
    note.fill("m b z are no shortcuts here")
    note.press("Enter")
    wait_for(notebook, "session.tries.number(4).note", "m b z are no shortcuts here")
    tries.get_by_label("pin try 4").click()
    wait_for(notebook, "session.tries.number(4).pinned", wanted=True)
    tries.get_by_label("pinned only").check()
    page.wait_for_function("() => document.querySelectorAll('.theta-tries tbody tr').length === 1")
    tries.get_by_label("pinned only").uncheck()
    tries.get_by_label("choose try 1").check()
    tries.get_by_label("choose try 6").check()
    tries.get_by_role("button", name="compare").click()
    tries.get_by_text("try 1 and try 6").wait_for()
    tries.get_by_role("button", name="close").click()
    tries.get_by_label("form of the export").select_option("mergekit")
    tries.get_by_role("button", name="export").click()
    page.wait_for_function("() => document.querySelector('.theta-export')?.value.includes('merge_method: ties')")
    tries.locator("tbody tr", has_text="scale=2").first.get_by_role("button", name="restore").click()
    wait_for(notebook, "session.settings.default.parameters['scale']", 2)
    assert notebook.problems == []


@pytest.mark.slow
def test_keys_alone(open_notebook: Open) -> None:
    notebook = opened(open_notebook)
    page = notebook.page
    evaluation = panel(notebook, "evaluation")
    evaluation.get_by_role("button", name="evaluate", exact=True).focus()
    page.keyboard.press("Enter")
    wait_for(notebook, "len(session.tries)", 1)
    start = panel(notebook, "sweep").get_by_role("button", name="sweep", exact=True)
    start.focus()
    page.keyboard.press("Space")
    wait_for(notebook, "len(session.tries)", 10)
    page.wait_for_function("() => document.querySelector('[data-panel=sweep] .theta-busy').hidden")
    panel(notebook, "sweep").locator("canvas").first.focus()
    for key in ("End", "ArrowLeft", "Enter"):
        page.keyboard.press(key)
    wait_for(notebook, "session.settings.default.parameters.get('weight')", {"ours": 1, "theirs": 0.875})
    said = panel(notebook, "sweep").locator(".theta-unseen").first.inner_text()
    assert "weight of theirs 0.875" in said, "the point is read out"
    keep = panel(notebook, "keeping")
    keep.get_by_label("branch", exact=True).focus()
    page.keyboard.press("ArrowDown")
    keep.get_by_label("name of a new branch").focus()
    page.keyboard.type("by keys?")
    assert "Name" not in keep.locator(".theta-hintline").first.inner_text()
    keep.get_by_role("button", name="commit", exact=True).focus()
    page.keyboard.press("Enter")
    keep.get_by_text("cannot be the name of a branch").wait_for()
    keep.get_by_label("name of a new branch").fill("by-keys")
    keep.get_by_role("button", name="commit", exact=True).press("Enter")
    keep.locator(".theta-committed").wait_for(timeout=30_000)
    folder = notebook.value("folder.name")
    assert git(folder, "log", "-1", "--format=%P", "by-keys").split() == git(folder, "rev-parse", "low", "high").split()
    assert git(folder, "rev-parse", "HEAD") == git(folder, "rev-parse", "low"), "the work tree stays"
    assert notebook.problems == []


@pytest.mark.slow
def test_a_restarted_kernel_goes_on(open_notebook: Open) -> None:
    notebook = opened(open_notebook)
    page = notebook.page
    folder = notebook.value("(folder._finalizer.detach(), folder.name)[1]")  # it would go with the kernel
    panel(notebook, "evaluation").get_by_role("button", name="evaluate", exact=True).click()
    wait_for(notebook, "len(session.tries)", 1)
    page.wait_for_timeout(1500)  # what changed is saved a second after it did
    page.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    page.get_by_text("The kernel is gone.").first.wait_for()
    for button in ("evaluate", "commit"):
        assert page.get_by_role("button", name=button, exact=True).is_disabled()
    again = (
        f"import theta_nb\nsession = theta_nb.Repository({folder!r}).merge('{NAME}', 'high')\n"
        "explorer = theta_nb.MergeExplorer(session)\nexplorer"
    )
    notebook.run(again)
    keep = page.locator(".theta-slot[data-panel=keeping]").last
    keep.get_by_role("button", name="go on with it").click(timeout=60_000)
    wait_for(notebook, "(len(session.tries), getattr(session.settings.default, 'method', ''))", [1, "linear"])
    assert notebook.problems == []


@pytest.mark.slow
@pytest.mark.parametrize("width", [900, 1600])
def test_nothing_sticks_out(open_notebook: Open, width: int) -> None:
    notebook = opened(open_notebook, width=width)
    sweep(notebook)
    out = notebook.page.evaluate("""() => {
      const frame = document.querySelector(".theta-slots");
      const edge = frame.getBoundingClientRect().right + 1;
      const clipped = (e) => e.closest(".theta-table, .theta-boxed, .theta-unseen, .theta-scores");
      const outside = (e) => !clipped(e) && e.getBoundingClientRect().right > edge;
      return [...frame.querySelectorAll("*")].filter(outside).map((e) => e.className);
    }""")
    assert out == []
    assert notebook.problems == []
