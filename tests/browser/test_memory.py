"""What a view leaves behind in a page of its own, without a notebook around it."""

from __future__ import annotations

import base64
from importlib.resources import files
from typing import Any

from tests.jupyter.test_explorers import large_diff
from theta_nb.jupyter.answers import deflated
from theta_nb.jupyter.diff_desk import DiffDesk

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


def test_a_closed_view_leaves_nothing_in_the_page(browser: Any) -> None:
    """Twenty views of 1,000 tensors with two inspectors: heap, elements and listeners stay within five per cent."""
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
    packed = base64.b64encode(deflated(DiffDesk(large_diff(1000)).index())).decode("ascii")

    def used() -> dict[str, float]:
        for _ in range(2):
            session.send("HeapProfiler.collectGarbage")
        found = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
        return {name: found[name] for name in ("JSHeapUsedSize", "Nodes", "JSEventListeners")}

    page.evaluate(_CYCLES, {"packed": packed, "cycles": 20})
    before = used()
    page.evaluate(_CYCLES, {"packed": packed, "cycles": 20})
    after = used()
    page.close()
    for name, value in before.items():
        assert after[name] <= value * 1.05 + 5, f"{name}: {before} then {after}"
