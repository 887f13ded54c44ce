// One slider for each block of the model, of one parameter of the method in use.
//
// Data contract: data of createMergeData(), `chosen` of MergeDesk. It makes edits [{method, parameters, block}], which
// are about what both sides changed in a block: onDraft(edits) while a slider is moved, onChoose(edits) when it is let go.

import { element, fill } from "./dom.js";
import { count } from "./numbers.js";
import { SHAPES, mirrored, moved, parsedList, rounded, shaped, written } from "./shapes.js";
import { sliderRange } from "./control.js";

const PREFERRED = ["t", "weight", "density", "scale"];

/** What the sliders can stand for: the float parameters of a method, those of each input apart. */
export function sliderParameters(method, labels) {
  const floats = (method?.parameters ?? []).filter((spec) => spec.kind === "float");
  const rank = (spec) => (PREFERRED.indexOf(spec.name) + PREFERRED.length + 1) % (PREFERRED.length + 1);
  return [...floats].sort((a, b) => rank(a) - rank(b)).flatMap((spec) => {
    const key = (label) => ({ key: `${spec.name}/${label}`, text: label ? `${spec.name} of ${label}` : spec.name, spec, label });
    return spec.per_model && labels.length > 1 ? [...labels.slice(1), labels[0]].map(key).concat(key("")) : [key("")];
  });
}

/** Between what a shape lies: the range, and where its ends only guide sliders what is usual, 0 and 1. */
export function shapeRange(spec) {
  const [low, high] = sliderRange(spec);
  return spec.soft && low <= 0 && high >= 1 ? [0, 1] : [low, high];
}

/** @param {HTMLElement} root where to draw; @param {{index, onDraft, onChoose, onSelect}} options */
export function createBlocks(root, options) {
  const { index } = options;
  const which = element("select.theta-select", { "aria-label": "what the sliders stand for", onchange: () => ((wanted = which.value), refresh()) });
  const shape = element("select.theta-select", { "aria-label": "shape", onchange: useShape }, element("option", { value: "" }, "shape …"),
    ...Object.keys(SHAPES).map((name) => element("option", {}, name)));
  const button = (label, title, onclick) => element("button.theta-button", { type: "button", title, onclick }, label);
  const bar = element("div.theta-minibar", {}, which, shape,
    button("mirror", "the same values from the last block to the first", () => apply(mirrored(values()))),
    button("even", "no values of their own: as the method at the right says", even));
  const all = slider("all blocks", (to, done) => apply(moved(start ?? values(), to - middle(start ?? values()), ...range()), done), true);
  const lines = element("div.theta-blocks-rows");
  const text = element("input.theta-list", { type: "text", spellcheck: "false", "aria-label": "values of all blocks as text", title: "copy, or paste another list and press Enter", onchange: paste });
  const note = element("div.theta-dim.theta-hint");
  root.append(bar, element("div.theta-block.theta-block-all", {}, element("span.theta-strong", {}, "move all"), all.range, all.box), lines,
    element("label.theta-block-text", {}, element("span.theta-dim", {}, "as text"), text), note);
  let [data, chosen, wanted, rows, start, drawn] = [null, {}, "", [], null, ""];

  const method = () => index.methods.find(({ name }) => name === chosen.settings?.choice?.method);
  const parameter = () => {
    const found = sliderParameters(method(), index.labels);
    return found.find(({ key }) => key === wanted) ?? found[0];
  };
  const range = () => sliderRange(parameter().spec);
  const values = () => rows.map((row) => row.value);
  const middle = (numbers) => numbers.reduce((sum, one) => sum + one, 0) / (numbers.length || 1);

  /** A slider with its number; `take(value, done)`. */
  function slider(label, take) {
    const range = element("input.theta-slider", { type: "range", "aria-label": label });
    const box = element("input.theta-number-box", { type: "number", step: "any", "aria-label": `${label}, number` });
    const said = (from, done) => {
      if (from.value === "" || !Number.isFinite(Number(from.value))) return;
      start ??= values();
      (from === range ? box : range).value = String(rounded(from.value));
      take(rounded(from.value), done);
      if (done) start = null;
    };
    range.addEventListener("input", () => said(range, false));
    range.addEventListener("change", () => said(range, true));
    box.addEventListener("change", () => said(box, true));
    const set = (value, [low, high]) => {
      Object.assign(range, { min: Math.min(low, value), max: Math.max(high, value), step: (high - low) / 200 });
      if (document.activeElement !== box) box.value = String(rounded(value));
      range.value = value;
    };
    return { range, box, set };
  }

  /** What a block has now: the value that its contested parameters get. */
  function valueOf(leaves) {
    const { spec, label } = parameter();
    const made = data.choice(leaves[0]);
    if (!made || made.method !== method().name) return { value: NaN, method: made?.name ?? "" };
    const found = made.parameters[spec.name];
    const at = label ? made.inputs.indexOf(index.labels.indexOf(label)) : 0;
    return { value: Array.isArray(found) ? found[Math.max(0, at)] : found, method: "" };
  }

  function parametersWith(value) {
    const { spec, label } = parameter();
    const { parameters } = chosen.settings.choice;
    if (!label) return { ...parameters, [spec.name]: value };
    const before = parameters[spec.name];
    const each = before !== null && typeof before === "object" && !Array.isArray(before) ? before : Object.fromEntries(index.labels.map((one) => [one, Array.isArray(before) ? spec.default : before]));
    return { ...parameters, [spec.name]: { ...each, [label]: value } };
  }

  /** The edits that give blocks their values; one for everything where all are alike. */
  function editsFor(next) {
    const name = method().name;
    if (next.every((value) => value === next[0])) {
      return [{ method: name, parameters: parametersWith(next[0]) }, ...rows.map((row) => ({ method: null, block: row.block }))];
    }
    return rows.map((row, at) => ({ method: name, parameters: parametersWith(next[at]), block: row.block }));
  }

  function apply(next, done = true) {
    rows.forEach((row, at) => ((row.value = next[at]), row.slider.set(next[at], range())));
    text.value = written(next);
    (done ? options.onChoose : options.onDraft)(editsFor(next));
  }

  function useShape() {
    const name = shape.value;
    shape.value = "";
    if (name && rows.length) apply(shaped(name, rows.length, ...shapeRange(parameter().spec)));
  }
  function even() {
    if (rows.length) options.onChoose(rows.map((row) => ({ method: null, block: row.block })));
  }
  function paste() {
    const found = parsedList(text.value);
    const fits = found && found.length === rows.length;
    text.setAttribute("aria-invalid", String(!fits));
    note.textContent = fits ? "" : `A list of ${count(rows.length, "number")} is wanted, one for each block.`;
    if (fits) apply(found);
  }

  function build(blocks) {
    rows = blocks.map(({ block, leaves }) => {
      const own = slider(block, (to, done) => {
        const next = values();
        next[rows.findIndex((row) => row.block === block)] = to;
        apply(next, done);
      });
      const name = element("button.theta-link.theta-mono", { type: "button", title: `select ${count(leaves.length, "parameter")} of ${block}`, onclick: () => options.onSelect(leaves, leaves[0]) }, block);
      const line = element("div.theta-block", {}, name, own.range, own.box);
      return { block, leaves, slider: own, line, value: 0, name };
    });
    fill(lines, ...rows.map((row) => row.line));
  }

  function refresh() {
    const found = sliderParameters(method(), index.labels);
    const blocks = index.blocks.map((block, at) => ({ block, leaves: data.members[at].filter((i) => data.badge(i) === "both") })).filter(({ leaves }) => leaves.length);
    root.toggleAttribute("data-empty", !found.length || !blocks.length);
    if (!found.length || !blocks.length) {
      rows = [];
      drawn = "";
      fill(lines);
      note.textContent = blocks.length ? "Choose a method with a number at the right; its sliders appear here." : "Both sides changed nothing that a method could merge.";
      return;
    }
    const now = parameter();
    fill(which, ...found.map(({ key, text: label }) => element("option", { value: key }, label)));
    which.value = now.key;
    const key = blocks.map(({ block }) => block).join("\n");
    if (key !== drawn) build(blocks);
    drawn = key;
    note.textContent = now.spec.help;
    for (const row of rows) {
      const { value, method: other } = valueOf(row.leaves);
      row.value = Number.isFinite(value) ? value : now.spec.default;
      row.slider.set(row.value, range());
      row.line.toggleAttribute("data-other", Boolean(other));
      row.line.title = other ? `${row.block}: ${other}, by an override` : "";
    }
    all.set(middle(values()), range());
    if (document.activeElement !== text) text.value = written(values());
    text.setAttribute("aria-invalid", "false");
  }

  return {
    setData(next, now) {
      [data, chosen] = [next, now];
      if (start === null) refresh();
    },
    destroy: () => fill(root),
  };
}
