// From the merged sample of a parameter to the lengths of its result.
//
// The same arithmetic as engine/merging/outcomes.py, which says why: the sample tells how the result is put together from
// its parents, and what is at right angles to them; how long the parents are is known of the whole.

import { inner } from "./sample.js";
import { lengthsOf } from "./gram.js";

/**
 * @param {Float32Array} merged entries of the result
 * @param {Object} sample of createSample()
 * @param {Float64Array} gram inner products of the ancestor and the task vectors of the sample's inputs
 * @param {function} room of createRoom(Float64Array)
 * @returns {number[]} norm, distance to the ancestor, distances to the inputs
 */
export function estimatedLengths(merged, sample, gram, room) {
  return sample.share === 1 ? weighed(merged, sample) : concluded(merged, sample, gram, room(0, merged.length));
}

/** What is taken whole has no need of a guess. */
function weighed(merged, { parents }) {
  const distance = (parent) => {
    let square = 0;
    for (let i = 0; i < merged.length; i += 1) square += Math.fround(merged[i] - parent[i]) ** 2;
    return Math.sqrt(square);
  };
  return [Math.sqrt(inner(merged, merged)), ...parents.map(distance)];
}

function concluded(merged, { vectors, inverse, share }, gram, change) {
  subtract(merged, vectors[0], change);
  const along = vectors.map((vector) => product(vector, change));
  const coordinates = along.map((_, i) => along.reduce((sum, one, j) => sum + inverse[along.length * i + j] * one, 0));
  vectors.forEach((vector, k) => takeAway(vector, coordinates[k], change));
  const rest = square(change) * share;
  coordinates[0] += 1;
  return lengthsOf(coordinates, gram).map((length) => Math.sqrt(length * length + rest));
}

// One function for arrays of one kind each: a loop that has seen several kinds is ten times as slow.

function subtract(merged, base, change) {
  for (let i = 0; i < change.length; i += 1) change[i] = merged[i] - base[i];
}
function product(vector, change) {
  let sum = 0;
  for (let i = 0; i < change.length; i += 1) sum += vector[i] * change[i];
  return sum;
}
function takeAway(vector, coordinate, change) {
  for (let i = 0; i < change.length; i += 1) change[i] -= coordinate * vector[i];
}
function square(change) {
  let sum = 0;
  for (let i = 0; i < change.length; i += 1) sum += change[i] * change[i];
  return sum;
}
