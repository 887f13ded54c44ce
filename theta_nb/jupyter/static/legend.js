// What the colours of a map stand for: a bar with ticks, or a swatch for each name.

import { categoryColor, colorAt, sequential, signed } from "./colors.js";
import { fitted } from "./dom.js";
import { short } from "./numbers.js";

/** Height of a legend, in px. */
export const LEGEND = 34;

/** The colour table of a scale. */
export const tableOf = (scale, dark) => scale.table?.() ?? (scale.symmetric ? signed(dark) : sequential());

/**
 * @param {CanvasRenderingContext2D} context with its font set
 * @param {Object} theme of readTheme()
 * @param {{left, top, down: {length}, width}} place below which cells
 * @param {{scale, title, writeTick?, hatching?: [string, CanvasPattern]}} what of createScale() or createCategories();
 *   what hatched cells stand for
 */
export function drawLegend(context, theme, { left, top, down, width }, { scale, title, writeTick = short, hatching = null }) {
  if (!title) return;
  const y = top + down.length + 12;
  context.textAlign = "left";
  context.textBaseline = "middle";
  if (scale.categories) return void drawSwatches(context, theme, scale.categories, left, y + 4, width);
  const table = tableOf(scale, theme.dark);
  const length = Math.min(190, Math.max(90, width - left - 150));
  const bar = context.createLinearGradient(left, 0, left + length, 0);
  for (let i = 0; i <= 16; i += 1) bar.addColorStop(i / 16, colorAt(table, i / 16));
  context.fillStyle = bar;
  context.fillRect(left, y, length, 7);
  context.fillStyle = theme.dim;
  context.textBaseline = "top";
  context.textAlign = "center";
  let free = -Infinity;
  for (const tick of scale.ticks) {
    const x = left + scale.share(tick) * length;
    const text = writeTick(tick);
    const half = context.measureText(text).width / 2;
    if (x - half < free) continue;
    free = x + half + 8;
    context.fillRect(x - 0.5, y + 7, 1, 3);
    context.fillText(text, x, y + 11);
  }
  context.textAlign = "left";
  context.textBaseline = "middle";
  const name = fitted(context, title + (scale.log ? "  (log)" : ""), width - left - length - 18);
  context.fillText(name, left + length + 16, y + 4);
  if (!hatching) return;
  const x = left + length + 16 + context.measureText(name).width + 18;
  context.fillText(hatching[0], x + 18, y + 4);
  for (const style of [theme.dark ? "#ffffff2a" : "#00000018", hatching[1]]) {
    context.fillStyle = style;
    context.fillRect(x, y - 1, 12, 10);
  }
}

/** As many names as there is room for. */
function drawSwatches(context, theme, names, left, y, width) {
  let x = left;
  names.forEach((name, at) => {
    const room = width - x - 18;
    if (room < 30) return;
    context.fillStyle = categoryColor(at);
    context.fillRect(x, y - 5, 10, 10);
    context.fillStyle = theme.dim;
    const text = fitted(context, name, room);
    context.fillText(text, x + 14, y);
    x += 14 + context.measureText(text).width + 14;
  });
}
