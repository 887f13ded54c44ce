"""What a page of JupyterLab, and its kernel, keep of explorers that were opened and closed.

They are opened as people do it: the same cell is run again, which closes the explorer before. Beside them stand a cell
that only prints and a bare widget, for what JupyterLab keeps of any run, output and widget.

The last rows open in a new cell each time and delete it. JupyterLab keeps 200 kB of every such cell (its toolbar, its
listeners, all that undo would bring back), whether it has shown an explorer or printed a word; so these rows tell about
cells.

A page has what its JavaScript heap has, and the buffers of arrays and texts beside it.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
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
_MERGE = """
import numpy as np
from theta_nb.engine.merging.inputs import StateInput
from theta_nb.engine.merging.session import MergeSession
random = np.random.default_rng(0)
base = {f"layers.{i // 10}.part{i % 10}.weight": random.normal(size=(32, 32)).astype("f4") for i in range(1000)}
sides = [{n: v + 0.1 * random.normal(size=v.shape).astype("f4") for n, v in base.items()} for _ in range(2)]
session = MergeSession(StateInput("original", base), [StateInput(*one) for one in zip(("ours", "theirs"), sides)])
session.use("METHOD").measure()
"""
_METRICS = """async () => {
  const metric = document.querySelector(".theta-bar select");
  for (let i = 0; i < 200; i += 1) {
    metric.selectedIndex = i % metric.options.length;
    metric.dispatchEvent(new Event("change"));
    await new Promise(requestAnimationFrame);
  }
}"""
_SLIDER = """async () => {
  const root = document.querySelector(".theta-merge");
  const slider = root.querySelector(".theta-right .theta-slider");
  const canvas = root.querySelector(".theta-map canvas");
  const [low, high, frame] = [Number(slider.min), Number(slider.max), () => new Promise(requestAnimationFrame)];
  for (let i = 0; i < 200; i += 1) {
    const drawn = canvas.dataset.drawn;
    slider.value = String(low + (high - low) * (0.2 + 0.6 * ((i * 37) % 100) / 100));
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    for (let frames = 0; canvas.dataset.drawn === drawn && frames < 100; frames += 1) await frame();
    if (i % 20 === 19) {
      slider.dispatchEvent(new Event("change", { bubbles: true }));
      await new Promise((done) => setTimeout(done, 200));
    }
  }
}"""


@dataclass(frozen=True)
class _Case:
    """A widget, how it is made, what shows that it is there, and what a hand does with it 200 times."""

    name: str
    made: str
    seen: str
    before: str = ""
    moves: str = ""
    anew: bool = False
    """Whether each is opened in a new cell, which is deleted then."""

    @property
    def source(self) -> str:
        """What the cell runs."""
        shown = f"explorer.close(); explorer = {self.made}; display(explorer)" if self.seen else self.made
        return f"turn = globals().get('turn', 0) + 1; {'clear_output(); ' if self.anew else ''}{shown}"


_MAP = ".theta-map canvas[data-drawn]"
_MIDDLE = f".theta-middle {_MAP}"
_CASES = (
    _Case("a cell that prints", "print('turn', turn)", ""),
    _Case("a bare widget", "Bare()", ".drawn"),
    _Case("DiffExplorer", "theta_nb.DiffExplorer(repo.diff('model.safetensors', 'v0', 'HEAD'))", _MAP, "", _METRICS),
    _Case("MergeExplorer", "theta_nb.MergeExplorer(session)", _MIDDLE, _MERGE.replace("METHOD", "slerp"), _SLIDER),
    _Case("MergeExplorer, TIES", "theta_nb.MergeExplorer(session)", _MIDDLE, _MERGE.replace("METHOD", "ties"), _SLIDER),
)
_ANEW = tuple(
    replace(one, name=f"{one.name}, each in a new cell", moves="", anew=True) for one in (*_CASES[:2], _CASES[3])
)
_SHOWN = """(seen) => {
  if (jupyterapp.shell.currentWidget.sessionContext.session.kernel.status !== "idle") return false;
  const found = seen ? [...document.querySelectorAll(seen)] : [];
  return found.length === Number(Boolean(seen)) && !found.some((one) => one.dataset.old);
}"""
_AGE = "(seen) => document.querySelectorAll(seen).forEach((one) => (one.dataset.old = 'old'))"
_DELETE = """() => {
  const { sharedModel } = jupyterapp.shell.currentWidget.content.model;
  sharedModel.deleteCell(sharedModel.cells.length - 1);
}"""


@dataclass(frozen=True)
class _Kept:
    """Megabytes of the page and of the kernel, and how they grew."""

    page: float
    page_grown: float
    kernel: float
    kernel_grown: float

    def row(self, what: str) -> str:
        page = f"{self.page_grown:+.1f} of {self.page:.1f} MB ({self.page_grown / self.page:+.1%}) in the page"
        return f"| {what} | {page}, {self.kernel_grown:+.1f} of {self.kernel:.0f} MB in the kernel | ≤ 5 % |"


def remembering(cycles: int = 20) -> list[str]:
    """Rows of the table: growth over some cycles of opening and closing, and over 200 moves."""
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
            for case in (*_CASES, *_ANEW):
                page = browser.new_page(viewport={"width": 1280, "height": 1000})
                rows += _cycled(page, url, root, case, cycles)
                page.close()
        browser.close()
    return rows


def _cycled(page: Any, url: str, root: Path, case: _Case, cycles: int) -> list[str]:
    import nbformat

    from tests.browser import lab as browsing

    nbformat.write(nbformat.v4.new_notebook(metadata=browsing.KERNEL), root / "cycles.ipynb")
    page.set_default_timeout(90_000)
    page.goto(f"{url}/lab?token=test&reset")
    page.wait_for_function("window.jupyterapp !== undefined")
    page.evaluate(browsing._OPEN, "cycles.ipynb")
    notebook = browsing.Notebook(page, [])
    notebook.run(f"{_START}\n{_BARE}\n{case.before}\nexplorer = {case.made if case.seen else None}")
    session = page.context.new_cdp_session(page)

    def used() -> tuple[float, float]:
        for _ in range(3):
            session.send("HeapProfiler.collectGarbage")
        found = session.send("Runtime.getHeapUsage")
        kernel = notebook.value("[__import__('gc').collect(), __import__('psutil').Process().memory_info().rss][1]")
        return (found["usedSize"] + found["backingStorageSize"]) / 1e6, kernel / 1e6

    turns = itertools.count(1)

    def cycle() -> None:
        turn = next(turns)
        if case.seen:
            page.evaluate(_AGE, case.seen)
        if case.anew or turn == 1:
            notebook.run(case.source)
        else:
            page.evaluate("() => { jupyterapp.commands.execute('notebook:run-cell'); }")
        while notebook.value("globals().get('turn', 0)") < turn:
            page.wait_for_timeout(20)
        page.wait_for_function(_SHOWN, arg=case.seen)
        if case.anew:
            page.evaluate(_DELETE)

    def grown(what: str, again: Callable[[], None]) -> str:
        before = used()
        again()
        after = used()
        return _Kept(before[0], after[0] - before[0], before[1], after[1] - before[1]).row(what)

    for _ in range(8):  # until the page has what it keeps once
        cycle()
    rows = [grown(f"{case.name}, {cycles} times", lambda: [cycle() for _ in range(cycles)] and None)]
    if case.moves:
        page.evaluate(case.moves)
        rows.append(grown(f"{case.name}, 200 moves", lambda: page.evaluate(case.moves)))
    page.evaluate("async () => { await jupyterapp.serviceManager.sessions.shutdownAll(); }")
    return rows
