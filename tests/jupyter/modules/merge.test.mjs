// Modules of the merge explorer that draw nothing.

import { readFileSync } from "node:fs";
import test from "node:test";
import assert from "node:assert/strict";
import { coordinatesOf, graded, isLocal } from "./static/coefficients.js";
import { createDrafts } from "./static/draft.js";
import { createMergeData } from "./static/merge_data.js";
import { between, cellValues, cellsWith, extent, toggled } from "./static/merge_cells.js";
import { KIND_NAMES, kindOf, quickPicks } from "./static/quick_picks.js";
import { SHAPES, mirrored, moved, parsedList, shaped, written } from "./static/shapes.js";
import { keepShape, ownShapes, resampled } from "./static/own_shapes.js";
import { shapeRange, sliderParameters } from "./static/merge_blocks.js";
import { createLive } from "./static/live.js";
import { createCategories, colorAt, categoryColor } from "./static/colors.js";

const draftOutcome = createDrafts();
const told = JSON.parse(readFileSync("merges.json", "utf-8"));
const floats = (numbers) => Float32Array.from(numbers.map((number) => (number === null ? NaN : number)));

test("drafts are what Python would answer", () => {
  assert.ok(told.cases.length > 10);
  for (const { edits, before, after } of told.cases) {
    const opening = { facts: floats(told.facts), gram: floats(told.gram) };
    const data = createMergeData(told.index, opening, { numbers: floats(before.numbers), choices: before.choices });
    const found = draftOutcome(data, edits);
    assert.ok(found, JSON.stringify(edits));
    const wanted = floats(after.numbers);
    told.index.outcome.forEach((row, at) => {
      if (row === "choice") return; // which choice it is has no number before it is made
      for (let i = 0; i < data.many; i += 1) {
        const [have, want] = [found.numbers[at * data.many + i], wanted[at * data.many + i]];
        if (Number.isNaN(want) && Number.isNaN(have)) continue;
        const scale = Math.max(1e-3 * (data.fact("base_norm", i) || 0), Math.abs(want) || 0, 1e-6);
        assert.ok(Math.abs(have - want) <= 1e-4 * scale, `${row} of ${told.index.names[i]}: ${have}, not ${want} ${JSON.stringify(edits)}`);
      }
    });
  }
});

test("inner products of any kind become what Python makes of them", () => {
  const cases = JSON.parse(readFileSync("combinations.json", "utf-8"));
  const left = new Map(); // method -> kinds that are left to Python
  for (const { method, kind, parameters, labels, depth, gram, wanted } of cases) {
    assert.ok(isLocal(method, labels.length), `${method} of ${labels.length}`);
    const size = labels.length + 1;
    const found = coordinatesOf(method, parameters, { labels, depth, size, gram: floats(gram), at: 0 });
    if (!found) {
      if (wanted) left.set(method, (left.get(method) ?? new Set()).add(kind));
      continue;
    }
    const about = `${method} ${JSON.stringify(parameters)} of ${labels.length}, ${kind}, at ${depth}`;
    assert.ok(wanted, `${about}: Python refuses`);
    const gap = found.map((value, k) => value - wanted[k]);
    const square = gap.reduce((total, a, i) => total + gap.reduce((inner, b, j) => inner + a * b * gram[size * i + j], 0), 0);
    const longest = Math.sqrt(Math.max(...labels.map((_, k) => gram[0] + 2 * gram[k + 1] + gram[(size + 1) * (k + 1)]), gram[0]));
    assert.ok(Math.sqrt(Math.max(square, 0)) <= 1e-4 * longest, `${about}: ${found}, not ${wanted}`);
  }
  assert.ok(cases.length > 1000);
  for (const [method, kinds] of left) {
    assert.ok(["nuslerp", "multislerp", "karcher", "model_stock"].includes(method), method);
    for (const kind of ["random", "a fine-tune", "hardly changed", "one unchanged", "nothing changed", "changed alike"]) assert.ok(!kinds.has(kind), `${method} leaves "${kind}" to Python`);
  }
});

test("what only Python can tell is left to it", () => {
  const data = createMergeData(told.index, { facts: floats(told.facts), gram: floats(told.gram) }, { numbers: floats(told.cases[0].before.numbers), choices: told.cases[0].before.choices });
  assert.equal(draftOutcome(data, [{ method: "ties", parameters: {} }]), null);
  assert.equal(draftOutcome(createMergeData(told.index, { facts: floats([]), gram: floats([]) }, data.outcome), [{ method: "linear", parameters: {} }]), null);
  assert.equal(isLocal("slerp", 3), false);
  assert.equal(isLocal("toString", 2), false);
});

test("gradients are those of choices", () => {
  for (const [value, depth, wanted] of told.gradients) assert.ok(Math.abs(graded(value, depth) - wanted) < 1e-12);
});

test("weights of blocks", () => {
  assert.deepEqual(shaped("linear ramp up", 3, 0, 1), [0, 0.5, 1]);
  assert.deepEqual(shaped("cosine ramp down", 3, 0, 2), [2, 1, 0]);
  for (const name of Object.keys(SHAPES)) for (const value of shaped(name, 7, -1, 2)) assert.ok(value >= -1 && value <= 2, name);
  assert.deepEqual(mirrored([1, 2, 3]), [3, 2, 1]);
  assert.deepEqual(moved([0, 0.9], 0.2, 0, 1), [0.2, 1]);
  assert.deepEqual(moved([1.5, 0.5], 0.2, 0, 1), [1.5, 0.7], "what lies beyond a soft end stays there");
  assert.deepEqual(parsedList("[0, .5; 1]".replace(";", ",")), [0, 0.5, 1]);
  assert.deepEqual(parsedList(written([0.1, 0.2 + 0.1])), [0.1, 0.3]);
  for (const wrong of ["", "a, b", "1, x", "NaN", "1,,Infinity"]) assert.equal(parsedList(wrong), null, wrong);
});

test("sliders stand for floats, the usual ones first", () => {
  const spec = (name, kind = "float", per_model = false) => ({ name, kind, per_model });
  const method = { parameters: [spec("seed", "int"), spec("epsilon"), spec("density", "float", true), spec("weight", "float", true)] };
  const found = sliderParameters(method, ["ours", "theirs"]).map(({ text }) => text);
  assert.deepEqual(found.slice(0, 3), ["weight of theirs", "weight of ours", "weight"]);
  assert.equal(found.at(-1), "epsilon");
  assert.deepEqual(sliderParameters(undefined, ["ours"]), []);
  assert.deepEqual(shapeRange({ default: 1, low: -1, high: 2, soft: true }), [0, 1]);
  assert.deepEqual(shapeRange({ default: 0.1, low: 0, high: 0.5, soft: false }), [0, 0.5]);
});

test("sets that people mean", () => {
  const names = [];
  for (let layer = 0; layer < 6; layer += 1) for (const part of ["attention.self.query.weight", "attention.self.query.bias", "output.LayerNorm.bias"]) names.push(`encoder.layer.${layer}.${part}`);
  names.push("embeddings.word.weight");
  const blocks = [...new Set(names.map((name) => name.split(".").slice(0, name.startsWith("enc") ? 3 : 1).join(".")))];
  const index = { names, blocks, badges: ["both", "equal"], badge: names.map((_, i) => (i ? 0 : 1)), block: names.map((name) => blocks.findIndex((block) => name.startsWith(`${block}.`))) };
  const picks = new Map(quickPicks(index).flatMap(({ items }) => items.map(({ name, leaves }) => [name, leaves.length])));
  assert.equal(picks.get("all attention"), 12);
  assert.equal(picks.get("all norms"), 6);
  assert.equal(picks.get("all equal"), 1);
  assert.equal(picks.get("encoder.layer.2–3"), 6);
  assert.equal(picks.get("encoder.layer.5"), 3);
  assert.equal(picks.has("all heads"), false);
});

test("only the newest question waits, and each answer is shown", async () => {
  const [asked, shown, answers] = [[], [], []];
  const live = createLive((question) => (asked.push(question), new Promise((resolve) => answers.push(resolve))), (answer) => shown.push(answer), () => {});
  const turn = () => new Promise((resolve) => setTimeout(resolve));
  for (const question of [1, 2, 3]) live.draft(question);
  assert.deepEqual(asked, [1]);
  answers[0]("one");
  await turn();
  assert.deepEqual([asked, shown], [[1, 3], ["one"]]);
  live.settle();
  answers[1]("three");
  await turn();
  assert.deepEqual(shown, ["one"], "let go: later answers are about the past");
});

test("categories have colours of their own", () => {
  const scale = createCategories(["a", "b", "c"]);
  const color = (at) => colorAt(scale.table(), scale.share(at));
  assert.equal(new Set([0, 1, 2].map(color)).size, 3);
  const [r, g, b] = color(1).match(/\d+/g).map(Number);
  assert.equal(`#${[r, g, b].map((part) => part.toString(16).padStart(2, "0")).join("")}`, categoryColor(1));
  assert.ok(Number.isNaN(createCategories(["a"]).share(NaN)));
});

test("kinds of parameters", () => {
  const kind = (name) => KIND_NAMES[kindOf(name)];
  const wanted = {
    "encoder.layer.5.attention.self.query.weight": "attention", "h.0.mlp.up_proj.weight": "feed-forward", "encoder.layer.5.output.LayerNorm.bias": "norms",
    "model.embed_tokens.weight": "embeddings", "encoder.layer.5.attention.self.query.bias": "biases", "lm_head.weight": "heads", "conv1.weight": "weights", steps: "others",
  };
  for (const [name, of] of Object.entries(wanted)) assert.equal(kind(name), of, name);
});

test("cells of several parameters", () => {
  const opening = { facts: floats(told.facts), gram: floats(told.gram) };
  const data = createMergeData(told.index, opening, { numbers: floats(told.cases[0].before.numbers), choices: told.cases[0].before.choices });
  for (const rows of ["role", "kind"]) {
    const cells = data.layout(() => true, rows);
    assert.deepEqual(cells.leaves.flat().sort((a, b) => a - b), data.index.names.map((_, i) => i), "each parameter is in one cell");
    cells.leaves.forEach((leaves, cell) => assert.equal(Boolean(cells.present[cell]), leaves.length > 0));
  }
  const cells = { columns: ["a", "b"], leaves: [[0, 1], [2], [3], []] };
  assert.deepEqual([...cellValues(cells, Float32Array.of(1, 2, NaN, 4))], [1.5, NaN, 4, NaN]);
  assert.deepEqual([...cellValues({ leaves: [[0, 1, 2]] }, Float32Array.of(7, NaN, 2))], [4.5], "what is not known does not count");
  assert.deepEqual([...cellValues({ leaves: [[0, 1, 2]] }, Float32Array.of(2, 5, 5), true)], [5]);
  assert.deepEqual([extent([NaN, 3, -1]), extent([NaN])], [[-1, 3], null]);
  assert.deepEqual(cellsWith(cells, [1, 3]), [0, 2]);
  assert.deepEqual([between(cells, 1, 1), between(cells, 1, 2), between(cells, 9, 1)], [[0, 1, 2], [0, 1, 3], [2]]);
  assert.deepEqual([toggled([0], [0, 1]), toggled([0, 1, 2], [0, 1])], [[0, 1], [2]]);
});

test("shapes of one's own", () => {
  const kept = new Map();
  const storage = { getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => void kept.set(key, value) };
  assert.ok(keepShape(" mine ", [0, 1, 0.5], storage));
  assert.deepEqual([...ownShapes(storage)], [["mine", [0, 1, 0.5]]]);
  assert.deepEqual(resampled([0, 1, 0.5], 5), [0, 0.5, 1, 0.75, 0.5]);
  assert.deepEqual([resampled([0, 1, 0.5], 1), resampled([2], 3), resampled([0, 1], 2)], [[1], [2, 2, 2], [0, 1]]);
  assert.equal(keepShape("  ", [1], storage), false);
  assert.ok(keepShape("mine", null, storage));
  assert.equal(ownShapes(storage).size, 0);
  for (const broken of ["{", "null", "3", '{"a": "b"}', '{"a": [1, "x"]}', '{"a": []}']) {
    kept.set("theta-nb:shapes", broken);
    assert.equal(ownShapes(storage).size, 0, broken);
  }
  const full = { getItem: () => null, setItem() { throw new Error("full"); } };
  assert.equal(keepShape("mine", [1], full), false);
  assert.equal(ownShapes(undefined).size, 0);
});
