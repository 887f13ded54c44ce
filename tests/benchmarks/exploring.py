"""How long the explorers take in a real Chromium: first paint, drawing of a large history, size of the messages.

    python tests/benchmarks/exploring.py [--repeat 20] [--pages]

Nothing but the browser is between Python and the picture: the modules run in an empty page, with the data that a widget
would send and a kernel that answers in this process. So the numbers are those of our code; JupyterLab adds its own time
to show any widget. Drawings are timed until a pixel of them has been read back, painted by software (no GPU).
"""

from __future__ import annotations

import argparse
import base64
import json
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

from circumstances import load, machine
from exploring_merges import rows as dragging
from exploring_pages import remembering
from measuring import BenchmarkError

_LAYERS, _COMMITS = 1000, 100
_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]

_HISTORY = """async ({ index, layers, values, repeat }) => {
  const { createHistoryView } = await import("./static/history_view.js");
  const { createState } = await import("./static/messages.js");
  const numbers = new Float32Array(Uint8Array.from(atob(values), (c) => c.charCodeAt(0)).buffer);
  const matrix = { layers, values: { data: numbers, shape: [layers.length, index.commits.length] }, measured: true };
  const client = { ask: async () => matrix, cancel() {} };
  const begun = performance.now();
  const state = createState({ by: "parameter", selected_commits: [] });
  const view = createHistoryView(document.body, { index, state, client });
  const canvas = view.map.canvas;
  while (!canvas.dataset.drawn || canvas.height < 300) await new Promise(requestAnimationFrame);
  const first = performance.now() - begun;
  const draws = [];
  const scales = [];
  const { createScale } = await import("./static/colors.js");
  const drawn = (before) => {
    const start = performance.now();
    before();
    view.map.draw();
    canvas.getContext("2d").getImageData(0, 0, 1, 1); // drawing is put off until someone looks
    return performance.now() - start;
  };
  for (let i = 0; i < repeat; i += 1) {
    draws.push(drawn(() => {}));
    scales.push(drawn(() => view.map.setScale(createScale(numbers, { log: i % 2 === 0 }), "‖Δ‖/‖old‖")));
    await new Promise(requestAnimationFrame);
  }
  return { first, draws, scales };
}"""

_DIFF = """async ({ packed, numbers }) => {
  const { createDiffView } = await import("./static/diff_view.js");
  const { createState, inflated } = await import("./static/messages.js");
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const begun = performance.now();
  const index = await inflated(bytes(packed));
  const state = createState({ metric: "relative", log_scale: true, filter: "", selection: [], pins: [] });
  const client = { ask: () => new Promise(() => {}), cancel() {} };
  const options = { index, numbers: new Float32Array(bytes(numbers).buffer), state, client };
  const view = createDiffView(document.body, options);
  while (!view.map.canvas.dataset.drawn) await new Promise(requestAnimationFrame);
  const first = performance.now() - begun;
  const turns = [];
  for (const metric of ["delta_norm", "changed_share", "relative", "max_abs_delta"]) {
    const start = performance.now();
    state.set("metric", metric);
    view.map.draw();
    turns.push(performance.now() - start);
  }
  return { first, turns };
}"""


@dataclass
class Sent:
    """What a widget sends, caught on its way."""

    sizes: list[int] = field(default_factory=list)

    def publish_msg(
        self, msg_type: str, data: Any = None, metadata: Any = None, buffers: Any = None, **keys: Any
    ) -> None:
        """Note the length of a message."""
        self.sizes.append(len(json.dumps(data or {}).encode()) + sum(len(bytes(buffer)) for buffer in buffers or []))


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=20, metavar="N", help="drawings (default 20)")
    parser.add_argument("--pages", action="store_true", help="measure what a page of JupyterLab keeps, instead")
    options = parser.parse_args()
    before = load()
    try:
        rows = remembering() if options.pages else [*_opening(), *_drawing(options.repeat), *dragging(options.repeat)]
    except BenchmarkError as failure:
        print(f"benchmark: {failure}", file=sys.stderr)
        return 1
    print("\n".join(["| what | measured | goal |", "|---|--:|--:|", *rows]))
    print(f"\n{machine(Path())}, load average {before} before and {load()} after it.")
    return 0


def _opening() -> list[str]:
    """Python's share: making the widgets, and the messages that they send."""
    import comm

    import theta_nb

    sent = Sent()
    made = type("Comm", (comm.base_comm.BaseComm,), {"publish_msg": lambda self, *a, **k: sent.publish_msg(*a, **k)})
    comm.create_comm = made
    diff, history = large_diff(_LAYERS), large_history(_LAYERS, _COMMITS)
    seconds = {}
    for name, make in (
        ("DiffExplorer", lambda: theta_nb.DiffExplorer(diff)),
        ("HistoryExplorer", lambda: theta_nb.HistoryExplorer(history)),
    ):
        start = time.perf_counter()
        make().close()
        seconds[f"{name}, first one"] = time.perf_counter() - start
        start = time.perf_counter()
        make().close()
        seconds[name] = time.perf_counter() - start
    largest = max(max(sent.sizes), *_answers(history))
    return [
        *(f"| {name} made, {_LAYERS:,} tensors | {1000 * took:.0f} ms | |" for name, took in seconds.items()),
        f"| largest message to the browser | {largest / 1e6:.2f} MB | ≤ 1 MB |",
    ]


def _answers(history: Any) -> list[int]:
    from theta_nb.jupyter.answers import Request, messages
    from theta_nb.jupyter.history_desk import HistoryDesk

    request = Request("1", "matrix", "matrix", {"by": "parameter"})
    answer = HistoryDesk(history).answer(request, lambda: None, lambda done, total: None)
    return [len(json.dumps(content)) + sum(map(len, buffers)) for content, buffers in messages(request, answer)]


def _drawing(repeat: int) -> list[str]:
    """The browser's share."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None:
        raise BenchmarkError("chromium is not installed")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        shutil.copytree(str(files("theta_nb.jupyter.static")), Path(folder, "static"))
        browser = playwright.chromium.launch(executable_path=chromium, args=_FLAGS)
        try:
            history = _page(browser, folder).evaluate(_HISTORY, _history_form(repeat))
            diff = _page(browser, folder).evaluate(_DIFF, _diff_form())
        finally:
            browser.close()
    return [
        _row(f"history of {_LAYERS:,} layers, {_COMMITS} commits drawn again", history["draws"], "≤ 30 ms"),
        _row("the same with every colour computed anew", history["scales"], "≤ 30 ms"),
        f"| first paint of that history, from its data | {history['first']:.0f} ms | |",
        f"| first paint of a diff of {_LAYERS:,} tensors, from its message | {diff['first']:.0f} ms | ≤ 1500 ms |",
        _row("another metric for it, tree and map", diff["turns"], ""),
    ]


def _row(what: str, samples: list[float], goal: str) -> str:
    return f"| {what} | {statistics.median(samples):.1f} ms (at most {max(samples):.1f}) | {goal} |"


def _page(browser: Any, folder: str) -> Any:
    """An empty page that can import the modules."""
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    style = Path(folder, "static", "explorer.css").read_text("utf-8")

    def serve(route: Any) -> None:
        name = route.request.url.rpartition("http://explorer.test/")[2]
        if name.startswith("static/"):
            route.fulfill(path=str(Path(folder, name)), content_type="text/javascript")
        else:
            route.fulfill(
                body=f"<!doctype html><meta charset=utf-8><style>{style}</style><body>", content_type="text/html"
            )

    page.route("http://explorer.test/**", serve)
    page.goto("http://explorer.test/")
    return page


def _history_form(repeat: int) -> dict[str, Any]:
    from theta_nb.jupyter.answers import Request
    from theta_nb.jupyter.history_desk import HistoryDesk

    desk = HistoryDesk(large_history(_LAYERS, _COMMITS))
    request = Request("1", "matrix", "matrix", {"by": "parameter"})
    answer = desk.answer(request, lambda: None, lambda done, total: None)
    values = base64.b64encode(answer.arrays[0].tobytes()).decode("ascii")
    return {"index": desk.index(), "layers": answer.result["layers"], "values": values, "repeat": repeat}


def _diff_form() -> dict[str, Any]:
    from theta_nb.jupyter.answers import deflated
    from theta_nb.jupyter.diff_desk import DiffDesk

    desk = DiffDesk(large_diff(_LAYERS))
    return {
        "packed": base64.b64encode(deflated(desk.index())).decode("ascii"),
        "numbers": base64.b64encode(desk.numbers().tobytes()).decode("ascii"),
    }


def large_diff(count: int) -> Any:
    """A diff of a large transformer, every tensor changed."""
    from theta_nb.engine.diff import ParameterChange
    from theta_nb.report.checkpoint_diff import CheckpointDiff, Side

    made = [ParameterChange("modified", _parameter(i, 0), _parameter(i, 1), _statistics(i, 1)) for i in range(count)]
    return CheckpointDiff(
        Side("m.safetensors", "HEAD~1"), Side("m.safetensors", "HEAD"), tuple(made), measured="scalars"
    )


def large_history(layers: int, commits: int) -> Any:
    """A measured history in which each commit changes half of the tensors."""
    from theta_nb.engine.diff import ParameterChange
    from theta_nb.engine.history import Commit, Step
    from theta_nb.report.history import History

    steps = []
    for number in range(commits):
        parents = (f"{number - 1:040x}",) if number else ()
        date = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=number)
        commit = Commit(f"{number:040x}", parents, "Ada", date, f"epoch {number}", {"loss": 2.0 / (number + 1)})
        changes = tuple(
            ParameterChange("modified", _parameter(i, number), _parameter(i, number + 1), _statistics(i, number))
            for i in range(number % 2, layers, 2)
        )
        parameters = {p.name: p for p in (_parameter(i, number) for i in range(layers))}
        state = "modified" if number else "added"
        steps.append(
            Step(commit, "m.safetensors", state, changes, tensors=layers, new_bytes=10**6, parameters=parameters)
        )  # type: ignore[arg-type]
    return History("m.safetensors", tuple(reversed(steps)), measured=True)


_ROLES = [f"self_attn.{x}_proj.weight" for x in "qkvo"] + [f"mlp.{x}_proj.weight" for x in ("gate", "up", "down")]
_ROLES += ["input_layernorm.weight", "post_attention_layernorm.weight", "self_attn.rotary_emb.inv_freq"]


def _parameter(number: int, version: int) -> Any:
    from theta_nb.engine.diff import Parameter

    name = f"model.layers.{number // len(_ROLES)}.{_ROLES[number % len(_ROLES)]}"
    return Parameter(name, "bfloat16", (4096, 4096), f"{number}-{version}".encode())


def _statistics(number: int, version: int) -> Any:
    from theta_nb.tensors.statistics import Statistics

    delta = 10.0 ** -(1 + (number * 7 + version * 3) % 50 / 10)
    return Statistics(4096**2, 4096**2 // 2, 1000, 1.0, 1.0, delta, delta / 10, 1 - delta**2 / 2, 0.0, 0.0, 1.0, 1.0)


if __name__ == "__main__":
    sys.exit(main())
