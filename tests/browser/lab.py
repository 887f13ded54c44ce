"""A JupyterLab that runs, and notebooks in a browser: for tests, and for benchmarks of what a person waits for."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jupyterlab
import nbformat

__all__ = ["CHROMIUM", "KERNEL", "Lab", "Notebook", "launched", "open_page", "running_lab", "serving"]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
_NOTIFICATIONS = {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True}


@dataclass(frozen=True)
class Lab:
    """A JupyterLab, or a Notebook 7, that runs.

    Parameters
    ----------
    url
        Where it answers.
    token
        What it wants to be told.
    root
        The folder that it shows: a repository with a history.
    environment
        What its processes see.
    """

    url: str
    token: str
    root: Path
    environment: dict[str, str]


@contextmanager
def running_lab(own: Path, prepare: Callable[[Path, dict[str, str]], None]) -> Iterator[Lab]:
    """JupyterLab with settings, workspaces and kernels of its own.

    Parameters
    ----------
    own
        An empty folder for all that.
    prepare
        Makes the folder that it shows, given where it shall be and the environment of the kernels.
    """
    root = own / "root"
    environment = _environment(own)
    prepare(root, environment)
    settings = own / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(_NOTIFICATIONS))
    shared = Path(jupyterlab.__file__).parents[4] / "share" / "jupyter"
    options = ["--LabApp.expose_app_in_browser=True", f"--app-dir={shared / 'lab'}"]
    with serving("jupyterlab", options, root, environment, own / "log") as url:
        yield Lab(url, "test", root, environment)


@contextmanager
def serving(module: str, options: list[str], root: Path, environment: dict[str, str], log: Path) -> Iterator[str]:
    """Run a server of notebooks; the URL at which it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-m", module, "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"),
        *("--ServerApp.port_retries=0", "--IdentityProvider.token=test", f"--ServerApp.root_dir={root}", *options),
    ]
    with open(log, "wb") as out:
        server = subprocess.Popen(
            command, env=environment, cwd=root, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _answers(server, f"{url}/api/status?token=test", log)
        yield url
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _environment(own: Path) -> dict[str, str]:
    folders = ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR")
    shared = [prefix / "share" / "jupyter" for prefix in (Path(sys.prefix), Path(jupyterlab.__file__).parents[4])]
    return {
        **{
            key: value for key, value in os.environ.items() if not key.startswith(("GIT_", "THETA_", "JUPYTER", "XDG_"))
        },
        **{f"JUPYTER_{name}": str(own / name.lower()) for name in folders},
        "IPYTHONDIR": str(own / "ipython"),
        "JUPYTERLAB_SETTINGS_DIR": str(own / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(own / "workspaces"),
        "JUPYTER_PATH": os.pathsep.join(str(path) for path in dict.fromkeys(shared)),
        "HOME": str(own),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": str(own / ".gitconfig"),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }


def _answers(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Wait until the server answers, or say why it does not."""
    for _ in range(600):
        if server.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            try:
                server.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
    raise AssertionError(f"the server did not start:\n{log.read_text(errors='replace')[-4000:]}")


@contextmanager
def launched() -> Iterator[Any]:
    """Chromium without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield found
        finally:
            found.close()


class Notebook:
    """A notebook that is open in a page.

    Parameters
    ----------
    page
        The page.
    problems
        What the page complained about so far.
    """

    def __init__(self, page: Any, problems: list[str]) -> None:
        self.page = page
        self.problems = problems

    def run(self, *cells: str) -> None:
        """Put cells below the others and run them; does not wait for what they do."""
        self.page.evaluate(_RUN, list(cells))

    def value(self, expression: str) -> Any:
        """What the kernel says an expression is, as JSON."""
        return json.loads(self.page.evaluate(_VALUE, f"import json; print(json.dumps({expression}))"))

    def theme(self, name: str) -> None:
        """Choose a theme, and wait until it is there."""
        self.page.evaluate("(name) => jupyterapp.commands.execute('apputils:change-theme', { theme: name })", name)
        light = "false" if "Dark" in name else "true"
        self.page.wait_for_selector(f"body[data-jp-theme-light='{light}']", state="attached")


# Without it JupyterLab asks which kernel is wanted.
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
_OPEN = """async (path) => {
  const late = new Promise((_, reject) => setTimeout(() => reject(new Error("the notebook did not open")), 60000));
  return Promise.race([late, (async () => {
  await jupyterapp.restored;
  const panel = await jupyterapp.commands.execute("docmanager:open", { path, factory: "Notebook" });
  await panel.context.ready;
  await panel.sessionContext.ready;
  await panel.sessionContext.session.kernel.info;
  jupyterapp.shell.activateById(panel.id);
  })()]);
}"""
_RUN = """async (cells) => {
  const panel = jupyterapp.shell.currentWidget;
  const model = panel.content.model.sharedModel;
  for (const source of cells) model.insertCell(model.cells.length, { cell_type: "code", source });
  panel.content.activeCellIndex = model.cells.length - 1;
  if (cells.length > 1) jupyterapp.commands.execute("notebook:run-all-cells");
  else jupyterapp.commands.execute("notebook:run-cell");
}"""
_VALUE = """async (code) => {
  const kernel = jupyterapp.shell.currentWidget.sessionContext.session.kernel;
  const future = kernel.requestExecute({ code, store_history: false });
  let text = "";
  future.onIOPub = (message) => { text += message.content.text ?? (message.content.evalue ?? ""); };
  await future.done;
  return text;
}"""


def open_page(lab: Lab, context: Any, *cells: str) -> Notebook:
    """A new notebook with some cells, which it begins to run, in a page of its own."""
    name = f"test-{os.urandom(4).hex()}.ipynb"
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells], metadata=KERNEL)
    nbformat.write(made, lab.root / name)
    page = context.new_page()
    page.set_default_timeout(30_000)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(f"{lab.url}/lab?token={lab.token}&reset")
    page.wait_for_function("window.jupyterapp !== undefined")
    page.evaluate(_OPEN, name)
    page.evaluate("() => { jupyterapp.commands.execute('application:toggle-left-area'); }")
    page.evaluate("() => { jupyterapp.commands.execute('notebook:run-all-cells'); }")
    return Notebook(page, problems)
