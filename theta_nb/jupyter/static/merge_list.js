// The left column: parameters by module or sorted, with what happened to them; or a slider for each block.

import { element, fill } from "./dom.js";
import { BADGES } from "./merge_data.js";
import { createBlocks } from "./merge_blocks.js";
import { createTree, flattened } from "./tree.js";
import { quickPicks } from "./quick_picks.js";

const SORTS = { model: "by module", change: "largest change first", conflict: "most conflict first" };

/**
 * @param {HTMLElement} root where to draw
 * @param {Object} options index; onSelect(leaves, last); onSort(name); onDraft(edits), onChoose(edits) of blocks
 */
export function createParameterList(root, options) {
  const { index } = options;
  const sort = element("select.theta-select", { "aria-label": "how parameters are listed", onchange: () => options.onSort(sort.value) },
    ...Object.entries(SORTS).map(([value, label]) => element("option", { value }, label)));
  const picks = element("select.theta-select", { "aria-label": "select many", onchange: pick }, element("option", { value: "" }, "select …"));
  const bar = element("div.theta-minibar", {}, sort, picks);
  const treeBox = element("div.theta-tree-pane");
  const [first, second] = [element("div.theta-tab-panel", {}, bar, treeBox), element("div.theta-tab-panel.theta-blocks", { hidden: true })];
  const tabs = ["parameters", "blocks"].map((name, at) => element("button.theta-tab", { type: "button", role: "tab", "aria-selected": String(!at), onclick: () => turnTo(at) }, name));
  root.append(element("div.theta-tabs", { role: "tablist", "aria-label": "parameters or blocks" }, ...tabs), first, second);
  const blocks = createBlocks(second, options);
  const tree = createTree(treeBox, { label: "parameters", empty: "No parameter matches.", onSelect: options.onSelect });
  const groups = quickPicks(index);
  for (const { label, items } of groups) {
    picks.append(element("optgroup", { label }, ...items.map(({ name, leaves }) => element("option", { value: `${label}/${name}` }, `${name} (${leaves.length})`))));
  }
  let [data, folded] = [null, false];

  function turnTo(at) {
    tabs.forEach((tab, i) => tab.setAttribute("aria-selected", String(i === at)));
    [first.hidden, second.hidden] = [at !== 0, at !== 1];
  }

  function pick() {
    for (const { label, items } of groups) {
      const found = items.find(({ name }) => `${label}/${name}` === picks.value);
      if (found) options.onSelect(found.leaves, found.leaves[0]);
    }
    picks.value = "";
  }

  /** At first a large model shows its upper modules only. */
  function firstFolds() {
    if (folded) return {};
    folded = true;
    return data.many > 60 ? { folded: (row) => row.level >= 2 && row.leaves.length > 1 } : {};
  }

  function sortedRoot(keep, fact) {
    const leaves = [];
    for (let i = 0; i < data.many; i += 1) if (keep(i)) leaves.push(i);
    const value = (i) => data.fact(fact, i);
    leaves.sort((a, b) => (Number.isNaN(value(a)) - Number.isNaN(value(b))) || value(b) - value(a) || a - b);
    return { label: "", rows: leaves.map((i) => [index.names[i], i]), modules: [] };
  }

  return {
    setData(next, keep, by, chosen, busy) {
      data = next;
      if (!busy) blocks.setData(next, chosen);
      sort.value = SORTS[by] ? by : "model";
      if (sort.value === "model") tree.setData(flattened(index.tree, keep), firstFolds());
      else tree.setData(flattened(sortedRoot(keep, sort.value)));
    },
    /** Numbers of the map's metric beside the names. */
    setValues(values, scale, write, from) {
      const text = (value, i) => (scale.categories ? data.choice(i, from)?.name ?? "" : Number.isNaN(value) ? "" : write(value));
      const bar = (value) => (scale.categories || Number.isNaN(value) ? 0 : Math.max(0.02, scale.share(value) || 0));
      tree.setLooks({
        leaf: (i) => {
          const { sign, color, long } = BADGES[data.badge(i)];
          const open = data.open(i);
          return { sign: open ? "?" : sign, color: open ? BADGES.conflict.color : color, bar: bar(values[i]), text: text(values[i], i), title: `${index.names[i]}: ${open ? "waits for a choice" : long}` };
        },
        group: (leaves) => {
          const states = new Map();
          for (const i of leaves) states.set(data.badge(i), (states.get(data.badge(i)) ?? 0) + 1);
          const said = [...states].map(([badge, number]) => `${number} ${badge}`).join(", ");
          const badge = states.size === 1 ? BADGES[[...states.keys()][0]] : null;
          return { sign: badge?.sign ?? "", color: badge?.color, bar: 0, text: leaves.length.toLocaleString("en-US"), title: said };
        },
      });
    },
    setSelection: (leaves) => tree.setSelection(leaves),
    reveal: (leaf) => tree.reveal(leaf),
    /** Sliders of blocks do nothing without a kernel. */
    setAlive(alive) {
      for (const control of second.querySelectorAll("select, input, button")) control.disabled = !alive;
    },
    turnTo,
    destroy: () => (tree.destroy(), blocks.destroy(), fill(root)),
  };
}
