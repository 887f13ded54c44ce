// Samples of the weights that the page holds, so that what a hand tries is estimated here.
//
// They come some at a time, are sorted in slices that nobody notices, and count once they are ready: until then, and for
// what has none, Python is asked. `key` says of which weights they are; with another one all are forgotten.

import { createSample } from "./sample.js";
import { isSparse, ranksLastFirst } from "./sparse.js";

const SLICE = 5; // ms
const SOME = 500; // parameters that are asked for at once; Python answers with as many as it sends at once
const WHOLE = 8192; // entries of a parameter that is taken whole (engine/merging/sampling.py); of others it is half
const MOST = 32e6; // bytes; with more, a move would take longer here than there

/**
 * @param {function(number[]): Promise<Object>} ask for samples of parameters, as merge_samples.py answers
 * @param {{pause: function(): Promise}} [options] lets the page do other things
 */
export function createSamples(ask, { pause = () => new Promise((done) => setTimeout(done)) } = {}) {
  let [held, key, generation] = [new Map(), "", 0];

  /** Take an answer; how many of the wanted ones it is about. */
  function take(found, wanted) {
    let [start, taken] = [0, 0];
    found.places.forEach((i, at) => {
      const [length, inputs] = [found.lengths[at], found.inputs[at]];
      const stop = start + length * (inputs.length + 1);
      held.set(i, createSample({ inputs, length, share: found.shares[at], values: found.values.data.subarray(start, stop) }));
      if (wanted.has(i)) taken += 1;
      start = stop;
    });
    return taken;
  }

  async function load(wanted) {
    const mine = (generation += 1);
    let began = performance.now();
    const rested = async () => {
      if (performance.now() - began > SLICE) await pause(), (began = performance.now());
      return mine === generation;
    };
    for (;;) {
      const missing = [...wanted.keys()].filter((i) => !held.has(i));
      if (missing.length) {
        const found = await ask(missing.slice(0, SOME));
        if (mine !== generation || found.key !== key || !take(found, wanted)) return;
      }
      for (const [i, method] of wanted) {
        const sample = held.get(i);
        if (!sample || sample.isRanked(ranksLastFirst(method))) continue;
        for (let k = 0; k < sample.inputs.length; k += 1) {
          sample.rank(k, ranksLastFirst(method));
          if (!(await rested())) return;
        }
      }
      if (missing.length <= SOME && [...wanted.keys()].every((i) => held.has(i))) return;
    }
  }

  return {
    /** A sample that is ready for a method; null where there is none. */
    get(i, method) {
      const sample = held.get(i);
      return sample?.isRanked(ranksLastFirst(method)) ? sample : null;
    },
    /**
     * Have samples at hand, soon.
     *
     * @param {Object} data of createMergeData(); @param {string} of key of its Gram matrices
     */
    want(data, of) {
      if (of !== key) [held, key] = [new Map(), of];
      const wanted = new Map();
      let nbytes = 0;
      for (let i = 0; i < data.many; i += 1) {
        const method = data.choice(i)?.method;
        if (!method || !isSparse(method) || Number.isNaN(data.gram[i * (data.index.labels.length + 1) ** 2])) continue;
        const entries = data.index.shapes[i].reduce((product, side) => product * side, 1);
        nbytes += 4 * (data.index.labels.length + 1) * (entries > WHOLE ? WHOLE / 2 : entries);
        wanted.set(i, method);
      }
      if (nbytes > MOST || !data.gram.length) wanted.clear();
      return load(wanted).catch(() => {}); // without samples Python is asked, which says what is wrong
    },
    destroy() {
      generation += 1;
      held = new Map();
    },
  };
}
