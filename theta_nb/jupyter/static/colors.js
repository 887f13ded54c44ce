// Colours and scales: one visual language for every drawing.
//
// Maps use cividis (Nuñez et al., 2018), signed values a blue-orange scale, series the palette of Okabe and Ito (2008):
// readers who are colour-blind tell all of them apart. Everything else comes from the page's own variables.

const CIVIDIS = ["#00204d", "#00336f", "#39486b", "#575c6d", "#707173", "#8a8779", "#a69d75", "#c4b56c", "#e4cf5b", "#ffea46"];
const DIVERGING = {
  light: ["#2166ac", "#6aa4cf", "#c3dbea", "#f4f4f4", "#f5cfa8", "#dd8a3a", "#a34f00"],
  dark: ["#7db8ea", "#3f7fb8", "#27496a", "#26282b", "#6d4119", "#b8691a", "#f0a553"],
};

/** Series of one drawing; names say what they stand for. */
export const SERIES = { old: "#8c8c8c", new: "#2b8cc4", delta: "#e69f00", other: "#009e73", more: "#cc79a7" };

/** Colours of what happened to a parameter. */
export const STATUS = {
  added: "#009e73",
  removed: "#d55e00",
  renamed: "#b8860b",
  retyped: "#cc79a7",
  reshaped: "#cc79a7",
  modified: "#2b8cc4",
  unchanged: "#8c8c8c",
};

/** What stands before the name of a parameter. */
export const SIGNS = { added: "+", removed: "−", renamed: "→", retyped: "~", reshaped: "~", modified: "~", unchanged: "" };

const channels = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

/** 256 colours between some anchors, as bytes red, green, blue. */
export function ramp(anchors) {
  const stops = anchors.map(channels);
  const table = new Uint8Array(256 * 3);
  for (let i = 0; i < 256; i += 1) {
    const place = (i / 255) * (stops.length - 1);
    const low = Math.min(stops.length - 2, Math.floor(place));
    for (let c = 0; c < 3; c += 1) {
      table[3 * i + c] = Math.round(stops[low][c] + (place - low) * (stops[low + 1][c] - stops[low][c]));
    }
  }
  return table;
}

const SEQUENTIAL = ramp(CIVIDIS);
const SIGNED = { light: ramp(DIVERGING.light), dark: ramp(DIVERGING.dark) };

/** The colour table for magnitudes. */
export const sequential = () => SEQUENTIAL;
/** The colour table for signed values: zero in the middle, close to the background. */
export const signed = (dark) => (dark ? SIGNED.dark : SIGNED.light);

/** One colour of a table as CSS; `share` is 0 to 1. */
export function colorAt(table, share) {
  const at = 3 * Math.max(0, Math.min(255, Math.round(share * 255)));
  return `rgb(${table[at]},${table[at + 1]},${table[at + 2]})`;
}

// Tol's "light" scheme and two of Okabe and Ito: areas that stay apart for colour-blind readers, on light and on dark.
const CATEGORIES = ["#77aadd", "#ee8866", "#44bb99", "#eedd88", "#ffaabb", "#aaaa00", "#99ddff", "#bbcc33", "#cc79a7", "#999999"];

/** The colour of a category, as CSS. */
export const categoryColor = (at) => CATEGORIES[at % CATEGORIES.length];

/** A scale for numbers that stand for names: 0 for the first, and so on. */
export function createCategories(names) {
  const table = new Uint8Array(256 * 3);
  const last = Math.max(1, names.length - 1);
  for (let i = 0; i < 256; i += 1) table.set(channels(categoryColor(Math.round((i / 255) * last))), 3 * i);
  const share = (value) => (Number.isNaN(value) ? NaN : Math.max(0, Math.min(1, value / last)));
  return { low: 0, high: last, log: false, symmetric: false, categories: names, share, ticks: [], table: () => table };
}

/**
 * Where values lie on a colour scale.
 *
 * @param {Iterable<number>} values NaN for none
 * @param {{log?: boolean, symmetric?: boolean, low?: number, high?: number}} [options] `symmetric`: signed values, 0 in the middle
 * @returns {{low, high, log, symmetric, share: function(number): number, ticks: number[]}} `share` is 0 to 1, NaN for
 *   what has no place: NaN, and zero on a logarithmic scale. Infinities lie at the end.
 */
export function createScale(values, { log = false, symmetric = false, low, high } = {}) {
  let [smallest, largest] = [Infinity, 0];
  for (const value of values) {
    const magnitude = Math.abs(value);
    if (!(magnitude < Infinity)) continue;
    if (magnitude > largest) largest = magnitude;
    if (magnitude > 0 && magnitude < smallest) smallest = magnitude;
  }
  largest = high ?? (largest || 1);
  smallest = low ?? Math.min(smallest, largest);
  const logarithmic = log && !symmetric && largest > smallest * 1.0001;
  const span = logarithmic ? Math.log(largest / smallest) : 1;
  const share = (value) => {
    if (Number.isNaN(value)) return NaN;
    if (symmetric) return Math.max(0, Math.min(1, 0.5 + value / largest / 2));
    if (logarithmic) return value > 0 ? Math.max(0, Math.min(1, Math.log(value / smallest) / span)) : NaN;
    return Math.max(0, Math.min(1, value / largest));
  };
  const bottom = symmetric ? -largest : logarithmic ? smallest : 0;
  return { low: bottom, high: largest, log: logarithmic, symmetric, share, ticks: ticksOf(bottom, largest, logarithmic) };
}

/** A few round numbers between two bounds; powers of ten on a logarithmic scale. */
export function ticksOf(low, high, log = false) {
  const found = [];
  if (log) {
    const [first, last] = [Math.ceil(Math.log10(low) - 1e-9), Math.floor(Math.log10(high) + 1e-9)];
    const step = Math.max(1, Math.ceil((last - first + 1) / 5));
    for (let power = first; power <= last; power += step) found.push(Number(`1e${power}`));
    return found.length > 1 ? found : [low, Math.sqrt(low * high), high];
  }
  const rough = (high - low) / 4 || 1;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * [1, 2, 5, 10].find((factor) => unit * factor >= rough * 0.999);
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-6; value += step) {
    found.push(Number(value.toPrecision(12)));
  }
  return found;
}

/** Colours of the page around an element, as a canvas needs them. */
export function readTheme(root) {
  const style = getComputedStyle(root);
  const color = (name, fallback) => style.getPropertyValue(name).trim() || fallback;
  const dark = isDark(root);
  return {
    dark,
    text: style.color || color("--theta-text", dark ? "#ddd" : "#222"),
    dim: color("--theta-dim", dark ? "#aaa" : "#666"),
    border: color("--theta-border", dark ? "#555" : "#ccc"),
    surface: color("--theta-surface", dark ? "#111" : "#fff"),
    faint: color("--theta-faint", dark ? "#333" : "#eee"),
    accent: color("--theta-accent", "#2196f3"),
    font: style.fontFamily || "sans-serif",
  };
}

/** Whether the page around an element is dark: JupyterLab and VS Code say so, elsewhere the background tells. */
export function isDark(root) {
  const body = root.ownerDocument?.body;
  if (body?.dataset.jpThemeLight) return body.dataset.jpThemeLight === "false";
  if (body?.dataset.vscodeThemeKind) return body.dataset.vscodeThemeKind.includes("dark");
  return globalThis.matchMedia?.("(prefers-color-scheme: dark)").matches ?? false;
}

/** Call back when the page turns light or dark; returns a function that ends it. */
export function watchTheme(root, callback) {
  const observer = new MutationObserver(callback);
  const watched = { attributes: true, attributeFilter: ["data-jp-theme-light", "data-jp-theme-name", "class", "data-vscode-theme-kind"] };
  observer.observe(root.ownerDocument.body, watched);
  observer.observe(root.ownerDocument.documentElement, watched);
  const system = globalThis.matchMedia?.("(prefers-color-scheme: dark)");
  system?.addEventListener("change", callback);
  return () => (observer.disconnect(), system?.removeEventListener("change", callback));
}
