// The parameters of a merge as a table: what the map shows, for screen readers and for whoever would rather read numbers.
//
// Data contract: data of createMergeData().

import { MERGE_METRICS } from "./merge_data.js";
import { createTable } from "./table.js";

/**
 * @param {HTMLElement} root where to draw
 * @param {{metrics: string[], onActivate: function(number): void}} options metrics that this merge has
 */
export function createMergeTable(root, { metrics, onActivate }) {
  const numeric = metrics.filter((key) => !MERGE_METRICS[key].categories);
  const table = createTable(root, {
    caption: "parameters and what is done with them", key: "",
    columns: [
      { key: "name", label: "parameter" }, { key: "state", label: "state" }, { key: "done", label: "method" },
      ...numeric.map((key) => ({ key, label: MERGE_METRICS[key].label, title: MERGE_METRICS[key].long, numeric: true, write: MERGE_METRICS[key].write })),
    ],
    onActivate,
  });
  return {
    element: table.element,
    /** Show the parameters that are wanted, with the numbers of an outcome. */
    setData(data, keep, from) {
      const rows = [];
      for (let i = 0; i < data.many; i += 1) {
        if (!keep(i)) continue;
        const made = data.choice(i, from);
        const numbers = Object.fromEntries(numeric.map((key) => [key, data.value(key, i, from)]));
        rows.push({ id: i, name: data.index.names[i], state: data.badge(i), done: made?.open ? "waits" : made?.name ?? "", ...numbers });
      }
      table.setRows(rows);
    },
    setSelection: (leaves) => table.setSelection(leaves),
    destroy: () => table.destroy(),
  };
}
