// What a linear merge would give, from inner products alone, as fast as a slider moves.
//
// The same arithmetic as engine/merging/outcomes.py and preview.py, for all methods of coefficients.js; the tests compare
// both. For every other method Python is asked.
//
// `gram` holds for each parameter the inner products of the ancestor and the task vectors, (inputs + 1)² numbers, NaN
// where there are none.

import { coordinatesOf, isLocal } from "./coefficients.js";

/** Norm of a vector given by its coordinates, for the parameter whose products begin at `at`. */
function lengthOf(coordinates, gram, at) {
  const size = coordinates.length;
  let square = 0;
  for (let i = 0; i < size; i += 1) {
    for (let j = 0; j < size; j += 1) square += coordinates[i] * coordinates[j] * gram[at + size * i + j];
  }
  return Math.sqrt(Math.max(square, 0));
}

/**
 * The outcome that edits would give.
 *
 * @param {Object} data of createMergeData()
 * @param {Array<{method, parameters, names?, block?}>} edits as Python takes them
 * @returns {{numbers: Float32Array, choices: Object[]} | null} null if only Python can tell
 */
export function draftOutcome(data, edits) {
  const { index, outcome, gram, many } = data;
  const labels = index.labels;
  const size = labels.length + 1;
  if (gram.length !== many * size * size || !outcome.numbers.length) return null;
  if (edits.some((edit) => edit.method !== null && !isLocal(edit.method, labels.length))) return null;
  const numbers = outcome.numbers.slice();
  const row = Object.fromEntries(index.outcome.map((name, at) => [name, at * many]));
  const coordinates = new Float64Array(size);
  const cleared = new Set(edits.filter((edit) => edit.method === null).map((edit) => edit.block));
  for (const { method, parameters, names, block } of edits) {
    if (method === null) continue; // as everything else: the edit for everything says what that is
    for (const i of affected(data, names, block, cleared)) {
      const at = i * size * size;
      if (Number.isNaN(gram[at])) continue;
      if (labels.some((_, k) => Number.isNaN(gram[at + (size + 1) * (k + 1)]))) return null; // an input lacks it, or has NaN
      const found = coordinatesOf(method, parameters, { labels, depth: index.depth[i], size, gram, at });
      if (!found) return null;
      coordinates.set(found);
      numbers[row.norm + i] = lengthOf(coordinates, gram, at);
      // The ancestor is the origin; an input is the origin plus its difference.
      coordinates[0] -= 1;
      numbers[row.moved + i] = lengthOf(coordinates, gram, at);
      for (let k = 0; k < labels.length; k += 1) {
        coordinates[1 + k] -= 1;
        numbers[row[`to ${k}`] + i] = lengthOf(coordinates, gram, at);
        coordinates[1 + k] += 1;
      }
      numbers[row.open + i] = numbers[row.estimated + i] = 0;
    }
  }
  return { numbers, choices: outcome.choices };
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
