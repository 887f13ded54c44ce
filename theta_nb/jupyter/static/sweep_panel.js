// A sweep: one or two parameters of the method in use, measured along a line or over a grid; a point is adopted by a click.
//
// Data contract: see merge_panels.js; `panel` is
//   function    what evaluates; "" where there is none
//   settings, axes: [{name, label, title, values}], mode, total   what was swept last, and from which choices
//   points      [{values, number, metrics}], as they come in; running: whether more will come
//   labels, references   scores of the inputs and the ancestor
//   failure     {text, lines} or null
// asks: run {form: {axes: [{name, label, low, high, count}], mode}}, adopt {number}

import { element, fill } from "./dom.js";
import { SERIES, ticksOf } from "./colors.js";
import { createMap } from "./map.js";
import { createSweepPlot } from "./sweep_plot.js";
import { GONE, attempt, bestOf, createBusy, createFailure, field, metricOf, same, score, smallerIsBetter, typing, workButton } from "./panel_parts.js";

const FIRST = ["t", "scale", "density"]; // what is offered first where a method has it
const LINES = [SERIES.delta, SERIES.other, SERIES.more, SERIES.old];

/** What can be swept of a method: [{name, label, title, low, high, kind}], likely ones first. */
export function sweepable(method, labels) {
  const found = [];
  for (const spec of method?.parameters ?? []) {
    if (!["float", "int"].includes(spec.kind) || spec.name === "seed") continue;
    const [low, high] = [spec.low ?? 0, spec.high ?? Math.max(1, 2 * Number(spec.default) || 1)];
    const ends = spec.name === "weight" ? [0, 1] : [low, high];
    const one = { name: spec.name, kind: spec.kind, low: ends[0], high: ends[1], help: spec.help };
    if (spec.per_model && labels.length > 1) for (const label of labels.slice().reverse()) found.push({ ...one, label, title: `${spec.name} of ${label}` });
    found.push({ ...one, label: "", title: spec.name });
  }
  const rank = ({ name, label }) => (label ? 1 : FIRST.includes(name) ? FIRST.indexOf(name) / 10 : 2);
  return found.sort((a, b) => rank(a) - rank(b));
}

/** The scale of a heat map from the smallest to the largest value. */
export function spanned(values) {
  const finite = values.filter(Number.isFinite);
  const [low, high] = finite.length ? [Math.min(...finite), Math.max(...finite)] : [0, 1];
  const span = high - low || 1;
  return { low, high: low + span, log: false, symmetric: false, share: (value) => (Number.isNaN(value) ? NaN : (value - low) / span), ticks: ticksOf(low, low + span) };
}

/** Number of the point that is what is chosen; 0 if none is. */
export function chosenPoint({ settings, axes, points }, chosen) {
  const now = chosen?.choice;
  if (!settings?.choice || now?.method !== settings.choice.method || !same(settings.overrides, chosen.overrides)) return 0;
  const own = (name, label) => (label ? now.parameters[name]?.[label] : now.parameters[name]);
  const rest = (parameters) => Object.entries(parameters).filter(([name]) => !axes.some((axis) => axis.name === name));
  if (!same(rest(settings.choice.parameters), rest(now.parameters))) return 0;
  return points.find(({ values }) => axes.every(({ name, label }, i) => own(name, label) === values[i]))?.number ?? 0;
}

/** @param {HTMLElement} root where to draw; @param {Object} actions of merge_panels.js */
export function createSweepPanel(root, actions) {
  let [state, panel, offered, methodName, running, metricName] = [null, {}, [], "", false, ""];
  const rows = [createAxisRow(onChange), createAxisRow(onChange, true)];
  const mode = element("select.theta-select", { "aria-label": "line or grid", onchange: onChange },
    element("option", { value: "grid" }, "grid"), element("option", { value: "line" }, "line"));
  const modeField = field("as a", mode, "every combination, or both moving together");
  const metric = element("select.theta-select", { "aria-label": "metric", onchange: () => ((metricName = metric.value), draw()) });
  const metricField = field("shows", metric);
  const run = workButton("sweep", "evaluate all these settings, one after the other", sweep, ".theta-primary");
  const amount = element("span.theta-dim");
  const busy = createBusy(() => (actions.cancel("run"), (running = false), busy(null), refresh()));
  const failure = createFailure();
  const [curveBox, mapBox] = [element("div"), element("div", { hidden: true })];
  const best = element("div.theta-bestline", { role: "status" });
  const hint = element("div.theta-hintline");
  const controls = element("div.theta-sweep-controls", {}, ...rows.map((row) => row.element),
    element("div.theta-minibar", {}, run, amount, modeField, metricField));
  typing(root).append(controls, busy.element, failure.element, curveBox, mapBox, best, hint);
  const curve = createSweepPlot(curveBox, { label: "scores along the sweep", onSelect: ({ number }) => adopt(number) });
  const map = createMap(mapBox, {
    label: "scores over the grid", most: [64, 30], least: [14, 14], height: 300, writeTick: score,
    describe: (row, column) => describe(pointAt(column, row)),
    onSelect: (at) => {
      const across = panel.axes[0].values.length;
      const point = pointAt(at % across, Math.floor(at / across));
      if (point) adopt(point.number);
    },
  });

  const chosen = () => chosenPoint(panel, state?.chosen.settings);
  const axes = () => rows.map((row) => row.value(offered)).filter(Boolean);
  const along = () => mode.value === "line" || axes().length < 2;
  const count = () => (along() ? axes()[0]?.count ?? 0 : axes()[0].count * axes()[1].count);

  async function sweep() {
    running = true;
    failure(null);
    busy("scoring the inputs …");
    refresh();
    const wanted = axes();
    if (along() && wanted.length > 1) wanted[1].count = wanted[0].count;
    const form = JSON.stringify({ axes: wanted, mode: along() ? "line" : "grid" });
    await attempt(() => actions.ask("run", { form }, (done, total) => running && busy(`${done} of ${total}`, done, total)), failure);
    running = false;
    busy(null);
    refresh();
  }

  const adopt = (number) => attempt(() => actions.ask("adopt", { number }), failure);

  const pointAt = (column, row) => {
    const [x, y] = [panel.axes[0].values[column], panel.axes[1].values[row]];
    return panel.points.find(({ values }) => values[0] === x && values[1] === y);
  };

  function describe(point) {
    if (!point) return [];
    const where = panel.axes.map((axis, i) => `${axis.title} ${point.values[i]}`).join(", ");
    return [where, ...Object.keys(point.metrics).map((name) => `${name} ${score(metricOf(point.metrics, name))}`), `try ${point.number}; click to adopt it`];
  }

  function onChange() {
    refresh();
  }

  function refresh() {
    if (!state) return;
    const now = state.chosen.settings?.choice?.method ?? "";
    if (now !== methodName) {
      methodName = now;
      offered = sweepable(state.index.methods.find(({ name }) => name === methodName), state.index.labels);
      rows.forEach((row) => row.offer(offered));
    }
    const usable = Boolean(panel.function) && state.alive && offered.length > 0;
    rows[1].element.hidden = offered.length < 2;
    modeField.hidden = axes().length < 2;
    for (const row of rows) row.lock(!usable || running);
    run.disabled = !usable || running || !axes().length;
    run.textContent = panel.points?.length ? "sweep again" : "sweep";
    amount.textContent = usable && count() ? `${count()} evaluations` : "";
    controls.hidden = !panel.function || !offered.length;
    if (!running) failure(panel.failure);
    fill(hint, hintText());
    draw();
  }

  function hintText() {
    if (!state.alive) return GONE;
    if (!panel.function) return "A sweep needs an evaluation; see there.";
    if (!offered.length) return methodName ? `${methodName} has no number that could be swept.` : "Choose a method first.";
    if (running || panel.points?.length) return "";
    return "Measures a line or a grid of settings, with the scores of both sides and the base to compare. A click on a point adopts it.";
  }

  function draw() {
    const points = panel.points ?? [];
    const names = [...new Set(points.flatMap(({ metrics }) => Object.keys(metrics)))];
    metricField.hidden = names.length < 2;
    if (!names.includes(metricName)) metricName = names[0] ?? "";
    if (metric.options.length !== names.length || [...metric.options].some((option, i) => option.value !== names[i])) {
      fill(metric, ...names.map((name) => element("option", { value: name }, name)));
    }
    metric.value = metricName;
    const grid = panel.mode === "grid" && panel.axes?.length === 2;
    curveBox.hidden = !names.length || grid;
    mapBox.hidden = !names.length || !grid;
    if (names.length) (grid ? drawMap : drawCurve)(points);
    drawBest(points);
  }

  function drawCurve(points) {
    const marked = chosen();
    const lines = panel.labels.map((label, i) => ({ label, color: LINES[i % LINES.length], value: metricOf(panel.references[label], metricName) }));
    const [first, second] = panel.axes;
    curve.setData({
      points: points.map((point) => ({ ...point, x: point.values[0], y: metricOf(point.metrics, metricName) })),
      lines, xs: first.values, chosen: marked, describe,
      title: second ? `${first.title}, with ${second.title} from ${second.values[0]} to ${second.values.at(-1)}` : first.title,
    });
  }

  function drawMap(points) {
    const [across, down] = panel.axes;
    const values = new Float32Array(across.values.length * down.values.length).fill(NaN);
    const [marks, marked] = [new Map(), chosen()];
    for (const point of points) {
      const at = down.values.indexOf(point.values[1]) * across.values.length + across.values.indexOf(point.values[0]);
      values[at] = metricOf(point.metrics, metricName);
      if (point.number === marked) marks.set(at, "●");
    }
    map.setData({ rows: down.values.map((value) => `${down.title} ${value}`), columns: across.values.map((value) => `${value}`), values, marks });
    map.setScale(spanned([...values]), `${metricName} over ${across.title}`);
  }

  function drawBest(points) {
    const smaller = smallerIsBetter(metricName);
    const top = bestOf(points.map(({ metrics }) => metricOf(metrics, metricName)), smaller);
    const found = points.find(({ metrics }) => metricOf(metrics, metricName) === top);
    best.hidden = !found;
    if (!found) return;
    const where = panel.axes.map((axis, i) => `${axis.title} ${found.values[i]}`).join(", ");
    const parents = bestOf(panel.labels.map((label) => metricOf(panel.references[label], metricName)), smaller);
    const beats = Number.isNaN(parents) ? "" : (smaller ? top < parents : top > parents) ? `, better than every input (${score(parents)})` : `, not better than the best input (${score(parents)})`;
    const taken = found.number === chosen();
    const take = element("button.theta-button", { type: "button", disabled: taken || !state?.alive, onclick: () => adopt(found.number) }, taken ? "adopted" : "adopt the best");
    fill(best, element("span", {}, `${smaller ? "smallest" : "largest"} ${metricName} `, element("b", {}, score(top)), ` at ${where}${beats} `), take);
  }

  return {
    update(next) {
      [state, panel] = [next, next.panel];
      refresh();
    },
    destroy() {
      curve.destroy();
      map.destroy();
      root.replaceChildren();
    },
  };
}

/** One axis: a parameter, its ends, and how many steps. */
function createAxisRow(onChange, optional = false) {
  const number = (label, value, attributes = {}) => element("input.theta-number-box", { type: "number", step: "any", value, "aria-label": label, oninput: onChange, ...attributes });
  const [low, high, count] = [number("from", 0), number("to", 1), number("how many", optional ? 5 : 9, { min: 1, max: 100, step: 1 })];
  const which = element("select.theta-select.theta-grow", { "aria-label": optional ? "second parameter" : "parameter", onchange: () => (ends(), onChange()) });
  let all = [];
  const key = ({ name, label }) => `${name}\n${label}`;
  const chosen = () => all.find((one) => key(one) === which.value);
  function ends() {
    const one = chosen();
    for (const input of [low, high, count]) input.parentElement.hidden = !one;
    if (one) [low.value, high.value] = [one.low, one.high];
  }
  const made = element("div.theta-axis", {}, which, field("from", low), field("to", high), field("in", count, "how many values"));
  return {
    element: made,
    offer(options) {
      all = options;
      fill(which, optional ? element("option", { value: "" }, "and no other") : null,
        ...options.map((one) => element("option", { value: key(one), title: one.help }, optional ? `and ${one.title}` : one.title)));
      ends();
    },
    lock(locked) {
      for (const input of [which, low, high, count]) input.disabled = locked;
    },
    value(options) {
      const one = options.find((each) => key(each) === which.value);
      if (!one || low.value === "" || high.value === "") return null;
      return { name: one.name, label: one.label, low: Number(low.value), high: Number(high.value), count: Math.max(1, Math.min(100, Math.round(Number(count.value)) || 1)) };
    },
  };
}
