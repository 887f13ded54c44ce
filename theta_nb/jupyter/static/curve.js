// Lines over an index: singular values, metrics of commits.
//
// Data contract
//   series   [{label, color, values}]: Float32Array or array, NaN for gaps

import { element, oncePerFrame, sharp } from "./dom.js";
import { readTheme, ticksOf, watchTheme } from "./colors.js";
import { short } from "./numbers.js";

/** Bounds of all values; on a logarithmic axis of the positive ones, at most twelve decades deep. */
export function boundsOf(series, log = false) {
  let [low, high] = [Infinity, -Infinity];
  for (const { values } of series) {
    for (const value of values) {
      if (!Number.isFinite(value) || (log && value <= 0)) continue;
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
  }
  if (low > high) return null;
  if (log) return { low: Math.max(low, high * 1e-12) * 0.8, high: high * 1.25 };
  const margin = (high - low || Math.abs(high) || 1) * 0.08;
  return { low: low >= 0 && low < high * 0.5 ? 0 : low - margin, high: high + margin };
}

/** @param {HTMLElement} root where to draw; @param {{label, height?, log?, first?, describe?}} options */
export function createCurve(root, options = {}) {
  const canvas = element("canvas.theta-canvas", { role: "img", "aria-label": options.label ?? "curve" });
  const holder = element("div.theta-drawing", {}, canvas);
  const note = element("div.theta-note");
  root.append(holder, note);
  const [height, left, right, top, bottom] = [options.height ?? 150, 54, 8, 8, 20];
  let [series, bounds, idle, at] = [[], null, "", null];
  const redraw = oncePerFrame(draw);
  const length = () => Math.max(0, ...series.map(({ values }) => values.length));
  const place = (index, width) => left + (length() > 1 ? index / (length() - 1) : 0.5) * (width - left - right);

  function draw() {
    if (!holder.clientWidth) return;
    const theme = readTheme(root);
    const width = holder.clientWidth;
    const context = sharp(canvas, width, height);
    context.font = `11px ${theme.font}`;
    if (!bounds) return;
    const level = options.log
      ? (value) => (Math.log(value / bounds.low) / Math.log(bounds.high / bounds.low))
      : (value) => (value - bounds.low) / (bounds.high - bounds.low);
    const y = (value) => height - bottom - level(value) * (height - top - bottom);
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (const tick of ticksOf(bounds.low, bounds.high, options.log)) {
      context.fillStyle = theme.border;
      context.globalAlpha = 0.6;
      context.fillRect(left, Math.round(y(tick)), width - left - right, 1);
      context.globalAlpha = 1;
      context.fillStyle = theme.dim;
      context.fillText(short(tick), left - 5, y(tick));
    }
    for (const { values, color } of series) {
      context.strokeStyle = context.fillStyle = color;
      context.lineWidth = 1.7;
      context.beginPath();
      let pen = false;
      values.forEach((value, i) => {
        if (!Number.isFinite(value) || (options.log && value <= 0)) return void (pen = false);
        context[pen ? "lineTo" : "moveTo"](place(i, width), y(value));
        pen = true;
      });
      context.stroke();
      if (values.length <= 40) {
        values.forEach((value, i) => {
          if (!Number.isFinite(value) || (options.log && value <= 0)) return;
          context.beginPath();
          context.arc(place(i, width), y(value), 2, 0, 7);
          context.fill();
        });
      }
    }
    context.fillStyle = theme.dim;
    context.textAlign = "left";
    context.fillText(String(options.first ?? 1), left, height - 8);
    context.textAlign = "right";
    context.fillText(String((options.first ?? 1) + length() - 1), width - right, height - 8);
    if (at !== null) (context.globalAlpha = 0.5), context.fillRect(place(at, width), top, 1, height - top - bottom);
  }

  canvas.addEventListener("pointermove", (event) => {
    if (!bounds) return;
    const share = (event.offsetX - left) / (canvas.clientWidth - left - right);
    at = Math.max(0, Math.min(length() - 1, Math.round(share * (length() - 1))));
    const values = series.map((one) => `${series.length > 1 ? `${one.label} ` : ""}${short(one.values[at] ?? NaN)}`);
    note.textContent = `${(options.first ?? 1) + at}: ${values.join(", ")}`;
    redraw();
  });
  canvas.addEventListener("pointerleave", () => ((at = null), (note.textContent = idle), redraw()));
  const sized = new ResizeObserver(redraw);
  sized.observe(holder);
  const unwatch = watchTheme(root, redraw);
  return {
    setData(next, text = "") {
      [series, bounds, idle, at] = [next, boundsOf(next, options.log), text, null];
      note.textContent = text;
      redraw();
    },
    destroy: () => (redraw.cancel(), sized.disconnect(), unwatch(), holder.remove(), note.remove()),
  };
}
