"""Notebook 7 instead of JupyterLab: the explorers draw, and the notebooks that we ship run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.browser import test_diff_explorer, test_history_explorer
from tests.browser.conftest import KERNEL, Lab, serving
from tests.browser.test_diff_explorer import DRAWN
from tests.notebooks.conftest import NOTEBOOKS

pytest.importorskip("notebook")


@pytest.fixture(scope="module")
def classic(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A Notebook 7 over the folder of the JupyterLab."""
    own = tmp_path_factory.mktemp("classic")
    for shared in lab.environment["JUPYTER_PATH"].split(os.pathsep):  # an environment may lie upon another one
        for part in ("schemas", "themes"):
            if Path(shared, "lab", part).is_dir():
                shutil.copytree(Path(shared, "lab", part), own / part, dirs_exist_ok=True)
    options = ["--JupyterNotebookApp.expose_app_in_browser=True"]
    options += [f"--JupyterNotebookApp.{part}_dir={own / part}" for part in ("schemas", "themes")]
    with serving("notebook", options, lab.root, lab.environment, own / "log") as url:
        yield Lab(url, lab.token, lab.root, lab.environment)


@pytest.fixture
def run_all(classic: Lab, browser: Any) -> Callable[..., Any]:
    """Open a notebook of the folder, and run it; the page."""

    @contextmanager
    def run(name: str) -> Iterator[Any]:
        context = browser.new_context(viewport={"width": 1280, "height": 1000})
        page = context.new_page()
        page.set_default_timeout(30_000)
        problems: list[str] = []
        # Notebook 7 has complaints of its own; our modules are blobs.
        page.on("pageerror", lambda error: problems.append(error.stack) if "blob:" in str(error.stack) else None)
        page.goto(f"{classic.url}/notebooks/{name}?token={classic.token}")
        page.wait_for_function("window.jupyterapp !== undefined")
        page.evaluate(_RUN)
        try:
            yield page
            assert problems == []
        finally:
            page.evaluate("async () => { await jupyterapp.serviceManager.sessions.shutdownAll(); }")
            context.close()

    return run


_RUN = """async () => {
  await jupyterapp.restored;
  const pause = () => new Promise((done) => setTimeout(done, 50));
  for (let i = 0; i < 400 && !jupyterapp.shell.currentWidget?.context; i += 1) await pause();
  const panel = jupyterapp.shell.currentWidget;
  await panel.context.ready;
  await panel.sessionContext.ready;
  await panel.sessionContext.session.kernel.info;
  jupyterapp.commands.execute("notebook:run-all-cells");
}"""


def test_both_explorers_draw(classic: Lab, run_all: Callable[..., Any]) -> None:
    cells = [*test_diff_explorer.CELLS, *test_history_explorer.CELLS[1:]]
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells], metadata=KERNEL)
    nbformat.write(made, classic.root / "classic.ipynb")
    with run_all("classic.ipynb") as page:
        page.wait_for_function(f"() => document.querySelectorAll('{DRAWN}').length === 2")
        page.locator(".theta-tree-row", has_text="query.weight").first.click()
        page.wait_for_function("() => document.querySelectorAll('.theta-panel-body[aria-busy=true]').length === 0")
        page.wait_for_selector(".theta-walk")
        assert page.locator(".theta-problem:not(:empty)").count() == 0
        assert page.locator(".theta-stand-in:visible").count() == 0


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_our_notebooks_run_and_draw(path: Path, classic: Lab, run_all: Callable[..., Any]) -> None:
    shutil.copy(path, classic.root)
    meant_to_fail = {"mistake"}
    with run_all(path.name) as page:
        page.set_default_timeout(180_000)
        page.wait_for_function(_ALL_RAN)
        for cell in json.loads(page.evaluate(_OUTPUTS)):
            assert cell["id"] in meant_to_fail or not cell["errors"], cell
            assert not cell["drawn"] or cell["height"] > 10, cell


_ALL_RAN = """() => {
  const cells = jupyterapp.shell.currentWidget.content.widgets;
  return cells.filter((cell) => cell.model.type === "code").every((cell) => cell.model.executionCount !== null);
}"""
_OUTPUTS = """() => JSON.stringify(jupyterapp.shell.currentWidget.content.widgets.map((cell) => ({
  id: cell.model.id,
  errors: (cell.model.sharedModel.outputs ?? []).filter((one) => one.output_type === "error").map((one) => one.evalue),
  drawn: (cell.model.sharedModel.outputs ?? []).filter((one) => one.data?.["image/png"]).length,
  height: cell.outputArea?.node.getBoundingClientRect().height ?? 0,
})))"""
