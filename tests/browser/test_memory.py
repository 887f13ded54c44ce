"""What a view leaves behind in a page of its own, without a notebook around it."""

from __future__ import annotations

import base64
from importlib.resources import files
from typing import Any

import numpy as np

from tests.jupyter.test_explorers import large_diff
from theta_nb.engine.merging.inputs import StateInput
from theta_nb.engine.merging.session import MergeSession
from theta_nb.jupyter.answers import Request, deflated
from theta_nb.jupyter.diff_desk import DiffDesk
from theta_nb.jupyter.merge_desk import MergeDesk

_CYCLES = """async ({ packed, cycles }) => {
  const { createDiffView } = await import("./static/diff_view.js");
  const { createState, inflated } = await import("./static/messages.js");
  const index = await inflated(Uint8Array.from(atob(packed), (c) => c.charCodeAt(0)));
  const answer = (numbers) => ({ data: Float32Array.from(numbers), shape: [1, numbers.length] });
  const octaves = { top: 0, counts: answer([0.5, 0.5]) };
  const answers = {
    parameter: { facts: [["norm", "1"]], note: "", histograms: { old: octaves, new: octaves, delta: octaves } },
    picture: { shape: [1, 2], rms: answer([1, 2]), mean: answer([1, 2]), rows: answer([1]), columns: answer([1, 2]) },
    spectrum: { values: answer([2, 1]), stable_rank: 1, effective_rank: 1, exact: true },
    window: { shape: [1, 2], row: 0, column: 0, old: answer([1, 2]), new: answer([1, 3]) },
  };
  for (let i = 0; i < cycles; i += 1) {
    const [selection, pins] = [[index.names[0]], [index.names[1]]];
    const state = createState({ metric: "relative", log_scale: true, filter: "", selection, pins });
    const client = { ask: async (channel, what) => answers[what], cancel() {} };
    const numbers = new Float32Array(8 * index.names.length).fill(0.5);
    const view = createDiffView(document.body, { index, numbers, state, client, pause: 0 });
    for (let frame = 0; frame < 4; frame += 1) await new Promise(requestAnimationFrame);
    if (!document.querySelector(".theta-values table")) throw new Error("the inspectors were not drawn");
    view.destroy();
    if (document.body.children.length) throw new Error("elements are left");
  }
}"""


_MERGES = """async ({ packed, chosen, cycles }) => {
  const { createMergeView } = await import("./static/merge_view.js");
  const { createState, inflated } = await import("./static/messages.js");
  const frame = () => new Promise(requestAnimationFrame);
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const index = await inflated(bytes(packed));
  const filled = (value, arrays) => {
    if (value === null || typeof value !== "object" || Array.isArray(value)) return value;
    if (Number.isInteger(value.array)) return { data: arrays[value.array], shape: value.shape };
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, filled(inner, arrays)]));
  };
  let [previews, waiting] = [0, 0];
  const client = {
    async ask(channel, what, details) {
      if (what === "preview") [previews, waiting] = [previews + 1, waiting + 1];
      const { result, arrays } = await answer(what, details.form ?? "");
      if (what === "preview") waiting -= 1;
      return filled(result, arrays.map((text) => new Float32Array(bytes(text).buffer)));
    },
    cancel() {},
  };
  for (let i = 0; i < cycles; i += 1) {
    const traits = { metric: "to_ours", rows: "role", filter: "", selection: [], sort: "model" };
    const state = createState({ ...traits, _chosen: chosen, _panels: {} });
    const view = createMergeView(document.body, { index, state, client });
    const slider = () => document.querySelectorAll(".theta-right .theta-slider")[1];
    while (!slider()) await frame();
    // Once its samples are there and sorted, what is dragged is no question to Python.
    for (let asked = -1, move = 0; asked !== previews || waiting; move += 1) {
      if (move === 500) throw new Error("Python is asked to the end");
      asked = previews;
      slider().value = String(0.2 + 0.01 * (move % 60));
      slider().dispatchEvent(new Event("input", { bubbles: true }));
      for (let frames = 0; frames < 3; frames += 1) await frame();
    }
    view.destroy();
    if (document.body.children.length) throw new Error("elements are left");
  }
}"""


def _used(session: Any) -> dict[str, float]:
    """Heap, elements and listeners of a page, and what its arrays hold beside the heap."""
    for _ in range(2):
        session.send("HeapProfiler.collectGarbage")
    found = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
    arrays = session.send("Runtime.getHeapUsage")["backingStorageSize"]
    return {**{name: found[name] for name in ("JSHeapUsedSize", "Nodes", "JSEventListeners")}, "arrays": arrays}


def _page(browser: Any) -> tuple[Any, Any]:
    """An empty page that can import the modules, and a session that measures it."""
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    modules = files("theta_nb.jupyter.static")

    def serve(route: Any) -> None:
        name = route.request.url.rpartition("/static/")[2]
        if name.endswith(".js"):
            route.fulfill(body=modules.joinpath(name).read_text("utf-8"), content_type="text/javascript; charset=utf-8")
        else:
            route.fulfill(body="<!doctype html><body></body>", content_type="text/html")

    page.route("http://explorer.test/**", serve)
    page.goto("http://explorer.test/")
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    return page, session


def test_a_closed_view_leaves_nothing_in_the_page(browser: Any) -> None:
    """Twenty views of 1,000 tensors with two inspectors: heap, elements and listeners stay within five per cent."""
    page, session = _page(browser)
    packed = base64.b64encode(deflated(DiffDesk(large_diff(1000)).index())).decode("ascii")
    page.evaluate(_CYCLES, {"packed": packed, "cycles": 20})
    before = _used(session)
    page.evaluate(_CYCLES, {"packed": packed, "cycles": 20})
    after = _used(session)
    page.close()
    for name, value in before.items():
        assert after[name] <= value * 1.05 + 5, f"{name}: {before} then {after}"


def test_a_closed_merge_leaves_no_samples_in_the_page(browser: Any) -> None:
    """Five merges by TIES, each with 1 MB of samples in the page: these go with the view."""
    random = np.random.default_rng(0)
    states = [
        {f"layers.{k}.weight": random.normal(size=(100, 100)).astype(np.float32) for k in range(20)} for _ in range(3)
    ]
    inputs = [StateInput("ours", states[1]), StateInput("theirs", states[2])]
    merge = MergeSession(StateInput("original", states[0]), inputs).use("ties", density=0.5).measure()
    desk = MergeDesk(merge)
    asked: list[str] = []

    def answer(what: str, form: str) -> dict[str, Any]:
        asked.append(what)
        found = desk.answer(Request("1", "c", what, {"form": form}), lambda: None, lambda done, total: None)
        return {"result": found.result, "arrays": [base64.b64encode(array).decode() for array in found.arrays]}

    page, session = _page(browser)
    page.expose_function("answer", answer)
    packed = base64.b64encode(deflated(desk.index())).decode("ascii")
    form = {"packed": packed, "chosen": desk.chosen(), "cycles": 5}
    for _ in range(3):  # until all that runs often is compiled
        page.evaluate(_MERGES, form)
    before = _used(session)
    asked.clear()
    page.evaluate(_MERGES, form)
    after = _used(session)
    page.close()
    assert asked.count("samples") >= 5 * 3, "they were there"
    assert before["arrays"] < 1e6, f"{before}"
    for name, value in before.items():
        assert after[name] <= value * 1.05 + 5, f"{name}: {before} then {after}"
