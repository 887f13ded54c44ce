// Elements without a framework.

const FOCUSED = new Set(["button", "input", "select", "textarea", "a"]);

/**
 * An element.
 *
 * @param {string} tag name, with classes behind dots: "div.theta-row.theta-dim"
 * @param {Object} [attributes] attributes; functions become listeners ("onclick"), undefined and false are left out
 * @param {...(Node|string|null)} children texts are text, never markup
 */
export function element(tag, attributes = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const made = document.createElement(name);
  // JupyterLab takes keys from whatever has the focus, and looks for this mark from there upwards: a slider without it
  // would not hear the arrows.
  if (FOCUSED.has(name) || attributes.tabindex !== undefined) made.setAttribute("data-lm-suppress-shortcuts", "true");
  if (classes.length) made.className = classes.join(" ");
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === false || value === null) continue;
    if (typeof value === "function") made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : String(value));
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Replace what an element holds. */
export function fill(parent, ...children) {
  parent.replaceChildren(...children.filter((child) => child !== null && child !== undefined));
}

let following = null; // what was asked for in the frame that runs now, to be done in the same one

/**
 * A function that runs once in the next frame, however often it is asked for; in this one if a frame asks for it.
 *
 * A page in the background gets no frames, and needs no drawing either.
 */
export function oncePerFrame(work) {
  let [asked, queued, runs] = [0, false, false];
  function run() {
    [asked, queued, runs] = [0, false, true];
    try {
      work();
    } finally {
      runs = false;
    }
  }
  function frame() {
    following = [];
    try {
      run();
      while (following.length) following.shift()();
    } finally {
      following = null;
    }
  }
  const ask = () => {
    if (asked || queued) return;
    if (following && !runs) (queued = true), following.push(() => queued && run());
    else asked = requestAnimationFrame(frame);
  };
  ask.cancel = () => (cancelAnimationFrame(asked), ([asked, queued] = [0, false]));
  return ask;
}

/** A canvas as sharp as the screen: sets its size and returns a context in CSS pixels. */
export function sharp(canvas, width, height) {
  const ratio = globalThis.devicePixelRatio || 1;
  const [w, h] = [Math.max(1, Math.round(width * ratio)), Math.max(1, Math.round(height * ratio))];
  if (canvas.width !== w) canvas.width = w;
  if (canvas.height !== h) canvas.height = h;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

/** A text cut in its middle to a width; names of parameters say most at their ends. */
export function fitted(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let [low, high] = [0, text.length];
  const cut = (kept) => `…${text.slice(text.length - kept)}`;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (context.measureText(cut(middle)).width <= width) low = middle;
    else high = middle - 1;
  }
  return low ? cut(low) : "";
}

let counter = 0;
/** An id that no other element of the page has. */
export const uniqueId = (what) => `theta-${what}-${(counter += 1)}`;

/** Whether the reader asked for less motion. */
export const wantsStillness = () => globalThis.matchMedia?.("(prefers-reduced-motion: reduce)").matches ?? false;
