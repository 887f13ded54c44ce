"""Kernels that restart, die or are exchanged under an explorer: a sentence, and nothing that pretends to work."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.browser.conftest import Notebook
from tests.browser.test_diff_explorer import opened, wait_for
from tests.browser.test_history_explorer import opened as history_opened

Open = Callable[..., Notebook]

CONTEXT = "() => jupyterapp.shell.currentWidget.sessionContext"
RESTART = f"{CONTEXT}.session.kernel.restart()"


def said(notebook: Notebook) -> str:
    notebook.page.wait_for_selector(".theta-lost")
    return str(notebook.page.locator(".theta-lost").inner_text())


def test_after_a_restart_the_picture_stays_and_says_why_nothing_is_read(open_notebook: Open) -> None:
    notebook = opened(open_notebook)
    page = notebook.page
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    wait_for(notebook, "explorer.diff.measured", "scalars")
    page.locator(".theta-tree-row").last.click()
    page.wait_for_selector(".theta-walk")
    page.evaluate(RESTART)
    assert said(notebook).startswith("The kernel was restarted, so nothing more can be read.")
    assert page.locator(".theta-walk button:enabled").count() == 0
    page.get_by_label("metric").select_option("changed_share")
    page.get_by_label("filter parameters by name").fill("query")
    page.wait_for_function("() => document.querySelector('.theta-foot').textContent.startsWith('8 of 57')")
    page.locator(".theta-tree-row", has_text="query.weight").first.click()
    page.wait_for_function("() => document.querySelector('.theta-inspector').textContent.includes('cannot be read')")
    assert (notebook.problems, complaints) == ([], [])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "reason"),
    [
        pytest.param(f"{CONTEXT}.shutdown()", "The kernel is gone", id="shut down"),
        pytest.param(f"{CONTEXT}.changeKernel({{ name: 'python3' }})", "The kernel is gone", id="another kernel"),
        pytest.param("", "The kernel was restarted", id="killed"),
    ],
)
def test_kernels_that_vanish(open_notebook: Open, end: str, reason: str) -> None:
    notebook = history_opened(open_notebook)
    page = notebook.page
    if end:
        page.evaluate(end)
    else:
        notebook.run("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
        page.get_by_role("dialog").get_by_role("button", name="Ok").click()
    assert said(notebook).startswith(f"{reason}, so")
    for name in ("what the rows are", "measure"):
        assert page.get_by_label(name, exact=True).or_(page.get_by_role("button", name=name, exact=True)).is_disabled()
    page.locator(".theta-map canvas").first.focus()
    for key in ("]", "]", "d", "t"):
        page.keyboard.press(key)
    assert page.get_by_role("button", name="diff against parent").is_disabled()
    assert page.locator(".theta-table tbody tr").count() == 8
    assert notebook.problems == []


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [True, False], ids=["with a new kernel", "without one"])
def test_a_notebook_that_was_saved_shows_a_still(open_notebook: Open, kernel: bool) -> None:
    notebook = history_opened(open_notebook)
    page = notebook.page
    still, outputs = page.locator(".theta-stand-in"), page.locator(".jp-OutputArea-child:visible")
    wait_for(notebook, "explorer.by", "block")
    assert (still.is_visible(), outputs.count()) == (False, 1), "the widget takes its place"
    page.evaluate("() => jupyterapp.commands.execute('docmanager:save')")
    page.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.shutdown()")
    page.evaluate(REOPEN, kernel)
    still.wait_for()
    assert still.locator("img").evaluate("(image) => image.naturalWidth") > 300
    assert "two more classes" in still.inner_text()
    if kernel:
        page.get_by_text("model not found").wait_for(state="attached")
    shown = page.locator(".jp-OutputArea").last.inner_text()
    assert "widget" not in shown, "nothing speaks of a widget that is missing"
    # Without a kernel the widget manager of JupyterLab itself throws.
    assert [problem for problem in notebook.problems if "(reading 'kernel')" not in problem] == []


REOPEN = """async (kernel) => {
  const { path } = jupyterapp.shell.currentWidget.context;
  await jupyterapp.commands.execute("application:close");
  const kernelPreference = kernel ? undefined : { shouldStart: false, autoStartDefault: false };
  const panel = await jupyterapp.commands.execute("docmanager:open", { path, factory: "Notebook", kernelPreference });
  await panel.context.ready;
}"""
