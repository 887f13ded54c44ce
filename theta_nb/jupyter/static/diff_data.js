// A diff as the views use it.
//
// `index` (JSON, see theta_nb/jupyter/diff_desk.py) has names, statuses, dtypes, shapes, the tree of modules, and the
// place of every parameter on the map; `numbers` is a Float32Array of index.columns × parameters, NaN where nothing was
// measured.

import { SIGNS } from "./colors.js";

/** Wrap an index and its numbers. */
export function createDiffData(index, numbers) {
  const many = index.names.length;
  const columnOf = Object.fromEntries(index.columns.map((name, i) => [name, i]));
  const ids = new Map(index.names.map((name, i) => [name, i]));
  const value = (metric, i) => (columnOf[metric] === undefined ? NaN : numbers[columnOf[metric] * many + i] ?? NaN);
  return {
    index,
    many,
    ids,
    value,
    status: (i) => index.statuses[index.status[i]],
    dtype: (i) => index.dtypes[index.dtype[i]],
    differs: (i) => index.statuses[index.status[i]] !== "unchanged",
    measured: numbers.some((number) => !Number.isNaN(number)),
    /** What the inspector shows of a parameter. */
    item(i) {
      const status = this.status(i);
      return {
        id: i, name: index.names[i], status, dtype: this.dtype(i), shape: index.shapes[i], was: index.was[i] ?? "",
        comparable: !["added", "removed", "unchanged", "renamed"].includes(status),
      };
    },
    /** Rows of the table of some parameters. */
    row(i) {
      const found = { id: i, name: index.names[i], status: this.status(i), shape: `${this.dtype(i)} [${index.shapes[i].join(", ")}]` };
      for (const metric of index.columns) found[metric] = value(metric, i);
      return found;
    },
    /**
     * Blocks against roles, of the parameters that are wanted; rows and columns without any are left out.
     *
     * @returns {{rows, columns, values: Float32Array, present: Uint8Array, marks: Map, leaf: Int32Array}}
     */
    map(metric, keep) {
      const wanted = [];
      for (let i = 0; i < many; i += 1) if (keep(i)) wanted.push(i);
      const rowAt = places(wanted.map((i) => index.role[i]));
      const columnAt = places(wanted.map((i) => index.block[i]));
      const cells = rowAt.size * columnAt.size;
      const [values, present, leaf] = [new Float32Array(cells).fill(NaN), new Uint8Array(cells), new Int32Array(cells).fill(-1)];
      const marks = new Map();
      for (const i of wanted) {
        const cell = rowAt.get(index.role[i]) * columnAt.size + columnAt.get(index.block[i]);
        [values[cell], present[cell], leaf[cell]] = [this.differs(i) ? value(metric, i) : NaN, 1, i];
        if (["added", "removed", "renamed"].includes(this.status(i))) marks.set(cell, SIGNS[this.status(i)]);
      }
      return {
        rows: [...rowAt.keys()].map((at) => index.roles[at] || "(itself)"), columns: [...columnAt.keys()].map((at) => index.blocks[at]),
        values, present, marks, leaf,
      };
    },
  };
}

/** Positions that some numbers get when they are put in order, without gaps. */
function places(numbers) {
  return new Map([...new Set(numbers)].sort((a, b) => a - b).map((number, at) => [number, at]));
}
