// A real table: for screen readers, for copying, and for everybody who would rather read numbers.
//
// Data contract
//   columns   [{key, label, title, numeric, write(value, row)}]
//   rows      objects with the keys of the columns, and `id`

import { element, fill } from "./dom.js";

const MOST = 1000; // rows that are elements; more would make the page slow

/** Rows sorted by a key: numbers by size, texts as people count; what is missing comes last. */
export function sorted(rows, key, descending = false) {
  const collator = new Intl.Collator("en", { numeric: true });
  const missing = (value) => value === undefined || value === null || Number.isNaN(value);
  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : collator.compare(String(a), String(b)));
  return [...rows].sort((a, b) => {
    const [x, y] = [a[key], b[key]];
    if (missing(x) || missing(y)) return missing(x) - missing(y);
    return descending ? compare(y, x) : compare(x, y);
  });
}

/**
 * @param {HTMLElement} root where to draw
 * @param {Object} options caption; columns; onActivate(id): a row was opened; onSort(key, descending): optional.
 */
export function createTable(root, options) {
  const head = element("tr");
  const body = element("tbody");
  const caption = element("caption", {}, options.caption ?? "");
  const more = element("div.theta-dim");
  const box = element("div.theta-table", { tabindex: 0, role: "region", "aria-label": options.caption },
    element("table", {}, caption, element("thead", {}, head), body), more);
  root.append(box);
  let [rows, chosen, key, descending] = [[], new Set(), options.key ?? "", options.descending ?? false];

  function sortBy(column) {
    descending = key === column.key ? !descending : Boolean(column.numeric);
    key = column.key;
    draw();
    options.onSort?.(key, descending);
  }

  function draw() {
    fill(head, ...options.columns.map((column) => {
      const mark = key === column.key ? (descending ? " ▾" : " ▴") : "";
      const order = key === column.key ? (descending ? "descending" : "ascending") : "none";
      const button = element("button.theta-sort", { type: "button", title: column.title, onclick: () => sortBy(column) }, column.label + mark);
      return element(column.numeric ? "th.theta-number" : "th", { scope: "col", "aria-sort": options.fixed ? undefined : order }, options.fixed ? column.label : button);
    }));
    const ordered = key ? sorted(rows, key, descending) : rows;
    fill(body, ...ordered.slice(0, MOST).map((row) => {
      const line = element("tr", { "aria-selected": options.onActivate ? String(chosen.has(row.id)) : undefined });
      options.columns.forEach((column, i) => {
        const text = column.write ? column.write(row[column.key], row) : String(row[column.key] ?? "");
        const open = i === 0 && options.onActivate;
        const inner = open ? element("button.theta-link", { type: "button", onclick: () => options.onActivate(row.id) }, text) : text;
        line.append(element(i === 0 ? "th" : column.numeric ? "td.theta-number" : "td", i === 0 ? { scope: "row" } : {}, inner));
      });
      return line;
    }));
    more.textContent = rows.length > MOST ? `The first ${MOST.toLocaleString("en-US")} of ${rows.length.toLocaleString("en-US")} rows; filter to see others.` : "";
  }

  return {
    element: box,
    setRows(next) {
      rows = next;
      draw();
    },
    setSelection(ids) {
      chosen = new Set(ids);
      draw();
    },
    destroy: () => box.remove(),
  };
}
