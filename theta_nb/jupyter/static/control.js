// A control for one parameter of a method, made from its signature: sliders, numbers, switches, lists.
//
// Data contract: spec {name, kind, default, help, low, high, soft, choices, per_model}; values are what a recipe has:
// a number, a text, a truth value; a list, which is a gradient over the depth of the model; or an object of these by input.

import { element, fill } from "./dom.js";
import { parsedList, rounded } from "./shapes.js";

const STEPS = 200;

/** The ends of a slider: those of the range, or around the default. */
export function sliderRange(spec) {
  const middle = typeof spec.default === "number" ? spec.default : 0;
  const low = spec.low ?? Math.min(0, middle);
  return [low, spec.high ?? Math.max(low + 1, 2 * middle, 1)];
}

/**
 * @param {Object} spec of one parameter; @param {string[]} labels names of the inputs
 * @param {{onDraft: function(): void, onChoose: function(): void}} options the value changes, or has changed
 * @returns {{name, element, value: function(): *, set: function(*): void}}
 */
export function createControl(spec, labels, options) {
  const body = element("div.theta-control-body");
  const again = element("button.theta-again", { type: "button", title: `back to ${JSON.stringify(spec.default)}`, "aria-label": `${spec.name}: back to the default`, onclick: () => (set(spec.default), options.onChoose()) }, "↺");
  const graded = element("button.theta-button.theta-small", { type: "button", title: "one value for each depth: a gradient from the first layer to the last", onclick: grade }, "by depth");
  const each = element("button.theta-button.theta-small", { type: "button", title: "one value for each input", onclick: split }, "each");
  const head = element("div.theta-control-head", {}, element("label.theta-mono", { title: spec.help }, spec.name), element("span.theta-spring"),
    spec.per_model && labels.length > 1 ? each : null, spec.kind === "float" ? graded : null, again);
  const made = element("div.theta-control", { title: spec.help }, head, body, element("div.theta-dim.theta-hint", {}, spec.help));
  let [now, held] = [spec.default, false];

  const isList = (value) => Array.isArray(value);
  const isEach = (value) => value !== null && typeof value === "object" && !isList(value);

  function grade() {
    set(isList(now) ? now[Math.floor(now.length / 2)] : [first(now), first(now), first(now)]);
    options.onChoose();
  }
  function split() {
    set(isEach(now) ? first(now) : Object.fromEntries(labels.map((label) => [label, now])));
    options.onChoose();
  }
  const first = (value) => (isEach(value) ? first(Object.values(value)[0]) : isList(value) ? value[0] : value);

  function changed(value, done) {
    [now, held] = [value, !done];
    refreshAgain();
    done ? options.onChoose() : options.onDraft();
  }
  const refreshAgain = () => (again.hidden = JSON.stringify(now) === JSON.stringify(spec.default));

  function number(label, value, take) {
    const [low, high] = sliderRange(spec);
    const whole = spec.kind === "int";
    const step = whole ? 1 : (high - low) / STEPS;
    const slider = whole && high - low > 1000 ? null : element("input.theta-slider", { type: "range", min: low, max: high, step, "aria-label": label, oninput: () => said(slider, false), onchange: () => said(slider, true) });
    const box = element("input.theta-number-box", { type: "number", step: whole ? 1 : "any", min: spec.soft ? undefined : spec.low ?? undefined, max: spec.soft ? undefined : spec.high ?? undefined, "aria-label": label, onchange: () => said(box, true) });
    function said(from, done) {
      const found = Number(from.value);
      if (from.value === "" || !Number.isFinite(found)) return;
      if (slider && from !== slider) slider.value = found;
      if (from !== box) box.value = rounded(found);
      take(rounded(found), done);
    }
    if (slider) slider.value = value;
    box.value = rounded(value);
    return element("div.theta-slide", {}, slider, box);
  }

  function list(label, value, take) {
    const box = element("input.theta-list", { type: "text", value: value.join(", "), "aria-label": `${label}, from the first layer to the last`, spellcheck: "false", onchange: () => {
      const found = parsedList(box.value);
      box.setAttribute("aria-invalid", String(!found));
      if (found) take(found, true);
    } });
    return box;
  }

  const field = (label, value, take) => (isList(value) ? list(label, value, take) : number(label, value, take));

  function draw() {
    each.setAttribute("aria-pressed", String(isEach(now)));
    graded.setAttribute("aria-pressed", String(isList(now)));
    graded.hidden = isEach(now);
    refreshAgain();
    if (spec.kind === "bool") {
      const box = element("input", { type: "checkbox", "aria-label": spec.name, onchange: () => changed(box.checked, true) });
      box.checked = Boolean(now);
      return void fill(body, element("label.theta-check", {}, box, spec.help));
    }
    if (spec.kind === "choice") {
      const box = element("select.theta-select", { "aria-label": spec.name, onchange: () => changed(box.value, true) }, ...spec.choices.map((choice) => element("option", {}, choice)));
      box.value = now;
      return void fill(body, box);
    }
    if (!isEach(now)) return void fill(body, field(spec.name, now, changed));
    fill(body, ...labels.map((label) => element("div.theta-each", {}, element("span.theta-dim", { title: label }, label),
      field(`${spec.name} of ${label}`, now[label] ?? spec.default, (value, done) => changed({ ...now, [label]: value }, done)))));
  }

  /** Show a value; nothing moves under the hand that drags. */
  function set(value) {
    const next = value ?? spec.default;
    if (held) return;
    if (JSON.stringify(next) === JSON.stringify(now) && body.firstChild) return;
    now = next;
    draw();
  }
  draw();
  if (spec.kind === "bool") made.querySelector(".theta-hint").remove();
  return { name: spec.name, element: made, value: () => now, set };
}
