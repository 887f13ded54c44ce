// What panels have in common: fields, buttons that cannot be pressed twice, what went wrong, scores as people read them.

import { element, fill } from "./dom.js";
import { Superseded } from "./messages.js";
import { short } from "./numbers.js";

/** What stands where something could be pressed when the kernel is gone. */
export const GONE = "The kernel is gone. What you chose and tried is saved: run the cells above again, and go on with it in the new explorer.";

/** Whether small values of a metric are good, by its name. */
export const smallerIsBetter = (name) => /loss|error|perplexity|\bppl\b|\bmse\b|\bmae\b|\brmse\b|\bnll\b|distance|cost/i.test(name);

/** A metric as a number: what is not finite comes as a text. */
export const metricOf = (metrics, name) => (metrics && name in metrics ? Number(metrics[name]) : NaN);

/** A score, in digits enough to tell two of them apart: 0.7663, 12.35. */
export function score(value) {
  const size = Math.abs(value);
  if (value === 0 || !(size >= 0.001 && size < 1000)) return short(value);
  const text = size < 1 ? value.toFixed(4) : value.toPrecision(4);
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

/** The best of some numbers, NaN if there is none. */
export function bestOf(values, smaller) {
  const finite = values.filter(Number.isFinite);
  return finite.length ? Math[smaller ? "min" : "max"](...finite) : NaN;
}

/** Keep keys that are typed into fields from being shortcuts of the view around them. */
export function typing(box) {
  const heard = (event) => {
    if (event.target.matches("input, textarea, select") && event.key !== "Escape") event.stopPropagation();
  };
  box.addEventListener("keydown", heard);
  return box;
}

/** A button whose work is done once at a time; `work` returns a promise. */
export function workButton(label, title, work, kind = "") {
  let busy = false;
  const made = element(`button.theta-button${kind}`, { type: "button", title }, label);
  made.addEventListener("click", async () => {
    if (busy || made.disabled) return;
    busy = true;
    made.setAttribute("aria-busy", "true");
    try {
      await work();
    } finally {
      busy = false;
      made.removeAttribute("aria-busy");
    }
  });
  return made;
}

/** A field with its name before it. */
export function field(label, input, title = "") {
  return element("label.theta-field", { title }, element("span", {}, label), input);
}

/** What went wrong: a sentence, and the lines of the user's own function. */
export function createFailure() {
  const text = element("div.theta-problem");
  const lines = element("ol.theta-trace");
  const box = element("div.theta-failure", { hidden: true, role: "alert" }, text, lines);
  const show = (failure) => {
    box.hidden = !failure;
    if (!failure) return;
    const found = typeof failure === "string" ? { text: failure, lines: [] } : failure;
    text.textContent = found.text;
    lines.hidden = !found.lines.length;
    fill(lines, ...found.lines.map(([place, code]) => element("li", {}, element("span.theta-dim", {}, place), element("code", {}, code))));
  };
  show.element = box;
  return show;
}

/** A line of progress with a way to stop: show(text, done, total) or show(null). */
export function createBusy(onStop) {
  const progress = element("progress", { max: 1, "aria-label": "progress" });
  const text = element("span");
  const stop = element("button.theta-button", { type: "button", onclick: onStop }, "stop");
  const box = element("div.theta-busy", { hidden: true, role: "status" }, progress, text, onStop ? stop : null);
  const show = (said, done, total) => {
    box.hidden = said === null;
    if (said === null) return;
    text.textContent = said;
    if (total) progress.value = done / total;
    else progress.removeAttribute("value");
  };
  show.element = box;
  return show;
}

/** Do what is asked, and say what fails; whoever moved on is not told. Returns the answer, or null. */
export async function attempt(work, fail) {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof Superseded)) fail(error.message);
    return null;
  }
}

/** Whether two values are the same as JSON. */
export const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
