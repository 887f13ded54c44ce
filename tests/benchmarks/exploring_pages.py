"""What a page of JupyterLab keeps of explorers that were opened and closed, beside a widget that does nothing.

JupyterLab itself keeps something of every widget and every output (it can undo), so the bare widget is the measure.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

__all__ = ["remembering"]

_START = (
    "import anywidget, theta_nb\nfrom IPython.display import clear_output, display\nrepo = theta_nb.Repository('.')"
)
_BARE = """class Bare(anywidget.AnyWidget):
    _esm = '''export default { render({ el }) {
      const made = document.createElement("div");
      made.className = "drawn";
      el.append(made);
    } };'''
    def close(self):
        self.layout.close()
        super().close()"""
_MADE = {
    "a bare widget": ("Bare()", ".drawn"),
    "DiffExplorer": (
        "theta_nb.DiffExplorer(repo.diff('model.safetensors', 'v0', 'HEAD'))",
        ".theta-map canvas[data-drawn]",
    ),
}
_SHOWN = """(seen) => jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === "idle"
  && document.querySelectorAll(seen).length === 1"""
_MOVES = """async () => {
  const metric = document.querySelector(".theta-bar select");
  for (let i = 0; i < 200; i += 1) {
    metric.selectedIndex = i % metric.options.length;
    metric.dispatchEvent(new Event("change"));
    await new Promise(requestAnimationFrame);
  }
}"""


def remembering(cycles: int = 20) -> list[str]:
    """Rows of the table: growth of the page's heap over some cycles of opening and closing, and over 200 moves."""
    from playwright.sync_api import sync_playwright

    from tests.browser import lab as browsing
    from tests.browser.models import trained_repository

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        own, root = Path(folder), Path(folder, "root")
        environment = browsing._environment(own)
        trained_repository(root, environment)
        shared = Path(browsing.jupyterlab.__file__).parents[4] / "share" / "jupyter" / "lab"
        options = ["--LabApp.expose_app_in_browser=True", f"--app-dir={shared}"]
        browser = playwright.chromium.launch(executable_path=browsing.CHROMIUM, args=browsing.FLAGS)
        with browsing.serving("jupyterlab", options, root, environment, own / "log") as url:
            rows = []
            for name, (made, seen) in _MADE.items():
                page = browser.new_page(viewport={"width": 1280, "height": 1000})
                before, after, moved = _cycled(page, url, root, made, seen, cycles)
                grown = f"+{after - before:.1f} MB of {before:.1f}"
                rows.append(f"| page memory, {cycles} times {name} opened and closed | {grown} | |")
                page.close()
            rows.append(f"| page memory, 200 changes of the metric | {moved:+.1f} MB | ≤ 5 % |")
        browser.close()
    return rows


def _cycled(page: Any, url: str, root: Path, made: str, seen: str, cycles: int) -> tuple[float, float, float]:
    import nbformat

    from tests.browser import lab as browsing

    nbformat.write(nbformat.v4.new_notebook(metadata=browsing.KERNEL), root / "cycles.ipynb")
    page.goto(f"{url}/lab?token=test&reset")
    page.wait_for_function("window.jupyterapp !== undefined")
    page.evaluate(browsing._OPEN, "cycles.ipynb")
    notebook = browsing.Notebook(page, [])
    notebook.run(f"{_START}\n{_BARE}\nexplorer = {made}")
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")

    def used() -> float:
        for _ in range(3):
            session.send("HeapProfiler.collectGarbage")
        found = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
        return float(found["JSHeapUsedSize"]) / 1e6

    def cycle() -> None:
        notebook.run(f"clear_output(); explorer.close(); explorer = {made}; display(explorer)")
        page.wait_for_function(_SHOWN, arg=seen)
        page.evaluate(
            "() => { const { sharedModel } = jupyterapp.shell.currentWidget.content.model;"
            " sharedModel.deleteCell(sharedModel.cells.length - 1); }"
        )

    for _ in range(8):  # until the page has what it keeps once
        cycle()
    before = used()
    for _ in range(cycles):
        cycle()
    after = used()
    if "Explorer" not in made:
        return before, after, 0.0
    notebook.run("clear_output(); display(explorer)")
    page.wait_for_function(_SHOWN, arg=seen)
    page.evaluate(_MOVES)
    still = used()
    page.evaluate(_MOVES)
    return before, after, used() - still
