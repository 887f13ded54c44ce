// A curve over numbers, with lines to compare it with; points are chosen by click or by keys.
//
// Data contract
//   points   [{x, y, number}] in order of x; y NaN where nothing was measured
//   lines    [{label, value, color}] across the whole width
//   chosen   number of the point that is marked; 0 for none
//   xs       all places on the axis, also of points that are still to come

import { element, fitted, oncePerFrame, sharp, uniqueId } from "./dom.js";
import { SERIES, readTheme, ticksOf, watchTheme } from "./colors.js";
import { score } from "./panel_parts.js";

const [LEFT, RIGHT, TOP, BOTTOM] = [52, 74, 10, 34];

/** The nearest point to a place, by x; -1 if there is none. */
export function nearest(points, x) {
  let [best, at] = [Infinity, -1];
  points.forEach((point, i) => {
    const distance = Math.abs(point.x - x);
    if (Number.isFinite(point.y) && distance < best) [best, at] = [distance, i];
  });
  return at;
}

/** Where labels stand that would lie on each other: at least `gap` apart, in the order of their places. */
export function apart(places, gap, low, high) {
  const order = places.map((_, i) => i).sort((a, b) => places[a] - places[b]);
  const out = [...places];
  let free = low;
  for (const i of order) (out[i] = Math.max(out[i], free)), (free = out[i] + gap);
  free = high;
  for (const i of order.reverse()) (out[i] = Math.min(out[i], free)), (free = out[i] - gap);
  return out;
}

/** @param {HTMLElement} root where to draw; @param {{label: string, onSelect: function(Object): void, height?: number}} options */
export function createSweepPlot(root, options) {
  const id = uniqueId("sweep");
  const canvas = element("canvas.theta-canvas", { tabindex: 0, role: "application", "aria-roledescription": "curve", "aria-label": options.label, "aria-describedby": id });
  const said = element("div.theta-unseen", { id, "aria-live": "polite" });
  const tip = element("div.theta-tip", { hidden: true, "aria-hidden": "true" });
  const holder = element("div.theta-map", {}, canvas, tip, said);
  root.append(holder);
  let [data, at, size] = [{ points: [], lines: [], xs: [], chosen: 0, title: "", describe: () => [] }, -1, null];
  const redraw = oncePerFrame(draw);
  const height = options.height ?? 210;

  function bounds() {
    const xs = data.xs.length ? data.xs : [0, 1];
    const ys = [...data.points.map(({ y }) => y), ...data.lines.map(({ value }) => value)].filter(Number.isFinite);
    const [low, high] = ys.length ? [Math.min(...ys), Math.max(...ys)] : [0, 1];
    const margin = (high - low || Math.abs(high) || 1) * 0.08;
    const [left, right] = [Math.min(...xs), Math.max(...xs)];
    return { x: [left, right > left ? right : left + 1], y: [low - margin, high + margin] };
  }

  function draw() {
    const theme = readTheme(holder);
    const width = Math.max(200, holder.clientWidth);
    const context = sharp(canvas, width, height);
    const { x, y } = bounds();
    const px = (value) => LEFT + ((value - x[0]) / (x[1] - x[0])) * (width - LEFT - RIGHT);
    const py = (value) => height - BOTTOM - ((value - y[0]) / (y[1] - y[0])) * (height - TOP - BOTTOM);
    size = { width, px, back: (place) => x[0] + ((place - LEFT) / (width - LEFT - RIGHT)) * (x[1] - x[0]) };
    context.font = `11px ${theme.font}`;
    drawAxes(context, theme, width, { x, y, px, py });
    drawLines(context, theme, width, py);
    drawCurve(context, theme, px, py);
    canvas.dataset.drawn = String(Number(canvas.dataset.drawn ?? 0) + 1);
  }

  function drawAxes(context, theme, width, { x, y, px, py }) {
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (const tick of ticksOf(...y)) {
      context.fillStyle = theme.border;
      context.globalAlpha = 0.6;
      context.fillRect(LEFT, Math.round(py(tick)), width - LEFT - RIGHT, 1);
      context.globalAlpha = 1;
      context.fillStyle = theme.dim;
      context.fillText(score(tick), LEFT - 6, py(tick));
    }
    context.textAlign = "center";
    context.textBaseline = "top";
    for (const tick of ticksOf(...x)) {
      context.fillRect(Math.round(px(tick)), height - BOTTOM, 1, 4);
      context.fillText(String(tick), px(tick), height - BOTTOM + 6);
    }
    context.fillText(fitted(context, data.title, width - LEFT - RIGHT), (LEFT + width - RIGHT) / 2, height - 13);
  }

  function drawLines(context, theme, width, py) {
    const lines = data.lines.filter(({ value }) => Number.isFinite(value));
    const places = apart(lines.map(({ value }) => py(value)), 13, TOP + 4, height - BOTTOM - 4);
    context.textAlign = "left";
    context.textBaseline = "middle";
    lines.forEach(({ label, value, color }, i) => {
      context.strokeStyle = color;
      context.setLineDash([5, 4]);
      context.lineWidth = 1.3;
      context.beginPath();
      context.moveTo(LEFT, py(value));
      context.lineTo(width - RIGHT, py(value));
      context.stroke();
      context.setLineDash([]);
      context.fillStyle = color;
      context.fillRect(width - RIGHT + 5, places[i] - 4, 3, 8);
      context.fillStyle = theme.text;
      context.fillText(fitted(context, label, RIGHT - 14), width - RIGHT + 11, places[i]);
    });
  }

  function drawCurve(context, theme, px, py) {
    context.strokeStyle = context.fillStyle = SERIES.new;
    context.lineWidth = 1.8;
    context.beginPath();
    let pen = false;
    for (const { x, y } of data.points) {
      if (!Number.isFinite(y)) (pen = false);
      else context[pen ? "lineTo" : "moveTo"](px(x), py(y)), (pen = true);
    }
    context.stroke();
    data.points.forEach(({ x, y, number }, i) => {
      if (!Number.isFinite(y)) return;
      const marked = number === data.chosen;
      context.beginPath();
      context.arc(px(x), py(y), marked ? 6 : i === at ? 5 : 3.5, 0, 7);
      context.fill();
      if (!marked && i !== at) return;
      context.lineWidth = 2;
      context.strokeStyle = marked ? theme.text : theme.accent;
      context.stroke();
      context.strokeStyle = SERIES.new;
    });
  }

  function show(next) {
    at = next;
    const lines = at < 0 ? [] : data.describe(data.points[at]);
    tip.hidden = !lines.length;
    said.textContent = lines.join(", ");
    tip.replaceChildren(...lines.map((line, i) => element(i ? "div" : "div.theta-strong", {}, line)));
    if (lines.length) {
      const x = size.px(data.points[at].x);
      tip.style.left = `${Math.max(0, Math.min(size.width - tip.offsetWidth - 4, x + 14))}px`;
      tip.style.top = "8px";
    }
    redraw();
  }

  canvas.addEventListener("pointermove", (event) => size && show(nearest(data.points, size.back(event.offsetX))));
  canvas.addEventListener("pointerleave", () => show(-1));
  canvas.addEventListener("click", (event) => {
    const found = size ? nearest(data.points, size.back(event.offsetX)) : -1;
    if (found >= 0) options.onSelect(data.points[found]);
  });
  canvas.addEventListener("keydown", (event) => {
    const last = data.points.length - 1;
    const moves = { ArrowLeft: Math.max(0, at - 1), ArrowRight: Math.min(last, at + 1), Home: 0, End: last };
    if (event.key in moves && last >= 0) show(moves[event.key]);
    else if ((event.key === "Enter" || event.key === " ") && at >= 0) options.onSelect(data.points[at]);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  canvas.addEventListener("blur", () => show(-1));
  const sized = new ResizeObserver(redraw);
  sized.observe(holder);
  const unwatch = watchTheme(root, redraw);
  return {
    canvas,
    setData(next) {
      data = next;
      if (at >= data.points.length) show(-1);
      redraw();
    },
    destroy: () => (redraw.cancel(), sized.disconnect(), unwatch(), holder.remove()),
  };
}
