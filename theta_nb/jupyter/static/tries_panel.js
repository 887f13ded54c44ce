// The numbered history of evaluations: notes, pins, two side by side, restore, export.
//
// Data contract: see merge_panels.js; `panel` is
//   tries     [{number, short, full, settings, metrics, seconds, note, pinned}]; left_out: how many older ones are not here
//   metrics   names, in the order of the columns
// asks: note {number, note}, pin {number, pinned}, restore {number}, compare {number, other}, export {kind, number}
//   compare -> {numbers, metrics: [[name, a, b]], choices: [[name, a, b]], parameters, names}; export -> {text}

import { element, fill } from "./dom.js";
import { GONE, attempt, bestOf, createFailure, metricOf, same, score, smallerIsBetter, typing } from "./panel_parts.js";
import { count } from "./numbers.js";
import { sorted } from "./table.js";

const KINDS = [["python", "Python code"], ["yaml", "recipe (YAML)"], ["mergekit", "mergekit (YAML)"]];
const FILES = { python: "merge.py", yaml: "recipe.yaml", mergekit: "mergekit.yaml" };

/** @param {HTMLElement} root where to draw; @param {Object} actions of merge_panels.js */
export function createTriesPanel(root, actions) {
  let [state, panel, drawn, ticked, by, waiting] = [null, { tries: [], metrics: [] }, "", [], { key: "number", descending: true }, false];
  const pinned = element("input", { type: "checkbox", onchange: () => draw(true) });
  const kind = element("select.theta-select", { "aria-label": "form of the export" }, ...KINDS.map(([value, label]) => element("option", { value }, label)));
  const exportOne = element("button.theta-button", { type: "button", title: "as a text that others can use", onclick: () => exportIt(ticked.length === 1 ? ticked[0] : 0) }, "export");
  const compare = element("button.theta-button", { type: "button", disabled: true, title: "tick two of them", onclick: compareThem }, "compare");
  const failure = createFailure();
  const table = element("div.theta-table.theta-tries", { tabindex: 0, role: "region", "aria-label": "tries" });
  const below = element("div");
  const hint = element("div.theta-hintline");
  typing(root).append(
    element("div.theta-minibar", {}, element("label.theta-check", {}, pinned, "pinned only"), compare, element("span.theta-spring"), kind, exportOne),
    failure.element, table, hint, below);
  table.addEventListener("focusout", () => waiting && setTimeout(() => draw(true), 0));

  const ask = (what, details) => attempt(() => actions.ask(what, details), failure);
  const alive = () => Boolean(state?.alive);

  function tick(number, wanted) {
    ticked = wanted ? [...ticked, number].slice(-2) : ticked.filter((one) => one !== number);
    for (const box of table.querySelectorAll("input[data-tick]")) box.checked = ticked.includes(Number(box.dataset.tick));
    compare.disabled = ticked.length !== 2 || !alive();
    exportOne.textContent = ticked.length === 1 ? `export try ${ticked[0]}` : "export";
  }

  // --- the table ------------------------------------------------------------------------------------------------------
  function draw(anyway = false) {
    const key = JSON.stringify([panel, state?.chosen.settings, alive(), pinned.checked, by]);
    if (!anyway && key === drawn) return;
    // Whoever writes a note does not want it taken away; what came meanwhile is drawn afterwards.
    waiting = table.contains(document.activeElement) && document.activeElement.matches("input[type=text]");
    if (waiting) return;
    drawn = key;
    const focused = table.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    const shown = panel.tries.filter((one) => one.pinned || !pinned.checked);
    table.hidden = !shown.length;
    fill(hint, hintText(shown));
    for (const control of [kind, exportOne]) control.disabled = !alive() || !state.chosen.settings;
    tick(0, false);
    if (!shown.length) return;
    const best = Object.fromEntries(panel.metrics.map((name) => [name, bestOf(panel.tries.map(({ metrics }) => metricOf(metrics, name)), smallerIsBetter(name))]));
    const flat = shown.map((one) => ({ ...one, ...Object.fromEntries(panel.metrics.map((name) => [`m:${name}`, metricOf(one.metrics, name)])) }));
    const ordered = sorted(flat, by.key, by.descending).sort((a, b) => b.pinned - a.pinned);
    fill(table, element("table", {}, element("thead", {}, heads()), element("tbody", {}, ...ordered.map((one) => line(one, best)))));
    if (focused) table.querySelector(`[data-key="${focused}"]`)?.focus();
  }

  function hintText(shown) {
    const parts = [];
    if (!alive() && state) parts.push(GONE);
    else if (!panel.tries.length) parts.push("Every evaluation becomes a numbered try, with its recipe and metrics.");
    else if (!shown.length) parts.push("Nothing is pinned.");
    if (panel.left_out) parts.push(`${count(panel.left_out, "older try").replace("trys", "tries")} not shown; session.tries has them.`);
    return parts.join(" ");
  }

  function heads() {
    const columns = [["", ""], ["number", "try"], ["short", "merge"], ...panel.metrics.map((name) => [`m:${name}`, name]), ["seconds", "s"], ["note", "note"], ["", ""]];
    return element("tr", {}, ...columns.map(([key, label]) => {
      const numeric = key.startsWith("m:") || key === "seconds" || key === "number";
      const order = by.key === key ? (by.descending ? "descending" : "ascending") : "none";
      const sort = () => ((by = { key, descending: by.key === key ? !by.descending : numeric }), draw(true));
      return element(numeric ? "th.theta-number" : "th", { scope: "col", "aria-sort": key ? order : undefined },
        key ? element("button.theta-sort", { type: "button", "data-key": `head ${key}`, onclick: sort }, label + (by.key === key ? (by.descending ? " ▾" : " ▴") : "")) : label);
    }));
  }

  function line(one, best) {
    const { number } = one;
    const current = same(one.settings, state?.chosen.settings);
    const off = !alive();
    const pin = element("button.theta-link.theta-pin", {
      type: "button", "data-key": `pin ${number}`, disabled: off, "aria-pressed": String(one.pinned), title: one.pinned ? "unpin" : "pin: keep it above the others",
      "aria-label": `pin try ${number}`, onclick: () => ask("pin", { number, pinned: one.pinned ? 0 : 1 }),
    }, one.pinned ? "★" : "☆");
    const box = element("input", { type: "checkbox", "data-tick": number, "data-key": `tick ${number}`, "aria-label": `choose try ${number}`, onchange: (event) => tick(number, event.target.checked) });
    const note = element("input.theta-noteline", { type: "text", value: one.note, placeholder: "note", disabled: off, "data-key": `note ${number}`, "aria-label": `note of try ${number}`, maxlength: 1000 });
    note.addEventListener("change", () => ask("note", { number, note: note.value }));
    note.addEventListener("keydown", (event) => {
      if (event.key === "Enter") note.blur();
      if (event.key === "Escape") (note.value = one.note), note.blur(), event.stopPropagation();
    });
    const restore = element("button.theta-button.theta-small", { type: "button", "data-key": `restore ${number}`, disabled: off || current, title: "choose this again", onclick: () => ask("restore", { number }) }, current ? "chosen" : "restore");
    return element(current ? "tr.theta-current" : "tr", { "aria-selected": String(current) },
      element("td.theta-marks", {}, box, pin), element("th.theta-number", { scope: "row" }, String(number)),
      element("td.theta-mono.theta-short", { title: one.full }, one.short),
      ...panel.metrics.map((name) => element(metricOf(one.metrics, name) === best[name] ? "td.theta-number.theta-good" : "td.theta-number", {}, name in one.metrics ? score(metricOf(one.metrics, name)) : "")),
      element("td.theta-number.theta-dim", {}, one.seconds.toFixed(2)), element("td", {}, note), element("td", {}, restore));
  }

  // --- below it -------------------------------------------------------------------------------------------------------
  const closer = () => element("button.theta-button.theta-small", { type: "button", onclick: () => fill(below) }, "close");

  async function compareThem() {
    const [number, other] = [...ticked].sort((a, b) => a - b);
    const found = await ask("compare", { number, other });
    if (!found) return;
    const differ = found.parameters ? `${count(found.parameters, "parameter")} of the model ${found.parameters === 1 ? "differs" : "differ"}` : "the same model comes out";
    const gains = found.metrics.map(([name, a, b]) => {
      const gain = Number(b) - Number(a);
      const good = smallerIsBetter(name) ? gain < 0 : gain > 0;
      return element("tr", {}, element("th", { scope: "row" }, name), element("td.theta-number", {}, a === null ? "" : score(Number(a))), element("td.theta-number", {}, b === null ? "" : score(Number(b))),
        element(`td.theta-number${gain ? (good ? ".theta-good" : ".theta-bad") : ""}`, {}, Number.isFinite(gain) ? `${gain > 0 ? "+" : gain < 0 ? "−" : "±"}${score(Math.abs(gain))}` : ""));
    });
    const choices = found.choices.map(([name, a, b]) => element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, a || "—"), element("td", {}, b || "—"), element("td")));
    fill(below, element("div.theta-boxed", {},
      element("div.theta-minibar", {}, element("span.theta-strong", {}, `try ${number} and try ${other}`), element("span.theta-dim", { title: found.names.join("\n") }, differ), element("span.theta-spring"), closer()),
      element("table", {}, element("thead", {}, element("tr", {}, ...["", `try ${number}`, `try ${other}`, "Δ"].map((text, i) => element(i ? "th.theta-number" : "th", { scope: "col" }, text)))),
        element("tbody", {}, ...gains, ...choices))));
  }

  async function exportIt(number) {
    const found = await ask("export", { kind: kind.value, number });
    if (!found) return;
    const text = element("textarea.theta-export", { readonly: true, rows: Math.min(14, found.text.split("\n").length + 1), "aria-label": "export", spellcheck: "false" });
    text.value = found.text;
    const copy = element("button.theta-button.theta-small", { type: "button", onclick: () => copied(text, copy) }, "copy");
    const url = URL.createObjectURL(new Blob([found.text], { type: "text/plain" }));
    const save = element("a.theta-button.theta-small", { href: url, download: FILES[kind.value] }, "download");
    fill(below, element("div.theta-boxed", {},
      element("div.theta-minibar", {}, element("span.theta-strong", {}, number ? `try ${number}` : "what is chosen"), element("span.theta-dim", {}, KINDS.find(([value]) => value === kind.value)[1]), element("span.theta-spring"), copy, save, closer()), text));
    setTimeout(() => URL.revokeObjectURL(url), 600_000);
    text.focus();
  }

  return {
    update(next) {
      [state, panel] = [next, { tries: [], metrics: [], ...next.panel }];
      draw();
    },
    destroy: () => root.replaceChildren(),
  };
}

async function copied(text, button) {
  try {
    await navigator.clipboard.writeText(text.value);
  } catch {
    text.select(); // without the right to write, the reader's own copying works
    button.textContent = "press Ctrl+C";
    return;
  }
  button.textContent = "copied";
}
