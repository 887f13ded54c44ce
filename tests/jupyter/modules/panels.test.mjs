// What panels compute from their data; how they look is tested in a browser.

import assert from "node:assert/strict";
import { test } from "node:test";

import { apart, nearest } from "./static/sweep_plot.js";
import { attempt, bestOf, metricOf, score, smallerIsBetter } from "./static/panel_parts.js";
import { chosenPoint, spanned, sweepable } from "./static/sweep_panel.js";
import { Superseded } from "./static/messages.js";

test("scores have digits enough to tell them apart, and no more", () => {
  const written = { 0.76626: "0.7663", 0.75: "0.75", 1: "1", 12.3456: "12.35", 120: "120", 0: "0", 0.0621: "0.0621" };
  for (const [value, text] of Object.entries(written)) assert.equal(score(Number(value)), text);
  assert.equal(score(-0.2), "-0.2");
  assert.equal(score(NaN), "—");
  assert.equal(score(1234567), "1.23e6");
  assert.equal(score(1.5e-7), "1.50e-7");
});

test("the best of some numbers ignores what is none", () => {
  assert.equal(bestOf([0.1, NaN, 0.3], false), 0.3);
  assert.equal(bestOf([0.1, Infinity, 0.3], true), 0.1);
  assert.ok(Number.isNaN(bestOf([NaN], false)));
  assert.ok(smallerIsBetter("val_loss") && smallerIsBetter("Perplexity") && !smallerIsBetter("accuracy"));
  assert.ok(Number.isNaN(metricOf({ a: "nan" }, "a")) && Number.isNaN(metricOf(null, "a")));
  assert.equal(metricOf({ a: "-inf".replace("inf", "Infinity") }, "a"), -Infinity);
});

test("what fails is said, and what was replaced is not", async () => {
  const said = [];
  assert.equal(await attempt(async () => 3, (text) => said.push(text)), 3);
  assert.equal(await attempt(async () => { throw new Error("no"); }, (text) => said.push(text)), null);
  assert.equal(await attempt(async () => { throw new Superseded("c"); }, (text) => said.push(text)), null);
  assert.deepEqual(said, ["no"]);
});

const TIES = {
  name: "ties",
  parameters: [
    { name: "weight", kind: "float", default: 1, low: -1, high: 2, per_model: true, help: "" },
    { name: "density", kind: "float", default: 1, low: 0, high: 1, per_model: true, help: "" },
    { name: "normalize", kind: "bool", default: true, help: "" },
    { name: "seed", kind: "int", default: 0, low: 0, high: null, help: "" },
    { name: "scale", kind: "float", default: 1, low: 0, high: 2, help: "" },
  ],
};

test("what can be swept: numbers, the likely ones first, one for each input", () => {
  const found = sweepable(TIES, ["ours", "theirs"]);
  assert.deepEqual(found.slice(0, 2).map(({ title }) => title), ["scale", "density"]);
  assert.ok(found.some(({ title, low, high }) => title === "weight of theirs" && low === 0 && high === 1));
  assert.ok(!found.some(({ name }) => name === "seed" || name === "normalize"));
  assert.deepEqual(sweepable(undefined, []), []);
});

test("the point that is chosen is found by its values, and only where all else is the same", () => {
  const parameters = { weight: 1, density: 0.5, scale: 1 };
  const panel = {
    settings: { choice: { method: "ties", parameters }, overrides: [] },
    axes: [{ name: "scale", label: "" }],
    points: [{ values: [0.5], number: 4 }, { values: [1], number: 5 }],
  };
  const chosen = (changes, overrides = []) => ({ choice: { method: "ties", parameters: { ...parameters, ...changes } }, overrides });
  assert.equal(chosenPoint(panel, chosen({ scale: 0.5 })), 4);
  assert.equal(chosenPoint(panel, chosen({ scale: 0.7 })), 0);
  assert.equal(chosenPoint(panel, chosen({ scale: 0.5, density: 1 })), 0);
  assert.equal(chosenPoint(panel, chosen({ scale: 0.5 }, [{ glob: "*" }])), 0);
  assert.equal(chosenPoint({ ...panel, settings: null }, chosen({})), 0);
  const each = { ...panel, axes: [{ name: "weight", label: "theirs" }] };
  assert.equal(chosenPoint(each, chosen({ weight: { ours: 1, theirs: 0.5 } })), 4);
  assert.equal(chosenPoint(each, chosen({ weight: 1 })), 0);
});

test("the nearest point that was measured", () => {
  const points = [{ x: 0, y: 1 }, { x: 1, y: NaN }, { x: 2, y: 3 }];
  assert.equal(nearest(points, 0.9), 0);
  assert.equal(nearest(points, 1.1), 2);
  assert.equal(nearest([], 1), -1);
});

test("labels that would lie on each other are moved apart, within their bounds", () => {
  assert.deepEqual(apart([10, 50], 12, 0, 100), [10, 50]);
  const moved = apart([50, 51, 49], 12, 0, 100).sort((a, b) => a - b);
  for (let i = 1; i < moved.length; i += 1) assert.ok(moved[i] - moved[i - 1] >= 12);
  assert.ok(Math.max(...apart([99, 98], 12, 0, 100)) <= 100);
});

test("a scale spans what there is", () => {
  const scale = spanned([0.5, NaN, 0.7]);
  assert.deepEqual([scale.share(0.5), scale.share(0.7)].map((share) => Number(share.toFixed(6))), [0, 1]);
  assert.ok(Number.isNaN(scale.share(NaN)));
  assert.ok(Number.isFinite(spanned([]).share(0.3)));
  assert.ok(Number.isFinite(spanned([0.3, 0.3]).share(0.3)));
});
