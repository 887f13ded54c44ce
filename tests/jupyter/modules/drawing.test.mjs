import assert from "node:assert/strict";
import test from "node:test";

import { colorAt, createScale, ramp, sequential, signed, ticksOf } from "./static/colors.js";
import { axisOf, cellAt, scrolledTo, seen } from "./static/scroll.js";
import { boundsOf } from "./static/curve.js";
import { extentOf, raised, shareAt } from "./static/histogram.js";
import { extentOfCell } from "./static/picture.js";
import { lanesOf } from "./static/graph.js";
import { sorted } from "./static/table.js";

test("a linear scale begins at zero and ends at the largest value", () => {
  const scale = createScale([0, 2, NaN, 4, Infinity]);
  assert.deepEqual([0, 1, 4, 9, Infinity].map(scale.share), [0, 0.25, 1, 1, 1]);
  assert.ok(Number.isNaN(scale.share(NaN)));
});

test("a logarithmic scale spans the positive values, and zero has no place on it", () => {
  const scale = createScale([0, 1e-6, 1e-2], { log: true });
  assert.ok(Math.abs(scale.share(1e-4) - 0.5) < 1e-12);
  assert.ok(Number.isNaN(scale.share(0)));
  assert.equal(scale.log, true);
  assert.equal(createScale([3, 3], { log: true }).log, false, "one value needs no logarithm");
});

test("a symmetric scale has zero in its middle", () => {
  const scale = createScale([-4, 1], { symmetric: true });
  assert.deepEqual([-4, 0, 4].map(scale.share), [0, 0.5, 1]);
});

test("a scale of nothing is still one", () => assert.equal(createScale([]).share(0), 0));

test("ticks are round, few, and inside", () => {
  assert.deepEqual(ticksOf(0, 1), [0, 0.5, 1]);
  const powers = ticksOf(1e-9, 1, true);
  assert.ok(powers.length >= 2 && powers.length <= 6 && powers.every((tick) => tick >= 1e-9 && tick <= 1));
});

test("colour tables go from their first anchor to their last", () => {
  const table = ramp(["#000000", "#ffffff"]);
  assert.equal(colorAt(table, 0), "rgb(0,0,0)");
  assert.equal(colorAt(table, 1), "rgb(255,255,255)");
  assert.notDeepEqual(signed(true), signed(false));
  const light = (share) => sequential().subarray(3 * Math.round(share * 255)).slice(0, 3).reduce((a, b) => a + b);
  assert.ok(light(0) < light(0.5) && light(0.5) < light(1), "lighter means more, also without colours");
});

test("cells fill the space, within limits, and the rest is scrolled to", () => {
  const few = axisOf(10, 400, { least: 4, most: 20 });
  assert.deepEqual([few.cell, few.length, few.reach], [20, 200, 0]);
  const many = axisOf(1000, 400, { least: 4, most: 20 });
  assert.deepEqual([many.cell, many.length, many.reach], [4, 400, 3600]);
  assert.deepEqual([cellAt(0, 3600, many, 1000), cellAt(399, 3600, many, 1000), cellAt(400, 3600, many, 1000)], [900, 999, -1]);
  assert.equal(cellAt(-1, 0, many, 1000), -1);
  assert.deepEqual(seen(3600, many, 1000), [900, 1000]);
  for (const index of [0, 500, 999]) {
    const at = scrolledTo(index, 1800, many);
    assert.ok(index * 4 >= at && (index + 1) * 4 <= at + 400, `cell ${index} is seen`);
  }
});

test("a histogram shows the octaves that hold something", () => {
  const one = { top: 3, counts: Float32Array.from([0, 0.25, 0.75, 0]) };
  assert.deepEqual(extentOf([one]), { low: 0, high: 2, most: 0.75 });
  assert.equal(shareAt(one, 1), 0.75);
  assert.equal(shareAt(one, 99), 0);
  assert.equal(extentOf([{ top: 0, counts: new Float32Array(16) }]), null);
  assert.equal(raised(-12), "⁻¹²");
});

test("bounds of a curve leave out what has no place", () => {
  assert.equal(boundsOf([{ values: [NaN] }]), null);
  assert.equal(boundsOf([{ values: [0, -1] }], true), null);
  const { low, high } = boundsOf([{ values: [1, 0, 1e-3] }], true);
  assert.ok(low <= 1e-3 && low > 0 && high >= 1);
});

test("cells of a picture cover every row once", () => {
  for (const [cells, whole] of [[3, 10], [96, 97], [5, 5]]) {
    let next = 0;
    for (let i = 0; i < cells; i += 1) {
      const [first, last] = extentOfCell(i, cells, whole);
      assert.equal(first, next);
      next = last + 1;
    }
    assert.equal(next, whole);
  }
});

test("a line of commits has one lane", () => {
  assert.deepEqual(lanesOf([[], [0], [1]]).lane, [0, 0, 0]);
});

test("a branch gets a lane of its own, and the trunk stays", () => {
  const { lane, lanes, edges } = lanesOf([[], [0], [0], [1, 2], [3]]);
  assert.deepEqual(lane, [0, 0, 1, 0, 0]);
  assert.equal(lanes, 2);
  assert.deepEqual(edges.filter((edge) => edge.merge), [{ child: 3, parent: 2, merge: true }]);
});

test("parents that are not listed, or not older, make no line", () => {
  assert.deepEqual(lanesOf([[-1], [1], [5]]).edges, []);
});

test("tables sort numbers by size, texts as people count, and what is missing last", () => {
  const rows = [{ a: NaN, b: "x10" }, { a: 2, b: "x9" }, { a: 10, b: "x1" }];
  assert.deepEqual(sorted(rows, "a").map((row) => row.a), [2, 10, NaN]);
  assert.deepEqual(sorted(rows, "a", true).map((row) => row.a), [10, 2, NaN]);
  assert.deepEqual(sorted(rows, "b").map((row) => row.b), ["x1", "x9", "x10"]);
});
