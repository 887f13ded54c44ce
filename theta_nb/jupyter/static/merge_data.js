// A merge as the views use it.
//
//   index    JSON, see theta_nb/jupyter/merge_index.py: names, badges, states, places, methods
//   facts    Float32Array of index.facts × parameters: what no choice changes
//   gram     Float32Array of parameters × (inputs + 1)²: inner products of the ancestor and the task vectors
//   outcome  {numbers: Float32Array of index.outcome × parameters, choices}: what the choices give
// NaN stands where nothing is known.

import { KIND_NAMES, kindOf } from "./quick_picks.js";
import { percent, short } from "./numbers.js";

const signedPercent = (value) => (Number.isNaN(value) ? "—" : `${value > 0 ? "+" : value < 0 ? "−" : ""}${percent(Math.abs(value))}`);
const cosineOf = (value) => (Number.isNaN(value) ? "—" : value.toFixed(2).replace("-", "−"));

/** What the map can be coloured by. `fixed`: no choice changes it. */
export const MERGE_METRICS = {
  to_ours: { label: "distance to ours", long: "‖result − ours‖ / ‖ours − theirs‖: 0 is ours, 1 as far as theirs", write: short, high: 1 },
  to_theirs: { label: "distance to theirs", long: "‖result − theirs‖ / ‖ours − theirs‖: 0 is theirs, 1 as far as ours", write: short, high: 1 },
  moved: { label: "distance to the ancestor", long: "‖result − original‖ / ‖original‖", write: short, log: true },
  norm: { label: "norm of the result", long: "‖result‖ over the mean norm of the inputs, minus 1", write: signedPercent, symmetric: true },
  choice: { label: "chosen method", long: "what is done with each parameter", categories: true },
  cosine: { label: "cosine of task vectors", long: "cosine between what the inputs changed; the smallest of all pairs", write: cosineOf, symmetric: true, high: 1, fixed: true },
  conflict: { label: "sign conflict", long: "share of the entries changed by several at which they go in opposite directions", write: percent, high: 1, fixed: true },
  change: { label: "largest change", long: "largest ‖δ‖ / ‖original‖", write: short, log: true, fixed: true },
};

/** Colours and signs of what happened to a parameter. */
export const BADGES = {
  both: { sign: "◆", color: "#e69f00", long: "changed by both: a method decides" },
  conflict: { sign: "!", color: "#d55e00", long: "in conflict: waits for a choice" },
  ours: { sign: "◀", color: "#2b8cc4", long: "changed by ours alone" },
  theirs: { sign: "▶", color: "#009e73", long: "changed by theirs alone" },
  alike: { sign: "=", color: "#8c8c8c", long: "changed alike" },
  added: { sign: "+", color: "#009e73", long: "added" },
  deleted: { sign: "−", color: "#d55e00", long: "deleted" },
  renamed: { sign: "→", color: "#b8860b", long: "renamed" },
  equal: { sign: "·", color: "#8c8c8c", long: "the same everywhere" },
};

/** Wrap an index and its numbers. */
export function createMergeData(index, opening, outcome) {
  const many = index.names.length;
  const ids = new Map(index.names.map((name, i) => [name, i]));
  const factAt = Object.fromEntries(index.facts.map((name, i) => [name, i]));
  const outcomeAt = Object.fromEntries(index.outcome.map((name, i) => [name, i]));
  const { facts, gram } = opening;
  const fact = (name, i) => facts[factAt[name] * many + i] ?? NaN;
  const result = (name, i, from = outcome) => from.numbers[outcomeAt[name] * many + i] ?? NaN;
  const members = index.blocks.map(() => []);
  for (let i = 0; i < many; i += 1) members[index.block[i]].push(i);

  function meanNorm(i) {
    let [total, number] = [0, 0];
    for (let k = 0; k < index.labels.length; k += 1) {
      const norm = fact(`norm ${k}`, i);
      if (norm === norm) [total, number] = [total + norm, number + 1];
    }
    return total / number;
  }
  let kindsFound = null;
  const kinds = () => (kindsFound ??= index.names.map(kindOf));
  const means = Float32Array.from({ length: many }, (_, i) => meanNorm(i));
  let named = { from: null };
  /** Names of what is done, and for each choice the position of its name: parameters are named where they differ. */
  function categories(from) {
    if (named.from === from) return named;
    const seen = new Map();
    for (const { name, parameters } of from.choices) {
      for (const [key, value] of Object.entries(parameters)) {
        const id = `${name}/${key}`;
        if (!seen.has(id)) seen.set(id, new Set());
        seen.get(id).add(JSON.stringify(value));
      }
    }
    const label = ({ name, parameters, open }) => {
      const differing = Object.entries(parameters).filter(([key]) => seen.get(`${name}/${key}`).size > 1);
      return open ? "waits" : [name, ...differing.map(([key, value]) => `${key}=${JSON.stringify(value)}`)].join(" ");
    };
    const labels = from.choices.map(label);
    const names = [...new Set(labels)].sort();
    return (named = { from, names, of: labels.map((one) => names.indexOf(one)) });
  }
  const METRIC = {
    to_ours: (i, from) => result("to 0", i, from) / fact("apart", i),
    to_theirs: (i, from) => result("to 1", i, from) / fact("apart", i),
    moved: (i, from) => result("moved", i, from) / fact("base_norm", i),
    norm: (i, from) => result("norm", i, from) / means[i] - 1,
    choice: (i, from) => categories(from).of[result("choice", i, from)] ?? NaN,
    cosine: (i) => fact("cosine", i), conflict: (i) => fact("conflict", i), change: (i) => fact("change", i),
  };
  return {
    index, many, ids, gram, outcome, fact, result, members,
    badge: (i) => index.badges[index.badge[i]],
    state: (i) => index.states[index.state[i]],
    shape: (i) => `${index.dtypes[index.dtype[i]]} [${index.shapes[i].join(", ")}]`,
    value: (metric, i, from = outcome) => METRIC[metric](i, from),
    choice: (i, from = outcome) => from.choices[result("choice", i, from)],
    open: (i) => result("open", i) === 1,
    estimated: (i, from = outcome) => result("estimated", i, from) === 1,
    /** Parameters whose numbers only a pass over the weights tells. */
    inexact() {
      const found = [];
      for (let i = 0; i < many; i += 1) {
        if (result("estimated", i) === 1 || (index.contested[i] && !this.open(i) && this.choice(i)?.method && Number.isNaN(result("norm", i)) && fact("apart", i) >= 0)) found.push(i);
      }
      return found;
    },
    /** Names of what is done, as the metric `choice` counts them. */
    names: (from = outcome) => categories(from).names,
    /** All values of a metric. */
    values(metric, from = outcome) {
      const of = METRIC[metric];
      return Float32Array.from({ length: many }, (_, i) => of(i, from));
    },
    /**
     * Blocks against roles or kinds, of the parameters that are wanted; rows and columns without any are left out.
     *
     * @returns {{rows, columns, present: Uint8Array, marks: Map, leaves: Array<number[]>}} without values; `leaves` are
     *   the parameters of each cell: one, or several of a kind
     */
    layout(keep, rows = "role") {
      const wanted = [];
      for (let i = 0; i < many; i += 1) if (keep(i)) wanted.push(i);
      const [rowOf, titles] = rows === "kind" ? [(i) => kinds()[i], KIND_NAMES] : [(i) => index.role[i], index.roles];
      const rowAt = places(wanted.map(rowOf));
      const columnAt = places(wanted.map((i) => index.block[i]));
      const cells = rowAt.size * columnAt.size;
      const [present, leaves, marks] = [new Uint8Array(cells), Array.from({ length: cells }, () => []), new Map()];
      for (const i of wanted) {
        const cell = rowAt.get(rowOf(i)) * columnAt.size + columnAt.get(index.block[i]);
        present[cell] = 1;
        leaves[cell].push(i);
        if (["conflict", "added", "deleted", "renamed"].includes(this.badge(i))) marks.set(cell, BADGES[this.badge(i)].sign);
      }
      return {
        rows: [...rowAt.keys()].map((at) => titles[at] || "(itself)"), columns: [...columnAt.keys()].map((at) => index.blocks[at]),
        present, marks, leaves,
      };
    },
  };
}

/** Positions that some numbers get when they are put in order, without gaps. */
function places(numbers) {
  return new Map([...new Set(numbers)].sort((a, b) => a - b).map((number, at) => [number, at]));
}
