// Merging live: parameters at the left, a map of what would come out in the middle, methods at the right, and panels
// below for what is tried and kept.
//
// The view knows no widget. It gets
//   index    what never changes (merge_data.js)
//   state    shared with Python (get, set, on): metric, rows, sort, filter, selection (names), and, set by Python alone,
//            _chosen (what is chosen, see MergeDesk.chosen()) and _panels (states of the panels by name)
//   client   asks Python (messages.js): opening, numbers, measure, preview, choose, restore, undo, redo, reset, explain,
//            and NAME.WHAT for panels; theta_nb/jupyter/merge_desk.py says what they are
// Data flows one way: a control makes edits; while it is dragged they are a draft, whose numbers are computed here
// (draft.js) or asked for as `preview`; when it is let go they are sent as `choose`; Python sets _chosen, and what is
// shown follows from that. Panels go into slots by the contract at the head of merge_panels.js.

import { element, fill } from "./dom.js";
import { BADGES, MERGE_METRICS } from "./merge_data.js";
import { createMergeModel } from "./merge_model.js";
import { count } from "./numbers.js";
import { createCategories, createScale } from "./colors.js";
import { PANELS } from "./merge_panels.js";
import { createHelp } from "./help.js";
import { createMap } from "./map.js";
import { createNotice } from "./notice.js";
import { createParameterList } from "./merge_list.js";
import { createPicker } from "./merge_picker.js";
import { createMergeTable } from "./merge_table.js";
import { between, cellValues, cellsWith, toggled } from "./merge_cells.js";
import { createSlots } from "./merge_slots.js";
import { createTeller } from "./merge_words.js";
import { heedLoss } from "./lost.js";
import { nameFilter } from "./filter.js";

const KEYS = [
  ["/", "filter by name: a piece, layers 3-8, a glob, or a /regular expression/"],
  ["← ↑ → ↓", "move the cursor of the map, or through the list"],
  ["Enter", "choose what is under the cursor; Space adds it to the selection"],
  ["Shift / Ctrl", "with a click or Enter: a range, one more"],
  ["m / M", "next or previous metric of the map"],
  ["r", "rows of the map: parameters, or kinds of them"],
  ["t", "map or table"],
  ["b", "before or after the last choice"],
  ["z / y", "take the last choice back, or bring it back"],
  ["+ / -", "zoom; 0 shows everything. Ctrl and the wheel zoom as well"],
  ["Esc", "clear the filter, then the selection"],
  ["?", "this list"],
];

/** @param {HTMLElement} root where to draw; @param {{index, state, client}} options */
export function createMergeView(root, options) {
  const { index, state, client } = options;
  let [showsBefore, asTable, alive] = [false, false, true];
  let [hidden, test, anchor] = [new Set(), () => true, -1];
  if (index.badge.some((badge) => index.badges[badge] !== "equal")) hidden.add("equal");
  let cells = { rows: [], columns: [], leaves: [], present: new Uint8Array(0) };
  const offs = [];

  // --- elements -------------------------------------------------------------------------------------------------------
  const button = (label, title, onclick) => element("button.theta-button", { type: "button", title, onclick }, label);
  const metric = element("select.theta-select", { "aria-label": "what the map shows", onchange: () => state.set("metric", metric.value) },
    ...Object.entries(MERGE_METRICS).filter(([key]) => fits(key)).map(([key, { label, long }]) => element("option", { value: key, title: long }, label)));
  const rows = element("select.theta-select", { "aria-label": "rows of the map", onchange: () => state.set("rows", rows.value) },
    element("option", { value: "role", title: "a row for each parameter of a block" }, "by parameter"),
    element("option", { value: "kind", title: "attention, feed-forward, norms …: means over what is of a kind" }, "by kind"));
  const mapOrTable = button("table", "map or table (t)", () => showTable(!asTable));
  const beforeAfter = button("before", "the map before the last choice (b)", () => showBefore(!showsBefore));
  const filter = element("input.theta-input", {
    type: "search", placeholder: "filter: query, layers 3-8, /bias$/", "aria-label": "filter parameters by name", spellcheck: "false",
    oninput: () => state.set("filter", filter.value),
  });
  const problem = element("span.theta-problem", { role: "status" });
  const chips = element("div.theta-chips", { role: "group", "aria-label": "what happened" });
  const undo = button("↶ undo", "take the last choice back (z)", () => model.act("undo"));
  const redo = button("↷ redo", "bring it back (y)", () => model.act("redo"));
  const reset = button("reset", "forget all choices; undo brings them back", () => model.act("reset"));
  const help = button("?", "keys (?)");
  help.setAttribute("aria-label", "keys");
  const bar = element("div.theta-bar", { role: "toolbar", "aria-label": "what is shown" },
    metric, rows, mapOrTable, beforeAfter, filter, problem, chips, element("span.theta-ways", {}, undo, redo, reset, help));
  const heading = element("div.theta-head");
  const notice = createNotice();
  const [listBox, mapBox, tableBox, pickerBox, slotBox] = [element("div.theta-left"), element("div.theta-pane"), element("div.theta-pane", { hidden: true }), element("div.theta-right"), element("div.theta-slots")];
  const footer = element("div.theta-foot", { "aria-live": "polite" });
  const frame = element("div.theta-explorer.theta-merge", { "data-lm-suppress-shortcuts": "true", role: "region", "aria-label": "merge" },
    heading, bar, notice.element, element("div.theta-three", {}, listBox, element("div.theta-middle", {}, mapBox, tableBox), pickerBox), footer, slotBox);
  root.append(frame);
  const overlay = createHelp(frame, "Keys of the merge explorer", KEYS);
  help.addEventListener("click", overlay.show);

  // --- parts ----------------------------------------------------------------------------------------------------------
  const model = createMergeModel(options, { onOutcome: refreshAll, onNumbers: refreshNumbers, onWork: () => refreshFoot(selected()), onNotice: notice });
  const choosing = { onDraft: (edits) => (showBefore(false), model.drag(edits)), onChoose: model.choose };
  const selected = () => (state.get("selection") ?? []).map((name) => model.data.ids.get(name)).filter((i) => i !== undefined);
  const select = (leaves) => (state.set("selection", [...leaves].sort((a, b) => a - b).map((i) => index.names[i])), refreshSelection());
  const list = createParameterList(listBox, {
    index,
    onSelect(leaves, last) {
      if (last >= 0) anchor = last;
      select(leaves);
    },
    onSort: (sort) => state.set("sort", sort),
    ...choosing,
  });
  const map = createMap(mapBox, {
    label: "heat map of parameters against blocks", most: [84, 24],
    describe: (row, column) => teller.describe(cells, row, column),
    writeTick: (value) => MERGE_METRICS[metricKey()].write(value),
    onSelect(at, { extend, range }) {
      const leaves = cells.leaves[at];
      if (!leaves?.length) return;
      select(range && anchor >= 0 ? between(cells, anchor, at) : extend ? toggled(selected(), leaves) : leaves);
      [anchor] = leaves;
      list.reveal(anchor);
    },
    onHover: (at) => teller.explain(cells.leaves[at]?.length === 1 ? cells.leaves[at][0] : -1),
  });
  const table = createMergeTable(tableBox, { metrics: Object.keys(MERGE_METRICS).filter(fits), onActivate: (leaf) => ((anchor = leaf), select([leaf]), list.reveal(leaf)) });
  const picker = createPicker(pickerBox, { index, ...choosing });
  const slots = createSlots(slotBox, PANELS, { client, choose: model.choose, restore: model.restore, select: (names) => select(names.map((name) => model.data.ids.get(name)).filter((i) => i !== undefined)), notice });
  function fits(key) {
    if (key === "to_theirs") return index.labels.length > 1;
    return index.has_base || !["moved", "cosine", "conflict", "change"].includes(key);
  }
  const metricKey = () => (fits(state.get("metric")) ? state.get("metric") : "to_ours");
  const shown = () => (showsBefore ? model.before ?? model.outcome : model.draft ?? model.outcome);
  const teller = createTeller({ index, client, model, metric: metricKey, shown, onTold: () => frame.isConnected && map.retell() });

  // --- drawing --------------------------------------------------------------------------------------------------------
  const keep = (i) => !hidden.has(model.data.badge(i)) && test(index.names[i]);

  function refreshAll() {
    const found = nameFilter(state.get("filter") ?? "");
    test = found.test;
    problem.textContent = found.error;
    filter.setAttribute("aria-invalid", String(Boolean(found.error)));
    if (filter.value !== (state.get("filter") ?? "")) filter.value = state.get("filter") ?? "";
    cells = model.data.layout(keep, state.get("rows"));
    refreshHead();
    refreshChips();
    list.setData(model.data, keep, state.get("sort"), model.chosen, model.busy);
    if (!model.busy) picker.setData(model.data, model.chosen);
    refreshNumbers();
    refreshSelection();
    teller.explainAgain(); // what was said was about other choices
  }

  function refreshHead() {
    const [ours, ...others] = index.labels;
    const waiting = model.chosen.open ? element("span.theta-badge.theta-waits", {}, `${count(model.chosen.open, "parameter")} ${model.chosen.open === 1 ? "waits" : "wait"} for a choice`) : null;
    fill(heading, element("span.theta-strong", {}, `${others.join(", ") || "nothing"} into ${ours}`), index.title ? element("span.theta-dim", {}, index.title) : null, element("span.theta-mono.theta-short", { title: model.chosen.short }, model.chosen.short), waiting);
    undo.disabled = !model.chosen.undo || !alive;
    redo.disabled = !model.chosen.redo || !alive;
    reset.disabled = !alive;
    beforeAfter.disabled = !model.before;
  }

  function refreshChips() {
    const totals = new Map();
    for (let i = 0; i < model.data.many; i += 1) totals.set(model.data.badge(i), (totals.get(model.data.badge(i)) ?? 0) + 1);
    fill(chips, ...index.badges.filter((badge) => totals.has(badge)).map((badge) => {
      const chip = element("button.theta-chip", {
        type: "button", "aria-pressed": String(!hidden.has(badge)), title: `${BADGES[badge].long}; show or hide`,
        onclick: () => (hidden.delete(badge) || hidden.add(badge), refreshAll()),
      }, element("b", { "aria-hidden": "true" }, BADGES[badge].sign), ` ${badge} ${totals.get(badge).toLocaleString("en-US")}`);
      chip.style.setProperty("--theta-sign", BADGES[badge].color);
      return chip;
    }));
  }

  let scale = { key: "", of: null };
  /** Colours stay what they are while a slider is dragged. */
  function scaleOf(key, values) {
    if (scale.key === key && model.draft) return scale.of;
    const { log, symmetric, high, categories } = MERGE_METRICS[key];
    const of = categories ? createCategories(model.data.names(shown())) : createScale(values, { log, symmetric, high });
    scale = { key, of };
    return of;
  }

  /** Numbers alone: what a slider changes. */
  function refreshNumbers() {
    const key = metricKey();
    const all = model.data.values(key, shown());
    metric.value = key;
    rows.value = state.get("rows") === "kind" ? "kind" : "role";
    map.setData({ ...cells, values: cellValues(cells, all, MERGE_METRICS[key].categories) });
    map.setScale(scaleOf(key, all), MERGE_METRICS[key].label + (showsBefore ? ", before" : ""));
    list.setValues(all, scale.of, MERGE_METRICS[key].write, shown());
    if (asTable) table.setData(model.data, keep, shown());
  }

  function refreshSelection() {
    const now = selected();
    map.setSelection(cellsWith(cells, now));
    if (asTable) table.setSelection(now);
    list.setSelection(now);
    picker.setSelection(now);
    refreshFoot(now);
    slots.update(slotState());
  }

  function refreshFoot(now) {
    let seen = 0;
    for (let i = 0; i < model.data.many; i += 1) if (keep(i)) seen += 1;
    const parts = [`${seen.toLocaleString("en-US")} of ${count(model.data.many, "parameter")} shown`];
    if (now.length) parts.push(`${now.length.toLocaleString("en-US")} selected`);
    if (index.left_out) parts.push(`${count(index.left_out, "parameter")} left out: the model has too many to show`);
    const many = model.data.inexact().length;
    if (model.work && many) parts.push(`${count(many, "number")} estimated from a sample${model.work === "offered" ? "" : ", being computed exactly"}${/\d/.test(model.work) ? ` (${model.work})` : ""}`);
    fill(footer, parts.join(" · "), model.work === "offered" && many ? button("compute exactly", "a pass over the weights", () => model.sharpen(true)) : null);
  }

  const slotState = () => ({ index, chosen: model.chosen, selection: state.get("selection") ?? [], alive, panels: state.get("_panels") ?? {} });

  function showBefore(wanted) {
    if (wanted === showsBefore || (wanted && !model.before)) return;
    showsBefore = wanted;
    beforeAfter.setAttribute("aria-pressed", String(wanted));
    refreshNumbers();
  }

  function showTable(wanted) {
    const within = mapBox.contains(document.activeElement) || tableBox.contains(document.activeElement);
    asTable = wanted;
    [mapBox.hidden, tableBox.hidden, rows.disabled] = [wanted, !wanted, wanted];
    mapOrTable.textContent = wanted ? "map" : "table";
    refreshNumbers();
    refreshSelection();
    if (within) (wanted ? table.element : map.canvas).focus(); // what is hidden loses the keyboard
  }

  // --- keys and state -------------------------------------------------------------------------------------------------
  function turn(step) {
    const keys = [...metric.options].map((option) => option.value);
    state.set("metric", keys[(keys.indexOf(metric.value) + step + keys.length) % keys.length]);
  }
  function escape() {
    if (state.get("filter")) return state.set("filter", "");
    anchor = -1;
    select([]);
  }
  const PRESSED = {
    "/": () => filter.focus(), "?": overlay.show, m: () => turn(1), M: () => turn(-1), b: () => showBefore(!showsBefore),
    r: () => rows.disabled || state.set("rows", rows.value === "kind" ? "role" : "kind"), t: () => showTable(!asTable),
    z: () => undo.disabled || model.act("undo"), y: () => redo.disabled || model.act("redo"), Escape: escape,
  };
  frame.addEventListener("keydown", (event) => {
    // JupyterLab keeps Enter from doing what it does in an input: say that its value is meant.
    if (event.key === "Enter" && event.target.matches("input[type=text], input[type=number]")) return void (event.target.blur(), event.target.focus());
    const typing = event.target.matches("input:not([type=range]):not([type=checkbox]), textarea, select");
    if (overlay.open || event.ctrlKey || event.metaKey || event.altKey || (typing && event.key !== "Escape")) return;
    const press = PRESSED[event.key];
    if (!press || event.defaultPrevented) return;
    event.preventDefault();
    press();
  });
  offs.push(
    state.on("_chosen", (next) => next.revision && (refreshHead(), slots.update(slotState()))),
    state.on("_panels", () => slots.update(slotState())),
    state.on("metric", refreshNumbers), state.on("rows", refreshAll), state.on("filter", refreshAll), state.on("sort", refreshAll), state.on("selection", refreshSelection),
  );
  refreshAll();
  offs.push(heedLoss(frame, client, () => {
    alive = false;
    picker.setAlive(false);
    list.setAlive(false);
    refreshHead();
    slots.update(slotState());
  }));

  return {
    element: frame,
    map,
    destroy() {
      for (const off of offs) off();
      for (const part of [model, teller, list, map, table, picker, slots]) part.destroy();
      frame.remove();
    },
  };
}
