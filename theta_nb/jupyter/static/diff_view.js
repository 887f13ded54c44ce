// What changed between two checkpoints: tree, map or table, and up to two parameters in depth.
//
// The view knows no widget: it gets data (diff_data.js), a state to share (get, set, on; messages.js has one that lives
// in the page) and a client to ask. State: metric, log_scale, filter, selection (names), pins (names).

import { element, fill } from "./dom.js";
import { METRICS, cosine, count, percent, short } from "./numbers.js";
import { SIGNS, STATUS, createScale } from "./colors.js";
import { createDiffData } from "./diff_data.js";
import { createHelp } from "./help.js";
import { createInspector } from "./inspector.js";
import { createMap } from "./map.js";
import { createTable } from "./table.js";
import { createTree, flattened } from "./tree.js";
import { heedLoss, isLost } from "./lost.js";
import { Superseded } from "./messages.js";
import { createNotice } from "./notice.js";
import { nameFilter } from "./filter.js";

const KEYS = [
  ["/", "filter by name: a piece, layers 3-8, a glob, or a /regular expression/"],
  ["← ↑ → ↓", "move the cursor of the map, or through the tree"],
  ["Enter", "choose what is under the cursor"],
  ["Space", "add it to the selection, or take it out"],
  ["Shift / Ctrl", "with a click or Enter: a range, one more"],
  ["p", "pin the parameter, to compare it with another one"],
  ["m / M", "next or previous metric"],
  ["l", "logarithmic or linear colours"],
  ["t", "map or table"],
  ["+ / -", "zoom; 0 shows everything. Ctrl and the wheel zoom as well"],
  ["Esc", "clear the filter, then the selection"],
  ["?", "this list"],
];
const MOST_COLUMNS = ["relative", "delta_norm", "max_abs_delta", "changed_share", "flipped_share", "distance"];

/**
 * @param {HTMLElement} root where to draw
 * @param {{index, numbers, state, client: {ask, cancel}, pause?: number}} options
 */
export function createDiffView(root, options) {
  const { state, client } = options;
  let data = createDiffData(options.index, options.numbers);
  let [hiddenStatuses, asTable, active, test] = [new Set(["unchanged"]), false, -1, () => true];
  if (!options.index.names.some((_, i) => data.differs(i))) hiddenStatuses = new Set();
  let cells = null;
  const offs = [];

  // --- elements -------------------------------------------------------------------------------------------------------
  const heading = element("div.theta-head");
  const metric = element("select.theta-select", { "aria-label": "metric", onchange: () => state.set("metric", metric.value) },
    ...Object.entries(METRICS).map(([key, { label, long }]) => element("option", { value: key, title: long }, label)));
  const log = element("input", { type: "checkbox", onchange: () => state.set("log_scale", log.checked) });
  const filter = element("input.theta-input", {
    type: "search", placeholder: "filter: query, layers 3-8, /bias$/", "aria-label": "filter parameters by name", spellcheck: "false",
    oninput: () => state.set("filter", filter.value),
  });
  const problem = element("span.theta-problem", { role: "status" });
  const chips = element("div.theta-chips", { role: "group", "aria-label": "what happened" });
  const view = element("button.theta-button", { type: "button", title: "map or table (t)", onclick: () => showTable(!asTable) });
  const help = element("button.theta-button", { type: "button", title: "keys (?)", "aria-label": "keys" }, "?");
  const bar = element("div.theta-bar", { role: "toolbar", "aria-label": "what is shown" },
    metric, element("label.theta-check", {}, log, "log"), filter, problem, chips, element("span.theta-spring"), view, help);
  const notice = createNotice();
  const treeBox = element("div.theta-pane.theta-tree-pane");
  const mapBox = element("div.theta-pane");
  const tableBox = element("div.theta-pane", { hidden: true });
  const footer = element("div.theta-foot", { "aria-live": "polite" });
  const inspectors = element("div.theta-inspectors");
  const frame = element("div.theta-explorer", { "data-lm-suppress-shortcuts": "true", role: "region", "aria-label": "what changed" },
    heading, bar, notice.element, element("div.theta-main", {}, treeBox, element("div.theta-stage", {}, mapBox, tableBox)), footer, inspectors);
  root.append(frame);
  const overlay = createHelp(frame, "Keys of the diff explorer", KEYS);
  help.addEventListener("click", overlay.show);

  // --- parts ----------------------------------------------------------------------------------------------------------
  const names = (ids) => ids.map((i) => data.index.names[i]);
  const chosen = () => (state.get("selection") ?? []).map((name) => data.ids.get(name)).filter((i) => i !== undefined);
  const tree = createTree(treeBox, {
    label: "parameters by module", empty: "No parameter matches.",
    onSelect(leaves, last) {
      if (last >= 0 || leaves.length === 1) active = last >= 0 ? last : leaves[0];
      state.set("selection", names(leaves));
      refreshSelection();
    },
  });
  const map = createMap(mapBox, {
    label: "heat map of parameters: roles against blocks",
    describe: (row, column) => describe(cells.leaf[row * cells.columns.length + column]),
    onSelect(index, { extend, range }) {
      const leaf = cells.leaf[index];
      if (leaf < 0) return;
      state.set("selection", names(range && active >= 0 ? between(active, leaf) : extend ? toggled(leaf) : [leaf]));
      active = leaf;
      tree.reveal(leaf);
      refreshSelection();
    },
  });
  const table = createTable(tableBox, {
    caption: "parameters and by how much they changed", key: "",
    columns: [
      { key: "name", label: "parameter" }, { key: "status", label: "status" }, { key: "shape", label: "dtype and shape" },
      ...MOST_COLUMNS.map((key) => ({
        key, numeric: true, label: key === "distance" ? "cosine" : METRICS[key].label, title: METRICS[key].long, write: key === "distance" ? cosine : METRICS[key].write,
      })),
    ],
    onActivate(id) {
      active = id;
      state.set("selection", names([id]));
      refreshSelection();
    },
  });
  const slots = ["one", "two"].map((channel) =>
    createInspector(inspectors, { channel, ask: client.ask, cancel: client.cancel, pause: options.pause, onPin: togglePin }));

  function describe(i) {
    if (i < 0) return [];
    const key = state.get("metric");
    const lines = [data.index.names[i], `${data.status(i)}, ${data.dtype(i)} [${data.index.shapes[i].join(", ")}]`];
    if (!data.differs(i) || Number.isNaN(data.value("delta_norm", i))) return data.index.notes[i] ? [...lines, data.index.notes[i]] : lines;
    lines.push(`${METRICS[key].label} = ${METRICS[key].write(data.value(key, i))}`);
    if (key === "relative") lines.push(`${short(data.value("delta_norm", i))} / ${short(data.value("old_norm", i))}`);
    else lines.push(`‖Δ‖/‖old‖ = ${short(data.value("relative", i))}`);
    lines.push(`${percent(data.value("changed_share", i))} of the entries changed`);
    return lines;
  }

  /** Parameters from one cell to another, as a rectangle. */
  function between(from, to) {
    const width = cells.columns.length;
    const [a, b] = [cells.leaf.indexOf(from), cells.leaf.indexOf(to)];
    if (a < 0) return [to];
    const [rows, columns] = [[a, b].map((cell) => Math.floor(cell / width)), [a, b].map((cell) => cell % width)];
    const found = [];
    for (let r = Math.min(...rows); r <= Math.max(...rows); r += 1) {
      for (let c = Math.min(...columns); c <= Math.max(...columns); c += 1) if (cells.leaf[r * width + c] >= 0) found.push(cells.leaf[r * width + c]);
    }
    return found.sort((x, y) => x - y);
  }

  function toggled(leaf) {
    const now = chosen();
    return now.includes(leaf) ? now.filter((i) => i !== leaf) : [...now, leaf].sort((a, b) => a - b);
  }

  function togglePin(name) {
    const pins = state.get("pins") ?? [];
    if (!name) return;
    state.set("pins", pins.includes(name) ? pins.filter((one) => one !== name) : [...pins, name].slice(-2));
    refreshInspectors();
  }

  // --- drawing --------------------------------------------------------------------------------------------------------
  const keep = (i) => !hiddenStatuses.has(data.status(i)) && test(data.index.names[i]);

  function refreshAll() {
    const found = nameFilter(state.get("filter") ?? "");
    test = found.test;
    problem.textContent = found.error;
    filter.setAttribute("aria-invalid", String(Boolean(found.error)));
    if (filter.value !== (state.get("filter") ?? "")) filter.value = state.get("filter") ?? "";
    refreshHead();
    refreshChips();
    tree.setData(flattened(data.index.tree, keep), firstFolds());
    refreshMetric();
    refreshSelection();
  }

  let folded = false;
  /** At first a large model shows its upper modules only. */
  function firstFolds() {
    if (folded) return {};
    folded = true;
    return data.many > 60 ? { folded: (row) => row.level >= 2 && row.leaves.length > 1 } : {};
  }

  function refreshHead() {
    const { title, summary, missing = [] } = data.index;
    fill(heading, element("span.theta-strong", {}, title), element("span.theta-dim", {}, summary),
      ...missing.map((line) => element("div.theta-problem.theta-line", {}, line)));
  }

  function refreshChips() {
    const totals = new Map();
    for (let i = 0; i < data.many; i += 1) totals.set(data.status(i), (totals.get(data.status(i)) ?? 0) + 1);
    fill(chips, ...data.index.statuses.filter((status) => totals.has(status)).map((status) => {
      const chip = element("button.theta-chip", {
        type: "button", "aria-pressed": String(!hiddenStatuses.has(status)), title: `show or hide what is ${status}`,
        onclick: () => (hiddenStatuses.delete(status) || hiddenStatuses.add(status), refreshAll()),
      }, element("b", { "aria-hidden": "true" }, SIGNS[status] || "="), ` ${status} ${totals.get(status).toLocaleString("en-US")}`);
      chip.style.setProperty("--theta-sign", STATUS[status]);
      return chip;
    }));
  }

  function refreshMetric() {
    const key = METRICS[state.get("metric")] ? state.get("metric") : "relative";
    metric.value = key;
    log.checked = Boolean(state.get("log_scale"));
    const all = [];
    for (let i = 0; i < data.many; i += 1) if (data.differs(i)) all.push(data.value(key, i));
    const scale = createScale(all, { log: log.checked });
    cells = data.map(key, keep);
    map.setData(cells);
    map.setScale(scale, METRICS[key].label);
    const bar = (value) => (Number.isNaN(value) ? 0 : Math.max(0.02, scale.share(value) || 0));
    tree.setLooks({
      leaf: (i) => {
        const value = data.differs(i) ? data.value(key, i) : NaN;
        return { sign: SIGNS[data.status(i)], color: STATUS[data.status(i)], bar: bar(value), text: Number.isNaN(value) ? "" : METRICS[key].write(value), title: data.index.names[i] };
      },
      group: (leaves) => {
        const changed = leaves.filter((i) => data.differs(i));
        const values = changed.map((i) => data.value(key, i)).filter((value) => !Number.isNaN(value));
        const most = values.length ? Math.max(...values) : NaN;
        return { bar: bar(most), text: Number.isNaN(most) ? "" : `≤ ${METRICS[key].write(most)}`, title: `${changed.length} of ${count(leaves.length, "parameter")} differ` };
      },
    });
    refreshTable();
  }

  function refreshTable() {
    if (!asTable) return;
    const rows = [];
    for (let i = 0; i < data.many; i += 1) if (keep(i)) rows.push(data.row(i));
    table.setRows(rows);
  }

  function refreshSelection() {
    const now = chosen();
    if (active >= 0 && !now.includes(active) && now.length) active = now.at(-1);
    tree.setSelection(now);
    if (asTable) table.setSelection(now);
    const wanted = new Set(now);
    const outlined = [];
    cells.leaf.forEach((leaf, cell) => wanted.has(leaf) && outlined.push(cell));
    map.setSelection(outlined);
    refreshFoot(now);
    if (active < 0 && now.length) active = now[0];
    refreshInspectors();
  }

  function refreshFoot(now) {
    let shown = 0;
    for (let i = 0; i < data.many; i += 1) if (keep(i)) shown += 1;
    const parts = [`${shown.toLocaleString("en-US")} of ${count(data.many, "parameter")} shown`];
    if (now.length) parts.push(`${now.length.toLocaleString("en-US")} selected`);
    if (data.index.left_out) parts.push(`${count(data.index.left_out, "parameter")} left out: the model has too many to show`);
    footer.textContent = parts.join(" · ");
  }

  function refreshInspectors() {
    const pins = (state.get("pins") ?? []).filter((name) => data.ids.has(name));
    const wanted = pins.map((name) => data.ids.get(name));
    if (active >= 0 && !wanted.includes(active)) wanted.length < 2 ? wanted.push(active) : null;
    const items = wanted.map((i) => ({ ...data.item(i), pinned: pins.includes(data.index.names[i]) }));
    slots.forEach((slot, at) => slot.show(items[at] ?? null));
    inspectors.classList.toggle("theta-two", items.length > 1);
  }

  function showTable(wanted) {
    const within = mapBox.contains(document.activeElement) || tableBox.contains(document.activeElement);
    asTable = wanted;
    mapBox.hidden = wanted;
    tableBox.hidden = !wanted;
    view.textContent = wanted ? "map" : "table";
    refreshTable();
    refreshSelection();
    if (!wanted) map.redraw();
    if (within) (wanted ? table.element : map.canvas).focus(); // what is hidden loses the keyboard
  }

  /** Have the values read; the widget or the view around this one hands in the numbers. */
  async function measure() {
    const text = "reading by how much the values differ …";
    const stop = ["stop", () => (client.cancel("measure"), notice({ text: "Stopped; some numbers are missing.", action: ["go on", measure] }))];
    notice({ text, action: stop });
    try {
      const result = await client.ask("measure", "measure", {}, (done, total) => notice({ text, share: total ? done / total : 0, action: stop }));
      notice(null);
      options.onMeasured?.(result);
    } catch (error) {
      if (!(error instanceof Superseded)) notice({ error: error.message, action: ["try again", measure] });
    }
  }

  // --- keys and state -------------------------------------------------------------------------------------------------
  function turn(step) {
    const keys = Object.keys(METRICS);
    state.set("metric", keys[(keys.indexOf(metric.value) + step + keys.length) % keys.length]);
  }
  function escape() {
    if (state.get("filter")) return state.set("filter", "");
    active = -1;
    state.set("selection", []);
    refreshSelection();
  }
  const PRESSED = {
    "/": () => filter.focus(), "?": overlay.show, p: () => active >= 0 && togglePin(data.index.names[active]), m: () => turn(1), M: () => turn(-1),
    l: () => state.set("log_scale", !state.get("log_scale")), t: () => showTable(!asTable), Escape: escape,
  };
  frame.addEventListener("keydown", (event) => {
    const typing = event.target.matches("input[type=search], textarea, select");
    if (overlay.open || event.ctrlKey || event.metaKey || event.altKey || (typing && event.key !== "Escape")) return;
    const act = PRESSED[event.key];
    if (!act || event.defaultPrevented) return;
    event.preventDefault();
    act();
  });
  offs.push(state.on("metric", refreshMetric), state.on("log_scale", refreshMetric), state.on("filter", refreshAll), state.on("selection", refreshSelection), state.on("pins", refreshInspectors));
  view.textContent = "table";
  refreshAll();
  offs.push(heedLoss(frame, client, () => notice(null)));

  return {
    element: frame,
    map,
    /** Other numbers of the same diff, as they come in, or another index (a status that turned out to be another one). */
    update(index, numbers) {
      data = createDiffData(index, numbers);
      refreshAll();
    },
    /** Have the values read, unless they have been; by itself only where the index says so. */
    measureIfWanted() {
      if (data.index.measured || isLost(frame)) return;
      if (data.index.measure) measure();
      else notice({ text: "By how much the values differ has not been measured.", action: ["measure", measure] });
    },
    destroy() {
      for (const off of offs) off();
      for (const part of [tree, map, table, ...slots]) part.destroy();
      frame.remove();
    },
  };
}
