// What a merge view knows: what is chosen, what comes out, what came out before, and what a hand is just trying.
//
//   outcome  numbers of what is chosen; `before` those of the choice before
//   draft    numbers of what a control says while it is dragged; null when nobody drags
// Numbers that come from a sample become exact by themselves where that is quick, else when `sharpen(true)` asks for it.
//
// `listeners`: onOutcome() everything is new; onNumbers() the numbers are; onWork() progress of exact numbers;
// onNotice(notice | null) of createNotice().

import { oncePerFrame } from "./dom.js";
import { Superseded } from "./messages.js";
import { createLive } from "./live.js";
import { createMergeData } from "./merge_data.js";
import { createDrafts } from "./draft.js";
import { createSamples } from "./samples.js";

const QUICK = 100e6; // entries that are computed exactly without being asked to
const SILENCE = 2500; // ms without an answer before that is said
const SETTLED = 600;
const REST = 60; // ms after the last choice before that begins
const NOTHING = { numbers: new Float32Array(0), choices: [] };

/** @param {{index, state, client}} options as of createMergeView(); @param {Object} listeners */
export function createMergeModel({ index, state, client }, listeners) {
  let opening = { facts: new Float32Array(0), gram: new Float32Array(0), measured: false, key: "" };
  let [outcome, before, draft, dragged, gone] = [NOTHING, null, null, null, false];
  let [work, timer, awaited, silence] = ["", 0, 0, 0];
  const model = {
    data: createMergeData(index, opening, outcome),
    chosen: state.get("_chosen") ?? {},
    /** Whether a choice is under way: controls show it already, and are not set back to the one before. */
    busy: false,
    get draft() { return draft; },
    get before() { return before; },
    get outcome() { return outcome; },
    /** How far exact numbers are: "", "offered", "wanted", or "3 of 12". */
    get work() { return work; },
    act, choose, drag, sharpen, measure,
    restore: (settings) => act("restore", { form: JSON.stringify(settings) }),
    destroy() {
      gone = true;
      clearTimeout(timer);
      clearTimeout(silence);
      redrag.cancel();
      live.destroy();
      samples.destroy();
      off();
    },
  };

  const outcomeOf = (found) => ({ numbers: found.numbers.data, choices: found.choices });
  function show(found) {
    [outcome, draft] = [outcomeOf(found), null];
    model.data = createMergeData(index, opening, outcome);
    if (dragged) redrag(); // a hand holds a slider meanwhile
  }
  function fail(error) {
    if (error instanceof Superseded || gone) return;
    draft = null;
    listeners.onNumbers();
    listeners.onNotice({ error: error.message, action: ["dismiss", () => listeners.onNotice(null)] });
  }

  // --- choosing -------------------------------------------------------------------------------------------------------
  async function act(what, details = {}) {
    dragged = null;
    redrag.cancel();
    live.settle();
    rest();
    [model.busy, awaited] = [true, awaited + 1];
    const mine = awaited;
    clearTimeout(silence);
    listeners.onNotice(null);
    let said = false;
    silence = setTimeout(() => ((said = true), listeners.onNotice({ text: "The kernel is busy with a cell; this is done when it is free." })), SILENCE);
    try {
      await client.ask("act", what, details, null, true);
      // What is chosen now comes by itself; nothing comes where it is what was chosen before.
      setTimeout(() => mine === awaited && settled(), SETTLED);
      if (said) listeners.onNotice(null);
    } catch (error) {
      if (mine === awaited) settled();
      fail(error);
    } finally {
      if (mine === awaited) clearTimeout(silence);
    }
  }
  function settled() {
    if (!model.busy || gone) return;
    model.busy = false;
    listeners.onOutcome();
  }
  function choose(edits) {
    return act("choose", { form: JSON.stringify(edits) });
  }

  const live = createLive((edits) => client.ask("preview", "preview", { form: JSON.stringify(edits) }, null, true), (found) => {
    if (gone) return;
    draft = outcomeOf(found);
    listeners.onNumbers();
  }, fail);
  const samples = createSamples((places) => client.ask("samples", "samples", { form: JSON.stringify(places) }, null, true));
  const draftOf = createDrafts(samples);
  const redrag = oncePerFrame(() => {
    const found = draftOf(model.data, dragged);
    if (!found) return live.draft(dragged);
    draft = found;
    live.settle(); // what was asked for before, while there were no samples
    listeners.onNumbers();
  });
  function drag(edits) {
    dragged = edits;
    rest();
    redrag();
  }

  // --- numbers --------------------------------------------------------------------------------------------------------
  async function load() {
    try {
      if (opening.measured !== model.chosen.measured || !opening.facts.length) {
        const found = await client.ask("opening", "opening", {}, null, true);
        opening = { facts: found.facts.data, gram: found.gram.data, measured: found.measured, key: found.key };
      }
      const found = await client.ask("numbers", "numbers", {}, null, true);
      if (gone) return;
      if (outcome !== NOTHING) before = outcome;
      show(found);
      listeners.onOutcome();
      samples.want(model.data, opening.key);
      sharpen();
    } catch (error) {
      fail(error);
    }
  }

  function sharpen(asked = false) {
    clearTimeout(timer);
    const inexact = opening.measured ? model.data.inexact() : [];
    const entries = inexact.reduce((sum, i) => sum + index.shapes[i].reduce((product, side) => product * side, 1), 0);
    work = inexact.length ? (asked || entries <= QUICK ? "wanted" : "offered") : "";
    listeners.onWork();
    if (work === "wanted") timer = setTimeout(computeExactly, asked ? 0 : REST);
  }
  async function computeExactly() {
    try {
      const told = (done, total) => ((work = `${done} of ${total}`), listeners.onWork());
      const found = await client.ask("exact", "exact", {}, told, true);
      if (gone || found.revision !== model.chosen.revision) return;
      work = "";
      show(found);
      listeners.onOutcome();
    } catch (error) {
      work = "";
      fail(error);
    }
  }
  /** Leave the processors to whoever drags. */
  function rest() {
    clearTimeout(timer);
    client.cancel("exact");
  }

  async function measure() {
    const text = "reading the weights once, to know norms and cosines …";
    const action = ["stop", () => (client.cancel("measure"), listeners.onNotice({ text: "Stopped; some numbers are missing.", action: ["go on", measure] }))];
    listeners.onNotice({ text, action });
    try {
      await client.ask("measure", "measure", {}, (done, total) => listeners.onNotice({ text, share: total ? done / total : 0, action }));
      listeners.onNotice(null);
    } catch (error) {
      if (!(error instanceof Superseded || gone)) listeners.onNotice({ error: error.message, action: ["try again", measure] });
    }
  }

  const off = state.on("_chosen", (next) => {
    if (!next.revision) return; // Python closes the widget
    [model.chosen, model.busy] = [next, false];
    load();
  });
  model.ready = load().then(() => {
    if (gone || opening.measured) return;
    if (index.measure) measure();
    else listeners.onNotice({ text: "Norms and cosines have not been measured.", action: ["measure", measure] });
  });
  return model;
}
