// Scores of what is chosen now, beside those of what is merged.
//
// Data contract: see merge_panels.js; `panel` is
//   function, target   what evaluates, and what it gets; function is "" where there is none
//   last               {number, settings, metrics, seconds} of the last evaluation, or null
//   labels             inputs and ancestor, in the order of the columns
//   references         scores by label, as far as they are known; unavailable: why one has none
//   failure            {text, lines: [[place, code]]} or null
// asks: evaluate {auto: 0 | 1}, references {}

import { element, fill } from "./dom.js";
import { GONE, attempt, bestOf, createBusy, createFailure, metricOf, same, score, smallerIsBetter, workButton } from "./panel_parts.js";

const PAUSE = 700; // ms without a change before it is evaluated by itself

/** @param {HTMLElement} root where to draw; @param {Object} actions of merge_panels.js */
export function createEvaluationPanel(root, actions) {
  let [state, panel, timer, running, seen] = [null, {}, 0, "", -1];
  const evaluate = workButton("evaluate", "measure what is chosen now", () => run("evaluate", { auto: 0 }), ".theta-primary");
  const references = workButton("score the inputs", "measure what is merged as well, to compare", () => run("references"));
  const auto = element("input", { type: "checkbox", onchange: () => auto.checked && later(0) });
  const about = element("span.theta-dim");
  const busy = createBusy(() => (actions.cancel(running), (running = ""), busy(null), refresh()));
  const failure = createFailure();
  const table = element("div.theta-scores");
  const hint = element("div.theta-hintline");
  root.append(
    element("div.theta-minibar", {}, evaluate, references,
      element("label.theta-check", { title: "whenever you stop changing something" }, auto, "automatically"), about),
    busy.element, failure.element, table, hint);

  async function run(what, details = {}) {
    clearTimeout(timer);
    running = what;
    failure(null);
    const said = what === "evaluate" ? "merging and evaluating …" : "evaluating the inputs …";
    busy(said);
    refresh();
    const found = await attempt(() => actions.ask(what, details, (done, total) => running === what && busy(said, done, total)), failure);
    if (running === what) (running = ""), busy(null);
    refresh();
    if (what === "evaluate" && found && !found.failed && !details.auto && !scored()) await run("references");
  }
  const scored = () => (panel.labels ?? []).every((label) => panel.references?.[label] || panel.unavailable?.[label]);
  const isCurrent = () => panel.last && state && same(panel.last.settings, state.chosen.settings);

  function later(pause = PAUSE) {
    clearTimeout(timer);
    if (!auto.checked || !panel.function || !state?.alive || !state.chosen.settings?.choice) return;
    timer = setTimeout(() => !isCurrent() && run("evaluate", { auto: 1 }), pause);
  }

  function refresh() {
    const usable = Boolean(panel.function) && state?.alive;
    evaluate.disabled = references.disabled = !usable || running !== "";
    auto.disabled = !usable;
    references.hidden = !panel.last || scored();
    about.textContent = panel.function ? `${panel.function}(${panel.target})` : "";
    if (!running) failure(panel.failure);
    drawTable();
    fill(hint, ...hints());
  }

  function hints() {
    if (state && !state.alive) return [GONE];
    if (!panel.function) {
      return ["No evaluation yet. Give one to the explorer, ", element("code", {}, "MergeExplorer(session, evaluate=f, into=model)"),
        ", or define it in a cell that begins with ", element("code", {}, "%%theta evaluate NAME"), ": it takes the merged model and returns numbers by name."];
    }
    if (!panel.last && !running) return ["Nothing is measured yet."];
    return Object.entries(panel.unavailable ?? {}).map(([label, why]) => element("div.theta-dim", {}, `${label} has no score: ${why}`));
  }

  function drawTable() {
    const names = [...new Set([panel.last?.metrics, ...Object.values(panel.references ?? {})].flatMap((metrics) => Object.keys(metrics ?? {})))];
    table.hidden = !names.length;
    if (!names.length) return;
    const current = isCurrent();
    const known = (panel.labels ?? []).filter((label) => panel.references?.[label]);
    const head = element("tr", {}, element("th", { scope: "col" }, "metric"),
      element("th.theta-number", { scope: "col", title: current ? "what is chosen now" : "choices have changed since" }, !panel.last ? "" : current ? "now" : `try ${panel.last.number}`),
      element("th.theta-number", { scope: "col", title: "against the best of the inputs" }, known.length ? "± best" : ""),
      ...known.map((label) => element("th.theta-number", { scope: "col" }, label)));
    const rows = names.map((name) => {
      const smaller = smallerIsBetter(name);
      const value = metricOf(panel.last?.metrics, name);
      const others = known.map((label) => metricOf(panel.references[label], name));
      const gain = value - bestOf(others, smaller);
      const good = smaller ? gain < 0 : gain > 0;
      const shown = Number.isNaN(gain) ? "" : `${gain > 0 ? "+" : gain < 0 ? "−" : "±"}${score(Math.abs(gain))}`;
      return element("tr", {}, element("th", { scope: "row", title: smaller ? "smaller is better" : "larger is better" }, name),
        element(current ? "td.theta-number.theta-strong" : "td.theta-number.theta-dim", {}, panel.last ? score(value) : ""),
        element(`td.theta-number${gain === 0 || Number.isNaN(gain) ? "" : good ? ".theta-good" : ".theta-bad"}`, {}, known.length ? shown : ""),
        ...others.map((other) => element("td.theta-number.theta-dim", {}, score(other))));
    });
    fill(table, element("table", {}, element("caption", {}, caption(current)), element("thead", {}, head), element("tbody", {}, ...rows)));
  }

  function caption(current) {
    if (!panel.last) return "what is merged";
    const took = `try ${panel.last.number}, ${panel.last.seconds.toFixed(2)} s`;
    return current ? took : `${took}; choices have changed since`;
  }

  return {
    update(next) {
      [state, panel] = [next, next.panel];
      refresh();
      if (seen !== -1 && seen !== next.chosen.revision) later();
      seen = next.chosen.revision;
    },
    destroy() {
      clearTimeout(timer);
      root.replaceChildren();
    },
  };
}
