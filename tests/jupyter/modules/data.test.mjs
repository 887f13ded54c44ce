import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import zlib from "node:zlib";

import { Lost, Superseded, createClient, createState, floats, inflated } from "./static/messages.js";
import { cosine, percent, short, size } from "./static/numbers.js";
import { createDiffData } from "./static/diff_data.js";
import { flattened, unfolded } from "./static/tree.js";
import { nameFilter } from "./static/filter.js";
import { watchKernel } from "./static/kernel.js";
import { createNudge } from "./static/nudge.js";

const later = (ms = 5) => new Promise((done) => setTimeout(done, ms));

test("numbers read as they do in Python", () => {
  const cases = JSON.parse(readFileSync(new URL("./numbers.json", import.meta.url)));
  const read = (value) => (typeof value === "string" ? Number(value) : value);
  const writers = { short, percent, cosine, size };
  for (const [name, value, text] of cases) assert.equal(writers[name](read(value)), text, `${name}(${value})`);
});

test("filters take pieces, globs and regular expressions", () => {
  const matches = (filter, name) => nameFilter(filter).test(name);
  assert.ok(matches("", "anything") && matches("QUERY", "a.query.bias") && !matches("key", "a.query.bias"));
  assert.ok(matches("*.layer.[0-2].*", "enc.layer.1.w") && !matches("*.layer.[!0-2].*", "enc.layer.1.w"));
  assert.ok(matches("a.?", "a.b") && !matches("a.?", "axb") && matches("a.*", "a.b.c"));
  assert.ok(matches("/bias$/", "x.bias") && !matches("/bias$/", "bias.x"));
  assert.match(nameFilter("/(/").error, /./);
  assert.equal(matches("/(/", "("), false);
  assert.equal(matches("[z-a]*", "z"), false, "a range the wrong way round is no error");
});

test("filters take ranges of layers, whatever these are called", () => {
  const among = (filter, ...names) => names.filter(nameFilter(filter).test);
  const layers = Array.from({ length: 12 }, (_, k) => `encoder.layer.${k}.attention.q.weight`);
  for (const filter of ["layers 3-8", "layer 3–8", "Layers 8 - 3", "3-8", "blocks 3-8"]) assert.deepEqual(among(filter, ...layers), layers.slice(3, 9), filter);
  assert.deepEqual(among("layer 1", ...layers), [layers[1]], "not the tenth");
  assert.deepEqual(among("layers 1-2", "h.1.attn", "h.10.attn", "layer2.0.conv1", "model_1/w", "fc1.weight", "conv-1-2"), ["h.1.attn", "layer2.0.conv1", "model_1/w"]);
  assert.deepEqual(among("experts 0-1", "layers.0.experts.5.w", "layers.7.expert.1.w", "layers.1.w"), ["layers.7.expert.1.w"]);
  assert.deepEqual(among("3-8", "conv3-8.weight"), ["conv3-8.weight"], "a piece all the same");
  assert.deepEqual(among("12", "a.12.b", "a.121.b", "a.2.b"), ["a.12.b", "a.121.b"], "a number alone is a piece");
});

test("requests gather, and a newer one replaces an older one", async () => {
  const sent = [];
  const client = createClient((message) => sent.push(message), { wait: 1 });
  const old = client.ask("one", "picture", { name: "a" });
  const kept = client.ask("one", "picture", { name: "b" });
  client.ask("two", "window").catch(() => {});
  await assert.rejects(old, Superseded);
  await later();
  assert.equal(sent.length, 1, "one message");
  assert.deepEqual(sent[0].requests.map((request) => request.name), ["b", undefined]);
  const [{ id, channel }] = sent[0].requests;
  assert.ok(channel.endsWith(":one"));
  const progress = [];
  client.receive({ id: "someone-else", result: 1 });
  client.receive({ id, progress: [1, 2] });
  const numbers = Float32Array.from([1, 2, 3, 4, 5]);
  const whole = Buffer.from(numbers.buffer);
  client.receive({ id, part: 1, parts: 2, result: { x: { array: 1, shape: [3] } }, sizes: [2, 3] }, [new DataView(whole.buffer.slice(whole.byteOffset + 8, whole.byteOffset + 20))]);
  client.receive({ id, part: 0, parts: 2 }, [new DataView(whole.buffer.slice(whole.byteOffset, whole.byteOffset + 8))]);
  const result = await kept;
  assert.deepEqual([...result.x.data], [3, 4, 5]);
  assert.deepEqual(progress, []);
  client.close();
});

test("errors and progress come through, and what is cancelled is said", async () => {
  const sent = [];
  const client = createClient((message) => sent.push(message), { wait: 1 });
  const progress = [];
  const asked = client.ask("one", "x", {}, (...numbers) => progress.push(numbers));
  await later();
  client.receive({ id: sent[0].requests[0].id, progress: [1, 2] });
  client.receive({ id: sent[0].requests[0].id, error: "no such thing" });
  await assert.rejects(asked, /no such thing/);
  assert.deepEqual(progress, [[1, 2]]);
  const other = client.ask("two", "x");
  await later();
  client.cancel("two");
  await assert.rejects(other, Superseded);
  await later();
  assert.deepEqual(sent.at(-1).cancel, [sent[1].requests[0].channel]);
});

test("bytes become numbers wherever they begin", () => {
  const bytes = new Uint8Array(Float32Array.from([0, 1.5, -2]).buffer);
  const shifted = new Uint8Array(13);
  shifted.set(bytes, 1);
  assert.deepEqual([...floats(new DataView(shifted.buffer, 1, 12))], [0, 1.5, -2]);
  assert.deepEqual([...floats(bytes.buffer)], [0, 1.5, -2]);
});

test("deflated tables are read", async () => {
  assert.deepEqual(await inflated(zlib.deflateSync(JSON.stringify({ a: ["é"] }))), { a: ["é"] });
});

test("state tells its listeners", () => {
  const state = createState({ a: 1 });
  const heard = [];
  const off = state.on("a", (value) => heard.push(value));
  state.set("a", 1), state.set("a", 2), off(), state.set("a", 3);
  assert.deepEqual(heard, [2]);
});

const TREE = { label: "", rows: [["head", 3]], modules: [{ label: "enc", rows: [["a", 0]], modules: [{ label: "0", rows: [["b", 1], ["c", 2]], modules: [] }] }] };

test("a tree becomes rows, folded where it is wanted", () => {
  const rows = flattened(TREE);
  assert.deepEqual(rows.map((row) => [row.label, row.level, row.leaf]), [["head", 1, 3], ["enc", 1, -1], ["a", 2, 0], ["0", 2, -1], ["b", 3, 1], ["c", 3, 2]]);
  assert.deepEqual(rows[1].leaves, [0, 1, 2]);
  assert.deepEqual(unfolded(rows, new Set(["enc/"])), [0, 1]);
  assert.deepEqual(unfolded(rows, new Set(["enc/0/"])), [0, 1, 2, 3]);
  assert.deepEqual(flattened(TREE, (leaf) => leaf === 3).map((row) => row.label), ["head"], "empty modules are left out");
});

test("a diff has a map without empty rows and columns", () => {
  const index = {
    columns: ["relative"], statuses: ["modified", "unchanged", "added"], dtypes: ["float32"], blocks: ["x", "y", "z"], roles: ["w", "b"],
    names: ["x.w", "y.b", "z.w"], status: [0, 1, 2], dtype: [0, 0, 0], shapes: [[1], [2], [3]], block: [0, 1, 2], role: [0, 1, 0], was: {}, notes: {},
  };
  const data = createDiffData(index, Float32Array.from([0.5, NaN, NaN]));
  const map = data.map("relative", (i) => i !== 1);
  assert.deepEqual([map.rows, map.columns], [["w"], ["x", "z"]]);
  assert.deepEqual([...map.values], [0.5, NaN]);
  assert.equal(map.marks.get(1), "+");
  assert.deepEqual([...map.leaf], [0, 2]);
  assert.equal(data.item(2).comparable, false);
  assert.equal(data.row(0).shape, "float32 [1]");
  assert.ok(Number.isNaN(data.value("nothing", 0)));
});

test("when Python is gone, everything that was asked for is given up, once and for all", async () => {
  const sent = [];
  const client = createClient((message) => sent.push(message), { wait: 0 });
  const waiting = client.ask("one", "picture");
  const heard = [];
  client.onLost((reason) => heard.push(reason));
  client.lose("The kernel was restarted");
  await assert.rejects(waiting, Lost);
  await assert.rejects(client.ask("two", "picture"), Lost);
  client.onLost((reason) => heard.push(`late: ${reason}`));
  await new Promise((resolve) => setTimeout(resolve, 5));
  assert.deepEqual(heard, ["The kernel was restarted", "late: The kernel was restarted"]);
  assert.deepEqual(sent, []);
});

/** What a widget's view gets of its kernel. */
function fakeModel() {
  const signal = () => {
    const heard = new Set();
    return { connect: (f) => heard.add(f), disconnect: (f) => heard.delete(f), emit: (...a) => [...heard].forEach((f) => f(...a)), heard };
  };
  const events = new Map();
  return {
    events,
    on: (name, f) => events.set(name, f),
    off: (name) => events.delete(name),
    widget_manager: { kernel: { statusChanged: signal(), disposed: signal() } },
  };
}

test("a kernel is lost for one reason, and leaves no listener behind", () => {
  const model = fakeModel();
  const { kernel } = model.widget_manager;
  const watch = watchKernel(model);
  const reasons = [];
  watch.onLost((reason) => reasons.push(reason));
  kernel.statusChanged.emit(kernel, "busy");
  assert.deepEqual(reasons, []);
  kernel.statusChanged.emit(kernel, "dead");
  assert.deepEqual(reasons, ["The kernel has stopped"]);
  assert.equal(kernel.statusChanged.heard.size + kernel.disposed.heard.size + model.events.size, 0);
  kernel.disposed.emit();
  watch.attempt(() => assert.fail("nothing is sent any more"));
  assert.equal(reasons.length, 1);
});

test("pieces of an answer are met by a message each, and by no more than two", async () => {
  const heard = new Set();
  const kernel = { anyMessage: { connect: (f) => heard.add(f), disconnect: (f) => heard.delete(f) } };
  const emit = (direction) => [...heard].forEach((f) => f(kernel, { direction }));
  let sent = 0;
  const nudge = createNudge(kernel, () => (sent += 1));
  emit("recv");
  await later();
  assert.equal(sent, 0, "nobody waits");
  let answer;
  const asked = nudge.expect(new Promise((resolve) => (answer = resolve)));
  emit("send");
  await later();
  assert.equal(sent, 0, "what goes out is no news");
  emit("recv"), emit("recv");
  await later();
  assert.equal(sent, 1, "what comes together is met once");
  for (let i = 0; i < 5; i += 1) emit("recv"), await later();
  assert.equal(sent, 2);
  answer("done");
  assert.equal(await asked, "done");
  const refused = nudge.expect(Promise.reject(new Error("no")));
  await assert.rejects(refused, /no/);
  emit("recv");
  await later();
  assert.equal(sent, 2, "the answer is there");
  nudge.expect(new Promise(() => {}));
  emit("recv");
  nudge.close();
  await later();
  assert.deepEqual([sent, heard.size], [2, 0]);
  assert.equal(await createNudge(undefined, () => assert.fail()).expect(Promise.resolve(1)), 1, "other front ends say nothing of their kernel");
});

test("a page that says nothing of its kernel is found out by sending", () => {
  const watch = watchKernel({ on() {}, off() {} });
  const reasons = [];
  watch.onLost((reason) => reasons.push(reason));
  watch.attempt(() => {
    throw new Error("Cannot send");
  });
  assert.deepEqual(reasons, ["The kernel is gone"]);
});
