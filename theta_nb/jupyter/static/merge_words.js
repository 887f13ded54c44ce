// What is said of a cell of the map of a merge: its numbers, and once a pointer rests there, the formula with them.
//
// Data contract: cells of layout() in merge_data.js; `model` of createMergeModel(). Python is asked to `explain`.

import { MERGE_METRICS } from "./merge_data.js";
import { Superseded } from "./messages.js";
import { cellValues, extent } from "./merge_cells.js";
import { count } from "./numbers.js";

const REST = 80; // ms that a pointer stays before Python is asked

/**
 * @param {Object} options
 *   index, client, model; metric(): what the map shows; shown(): the outcome that it shows, model.outcome or another;
 *   onTold(): there is more to say of what was pointed at.
 */
export function createTeller({ index, client, model, metric, shown, onTold }) {
  let explained = { leaf: -1, revision: -1, lines: [] };
  let [timer, pointed] = [0, -1];
  const isExplained = (leaf) => explained.leaf === leaf && explained.revision === model.chosen.revision;

  function explain(leaf) {
    clearTimeout(timer);
    pointed = leaf;
    if (leaf < 0 || model.draft || isExplained(leaf)) return;
    timer = setTimeout(async () => {
      try {
        const found = await client.ask("explain", "explain", { name: index.names[leaf] });
        explained = { leaf, revision: model.chosen.revision, lines: found.text.split("\n").slice(1).map((line) => line.trim()) };
        onTold();
      } catch (error) {
        if (!(error instanceof Superseded)) explained = { leaf, revision: model.chosen.revision, lines: [error.message] };
      }
    }, REST);
  }

  function describeOne(i) {
    if (i < 0) return [];
    const [key, from] = [metric(), shown()];
    const { label, write, fixed } = MERGE_METRICS[key];
    const value = model.data.value(key, i, from);
    const made = model.data.choice(i, from);
    const lines = [index.names[i], `${model.data.state(i)} · ${model.data.shape(i)}`];
    const about = model.data.estimated(i, from) && !fixed ? "about " : "";
    if (key !== "choice" && value === value) lines.push(`${label}: ${about}${write(value)}`);
    if (from === model.outcome && isExplained(i)) return [...lines, ...explained.lines];
    return made ? [...lines, made.open ? "waits for a choice" : made.name] : lines;
  }

  function describeMany(cells, row, column, leaves) {
    const [key, from] = [metric(), shown()];
    const { label, write, categories } = MERGE_METRICS[key];
    const lines = [`${cells.rows[row]} of ${cells.columns[column]}`, count(leaves.length, "parameter")];
    const range = categories ? null : extent(leaves.map((i) => model.data.value(key, i, from)));
    if (range) lines.push(`${label}: mean ${write(cellValues({ leaves: [leaves] }, model.data.values(key, from))[0])}, from ${write(range[0])} to ${write(range[1])}`);
    const done = new Map();
    for (const i of leaves) {
      const made = model.data.choice(i, from);
      const name = made?.open ? "waits for a choice" : made?.name;
      if (name) done.set(name, (done.get(name) ?? 0) + 1);
    }
    return [...lines, ...[...done].map(([name, number]) => (done.size > 1 ? `${number}: ${name}` : name))];
  }

  return {
    /** Lines about a cell. */
    describe(cells, row, column) {
      const leaves = cells.leaves[row * cells.columns.length + column] ?? [];
      return leaves.length < 2 ? describeOne(leaves[0] ?? -1) : describeMany(cells, row, column, leaves);
    },
    /** Have a parameter explained if the pointer rests there; -1 for none. */
    explain,
    explainAgain: () => explain(pointed),
    destroy: () => clearTimeout(timer),
  };
}
