// What a linear merge would give, from inner products alone, as fast as a slider moves.
//
// The same arithmetic as theta_nb/merges (averages.py, spherical.py) and engine/merging/preview.py, for the methods whose
// coefficients are a line of code; the tests compare both. For every other method Python is asked.
//
// `gram` holds for each parameter the inner products of the ancestor and the task vectors, (inputs + 1)² numbers, NaN
// where there are none.

const PARALLEL = 0.9995; // absolute cosine above which spherical interpolation is linear

/** A parameter's value at a depth of 0 to 1: lists are gradients over the depth of the model. */
export function graded(value, depth) {
  if (!Array.isArray(value)) return value;
  const place = depth * (value.length - 1);
  const low = Math.min(Math.floor(place), Math.max(value.length - 2, 0));
  const [first, second] = [value[low], value[Math.min(low + 1, value.length - 1)]];
  return first + (place - low) * (second - first);
}

/** One value for each input. */
function forEach(value, preset, labels, depth) {
  const given = value ?? preset;
  if (given !== null && typeof given === "object" && !Array.isArray(given)) return labels.map((label) => graded(given[label] ?? preset, depth));
  return labels.map(() => graded(given, depth));
}

const COEFFICIENTS = {
  linear({ weight, normalize = true }, { labels, depth }) {
    const weights = forEach(weight, 1, labels, depth);
    const total = weights.reduce((sum, one) => sum + one, 0);
    if (normalize && Math.abs(total) < 1e-8) return null;
    const found = normalize ? weights.map((one) => one / total) : weights;
    return [found.reduce((sum, one) => sum + one, 0), ...found];
  },
  task_arithmetic({ weight, normalize = false, scale = 1 }, { labels, depth }) {
    const weights = forEach(weight, 1, labels, depth);
    const total = weights.reduce((sum, one) => sum + one, 0);
    const factor = graded(scale, depth) / (normalize && Math.abs(total) >= 1e-8 ? total : 1);
    return [1, ...weights.map((one) => factor * one)];
  },
  slerp({ t = 0.5 }, { depth, gram, at }) {
    const where = graded(t, depth);
    const g = (i, j) => gram[at + 3 * i + j];
    const inner = (i, j) => g(0, 0) + g(i, 0) + g(0, j) + g(i, j);
    const norms = Math.sqrt(Math.max(inner(1, 1), 0) * Math.max(inner(2, 2), 0));
    const cosine = norms > 0 ? Math.max(-1, Math.min(1, inner(1, 2) / norms)) : 0;
    if (!(Math.abs(cosine) <= PARALLEL)) return [1, 1 - where, where];
    const theta = Math.acos(cosine);
    const [first, second] = [Math.sin((1 - where) * theta) / Math.sin(theta), Math.sin(where * theta) / Math.sin(theta)];
    return [first + second, first, second];
  },
};

/** Whether a choice can be computed here. */
export const isLocal = (method, inputs) => Object.hasOwn(COEFFICIENTS, method) && (method !== "slerp" || inputs === 2);

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
      const found = COEFFICIENTS[method](parameters, { labels, depth: index.depth[i], gram, at });
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
