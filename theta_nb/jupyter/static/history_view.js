// What commits did to a checkpoint: their graph above a map of layers against commits, and the diff of any two.
//
// `index` is described in theta_nb/jupyter/history_desk.py. State: by, selected_commits (ids, at most two).
// Asked for: matrix {by} -> {layers, values, measured, added: [cell, ...]}; measure; diff {old, new} -> {index, numbers}; and whatever a
// diff view asks, with "diff." before it.

import { element, fill, wantsStillness } from "./dom.js";
import { count, percent, short, size } from "./numbers.js";
import { SERIES, createScale } from "./colors.js";
import { Superseded, createState, inflated } from "./messages.js";
import { createDiffView } from "./diff_view.js";
import { heedLoss, isLost } from "./lost.js";
import { createHelp } from "./help.js";
import { createMap } from "./map.js";
import { createNotice } from "./notice.js";
import { createTable } from "./table.js";
import { createTimeline } from "./timeline.js";

const KEYS = [
  ["← ↑ → ↓", "move the cursor of the map"],
  ["Enter", "choose the commit under the cursor; with Shift up to that commit"],
  ["[ / ]", "the commit before or after"],
  ["d", "open the diff of the two commits, or of one against its parent"],
  ["k", "play through the commits, or pause"],
  ["t", "map or table"],
  ["+ / -", "zoom; 0 shows everything. Ctrl and the wheel zoom as well"],
  ["Esc", "close the diff, then clear the selection"],
  ["?", "this list"],
];
const STEP = 700; // ms a commit is shown while playing
const METRIC_COLORS = [SERIES.other, SERIES.delta, SERIES.more, SERIES.old];

/** @param {HTMLElement} root where to draw; @param {{index, state, client}} options */
export function createHistoryView(root, options) {
  const { index, state, client } = options;
  const { commits } = index;
  const position = new Map(commits.map((commit, i) => [commit.id, i]));
  let [layers, values, measured, asTable, timer, opened, gone] = [[], new Float32Array(0), index.measured, false, 0, null, false];
  let added = new Set(); // cells of what came into being: there is nothing to compare it with
  const offs = [];

  const by = element("select.theta-select", { "aria-label": "what the rows are", "data-python": true, onchange: () => state.set("by", by.value) },
    ...index.groupings.map((name) => element("option", { value: name }, `by ${name}`)));
  const play = element("button.theta-button", { type: "button", title: "play through the commits (k)", onclick: () => setPlaying(!timer) }, "▶ play");
  const open = element("button.theta-button", { type: "button", title: "open the diff (d)", disabled: true, "data-python": true, onclick: openDiff }, "open diff");
  const measure = element("button.theta-button", { type: "button", title: "read the values of all versions", "data-python": true, onclick: askMeasure }, "measure");
  const view = element("button.theta-button", { type: "button", title: "map or table (t)", onclick: () => showTable(!asTable) }, "table");
  const help = element("button.theta-button", { type: "button", title: "keys (?)", "aria-label": "keys" }, "?");
  const bar = element("div.theta-bar", { role: "toolbar", "aria-label": "what is shown" }, by, play, open, measure, element("span.theta-spring"), view, help);
  const notice = createNotice();
  const stage = element("div.theta-pane");
  const tableBox = element("div.theta-pane", { hidden: true });
  const details = element("div.theta-commit", { "aria-live": "polite" });
  const diffBox = element("div.theta-diff-box");
  const frame = element("div.theta-explorer", { "data-lm-suppress-shortcuts": "true", role: "region", "aria-label": "history" },
    element("div.theta-head", {}, element("span.theta-strong", {}, index.title), element("span.theta-dim", {}, index.summary)),
    bar, notice.element, stage, tableBox, details, diffBox);
  root.append(frame);
  const overlay = createHelp(frame, "Keys of the history explorer", KEYS);
  help.addEventListener("click", overlay.show);

  const timeline = createTimeline(stage, {
    label: `graph of ${count(commits.length, "commit")}, with the bytes that each stored`,
    onSelect: select,
    onHover: (at) => at >= 0 && !chosen().length && showDetails(at),
  });
  const map = createMap(stage, {
    label: "heat map of layers against commits, oldest left", hatching: "added", heads: false, least: [5, 3], most: [72, 20], height: 380,
    describe: (row, column) => describe(row, column),
    onLayout: (layout) => timeline.setLayout(layout),
    onHover: (at) => timeline.setHover(at < 0 ? -1 : at % commits.length),
    onSelect(at, { range }) {
      const column = at % commits.length;
      const first = chosen()[0];
      range && first !== undefined ? select(Math.min(first, column), Math.max(first, column)) : select(column, column);
    },
  });
  const table = createTable(tableBox, {
    caption: "commits, oldest first",
    columns: [
      { key: "short", label: "commit" }, { key: "date", label: "date", write: (date) => date.slice(0, 10) }, { key: "subject", label: "message" },
      { key: "what", label: "what changed" }, { key: "stored", label: "stored", numeric: true, write: (bytes) => (bytes ? size(bytes) : "—") },
      ...index.metrics.map((name, i) => ({ key: `metric${i}`, label: name, numeric: true, write: (value) => short(value ?? NaN) })),
      { key: "refs", label: "branches and tags", write: (refs) => refs.join(", ") },
    ],
    onActivate: (id) => select(position.get(id), position.get(id)),
  });
  table.setRows(commits.map((commit) => ({ ...commit, ...Object.fromEntries(index.metrics.map((name, i) => [`metric${i}`, commit.metrics[name]])) })));
  timeline.setData({
    commits,
    metrics: index.metrics.slice(0, 4).map((name, i) => ({ name, color: METRIC_COLORS[i], values: commits.map((commit) => commit.metrics[name] ?? NaN) })),
  });

  const write = (value) => (measured ? short(value) : percent(value));
  const chosen = () => (state.get("selected_commits") ?? []).map((id) => position.get(id)).filter((at) => at !== undefined).sort((a, b) => a - b);

  function describe(row, column) {
    const [commit, value] = [commits[column], values[row * commits.length + column]];
    const name = layers[row] || "(top)";
    const what = added.has(row * commits.length + column) ? "added" : Number.isNaN(value) ? "" : value === 0 ? "unchanged" : measured ? `‖Δ‖/‖old‖ = ${write(value)}` : `${write(value)} of its values are in changed tensors`;
    return [name, `${commit.short} ${commit.subject}`, what, commit.refs.join(", ")].filter(Boolean);
  }

  async function loadMatrix() {
    by.value = state.get("by");
    try {
      const found = await client.ask("matrix", "matrix", { by: state.get("by") });
      if (gone) return;
      [layers, values, measured] = [found.layers, found.values.data, found.measured];
      const present = new Uint8Array(values.length);
      added = new Set(found.added ?? []);
      for (let i = 0; i < values.length; i += 1) present[i] = values[i] === values[i] || added.has(i) ? 1 : 0;
      map.setData({ rows: layers.map((layer) => layer || "(top)"), columns: commits.map((commit) => commit.short), values, present, hatched: added });
      map.setScale(createScale(values, measured ? { log: true } : { low: 0, high: 1 }), measured ? "‖Δ‖/‖old‖" : "share of values in changed tensors");
      measure.hidden = measured;
    } catch (error) {
      if (!(error instanceof Superseded)) notice({ error: error.message, action: ["try again", loadMatrix] });
    }
  }

  async function askMeasure() {
    const text = "reading the values of all versions …";
    const action = ["stop", () => (client.cancel("measure"), notice(null))];
    notice({ text, share: 0, action });
    try {
      await client.ask("measure", "measure", {}, (done, total) => notice({ text, share: total ? done / total : 0, action }));
      notice(null);
      await loadMatrix();
    } catch (error) {
      if (!(error instanceof Superseded)) notice({ error: error.message, action: ["try again", askMeasure] });
    }
  }

  function select(from, to) {
    state.set("selected_commits", from === to ? [commits[from].id] : [commits[from].id, commits[to].id]);
    refreshSelection();
  }

  function refreshSelection() {
    const now = chosen();
    timeline.setSelection(now.length ? [now[0], now.at(-1)] : null);
    map.setSelection([], now.length ? [now[0], now.at(-1)] : null);
    table.setSelection(now.map((at) => commits[at].id));
    open.disabled = !pair();
    open.textContent = now.length === 1 ? "diff against parent" : "open diff";
    showDetails(...now);
  }

  /** The two commits whose diff is meant: those that are chosen, or one and its first parent. */
  function pair() {
    const now = chosen();
    if (isLost(frame)) return null;
    if (now.length > 1) return [now[0], now.at(-1)];
    if (now.length === 1 && commits[now[0]].parents.length) return [commits[now[0]].parents[0], now[0]];
    return null;
  }

  function showDetails(...positions) {
    if (!positions.length) return void fill(details, element("span.theta-dim", {}, "Choose a commit; drag over the graph, or click with Shift, for two."));
    fill(details, ...[...new Set([positions[0], positions.at(-1)])].map((at) => {
      const commit = commits[at];
      const metrics = Object.entries(commit.metrics).map(([name, value]) => `${name} ${short(value)}`);
      return element("div.theta-commit-line", {},
        element("span.theta-mono.theta-strong", { title: commit.id }, commit.short), element("span", {}, commit.subject),
        ...commit.refs.map((ref) => element("span.theta-badge", {}, ref)),
        element("span.theta-dim", {}, [commit.date.slice(0, 10), commit.author, commit.what, commit.stored ? `${size(commit.stored)} stored` : "", ...metrics].filter(Boolean).join(" · ")),
        commit.problem ? element("span.theta-problem", {}, commit.problem) : null);
    }));
  }

  async function openDiff() {
    const two = pair();
    if (!two) return;
    const [old, now] = two.map((at) => commits[at]);
    closeDiff();
    fill(diffBox, element("div.theta-loading", {}, `comparing ${old.short} with ${now.short} …`));
    try {
      const found = await client.ask("diff", "diff", { old: old.id, new: now.id });
      const table_ = await unpacked(found.index);
      if (gone) return;
      const close = element("button.theta-button", { type: "button", onclick: closeDiff }, "close diff");
      const place = element("div");
      fill(diffBox, element("div.theta-bar", {}, element("span.theta-strong", {}, `${old.short} → ${now.short}`), element("span.theta-dim", {}, `${old.subject} → ${now.subject}`), element("span.theta-spring"), close), place);
      opened = createDiffView(place, {
        index: table_, numbers: found.numbers.data,
        state: createState({ metric: "relative", log_scale: true, filter: "", selection: [], pins: [] }),
        client: {
          ask: (channel, what, request, progress) => client.ask(`diff:${channel}`, `diff.${what}`, request, progress),
          cancel: (channel) => client.cancel(`diff:${channel}`),
        },
        onMeasured: async (result) => opened?.update(await unpacked(result.index), result.numbers.data),
      });
      opened.measureIfWanted();
      place.scrollIntoView({ block: "nearest", behavior: wantsStillness() ? "auto" : "smooth" });
    } catch (error) {
      if (!(error instanceof Superseded)) fill(diffBox, element("div.theta-problem.theta-pane", { role: "alert" }, error.message));
    }
  }

  function closeDiff() {
    opened?.destroy();
    opened = null;
    fill(diffBox);
  }

  function setPlaying(wanted) {
    clearInterval(timer);
    timer = 0;
    if (wanted && commits.length) {
      const now = chosen().at(-1);
      let at = now === undefined || now === commits.length - 1 ? 0 : now;
      select(at, at);
      timer = setInterval(() => {
        if (!frame.isConnected || at + 1 >= commits.length) return setPlaying(false);
        at += 1;
        select(at, at);
      }, STEP);
    }
    play.textContent = timer ? "⏸ pause" : "▶ play";
    play.setAttribute("aria-pressed", String(Boolean(timer)));
  }

  function walk(step) {
    const at = Math.max(0, Math.min(commits.length - 1, (chosen().at(-1) ?? (step > 0 ? -1 : commits.length)) + step));
    if (commits.length) select(at, at);
  }

  function showTable(wanted) {
    const within = stage.contains(document.activeElement) || tableBox.contains(document.activeElement);
    asTable = wanted;
    stage.hidden = wanted;
    tableBox.hidden = !wanted;
    view.textContent = wanted ? "map" : "table";
    if (!wanted) map.redraw();
    if (within) (wanted ? table.element : map.canvas).focus(); // what is hidden loses the keyboard
  }

  function escape() {
    if (diffBox.firstChild) return closeDiff();
    state.set("selected_commits", []);
    refreshSelection();
  }

  const PRESSED = { "?": overlay.show, k: () => setPlaying(!timer), d: openDiff, t: () => showTable(!asTable), "[": () => walk(-1), "]": () => walk(1), Escape: escape };
  frame.addEventListener("keydown", (event) => {
    // The diff inside has keys of its own.
    if (overlay.open || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || event.target.matches("input[type=search], select")) return;
    if (diffBox.contains(event.target) && event.key !== "Escape") return;
    const act = PRESSED[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  offs.push(state.on("by", loadMatrix), state.on("selected_commits", refreshSelection));
  measure.hidden = measured;
  refreshSelection();
  loadMatrix();
  offs.push(heedLoss(frame, client, () => notice(null)));

  return {
    element: frame,
    map,
    destroy() {
      gone = true;
      setPlaying(false);
      closeDiff();
      for (const off of offs) off();
      for (const part of [timeline, map, table]) part.destroy();
      frame.remove();
    },
  };
}

/** A table of names that came inside a result: deflated JSON in base64. */
const unpacked = (text) => inflated(Uint8Array.from(atob(text), (character) => character.charCodeAt(0)));
