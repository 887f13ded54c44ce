// A matrix scaled down to cells, with profiles along its rows and columns.
//
// Data contract
//   shape             [rows, columns] of the matrix itself
//   cells             {data: Float32Array, shape: [rows, columns]} of the picture
//   rows, columns     {data: Float32Array} one number for each row and column of cells
//   symmetric         whether the cells are signed

import { element, oncePerFrame, sharp } from "./dom.js";
import { createScale, readTheme, sequential, signed, watchTheme } from "./colors.js";
import { short } from "./numbers.js";

const PROFILE = 34; // px

/** Rows or columns of the matrix that a cell stands for: first and last. */
export function extentOfCell(index, cells, whole) {
  const first = Math.ceil((index * whole) / cells);
  return [first, Math.max(first, Math.ceil(((index + 1) * whole) / cells) - 1)];
}

/** @param {HTMLElement} root where to draw; @param {{label, onPick?(row, column)}} options a click picks a place of the matrix */
export function createPicture(root, options = {}) {
  const canvas = element("canvas.theta-canvas", { role: "img", "aria-label": options.label ?? "picture" });
  const holder = element("div.theta-drawing", {}, canvas);
  const note = element("div.theta-note");
  root.append(holder, note);
  let [data, scale, at, box] = [null, null, null, null];
  const redraw = oncePerFrame(draw);

  function bitmap(theme) {
    const [rows, columns] = data.cells.shape;
    const pixels = new ImageData(columns, rows);
    const table = data.symmetric ? signed(theme.dark) : sequential();
    for (let i = 0; i < rows * columns; i += 1) {
      const share = scale.share(data.cells.data[i]);
      const color = 3 * Math.round((Number.isNaN(share) ? 0 : share) * 255);
      for (let c = 0; c < 3; c += 1) pixels.data[4 * i + c] = table[color + c];
      pixels.data[4 * i + 3] = Number.isNaN(data.cells.data[i]) ? 0 : 255;
    }
    const made = document.createElement("canvas");
    [made.width, made.height] = [columns, rows];
    made.getContext("2d").putImageData(pixels, 0, 0);
    return made;
  }

  function draw() {
    if (!holder.clientWidth || !data) return;
    const theme = readTheme(root);
    const [rows, columns] = data.cells.shape;
    const width = Math.min(holder.clientWidth, 320) - PROFILE - 4;
    const height = rows === 1 ? 26 : Math.max(40, Math.min(220, (width * rows) / columns));
    box = { left: 0, top: PROFILE, width, height: Math.round(height) };
    const context = sharp(canvas, width + PROFILE + 4, box.height + PROFILE + 2);
    context.imageSmoothingEnabled = false;
    context.drawImage(bitmap(theme), 0, 0, columns, rows, box.left, box.top, box.width, box.height);
    context.strokeStyle = theme.border;
    context.strokeRect(0.5, box.top + 0.5, box.width - 1, box.height - 1);
    profile(context, theme, data.columns.data, (i, share) => [(i / columns) * width, PROFILE - 3 - share * (PROFILE - 6), width / columns, share * (PROFILE - 6) + 1]);
    if (rows > 1) profile(context, theme, data.rows.data, (i, share) => [width + 4, box.top + (i / rows) * box.height, share * (PROFILE - 6) + 1, box.height / rows]);
    if (at) {
      context.strokeStyle = theme.text;
      context.strokeRect((at[1] / columns) * width, box.top + (at[0] / rows) * box.height, width / columns, box.height / rows);
    }
  }

  function profile(context, theme, values, place) {
    const most = values.reduce((found, value) => (Number.isFinite(value) ? Math.max(found, value) : found), 0) || 1;
    context.fillStyle = "#e69f00";
    values.forEach((value, i) => Number.isFinite(value) && context.fillRect(...place(i, value / most)));
  }

  const cellAt = (event) => {
    if (!data || !box) return null;
    const [rows, columns] = data.cells.shape;
    const row = Math.floor(((event.offsetY - box.top) / box.height) * rows);
    const column = Math.floor((event.offsetX / box.width) * columns);
    return row >= 0 && row < rows && column >= 0 && column < columns ? [row, column] : null;
  };
  const range = ([first, last]) => (first === last ? String(first) : `${first}–${last}`);
  const idle = () => (data ? `${data.shape[0]} × ${data.shape[1]}, ${data.symmetric ? "mean of Δ" : "rms of Δ"} per cell` : "");
  canvas.addEventListener("pointermove", (event) => {
    at = cellAt(event);
    if (at) {
      const [rows, columns] = data.cells.shape;
      const where = [range(extentOfCell(at[0], rows, data.shape[0])), range(extentOfCell(at[1], columns, data.shape[1]))];
      note.textContent = `rows ${where[0]}, columns ${where[1]}: ${short(data.cells.data[at[0] * columns + at[1]])}`;
    } else note.textContent = idle();
    redraw();
  });
  canvas.addEventListener("pointerleave", () => ((at = null), (note.textContent = idle()), redraw()));
  canvas.addEventListener("click", (event) => {
    const cell = cellAt(event);
    if (!cell) return;
    const [rows, columns] = data.cells.shape;
    options.onPick?.(extentOfCell(cell[0], rows, data.shape[0])[0], extentOfCell(cell[1], columns, data.shape[1])[0]);
  });
  const sized = new ResizeObserver(redraw);
  sized.observe(holder);
  const unwatch = watchTheme(root, redraw);
  return {
    setData(next) {
      [data, at] = [next, null];
      scale = createScale(next.cells.data, { symmetric: next.symmetric });
      note.textContent = idle();
      redraw();
    },
    destroy: () => (redraw.cancel(), sized.disconnect(), unwatch(), holder.remove(), note.remove(), (data = null)),
  };
}
