// Estimates from samples: as Python makes them, and only where they are of the right weights.

import { readFileSync } from "node:fs";
import test from "node:test";
import assert from "node:assert/strict";
import { createDrafts } from "./static/draft.js";
import { createMergeData } from "./static/merge_data.js";
import { createSamples } from "./static/samples.js";
import { createSample, inverseOf, ranksOf } from "./static/sample.js";
import { isSparse } from "./static/sparse.js";

const bytes = readFileSync("estimates.bin");
const numbers = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
const told = JSON.parse(readFileSync("estimates.json", "utf-8"));
const array = ([start, stop]) => numbers.subarray(start, stop);

/** A merge in which everything that is merged is by a method. */
function dataOf({ index, facts, gram }, before, method = null) {
  const choices = before.choices.map((choice) => (choice.method && method ? { ...choice, method } : choice));
  return createMergeData(index, { facts: array(facts), gram: array(gram) }, { numbers: array(before.numbers), choices });
}
/** Samples as Python answers: as many as fit, of those that are asked for. */
function answering({ samples }, asked = []) {
  const at = (place) => samples.find(({ places }) => places.includes(place));
  return async (places) => (asked.push(places), { ...at(places[0]), values: { data: array(at(places[0]).values) } });
}
/** The longest task vector: distances are between such, and the page knows inner products in float32. */
const longest = (data, i) => Math.max(...data.index.labels.map((_, k) => data.fact(`change ${k}`, i) || 0));

for (const session of told) {
  test(`estimates of ${session.index.labels.length} inputs are those of Python`, async () => {
    const samples = createSamples(answering(session));
    const draftOf = createDrafts(samples);
    let compared = 0;
    for (const { edits, before, wanted } of session.cases) {
      const [data, want] = [dataOf(session, before), array(wanted)];
      for (const method of new Set(edits.map((edit) => edit.method).filter(isSparse))) await samples.want(dataOf(session, before, method), session.key);
      const found = draftOf(data, edits);
      assert.ok(found, JSON.stringify(edits));
      session.index.outcome.forEach((row, at) => {
        if (row === "choice") return; // which choice it is has no number before it is made
        for (let i = 0; i < data.many; i += 1) {
          const [have, wants] = [found.numbers[at * data.many + i], want[at * data.many + i]];
          const near = Number.isFinite(wants) ? Math.abs(have - wants) <= 5e-6 * Math.max(wants, row === "norm" ? 0 : longest(data, i)) : Object.is(have, wants);
          assert.ok(near, `${row} of ${session.index.names[i]}: ${have}, not ${wants} ${JSON.stringify(edits)}`);
          compared += 1;
        }
      });
    }
    assert.ok(compared > 2000);
  });
}

test("what is as it was chosen keeps its numbers, which may be exact", async () => {
  const [session] = told.slice(-1);
  const samples = createSamples(answering(session));
  const [{ before }] = session.cases;
  const data = dataOf(session, before);
  await samples.want(data, session.key);
  const found = createDrafts(samples)(data, [{ method: "ties", parameters: { density: 0.77 } }]);
  assert.deepEqual(found.numbers, array(before.numbers));
});

test("samples come some at a time, once, and are those of the weights that are shown", async () => {
  const [session] = told.slice(-1);
  const [{ before }] = session.cases;
  const [data, asked] = [dataOf(session, before), []];
  const samples = createSamples(answering(session, asked));
  assert.equal(samples.get(0, "ties"), null);
  await samples.want(data, session.key);
  assert.ok(session.samples.length > 1, "more than a message holds");
  assert.ok(asked.length >= session.samples.length);
  const known = session.index.names.findIndex((name) => name.endsWith("wide"));
  assert.ok(samples.get(known, "ties"));
  assert.equal(samples.get(known, "breadcrumbs"), null, "equal entries are ranked in another way there");
  const times = asked.length;
  await samples.want(data, session.key);
  assert.equal(asked.length, times);
  await samples.want(data, "other weights");
  assert.equal(samples.get(known, "ties"), null, "these are of other weights than the inner products");
  await samples.want(data, session.key);
  assert.ok(samples.get(known, "ties"));
  samples.destroy();
  assert.equal(samples.get(known, "ties"), null);
});

test("whatever comes after a view is gone, or never, is nothing", async () => {
  const [session] = told;
  const data = dataOf(session, session.cases[0].before);
  let answer = null;
  const samples = createSamples(() => new Promise((resolve) => (answer = resolve)));
  const wanted = samples.want(data, session.key);
  samples.destroy();
  answer(await answering(session)([0]));
  await wanted;
  assert.ok(data.index.names.every((_, i) => samples.get(i, "ties") === null));
  const refused = createSamples(async () => { throw new Error("the kernel is gone"); });
  await refused.want(data, session.key);
  const empty = createSamples(async () => ({ key: session.key, places: [], lengths: [], shares: [], inputs: [], values: { data: new Float32Array(0) } }));
  await empty.want(data, session.key);
});

test("other work gets its turn while samples are sorted", async () => {
  const [session] = told.slice(-1);
  const data = dataOf(session, session.cases[0].before);
  let turns = 0;
  const now = performance.now;
  let clock = 0;
  performance.now = () => (clock += 3); // two sorts are too long a time
  try {
    await createSamples(answering(session), { pause: async () => void (turns += 1) }).want(data, session.key);
  } finally {
    performance.now = now;
  }
  assert.ok(turns > 20, `${turns}`);
});

test("only Python tells of what has no sample, and of what it would refuse", async () => {
  const [session] = told.slice(-1);
  const data = dataOf(session, session.cases[0].before);
  const none = async (places) => ({ key: session.key, places, lengths: places.map(() => 0), shares: places.map(() => 1), inputs: places.map(() => [0]), values: { data: new Float32Array(0) } });
  const without = createSamples(none);
  await without.want(data, session.key);
  assert.equal(createDrafts(without)(data, [{ method: "ties", parameters: {} }]), null, "float64, or too long");
  const samples = createSamples(answering(session));
  await samples.want(data, session.key);
  const draftOf = createDrafts(samples);
  const refused = [{ density: 2 }, { density: NaN }, { density: [0, -1] }, { density: "x" }, { scope: "model" }, { scope: ["tensor"] }, { normalize: [true] }, { scale: { ours: 1 } }, { weight: { ours: "x" } }];
  for (const parameters of refused) assert.equal(draftOf(data, [{ method: "ties", parameters }]), null, JSON.stringify(parameters));
  assert.equal(draftOf(data, [{ method: "lines:ties", parameters: {} }]), null);
  assert.equal(isSparse("toString"), false);
});

test("ranks are by magnitude, of equal ones by place", () => {
  const vector = Float32Array.of(1, -3, 0, 3, NaN, -0, -Infinity);
  assert.deepEqual([...ranksOf(vector)], [4, 2, 5, 3, 0, 6, 1]);
  assert.deepEqual([...ranksOf(vector, true)], [4, 3, 6, 2, 0, 5, 1]);
  assert.deepEqual([...ranksOf(vector.subarray(1, 3))], [0, 1]);
});

test("vectors that add nothing have no say in a projection", () => {
  const [plane] = [inverseOf(Float64Array.of(4, 0, 0, 0, 1, 1, 0, 1, 1))]; // the last two are the same
  const found = [0, 1, 2].map((i) => [8, 2, 2].reduce((sum, product, j) => sum + plane[3 * i + j] * product, 0));
  found.forEach((value, i) => assert.ok(Math.abs(value - [2, 1, 1][i]) < 1e-12, `${found}`));
  assert.deepEqual([...inverseOf(Float64Array.of(0, 0, 0, 0))], [0, 0, 0, 0]);
  assert.ok(inverseOf(Float64Array.of(1, Infinity, Infinity, 1)).every(Number.isNaN));
});

test("what is no sample is none", () => {
  assert.equal(createSample({ inputs: [0], share: 1, length: 0, values: new Float32Array(0) }), null);
  assert.equal(createSample({ inputs: [0], share: 1, length: 2, values: new Float32Array(3) }), null);
});
