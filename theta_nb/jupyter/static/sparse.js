// Methods that trim task vectors by magnitude, on a sample of a parameter: TIES and breadcrumbs.
//
// The same arithmetic as theta_nb/merges (sparsify.py, summing.py), rounded to float32 where that is, which the tests
// compare. What was trimmed is known by rank, so that another density is a comparison for each entry and no search.

import { graded, perInput } from "./coefficients.js";

const trimmed = { weight: 1, density: 1, normalize: true, scale: 1, scope: "tensor" };
const banded = { weight: 1, density: 0.9, gamma: 0.01, normalize: false, scale: 1 };

/** `preset`: parameters and their defaults; `election`: whether signs are elected; `lastFirst`: who of equals is larger. */
const METHODS = {
  ties: { preset: trimmed, election: true, lastFirst: false, kept: largest },
  breadcrumbs: { preset: banded, election: false, lastFirst: true, kept: band },
  breadcrumbs_ties: { preset: banded, election: true, lastFirst: true, kept: band },
};
const SHARES = ["density", "gamma"];

/** Whether a method can be estimated here, given a sample. */
export const isSparse = (method) => Object.hasOwn(METHODS, method);

/** What of a sample a method has to have at hand: how equal entries are ranked. */
export const ranksLastFirst = (method) => METHODS[method].lastFirst;

/** Ranks that are kept: from the first to before the second. */
function largest({ density }, k, length) {
  if (density[k] >= 1) return [0, length];
  return [0, density[k] > 0 ? Math.max(1, Math.floor(density[k] * length)) : 0];
}
function band({ density, gamma }, k, length) {
  if (density[k] >= 1) return [0, length];
  const kept = Math.floor(density[k] * length);
  const bottom = Math.max(0, length - kept - Math.floor(gamma[k] * length));
  return [length - bottom - kept, length - bottom];
}

/**
 * Parameters at a place, as Python binds them: lists have a number for each input.
 *
 * @param {{labels, depth}} place names of the inputs that have the parameter; 0 to 1
 * @returns {Object | null} null where only Python can tell, or will refuse
 */
export function boundTo(method, parameters, place) {
  const made = {};
  for (const [name, standard] of Object.entries(METHODS[method].preset)) {
    const given = parameters[name] ?? standard;
    if (typeof standard !== "number") made[name] = given;
    else made[name] = name === "scale" ? graded(given, place.depth) : perInput(given, standard, place);
  }
  const finite = [made.scale, ...made.weight].every(Number.isFinite);
  const within = SHARES.every((name) => (made[name] ?? []).every((share) => share >= 0 && share <= 1));
  return finite && within && typeof made.normalize === "boolean" && (made.scope ?? "tensor") === "tensor" ? made : null;
}

/** Arrays to compute in, as long as the longest sample so far. */
export function createRoom(Numbers = Float32Array) {
  let [length, held] = [0, []];
  return (at, wanted) => {
    if (wanted > length) [length, held] = [wanted, []];
    return (held[at] ??= new Numbers(length)).subarray(0, wanted);
  };
}

/**
 * The merged entries of a sample.
 *
 * @param {Object} bound of boundTo(); @param {Object} sample of createSample(); @param {function} room of createRoom()
 * @returns {Float32Array} valid until the next call
 */
export function mergedSample(method, bound, sample, room) {
  const { election, lastFirst, kept } = METHODS[method];
  const { length, vectors } = sample;
  const weights = bound.weight.map(Math.fround);
  const deltas = weights.map((weight, k) => room(3 + k, length));
  deltas.forEach((delta, k) => trim(vectors[k + 1], sample.rank(k, lastFirst), ...kept(bound, k, length), weights[k], delta));
  const total = room(0, length);
  if (election) elect(deltas, weights, bound.normalize, total, room(1, length), room(2, length));
  else add(deltas, bound, total);
  finish(total, Math.fround(bound.scale), vectors[0]);
  return total;
}

// An array of float32 rounds whatever is put into it, so that one step after the other is one loop after the other. No
// processor foresees signs and ranks: the loops have masks in place of branches, which also drop NaN and Inf.

const bitsOf = ({ buffer, byteOffset, length }) => new Int32Array(buffer, byteOffset, length);

function trim(vector, ranks, from, to, weight, out) {
  const [before, after] = [bitsOf(vector), bitsOf(out)];
  for (let i = 0; i < before.length; i += 1) after[i] = before[i] & ((~(ranks[i] - from) & (ranks[i] - to)) >> 31);
  if (weight !== 1) for (let i = 0; i < out.length; i += 1) out[i] *= weight;
}

/** The sum of the entries that have the sign of the sum of all; zero counts as positive, and has no vote. */
function elect(deltas, weights, normalize, total, all, divisor) {
  sum(deltas, all);
  total.fill(0);
  divisor.fill(0);
  deltas.forEach((delta, k) => {
    keepElected(delta, bitsOf(delta), all);
    plus(delta, total);
    if (normalize) vote(delta, weights[k], divisor);
  });
  if (normalize) for (let i = 0; i < total.length; i += 1) total[i] /= divisor[i] || 1;
}

/** Where there is a NaN the sum is one, and counts as positive, so it takes part and shows. */
function keepElected(delta, bits, all) {
  for (let i = 0; i < bits.length; i += 1) bits[i] &= (Number(delta[i] < 0) ^ Number(all[i] < 0)) - 1;
}

function vote(delta, weight, divisor) {
  for (let i = 0; i < divisor.length; i += 1) divisor[i] += weight * Number(delta[i] !== 0);
}

function add(deltas, { weight, normalize }, total) {
  sum(deltas, total);
  const divisor = weight.reduce((all, one) => all + one, 0);
  if (!normalize || Math.abs(divisor) < 1e-8) return;
  const rounded = Math.fround(divisor);
  for (let i = 0; i < total.length; i += 1) total[i] /= rounded;
}

function sum([first, ...others], out) {
  out.set(first);
  for (const delta of others) plus(delta, out);
}
function plus(delta, out) {
  for (let i = 0; i < out.length; i += 1) out[i] += delta[i];
}

function finish(total, scale, base) {
  if (scale !== 1) for (let i = 0; i < total.length; i += 1) total[i] *= scale;
  for (let i = 0; i < total.length; i += 1) total[i] += base[i];
}
