// What edits would give, as fast as a slider moves.
//
// Methods of coefficients.js follow from Gram matrices alone, those of sparse.js are estimated from samples. For every
// other method Python is asked.

import { boundTo, createRoom, isSparse, mergedSample } from "./sparse.js";
import { coordinatesOf, isLocal } from "./coefficients.js";
import { estimatedLengths } from "./estimate.js";
import { lengthsOf } from "./gram.js";

const AS_IT_IS = [];

/**
 * @param {Object} [samples] of createSamples()
 * @returns {function(Object, Array<{method, parameters, names?, block?}>): ({numbers, choices} | null)} takes data of
 *   createMergeData() and edits as Python takes them; null if only Python can tell
 */
export function createDrafts(samples = { get: () => null }) {
  const [room, wide] = [createRoom(), createRoom(Float64Array)];

  /** Lengths of the result, and the inputs that it is made of; null if only Python can tell. */
  function combined(data, { method, parameters }, i, at) {
    const { index: { labels, depth }, gram } = data;
    const size = labels.length + 1;
    if (labels.some((_, k) => Number.isNaN(gram[at + (size + 1) * (k + 1)]))) return null; // an input lacks it, or has NaN
    const found = coordinatesOf(method, parameters, { labels, depth: depth[i], size, gram, at });
    return found && { lengths: lengthsOf(found, gram, at), inputs: labels.map((_, k) => k), estimated: 0 };
  }

  function estimated(data, { method, parameters }, i, at) {
    const { index: { labels, depth }, gram } = data;
    const sample = samples.get(i, method);
    if (!sample) return null;
    const bound = boundTo(method, parameters, { labels: sample.inputs.map((k) => labels[k]), depth: depth[i] });
    if (!bound) return null;
    if (isChosen(data.choice(i), method, bound)) return AS_IT_IS; // its numbers may be exact already
    const size = labels.length + 1;
    const places = [0, ...sample.inputs.map((k) => k + 1)];
    const products = Float64Array.from(places.flatMap((row) => places.map((column) => gram[at + size * row + column])));
    const lengths = estimatedLengths(mergedSample(method, bound, sample, room), sample, products, wide);
    return { lengths, inputs: sample.inputs, estimated: Number(sample.share !== 1) };
  }

  return (data, edits) => {
    const { index, outcome, gram, many } = data;
    const size = index.labels.length + 1;
    if (gram.length !== many * size * size || !outcome.numbers.length) return null;
    const numbers = outcome.numbers.slice();
    const row = Object.fromEntries(index.outcome.map((name, at) => [name, at * many]));
    const cleared = new Set(edits.filter((edit) => edit.method === null).map((edit) => edit.block));
    for (const edit of edits) {
      if (edit.method === null) continue; // as everything else: the edit for everything says what that is
      const lengthsOfEdit = isLocal(edit.method, index.labels.length) ? combined : isSparse(edit.method) ? estimated : null;
      if (!lengthsOfEdit) return null;
      for (const i of affected(data, edit.names, edit.block, cleared)) {
        if (Number.isNaN(gram[i * size * size])) continue;
        const found = lengthsOfEdit(data, edit, i, i * size * size);
        if (!found) return null;
        if (found === AS_IT_IS) continue;
        const [norm, moved, ...distances] = found.lengths;
        [numbers[row.norm + i], numbers[row.moved + i], numbers[row.open + i], numbers[row.estimated + i]] = [norm, moved, 0, found.estimated];
        found.inputs.forEach((k, at) => (numbers[row[`to ${k}`] + i] = distances[at]));
      }
    }
    return { numbers, choices: outcome.choices };
  };
}

/** Whether a parameter is merged so already. */
function isChosen(choice, method, bound) {
  if (choice?.method !== method) return false;
  return Object.entries(bound).every(([name, value]) => {
    const chosen = choice.parameters[name];
    return Array.isArray(value) ? value.every((one, k) => one === (Array.isArray(chosen) ? chosen[k] : chosen)) : value === chosen;
  });
}

/** Parameters that an edit is about. */
function* affected(data, names, block, cleared) {
  const { index, members } = data;
  if (names) {
    for (const name of names) yield data.ids.get(name);
    return;
  }
  const some = block === undefined ? null : members[index.blocks.indexOf(block)];
  for (let at = 0; at < (some ?? index.names).length; at += 1) {
    const i = some ? some[at] : at;
    if (!index.contested[i]) continue;
    const override = data.choice(i)?.override;
    // What an override says of single parameters counts before what is said of blocks, and that before everything.
    if (override === "names" || (override === "block" && !some && !cleared.has(index.blocks[index.block[i]]))) continue;
    yield i;
  }
}
