// A tree of names that stays quick with thousands of rows: only the rows in sight are elements.
//
// Data contract
//   root       {label, rows: [[label, leaf], ...], modules: [root, ...]}: leaves are numbers, a module's own come first
//   leaf(n)    {sign, color, bar, text, title}: what a row shows of leaf n; bar is 0 to 1 or NaN
//   group(ns)  the same for a module, given its leaves

import { element, oncePerFrame, uniqueId } from "./dom.js";

const ROW = 22; // px

/**
 * Rows of a tree from top to bottom.
 *
 * @param {Object} root a module; its own label is not shown
 * @param {function(number): boolean} keep which leaves are wanted; modules without any are left out
 * @returns {Array<{label, level, path, leaf: number, leaves: number[], end: number}>} `leaf` is -1 for a module,
 *   `end` the index behind its last row
 */
export function flattened(root, keep = () => true) {
  const rows = [];
  const walk = (module, level, path) => {
    const leaves = [];
    for (const [label, leaf] of module.rows) {
      if (!keep(leaf)) continue;
      leaves.push(leaf);
      rows.push({ label, level, path: `${path}${label}`, leaf, leaves: [leaf], end: rows.length + 1 });
    }
    for (const inner of module.modules) {
      const row = { label: inner.label, level, path: `${path}${inner.label}/`, leaf: -1, leaves: [], end: 0 };
      rows.push(row);
      row.leaves = walk(inner, level + 1, row.path);
      row.end = rows.length;
      if (row.leaves.length) leaves.push(...row.leaves);
      else rows.pop();
    }
    return leaves;
  };
  walk(root, 1, "");
  return rows;
}

/** Rows that are not inside a folded module. */
export function unfolded(rows, folded) {
  const shown = [];
  for (let i = 0; i < rows.length; i += 1) {
    shown.push(i);
    if (rows[i].leaf < 0 && folded.has(rows[i].path)) i = rows[i].end - 1;
  }
  return shown;
}

/**
 * @param {HTMLElement} root where to draw
 * @param {Object} options label; onSelect(leaves, active): leaves were chosen, `active` is the one that was meant last.
 */
export function createTree(root, options) {
  const id = uniqueId("tree");
  const spacer = element("div.theta-tree-space");
  const empty = element("div.theta-empty", { hidden: true }, options.empty ?? "Nothing matches.");
  const box = element("div.theta-tree", {
    role: "tree", tabindex: 0, "aria-label": options.label ?? "tree", "aria-multiselectable": "true",
  }, spacer, empty);
  root.append(box);
  let [rows, shown, folded, selected] = [[], [], new Set(), new Set()];
  let [active, anchor, pressed] = [0, 0, false];
  let looks = { leaf: () => ({}), group: () => ({}) };
  const redraw = oncePerFrame(draw);

  function draw() {
    if (pressed) return; // a row that is drawn anew while the button is down is not clicked
    shown = unfolded(rows, folded);
    active = Math.max(0, Math.min(active, shown.length - 1));
    spacer.style.height = `${shown.length * ROW}px`;
    empty.hidden = shown.length > 0;
    const first = Math.max(0, Math.floor(box.scrollTop / ROW) - 4);
    const last = Math.min(shown.length, Math.ceil((box.scrollTop + (box.clientHeight || 400)) / ROW) + 4);
    const made = [];
    for (let i = first; i < last; i += 1) made.push(drawRow(i));
    spacer.replaceChildren(...made);
    if (shown.length) box.setAttribute("aria-activedescendant", `${id}-${active}`);
    else box.removeAttribute("aria-activedescendant");
  }

  function drawRow(at) {
    const row = rows[shown[at]];
    const module = row.leaf < 0;
    const look = module ? looks.group(row.leaves) : looks.leaf(row.leaf);
    const chosen = row.leaves.every((leaf) => selected.has(leaf));
    const made = element("div.theta-tree-row", {
      id: `${id}-${at}`, role: "treeitem", "aria-level": row.level, "aria-selected": String(chosen),
      "aria-expanded": module ? String(!folded.has(row.path)) : undefined, title: look.title ?? row.label,
      "aria-label": [row.label, look.title, look.text].filter(Boolean).join(", "),
    },
      element("span.theta-tree-twist", { "aria-hidden": "true" }, module ? (folded.has(row.path) ? "▸" : "▾") : ""),
      element("span.theta-tree-sign", { "aria-hidden": "true" }, look.sign ?? ""),
      element("span.theta-tree-name", {}, row.label),
      element("span.theta-tree-text", {}, look.text ?? ""),
    );
    made.style.top = `${at * ROW}px`;
    made.style.paddingLeft = `${4 + 13 * (row.level - 1)}px`;
    if (look.color) made.style.setProperty("--theta-sign", look.color);
    if (look.bar > 0) made.style.setProperty("--theta-bar", `${(100 * Math.min(1, look.bar)).toFixed(1)}%`);
    made.classList.toggle("theta-module", module);
    made.classList.toggle("theta-active", at === active);
    made.dataset.at = at;
    return made;
  }

  /** Choose a row as a click on it would: alone, with ctrl in addition, with shift all from the last one on. */
  function choose(at, { extend = false, range = false } = {}) {
    const row = rows[shown[at]];
    if (!row) return;
    active = at;
    if (range) {
      const [from, to] = [Math.min(anchor, at), Math.max(anchor, at)];
      selected = new Set(extend ? selected : []);
      for (let i = from; i <= to; i += 1) for (const leaf of rows[shown[i]].leaves) selected.add(leaf);
    } else if (extend) {
      const all = row.leaves.every((leaf) => selected.has(leaf));
      selected = new Set(selected);
      for (const leaf of row.leaves) all ? selected.delete(leaf) : selected.add(leaf);
      anchor = at;
    } else {
      selected = new Set(row.leaves);
      anchor = at;
    }
    redraw();
    options.onSelect?.([...selected].sort((a, b) => a - b), row.leaf >= 0 ? row.leaf : -1);
  }

  function fold(at, closed) {
    const row = rows[shown[at]];
    if (!row || row.leaf >= 0) return;
    if (closed ?? !folded.has(row.path)) folded.add(row.path);
    else folded.delete(row.path);
    redraw();
  }

  function moveTo(at, event) {
    active = Math.max(0, Math.min(shown.length - 1, at));
    if (event?.shiftKey) choose(active, { range: true });
    const top = active * ROW;
    if (top < box.scrollTop) box.scrollTop = top;
    if (top + ROW > box.scrollTop + box.clientHeight) box.scrollTop = top + ROW - box.clientHeight;
    redraw();
  }

  function toParent() {
    const level = rows[shown[active]].level;
    for (let i = active - 1; i >= 0; i -= 1) if (rows[shown[i]].level < level) return moveTo(i);
  }

  const KEYS = {
    ArrowDown: (event) => moveTo(active + 1, event),
    ArrowUp: (event) => moveTo(active - 1, event),
    Home: () => moveTo(0),
    End: () => moveTo(shown.length - 1),
    PageDown: () => moveTo(active + Math.floor(box.clientHeight / ROW)),
    PageUp: () => moveTo(active - Math.floor(box.clientHeight / ROW)),
    ArrowRight: () => {
      const row = rows[shown[active]];
      if (row?.leaf < 0) folded.has(row.path) ? fold(active, false) : moveTo(active + 1);
    },
    ArrowLeft: () => {
      const row = rows[shown[active]];
      if (row?.leaf < 0 && !folded.has(row.path)) fold(active, true);
      else if (row) toParent();
    },
    Enter: (event) => choose(active, { extend: event.ctrlKey || event.metaKey, range: event.shiftKey }),
    " ": () => choose(active, { extend: true }),
    a: (event) => (event.ctrlKey || event.metaKey) && selectAll(),
  };
  function selectAll() {
    selected = new Set(rows.flatMap((row) => row.leaves));
    redraw();
    options.onSelect?.([...selected].sort((a, b) => a - b), -1);
  }

  box.addEventListener("keydown", (event) => {
    const act = KEYS[event.key];
    if (!act || !shown.length || (event.key === "a" && !(event.ctrlKey || event.metaKey))) return;
    event.preventDefault();
    act(event);
  });
  box.addEventListener("click", (event) => {
    const row = event.target.closest(".theta-tree-row");
    if (!row) return;
    const at = Number(row.dataset.at);
    if (event.target.classList.contains("theta-tree-twist") && rows[shown[at]].leaf < 0) return fold(at);
    choose(at, { extend: event.ctrlKey || event.metaKey, range: event.shiftKey });
  });
  box.addEventListener("pointerdown", (event) => {
    pressed = event.target.closest(".theta-tree-row") !== null;
  });
  for (const end of ["pointerup", "pointercancel", "pointerleave"]) {
    box.addEventListener(end, () => {
      if (pressed) redraw(); // in the next frame, behind the click
      pressed = false;
    });
  }
  box.addEventListener("dblclick", (event) => {
    const row = event.target.closest(".theta-tree-row");
    if (row) fold(Number(row.dataset.at));
  });
  box.addEventListener("scroll", redraw, { passive: true });
  const sized = new ResizeObserver(redraw);
  sized.observe(box);

  return {
    element: box,
    setData(next, { folded: closed } = {}) {
      rows = next;
      if (closed) folded = new Set(rows.filter((row) => row.leaf < 0 && closed(row)).map((row) => row.path));
      redraw();
    },
    setLooks(next) {
      looks = next;
      redraw();
    },
    setSelection(leaves) {
      selected = new Set(leaves);
      redraw();
    },
    /** Scroll to a leaf, unfolding what hides it. */
    reveal(leaf) {
      const index = rows.findIndex((row) => row.leaf === leaf);
      if (index < 0) return;
      rows.forEach((row, i) => row.leaf < 0 && i < index && row.end > index && folded.delete(row.path));
      shown = unfolded(rows, folded);
      moveTo(shown.indexOf(index));
    },
    focus: () => box.focus(),
    destroy() {
      redraw.cancel();
      sized.disconnect();
      box.remove();
      [rows, shown] = [[], []];
    },
  };
}
