// One parameter in depth: numbers, histograms, spectrum, picture and single values of its difference.
//
// Data contract: `item` describes the parameter (see createDiffData), everything else is asked for:
//   parameter -> {histograms: {old, new, delta: {top, counts}} | null, facts: [[label, text], ...], note}
//   picture   -> {shape, rms, mean, rows, columns}
//   spectrum  -> {values, stable_rank, effective_rank, exact}
//   window    -> {shape, row, column, old, new}
// where counts, rms, mean, rows, columns, values, old and new are arrays as in messages.js.

import { element, fill } from "./dom.js";
import { SERIES, STATUS } from "./colors.js";
import { count, short } from "./numbers.js";
import { createCurve } from "./curve.js";
import { createHistogram } from "./histogram.js";
import { createPicture } from "./picture.js";
import { Lost, Superseded } from "./messages.js";
import { isLost } from "./lost.js";

const PAUSE = 120; // ms: while someone moves through the map, only where they stop is read

/**
 * @param {HTMLElement} root where to draw
 * @param {Object} options
 *   ask(channel, what, details), cancel(channel): as of messages.js; channel: a name of its own;
 *   onPin(): pinned or let go; onClose(): optional.
 */
export function createInspector(root, options) {
  const { channel } = options;
  const box = element("section.theta-inspector", { "aria-label": "parameter" });
  root.append(box);
  let parts = [];
  let timer = 0;
  let current = null;
  let generation = 0;

  const destroyParts = () => (parts.forEach((part) => part.destroy()), (parts = []));

  function panel(title, wide = false) {
    const body = element("div.theta-panel-body", { "aria-busy": "true" }, element("div.theta-loading", {}, "reading …"));
    const made = element(wide ? "div.theta-panel.theta-wide" : "div.theta-panel", {}, element("h4", {}, title), body);
    return { made, body, heading: made.firstChild };
  }

  /** Ask for something and draw it; errors are shown where the drawing would be. */
  async function fillPanel({ body }, what, details, draw) {
    const mine = generation;
    try {
      const result = await options.ask(`${channel}:${what}`, what, { name: current.name, ...details });
      if (mine !== generation) return;
      fill(body);
      draw(body, result);
    } catch (error) {
      if (mine !== generation || (error instanceof Superseded && !(error instanceof Lost))) return;
      fill(body, error instanceof Lost ? element("div.theta-empty", {}, "not read") : element("div.theta-problem", {}, error.message));
    }
    body.setAttribute("aria-busy", "false");
  }

  function heading(item) {
    const shape = `${item.dtype} [${item.shape.join(", ")}]`;
    const pin = element("button.theta-button", {
      type: "button", "aria-pressed": String(Boolean(item.pinned)), title: "keep this parameter in sight while you look at another (p)", onclick: () => options.onPin?.(item.name),
    }, item.pinned ? "unpin" : "pin");
    const badge = element("span.theta-badge", {}, item.status);
    badge.style.setProperty("--theta-sign", STATUS[item.status]);
    return element("header.theta-inspector-head", {},
      element("span.theta-mono.theta-strong", { title: item.name }, item.name), badge,
      element("span.theta-dim", {}, item.was ? `${item.was} → ${shape}` : shape), pin);
  }

  function drawParameter(body, result) {
    const facts = element("dl.theta-facts");
    for (const [label, text] of result.facts) facts.append(element("dt", {}, label), element("dd", {}, text));
    body.append(facts);
    if (result.note) body.append(element("div.theta-note", {}, result.note));
  }

  function drawHistograms(body, { histograms, note }) {
    if (!histograms) return void body.append(element("div.theta-empty", {}, note || "There is no histogram."));
    const series = ["old", "new", "delta"].map((side) => ({
      label: side === "delta" ? "Δ" : side, color: SERIES[side], filled: side === "delta", width: side === "old" ? 2.4 : 1.5,
      counts: histograms[side].counts.data, top: histograms[side].top,
    }));
    body.append(legend(series));
    const drawn = createHistogram(body, { label: `magnitudes of the old values, the new ones and their difference in ${current.name}` });
    drawn.setData(series);
    parts.push(drawn);
  }

  function drawSpectrum(body, result) {
    const drawn = createCurve(body, { label: `singular values of the difference of ${current.name}`, log: true });
    const ranks = `stable rank ${short(result.stable_rank)}, effective rank ${short(result.effective_rank)}`;
    drawn.setData([{ label: "σ", color: SERIES.new, values: result.values.data }], result.exact ? ranks : `${ranks}, the largest ones`);
    parts.push(drawn);
  }

  function drawPicture(body, result, values) {
    const drawn = createPicture(body, { label: `the difference of ${current.name}, scaled down`, onPick: (row, column) => showValues(values, row, column) });
    const show = (kind) => drawn.setData({ shape: result.shape, cells: result[kind], rows: result.rows, columns: result.columns, symmetric: kind === "mean" });
    show("rms");
    const choice = element("select.theta-select", { "aria-label": "what the cells show", onchange: () => show(choice.value) },
      element("option", { value: "rms" }, "size (rms)"), element("option", { value: "mean" }, "signed (mean)"));
    body.prepend(choice);
    parts.push(drawn);
  }

  function showValues(target, row, column) {
    fillPanel(target, "window", { row, column }, (body, result) => body.append(valuesTable(result, (r, c) => showValues(target, r, c))));
  }

  function load() {
    const item = current;
    destroyParts();
    generation += 1;
    if (isLost(root)) return void fill(box, heading(item), element("div.theta-note", {}, "Its values cannot be read any more."));
    const numbers = panel("numbers");
    const histogram = panel("magnitudes");
    const made = [numbers.made, histogram.made];
    let [spectrum, picture, values] = [null, null, null];
    if (item.comparable) {
      picture = panel("where it changed");
      values = panel("values", true);
      made.push(picture.made);
      if (item.shape.length > 1) (spectrum = panel("spectrum of Δ")), made.splice(2, 0, spectrum.made);
      made.push(values.made);
    } else histogram.made.remove(), made.splice(1, 1);
    fill(box, heading(item), element("div.theta-panels", {}, ...made));
    clearTimeout(timer);
    timer = setTimeout(() => {
      fillPanel(numbers, "parameter", {}, (body, result) => {
        drawParameter(body, result);
        if (item.comparable) fill(histogram.body), drawHistograms(histogram.body, result), histogram.body.setAttribute("aria-busy", "false");
      });
      if (!item.comparable) return;
      fillPanel(picture, "picture", {}, (body, result) => drawPicture(body, result, values));
      showValues(values, 0, 0);
      if (spectrum) fillPanel(spectrum, "spectrum", {}, drawSpectrum);
    }, options.pause ?? PAUSE);
  }

  return {
    element: box,
    /** Show a parameter; nothing is asked for twice. */
    show(item) {
      const same = current && item && current.name === item.name && current.status === item.status;
      const pinned = current?.pinned === item?.pinned;
      current = item;
      if (same && pinned) return;
      if (same) return void box.firstChild.replaceWith(heading(item));
      if (item) load();
      else destroyParts(), fill(box);
    },
    get name() {
      return current?.name ?? "";
    },
    destroy() {
      clearTimeout(timer);
      generation += 1;
      for (const what of ["parameter", "picture", "spectrum", "window"]) options.cancel?.(`${channel}:${what}`);
      destroyParts();
      box.remove();
    },
  };
}

function legend(series) {
  return element("div.theta-legend", {}, ...series.map(({ label, color }) => {
    const swatch = element("span.theta-swatch", { "aria-hidden": "true" });
    swatch.style.background = color;
    return element("span", {}, swatch, label);
  }));
}

/** Values of both sides around a place, the differences below each other; the buttons walk on. */
function valuesTable(result, go) {
  const [rows, columns] = result.old.shape;
  const step = (label, title, row, column) => {
    const still = Math.max(0, Math.min(row, result.shape[0] - rows)) === result.row && Math.max(0, Math.min(column, result.shape[1] - columns)) === result.column;
    return element("button.theta-button", { type: "button", title, "aria-label": title, disabled: still, "data-python": true, onclick: () => go(row, column) }, label);
  };
  const head = element("tr", {}, element("th", { scope: "col" }, "row"));
  for (let c = 0; c < columns; c += 1) head.append(element("th.theta-number", { scope: "col" }, String(result.column + c)));
  const body = element("tbody");
  for (let r = 0; r < rows; r += 1) {
    const line = element("tr", {}, element("th", { scope: "row" }, String(result.row + r)));
    for (let c = 0; c < columns; c += 1) {
      const [old, now] = [result.old.data[r * columns + c], result.new.data[r * columns + c]];
      const same = Object.is(old, now);
      line.append(element(same ? "td.theta-number.theta-dim" : "td.theta-number", { title: `${old} → ${now}, Δ ${now - old}` },
        short(now), element("small", {}, same ? "=" : `${now - old > 0 ? "+" : ""}${short(now - old)}`)));
    }
    body.append(line);
  }
  const { row, column } = result;
  return element("div", {},
    element("div.theta-walk", {},
      step("←", "columns before", row, column - columns), step("→", "columns after", row, column + columns),
      step("↑", "rows before", row - rows, column), step("↓", "rows after", row + rows, column),
      element("span.theta-dim", {}, `of ${count(result.shape[0], "row")} × ${count(result.shape[1], "column")}; new values, Δ below`)),
    element("div.theta-values", { tabindex: 0, role: "region", "aria-label": "values" }, element("table", {}, element("thead", {}, head), body)));
}
