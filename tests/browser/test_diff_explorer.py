"""DiffExplorer in a real JupyterLab, as a person uses it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.conftest import Notebook

Open = Callable[..., Notebook]

CELLS = (
    "import theta_nb\nrepo = theta_nb.Repository('.')",
    "explorer = theta_nb.DiffExplorer(repo.diff('model.safetensors', 'v0', 'HEAD'))\nexplorer",
)
DRAWN = ".theta-map canvas[data-drawn]"


def opened(open_notebook: Open, *cells: str, **options: Any) -> Notebook:
    notebook = open_notebook(*(cells or CELLS), **options)
    notebook.page.wait_for_selector(DRAWN)
    notebook.page.locator(".theta-explorer").first.scroll_into_view_if_needed()
    return notebook


def cell(notebook: Notebook, row: int, column: int) -> dict[str, float]:
    """A place on the map, found by the colours of the canvas: the middle of a cell."""
    box = notebook.page.locator(".theta-map canvas").first.bounding_box()
    legend = notebook.page.evaluate(_CELLS)
    return {
        "x": box["x"] + legend["left"] + (column + 0.5) * legend["across"],
        "y": box["y"] + legend["top"] + (row + 0.5) * legend["down"],
    }


# Where the cells lie: the labels' widths depend on fonts, so the drawing is asked by where the tip shows up.
_CELLS = """() => {
  const canvas = document.querySelector(".theta-map canvas");
  const box = canvas.getBoundingClientRect();
  const tip = document.querySelector(".theta-tip");
  const at = (x, y) => {
    canvas.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + x, clientY: box.top + y }));
    return tip.hidden ? "" : tip.firstChild.textContent;
  };
  let [left, top] = [0, 0];
  search: for (let y = 0; y < box.height; y += 3) {
    for (let x = 0; x < box.width; x += 3) {
      if (at(x, y)) { [left, top] = [x, y]; break search; }
    }
  }
  const first = at(left, top);
  let [right, bottom] = [left, top];
  while (at(right, top + 2) === first) right += 1;
  while (at(left + 2, bottom) === first) bottom += 1;
  canvas.dispatchEvent(new PointerEvent("pointerleave", {}));
  return { left, top, across: right - left, down: bottom - top };
}"""


def wait_for(notebook: Notebook, expression: str, wanted: Any) -> None:
    """Wait until the kernel says that an expression has a value."""
    for _ in range(200):
        if (found := notebook.value(expression)) == wanted:
            return
        notebook.page.wait_for_timeout(100)
    raise AssertionError(f"{expression} is {found}, not {wanted}")


def test_hover_click_filter_and_selection(open_notebook: Open) -> None:
    notebook = opened(open_notebook)
    page = notebook.page
    place = cell(notebook, 0, 0)
    page.mouse.move(**place)
    tip = page.locator(".theta-tip")
    assert "embeddings.word.weight" in tip.inner_text()
    assert "‖Δ‖/‖old‖ =" in tip.inner_text()
    page.mouse.click(**place)
    wait_for(notebook, "explorer.selection", ["embeddings.word.weight"])
    inspector = page.locator(".theta-inspector").first
    page.wait_for_function("() => document.querySelectorAll('.theta-panel-body[aria-busy=true]').length === 0")
    text = inspector.inner_text()
    for heading in ("numbers", "magnitudes", "spectrum of Δ", "where it changed", "values", "stable rank"):
        assert heading in text
    assert inspector.locator(".theta-problem").count() == 0

    page.keyboard.press("Escape")
    page.get_by_label("filter parameters by name").fill("*layer.[01]*query.weight")
    page.wait_for_function("() => document.querySelector('.theta-foot').textContent.startsWith('2 of 57')")
    wait_for(notebook, "explorer.filter", "*layer.[01]*query.weight")
    page.locator(".theta-tree-row", has_text="query.weight").first.click()
    wait_for(notebook, "explorer.selection", ["encoder.layer.0.attention.query.weight"])
    page.locator(".theta-tree-row", has_text="query.weight").nth(1).click(modifiers=["Control"])
    wait_for(notebook, "len(explorer.to_table())", 2)
    page.get_by_label("metric").select_option("changed_share")
    wait_for(notebook, "explorer.metric", "changed_share")

    notebook.run("explorer.metric = 'delta_norm'; explorer.filter = ''; explorer.selection = ['head2.weight']")
    page.wait_for_function("() => document.querySelector('.theta-inspector').textContent.includes('head2.weight')")
    assert page.get_by_label("metric").input_value() == "delta_norm"
    page.get_by_role("button", name="table", exact=True).click()
    assert page.locator(".theta-table tbody tr").count() == 57
    assert page.locator(".theta-table tr[aria-selected=true] th").inner_text() == "head2.weight"
    assert notebook.problems == []


def test_a_row_is_clicked_also_where_the_tree_is_drawn_while_the_button_is_down(open_notebook: Open) -> None:
    notebook = opened(open_notebook)
    page = notebook.page
    wait_for(notebook, "explorer.diff.measured", "scalars")
    page.locator(".theta-tree-row", has_text="query.weight").first.hover()
    page.mouse.down()
    page.evaluate(
        """() => new Promise((drawn) => {
          document.querySelector(".theta-tree").dispatchEvent(new Event("scroll"));
          requestAnimationFrame(() => requestAnimationFrame(() => requestAnimationFrame(drawn)));
        })"""
    )
    page.mouse.up()
    wait_for(notebook, "explorer.selection", ["encoder.layer.0.attention.query.weight"])
    assert notebook.problems == []


def test_dark_theme_is_drawn_again(open_notebook: Open) -> None:
    notebook = opened(open_notebook)
    background = "() => getComputedStyle(document.querySelector('.theta-explorer')).backgroundColor"
    drawn = notebook.page.locator(DRAWN).first
    before = (notebook.page.evaluate(background), drawn.screenshot(), int(drawn.get_attribute("data-drawn")))
    notebook.theme("JupyterLab Dark")
    notebook.page.wait_for_function(f"() => Number(document.querySelector('{DRAWN}').dataset.drawn) > {before[2]}")
    assert notebook.page.evaluate(background) != before[0]
    assert drawn.screenshot() != before[1]
    notebook.theme("JupyterLab Light")


@pytest.mark.slow
def test_keyboard_alone(open_notebook: Open) -> None:
    notebook = opened(open_notebook)
    page = notebook.page
    page.locator(".theta-tree").focus()
    for key in ("ArrowDown", "Enter"):
        page.keyboard.press(key)
    wait_for(notebook, "len(explorer.selection)", 1)
    page.keyboard.press("Shift+ArrowDown")
    wait_for(notebook, "len(explorer.selection)", 2)
    page.locator(".theta-map canvas").first.focus()
    for key in ("ArrowDown", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    said = page.locator(".theta-map .theta-unseen").first.inner_text()
    wait_for(notebook, "len(explorer.selection)", 1)
    assert notebook.value("explorer.selection")[0] in said, "the cell is read out"
    page.keyboard.press("p")
    wait_for(notebook, "len(explorer.pins)", 1)
    page.keyboard.press("m")
    wait_for(notebook, "explorer.metric", "delta_norm")
    page.keyboard.press("l")
    wait_for(notebook, "explorer.log_scale", False)
    page.keyboard.press("t")
    assert page.locator(".theta-table tbody tr").count() == 57
    page.keyboard.press("?")
    assert page.get_by_role("dialog").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator(".theta-help").first.is_visible()
    page.locator(".theta-explorer button").first.focus()
    page.keyboard.press("/")
    page.keyboard.type("a b")
    wait_for(notebook, "explorer.filter", "a b")
    page.keyboard.press("Escape")
    wait_for(notebook, "explorer.filter", "")
    assert notebook.page.evaluate("() => jupyterapp.shell.currentWidget.content.model.cells.length") == 2, (
        "no key reached the notebook"
    )
    assert notebook.problems == []


@pytest.mark.slow
@pytest.mark.parametrize("width", [900, 1600])
def test_nothing_sticks_out(open_notebook: Open, width: int) -> None:
    pins = "explorer.pins = ['head.weight', 'encoder.layer.3.mlp.up.weight']"
    notebook = opened(open_notebook, *CELLS, width=width, reduced_motion="reduce")
    notebook.run(pins)
    notebook.page.wait_for_function("() => document.querySelectorAll('.theta-inspector:not(:empty)').length === 2")
    notebook.page.wait_for_function("() => document.querySelectorAll('.theta-panel-body[aria-busy=true]').length === 0")
    out = notebook.page.evaluate("""() => {
      const frame = document.querySelector(".theta-explorer");
      const edge = frame.getBoundingClientRect().right + 1;
      const clipped = (e) => e.closest(".theta-values, .theta-table, .theta-tree, .theta-drawing, .theta-unseen");
      const outside = (e) => !clipped(e) && e.getBoundingClientRect().right > edge;
      return [...frame.querySelectorAll("*")].filter(outside).map((e) => e.className);
    }""")
    assert out == []
    assert (
        notebook.page.evaluate("() => getComputedStyle(document.querySelector('.theta-button')).transitionDuration")
        == "0s"
    )


@pytest.mark.slow
def test_two_explorers_and_closing(open_notebook: Open) -> None:
    second = "other = theta_nb.DiffExplorer(repo.diff('model.safetensors', 'HEAD~1', 'HEAD', measure=False))\nother"
    notebook = opened(open_notebook, *CELLS, second)
    page = notebook.page
    page.wait_for_function("() => document.querySelectorAll('.theta-explorer').length === 2")
    wait_for(notebook, "other.diff.measured", "scalars")
    page.locator(".theta-explorer").nth(1).locator(".theta-tree-row").last.click()
    wait_for(notebook, "len(other.selection)", 1)
    assert notebook.value("explorer.selection") == []
    notebook.run("other.close()")
    page.wait_for_function("() => document.querySelectorAll('.theta-explorer').length === 1")
    notebook.run("explorer.close()")
    page.wait_for_function("() => document.querySelectorAll('.theta-explorer').length === 0")
    threads = "[t.name for t in __import__('threading').enumerate() if t.name.startswith('theta-explorer')]"
    wait_for(notebook, threads, [])
    assert notebook.problems == []


@pytest.mark.slow
def test_opening_and_closing_leaves_no_memory_in_the_kernel(open_notebook: Open) -> None:
    notebook = opened(open_notebook)
    page = notebook.page
    again = (
        "from IPython.display import clear_output, display; clear_output(); explorer.close()\n"
        "explorer = theta_nb.DiffExplorer(repo.diff('model.safetensors', 'v0', 'HEAD'), selection=['head.weight'])\n"
        "display(explorer)"
    )

    def cycle() -> None:
        notebook.run(again)
        page.wait_for_function("() => document.querySelectorAll('.theta-inspector:not(:empty)').length === 1")
        page.wait_for_function("() => document.querySelectorAll('.theta-panel-body[aria-busy=true]').length === 0")
        page.evaluate(
            "() => { const { sharedModel } = jupyterapp.shell.currentWidget.content.model;"
            " sharedModel.deleteCell(sharedModel.cells.length - 1); }"
        )

    def resident() -> int:
        return int(notebook.value("(__import__('gc').collect(), __import__('psutil').Process().memory_info().rss)[1]"))

    for _ in range(20):  # until the allocator has what it keeps
        cycle()
    before = resident()
    for _ in range(20):
        cycle()
    assert resident() < before * 1.05
