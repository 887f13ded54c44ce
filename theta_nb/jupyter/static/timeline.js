// Commits from left to right: their graph, branches and tags, bytes that they stored, and metrics.
//
// Data contract
//   commits   [{refs: [text], stored: bytes, parents: [position]}], oldest first
//   metrics   [{name, color, values: number[]}], one value per commit, NaN for none
// Columns lie where `setLayout` says, so that the drawing stands above a map of the same commits.

import { element, fitted, oncePerFrame, sharp } from "./dom.js";
import { readTheme, watchTheme } from "./colors.js";
import { lanesOf } from "./graph.js";
import { short, size } from "./numbers.js";

const [LANE, BARS, METRIC, REFS] = [16, 30, 34, 16];

/**
 * @param {HTMLElement} root where to draw
 * @param {Object} options label; onSelect(from, to): commits were chosen, equal for one; onHover(position): -1 for none
 */
export function createTimeline(root, options) {
  const canvas = element("canvas.theta-canvas", { role: "img", "aria-label": options.label ?? "commit graph" });
  const holder = element("div.theta-timeline", {}, canvas);
  root.append(holder);
  let [commits, metrics, graph] = [[], [], { lane: [], lanes: 0, edges: [] }];
  let layout = { left: 100, cell: 20, scroll: 0, length: 0, width: 0 };
  let [chosen, hovered, dragged] = [null, -1, null];
  const redraw = oncePerFrame(draw);
  const x = (position) => layout.left + (position + 0.5) * layout.cell - layout.scroll;
  const laneTop = () => REFS + 4;
  const y = (lane) => laneTop() + (lane + 0.5) * LANE;

  function draw() {
    if (!layout.length) return;
    const theme = readTheme(root);
    const lanes = Math.min(graph.lanes, 8);
    const height = laneTop() + lanes * LANE + 6 + BARS + metrics.length * METRIC + 6;
    const context = sharp(canvas, layout.width, height);
    context.font = `11px ${theme.font}`;
    context.save();
    context.beginPath();
    context.rect(layout.left - 8, 0, layout.length + 60, height);
    context.clip();
    drawChosen(context, theme, height);
    drawEdges(context, theme);
    drawNodes(context, theme);
    drawRefs(context, theme);
    const bars = laneTop() + lanes * LANE + 6;
    drawBars(context, theme, bars);
    metrics.forEach((metric, i) => drawMetric(context, metric, bars + BARS + i * METRIC));
    context.restore();
    drawNames(context, theme, bars);
  }

  function drawChosen(context, theme, height) {
    const span = dragged ?? chosen;
    context.fillStyle = theme.accent;
    context.globalAlpha = 0.16;
    if (span) {
      const [from, to] = [Math.min(...span), Math.max(...span)];
      context.fillRect(x(from) - layout.cell / 2, 0, (to - from + 1) * layout.cell, height);
    }
    if (hovered >= 0) context.fillRect(x(hovered) - layout.cell / 2, 0, layout.cell, height);
    context.globalAlpha = 1;
  }

  function drawEdges(context, theme) {
    context.lineWidth = 1.6;
    context.strokeStyle = theme.dim;
    for (const { child, parent, merge } of graph.edges) {
      const [a, b] = [[x(parent), y(graph.lane[parent])], [x(child), y(graph.lane[child])]];
      const bend = Math.min(layout.cell, b[0] - a[0]);
      context.beginPath();
      context.moveTo(...a);
      if (merge) {
        context.lineTo(b[0] - bend, a[1]);
        context.bezierCurveTo(b[0] - bend / 2, a[1], b[0] - bend / 2, b[1], ...b);
      } else {
        context.bezierCurveTo(a[0] + bend / 2, a[1], a[0] + bend / 2, b[1], a[0] + bend, b[1]);
        context.lineTo(...b);
      }
      context.stroke();
    }
  }

  function drawNodes(context, theme) {
    const radius = Math.max(1.5, Math.min(4.5, layout.cell / 3));
    commits.forEach((commit, i) => {
      context.beginPath();
      context.arc(x(i), y(graph.lane[i]), radius, 0, 7);
      context.fillStyle = commit.parents.length > 1 ? theme.surface : theme.accent;
      context.strokeStyle = theme.accent;
      context.fill();
      context.stroke();
    });
  }

  function drawRefs(context, theme) {
    context.textBaseline = "middle";
    context.textAlign = "left";
    for (let i = commits.length - 1, limit = Infinity; i >= 0; i -= 1) {
      if (!commits[i].refs.length) continue;
      const text = fitted(context, commits[i].refs.join(", "), 150);
      const width = context.measureText(text).width + 8;
      const start = Math.min(x(i) - 4, Math.min(layout.width - 2, layout.left + layout.length + 46) - width);
      if (start + width > limit) continue; // no room: the tip names them
      limit = start - 4;
      context.strokeStyle = theme.border;
      context.fillStyle = theme.faint;
      context.beginPath();
      context.roundRect(start, 1.5, width, REFS - 2, 4);
      context.fill();
      context.stroke();
      context.beginPath();
      context.moveTo(x(i), REFS);
      context.lineTo(x(i), y(graph.lane[i]) - 5);
      context.stroke();
      context.fillStyle = theme.text;
      context.fillText(text, start + 4, REFS / 2 + 1.5);
    }
  }

  function drawBars(context, theme, top) {
    const most = Math.max(1, ...commits.map((commit) => commit.stored));
    context.fillStyle = "#2b8cc4";
    commits.forEach((commit, i) => {
      if (!commit.stored) return;
      const height = Math.max(1, (commit.stored / most) * (BARS - 6));
      context.fillRect(x(i) - layout.cell * 0.35, top + BARS - 4 - height, Math.max(1, layout.cell * 0.7), height);
    });
    context.fillStyle = theme.border;
    context.fillRect(layout.left, top + BARS - 4, layout.length, 1);
  }

  function drawMetric(context, { values, color }, top) {
    const known = values.filter(Number.isFinite);
    const [low, high] = [Math.min(...known), Math.max(...known)];
    const level = (value) => top + METRIC - 6 - (high > low ? (value - low) / (high - low) : 0.5) * (METRIC - 12);
    context.strokeStyle = context.fillStyle = color;
    context.lineWidth = 1.6;
    context.beginPath();
    let pen = false;
    values.forEach((value, i) => {
      if (!Number.isFinite(value)) return;
      context[pen ? "lineTo" : "moveTo"](x(i), level(value));
      pen = true;
    });
    context.stroke();
    if (layout.cell < 6) return;
    values.forEach((value, i) => {
      if (!Number.isFinite(value)) return;
      context.beginPath();
      context.arc(x(i), level(value), 2, 0, 7);
      context.fill();
    });
  }

  function drawNames(context, theme, bars) {
    context.textAlign = "right";
    context.textBaseline = "middle";
    context.fillStyle = theme.dim;
    const right = layout.left - 12;
    const at = hovered >= 0 ? hovered : chosen ? chosen.at(-1) : -1;
    const write = (name, value, middle) => {
      context.fillText(fitted(context, name, right), right, value ? middle - 7 : middle);
      if (value) context.fillText(value, right, middle + 7);
    };
    write("stored", at >= 0 ? size(commits[at].stored) : "", bars + BARS / 2);
    metrics.forEach(({ name, color, values }, i) => {
      context.fillStyle = color;
      write(name, at >= 0 && Number.isFinite(values[at]) ? short(values[at]) : "", bars + BARS + (i + 0.5) * METRIC);
    });
  }

  const positionAt = (event) => {
    const position = Math.floor((event.offsetX - layout.left + layout.scroll) / layout.cell);
    return event.offsetX < layout.left || position < 0 || position >= commits.length ? -1 : position;
  };
  canvas.addEventListener("pointerdown", (event) => {
    const position = positionAt(event);
    if (position < 0 || event.button) return;
    dragged = event.shiftKey && chosen ? [chosen[0], position] : [position, position];
    canvas.setPointerCapture(event.pointerId);
    redraw();
  });
  canvas.addEventListener("pointermove", (event) => {
    const position = positionAt(event);
    if (dragged && position >= 0) dragged = [dragged[0], position];
    if (hovered !== position) options.onHover?.(position);
    hovered = position;
    redraw();
  });
  canvas.addEventListener("pointerup", () => {
    if (!dragged) return;
    const [from, to] = [Math.min(...dragged), Math.max(...dragged)];
    dragged = null;
    options.onSelect?.(from, to);
    redraw();
  });
  canvas.addEventListener("pointerleave", () => ((hovered = -1), options.onHover?.(-1), redraw()));
  const unwatch = watchTheme(root, redraw);
  return {
    canvas,
    setData(next) {
      ({ commits, metrics } = next);
      graph = lanesOf(commits.map((commit) => commit.parents));
      redraw();
    },
    /** Where the columns lie: {left, cell, scroll, length, width}. */
    setLayout(next) {
      if (Object.keys(next).every((key) => layout[key] === next[key])) return;
      layout = { ...next };
      redraw();
    },
    setHover(position) {
      if (hovered === position) return;
      hovered = position;
      redraw();
    },
    setSelection(span) {
      chosen = span;
      redraw();
    },
    destroy: () => (redraw.cancel(), unwatch(), holder.remove()),
  };
}
