// Magnitudes by powers of two, several series in one drawing.
//
// Data contract
//   series   [{label, color, counts, top, filled}]: counts is a Float32Array of shares per octave, the last one below
//            2**top; everything smaller than the first octave is in it.

import { element, oncePerFrame, sharp } from "./dom.js";
import { readTheme, watchTheme } from "./colors.js";
import { percent } from "./numbers.js";

/** Octaves that any series uses: exponent of the first lower edge, of the last upper one, and the largest share. */
export function extentOf(series) {
  let [low, high, most] = [Infinity, -Infinity, 0];
  for (const { counts, top } of series) {
    for (let i = 0; i < counts.length; i += 1) {
      if (!(counts[i] > 1e-6)) continue;
      low = Math.min(low, top - counts.length + i);
      high = Math.max(high, top - counts.length + i + 1);
      most = Math.max(most, counts[i]);
    }
  }
  return low < high ? { low, high, most } : null;
}

/** Share of a series in the octave that begins at 2**exponent. */
export function shareAt({ counts, top }, exponent) {
  return counts[exponent - top + counts.length] ?? 0;
}

/** @param {HTMLElement} root where to draw; @param {{label: string, height?: number}} options */
export function createHistogram(root, options = {}) {
  const canvas = element("canvas.theta-canvas", { role: "img", "aria-label": options.label ?? "histogram" });
  const holder = element("div.theta-drawing", {}, canvas);
  const note = element("div.theta-note", { "aria-live": "off" });
  root.append(holder, note);
  const height = options.height ?? 150;
  let [series, extent, at] = [[], null, null];
  const redraw = oncePerFrame(draw);

  function draw() {
    if (!holder.clientWidth) return;
    const theme = readTheme(root);
    const width = holder.clientWidth;
    const context = sharp(canvas, width, height);
    context.font = `11px ${theme.font}`;
    if (!extent) return;
    const [left, right, top, bottom] = [6, 6, 8, 20];
    const step = (width - left - right) / (extent.high - extent.low);
    const [x, y] = [(e) => left + (e - extent.low) * step, (share) => height - bottom - (share / extent.most) * (height - top - bottom)];
    for (const one of series) {
      context.beginPath();
      context.moveTo(x(extent.low), y(0));
      for (let e = extent.low; e < extent.high; e += 1) {
        const level = y(shareAt(one, e));
        context.lineTo(x(e), level), context.lineTo(x(e + 1), level);
      }
      context.lineTo(x(extent.high), y(0));
      context.strokeStyle = context.fillStyle = one.color;
      if (one.filled) (context.globalAlpha = 0.45), context.fill(), (context.globalAlpha = 1);
      context.lineWidth = one.width ?? 1.6;
      context.stroke();
    }
    if (at !== null) {
      context.fillStyle = theme.text;
      context.globalAlpha = 0.08;
      context.fillRect(x(at), top, step, height - top - bottom);
      context.globalAlpha = 1;
    }
    context.fillStyle = theme.dim;
    context.fillRect(left, height - bottom + 0.5, width - left - right, 1);
    context.textAlign = "center";
    const every = Math.max(1, Math.ceil(34 / step));
    for (let e = Math.ceil(extent.low / every) * every; e <= extent.high; e += every) {
      const place = Math.max(14, Math.min(width - 14, x(e)));
      context.fillText(`2${raised(e)}`, place, height - 5);
    }
  }

  function describe() {
    if (at === null) return "share of entries per octave of |x|";
    const shares = series.map((one) => `${one.label} ${percent(shareAt(one, at))}`);
    return `2${raised(at)} to 2${raised(at + 1)}: ${shares.join(", ")}`;
  }

  canvas.addEventListener("pointermove", (event) => {
    if (!extent) return;
    const share = (event.offsetX - 6) / (canvas.clientWidth - 12);
    const next = Math.max(extent.low, Math.min(extent.high - 1, Math.floor(extent.low + share * (extent.high - extent.low))));
    if (next === at) return;
    at = next;
    note.textContent = describe();
    redraw();
  });
  canvas.addEventListener("pointerleave", () => ((at = null), (note.textContent = describe()), redraw()));
  const sized = new ResizeObserver(redraw);
  sized.observe(holder);
  const unwatch = watchTheme(root, redraw);
  return {
    setData(next) {
      [series, extent, at] = [next, extentOf(next), null];
      note.textContent = extent ? describe() : "all values are zero";
      redraw();
    },
    destroy: () => (redraw.cancel(), sized.disconnect(), unwatch(), holder.remove(), note.remove()),
  };
}

const DIGITS = "⁰¹²³⁴⁵⁶⁷⁸⁹";
/** An exponent in raised digits. */
export const raised = (number) => String(number).replace("-", "⁻").replace(/\d/g, (digit) => DIGITS[digit]);
