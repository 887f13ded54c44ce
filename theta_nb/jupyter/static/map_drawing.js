// The parts of a heatmap on its canvas.
//
// A scene: `data` as of map.js, `theme`, `scale`; `rows`, `columns` that are seen, from the first to before the last; `left`,
// `top`, `across`, `down` (scroll.js), `scrollX`, `scrollY`: where they lie; `selection`, `band`, `hovered`, `cursor`
// (-1: none): what is outlined; `heads`: whether columns have labels.

import { fitted } from "./dom.js";
import { tableOf } from "./legend.js";

export const LABEL = 11; // px, size of the font

/** Draw everything but the legend; `image` is of paintedCells(). */
export function drawCells(context, scene, image) {
  const { rows, columns, left, top, across, down, scrollX, scrollY } = scene;
  if (columns[1] > columns[0] && rows[1] > rows[0]) {
    context.save();
    context.beginPath();
    context.rect(left, top, across.length, down.length);
    context.clip();
    context.imageSmoothingEnabled = false;
    const [w, h] = [columns[1] - columns[0], rows[1] - rows[0]];
    const [x, y] = [left + columns[0] * across.cell - scrollX, top + rows[0] * down.cell - scrollY];
    context.drawImage(image, columns[0], rows[0], w, h, x, y, w * across.cell, h * down.cell);
    for (const part of [drawGaps, drawHatches, drawMarks, drawOutlines]) part(context, scene);
    context.restore();
  }
  drawLabels(context, scene);
  drawScrolls(context, scene);
}

/** The cells as a picture of one pixel each, scaled up when it is drawn. */
export function paintedCells({ data, scale, theme }) {
  const [rows, columns] = [data.rows.length, data.columns.length];
  const pixels = new ImageData(Math.max(1, columns), Math.max(1, rows));
  const table = tableOf(scale, theme.dark);
  const words = new Uint32Array(pixels.data.buffer);
  const colors = new Uint32Array(256);
  for (let i = 0; i < 256; i += 1) colors[i] = (255 << 24) | (table[3 * i + 2] << 16) | (table[3 * i + 1] << 8) | table[3 * i];
  const blank = theme.dark ? 0x2affffff : 0x18000000; // a cell without a colour: unchanged, or not measured
  for (let i = 0; i < words.length && i < data.values.length; i += 1) {
    if (data.present && !data.present[i]) continue;
    const share = scale.share(data.values[i]);
    words[i] = share === share && !data.hatched?.has(i) ? colors[(share * 255 + 0.5) | 0] : blank;
  }
  const made = document.createElement("canvas");
  [made.width, made.height] = [pixels.width, pixels.height];
  made.getContext("2d").putImageData(pixels, 0, 0);
  return made;
}

function drawGaps(context, { theme, rows, columns, left, top, across, down, scrollX, scrollY }) {
  context.strokeStyle = theme.surface;
  context.lineWidth = 1;
  context.beginPath();
  if (across.cell >= 5) {
    for (let c = columns[0]; c <= columns[1]; c += 1) {
      const x = Math.round(left + c * across.cell - scrollX) - 0.5;
      context.moveTo(x, top), context.lineTo(x, top + down.length);
    }
  }
  if (down.cell >= 5) {
    for (let r = rows[0]; r <= rows[1]; r += 1) {
      const y = Math.round(top + r * down.cell - scrollY) - 0.5;
      context.moveTo(left, y), context.lineTo(left + across.length, y);
    }
  }
  context.stroke();
}

function drawHatches(context, { data, theme, rows, columns, left, top, across, down, scrollX, scrollY }) {
  if (!data.hatched?.size) return;
  context.beginPath();
  for (const index of data.hatched) {
    const [r, c] = [Math.floor(index / data.columns.length), index % data.columns.length];
    if (r < rows[0] || r >= rows[1] || c < columns[0] || c >= columns[1]) continue;
    context.rect(left + c * across.cell - scrollX, top + r * down.cell - scrollY, across.cell, down.cell);
  }
  context.fillStyle = hatching(context, theme.dim);
  context.fill();
}

function drawMarks(context, { data, theme, rows, columns, left, top, across, down, scrollX, scrollY }) {
  if (!data.marks?.size || down.cell < 9 || across.cell < 9) return;
  context.fillStyle = theme.text;
  context.textAlign = "center";
  context.textBaseline = "middle";
  for (const [index, sign] of data.marks) {
    const [r, c] = [Math.floor(index / data.columns.length), index % data.columns.length];
    if (r < rows[0] || r >= rows[1] || c < columns[0] || c >= columns[1]) continue;
    context.fillText(sign, left + (c + 0.5) * across.cell - scrollX, top + (r + 0.5) * down.cell - scrollY);
  }
}

function drawOutlines(context, { data, theme, left, top, across, down, scrollX, scrollY, selection, band, hovered, cursor }) {
  const outline = (index, color, width) => {
    const [r, c] = [Math.floor(index / data.columns.length), index % data.columns.length];
    context.strokeStyle = color;
    context.lineWidth = width;
    const inset = width / 2;
    context.strokeRect(
      left + c * across.cell - scrollX + inset - 0.5, top + r * down.cell - scrollY + inset - 0.5,
      Math.max(2, across.cell - width), Math.max(2, down.cell - width),
    );
  };
  if (band) {
    const [from, to] = [Math.min(...band), Math.max(...band)];
    context.strokeStyle = theme.accent;
    context.lineWidth = 2;
    context.strokeRect(left + from * across.cell - scrollX, top + 1, (to - from + 1) * across.cell, down.length - 2);
  }
  for (const index of selection) outline(index, theme.accent, 2.5);
  if (hovered >= 0) outline(hovered, theme.text, 1.5);
  if (cursor >= 0) {
    outline(cursor, theme.surface, 4);
    outline(cursor, theme.text, 2);
  }
}

function drawLabels(context, { data, theme, rows, columns, left, top, across, down, scrollX, scrollY, heads }) {
  context.fillStyle = theme.dim;
  context.textBaseline = "middle";
  context.textAlign = "right";
  const every = Math.max(1, Math.ceil((LABEL + 1) / down.cell));
  for (let r = Math.ceil(rows[0] / every) * every; r < rows[1]; r += every) {
    const y = top + (r + 0.5) * down.cell - scrollY;
    if (y < top + 3 || y > top + down.length - 3) continue;
    context.fillText(fitted(context, data.rows[r], left - 8), left - 6, y);
  }
  if (!heads) return;
  const skip = Math.max(1, Math.ceil((LABEL + 3) / across.cell));
  context.textAlign = "left";
  for (let c = Math.ceil(columns[0] / skip) * skip; c < columns[1]; c += skip) {
    context.save();
    context.translate(left + (c + 0.5) * across.cell - scrollX, top - 5);
    context.rotate(-Math.PI / 4);
    context.fillText(fitted(context, data.columns[c], (top - 8) * 1.38), 0, 0);
    context.restore();
  }
}

function drawScrolls(context, { theme, left, top, across, down, scrollX, scrollY }) {
  context.fillStyle = theme.dim;
  context.globalAlpha = 0.5;
  if (down.reach > 0) {
    const length = Math.max(18, (down.length / (down.length + down.reach)) * down.length);
    context.fillRect(left + across.length + 3, top + (scrollY / down.reach) * (down.length - length), 4, length);
  }
  if (across.reach > 0) {
    const length = Math.max(18, (across.length / (across.length + across.reach)) * across.length);
    context.fillRect(left + (scrollX / across.reach) * (across.length - length), top + down.length + 2, length, 4);
  }
  context.globalAlpha = 1;
}

/** Thin diagonal lines. */
export function hatching(context, color) {
  const tile = document.createElement("canvas");
  [tile.width, tile.height] = [6, 6];
  const pen = tile.getContext("2d");
  pen.strokeStyle = color;
  pen.globalAlpha = 0.7;
  for (const at of [-6, 0, 6]) pen.moveTo(at, 6), pen.lineTo(at + 6, 0);
  pen.stroke();
  return context.createPattern(tile, "repeat");
}
