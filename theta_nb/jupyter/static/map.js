// A heatmap on a canvas, rows against columns.
//
// Data contract
//   rows, columns   texts
//   values          Float32Array of rows × columns, row by row; NaN where there is nothing to colour
//   present         Uint8Array likewise: 0 where there is no cell at all (optional: all are there)
//   marks           Map from index to a sign drawn in a cell ("+") (optional)
//   hatched         Set of indices of cells that are hatched instead of coloured; options.hatching says what it means
// Indices of cells are row * columns.length + column. The map knows nothing of models or commits.

import { element, oncePerFrame, sharp, uniqueId } from "./dom.js";
import { axisOf, cellAt, scrolledTo, seen } from "./scroll.js";
import { createScale, readTheme, watchTheme } from "./colors.js";
import { LEGEND, drawLegend } from "./legend.js";
import { LABEL, drawCells, hatching, paintedCells } from "./map_drawing.js";

/**
 * @param {HTMLElement} root where to draw
 * @param {Object} options
 *   label: what a screen reader calls it;
 *   describe(row, column): lines about a cell, the first one bold;
 *   onSelect(index, {extend, range}): a cell was chosen; with shift (`range`) or ctrl (`extend`);
 *   onHover(index): -1 for none; onLayout({left, cell, scroll, length}): where the columns lie;
 *   hatching: what hatched cells are, for the legend; heads: whether columns have labels; least, most: px per cell [across, down]; height: most px of the cells.
 */
export function createMap(root, options) {
  const { describe = () => [], heads = true, least = [7, 4], most = [84, 22], height = 440 } = options;
  const id = uniqueId("map");
  const canvas = element("canvas.theta-canvas", {
    tabindex: 0, role: "application", "aria-roledescription": "heat map", "aria-label": options.label ?? "map", "aria-describedby": id,
  });
  const said = element("div.theta-unseen", { id, "aria-live": "polite" });
  const tip = element("div.theta-tip", { hidden: true, "aria-hidden": "true" });
  const holder = element("div.theta-map", {}, canvas, tip, said);
  root.append(holder);

  let data = { rows: [], columns: [], values: new Float32Array(0) };
  let scale = createScale([]);
  let title = "";
  let selection = new Set();
  let [cursor, hovered, band] = [0, -1, null];
  let [zoom, scrollX, scrollY] = [1, 0, 0];
  let geometry = null;
  let image = null; // of paintedCells()

  const redraw = oncePerFrame(draw);

  function measure(context) {
    const width = Math.max(160, holder.clientWidth);
    const widest = (texts) => texts.reduce((most, text) => Math.max(most, context.measureText(text).width), 0);
    const sample = (texts) => (texts.length > 400 ? texts.filter((_, i) => i % Math.ceil(texts.length / 400) === 0) : texts);
    const left = Math.min(Math.ceil(widest(sample(data.rows))) + 10, Math.max(70, width * 0.34));
    const top = heads ? Math.min(96, Math.ceil(widest(sample(data.columns)) * 0.72) + 14) : 2;
    const across = axisOf(data.columns.length, width - left - 8, { least: least[0], most: most[0], zoom });
    const down = axisOf(data.rows.length, height, { least: least[1], most: most[1], zoom });
    // Tilted labels lean to the right, out of the last column.
    scrollX = Math.max(0, Math.min(scrollX, across.reach));
    scrollY = Math.max(0, Math.min(scrollY, down.reach));
    return { width, left, top, across, down, height: top + down.length + LEGEND };
  }

  function draw() {
    if (!holder.isConnected || !holder.clientWidth) return;
    const start = performance.now();
    const theme = readTheme(root);
    const font = `${LABEL}px ${theme.font}`;
    const probe = canvas.getContext("2d");
    probe.font = font;
    geometry = measure(probe);
    const { left, across, down } = geometry;
    const context = sharp(canvas, geometry.width, geometry.height);
    context.font = font;
    if (image?.dark !== theme.dark) image = { dark: theme.dark, canvas: paintedCells({ data, scale, theme }) };
    drawCells(context, {
      ...geometry, data, theme, scrollX, scrollY, selection, band, hovered, heads,
      columns: seen(scrollX, across, data.columns.length), rows: seen(scrollY, down, data.rows.length),
      cursor: document.activeElement === canvas && cursor < data.values.length ? cursor : -1,
    }, image.canvas);
    const hatched = data.hatched?.size && options.hatching ? [options.hatching, hatching(context, theme.dim)] : null;
    drawLegend(context, theme, geometry, { scale, title, writeTick: options.writeTick, hatching: hatched });
    options.onLayout?.({ left, cell: across.cell, scroll: scrollX, length: across.length, width: geometry.width });
    canvas.dataset.drawn = String(Number(canvas.dataset.drawn ?? 0) + 1);
    canvas.dataset.took = (performance.now() - start).toFixed(2);
  }

  const indexAt = (event) => {
    if (!geometry) return -1;
    const box = canvas.getBoundingClientRect();
    const column = cellAt(event.clientX - box.left - geometry.left, scrollX, geometry.across, data.columns.length);
    const row = cellAt(event.clientY - box.top - geometry.top, scrollY, geometry.down, data.rows.length);
    return row < 0 || column < 0 ? -1 : row * data.columns.length + column;
  };
  const exists = (index) => index >= 0 && index < data.values.length && !(data.present && !data.present[index]);
  const lines = (index) => describe(Math.floor(index / data.columns.length), index % data.columns.length);

  const fillTip = (index) => tip.replaceChildren(...lines(index).map((line, i) => element(i ? "div" : "div.theta-strong", {}, line)));

  function showTip(index, x, y) {
    if (!exists(index)) return void (tip.hidden = true);
    fillTip(index);
    tip.hidden = false;
    const free = holder.clientWidth - tip.offsetWidth;
    tip.style.left = `${Math.max(0, Math.min(x + 14, free))}px`;
    tip.style.top = `${y + 16}px`;
  }

  function hover(event) {
    const index = indexAt(event);
    const box = canvas.getBoundingClientRect();
    showTip(index, event.clientX - box.left, event.clientY - box.top);
    const found = exists(index) ? index : -1;
    if (found === hovered) return;
    hovered = found;
    options.onHover?.(found);
    redraw();
  }

  function leave() {
    hovered = -1;
    tip.hidden = true;
    options.onHover?.(-1);
    redraw();
  }

  const choose = (index, event) =>
    exists(index) && options.onSelect?.(index, { extend: event.ctrlKey || event.metaKey, range: event.shiftKey });

  function press(event) {
    const index = indexAt(event);
    if (!exists(index)) return;
    cursor = index;
    choose(index, event);
    redraw();
  }

  function wheel(event) {
    if (!geometry) return;
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault();
      return zoomBy(Math.exp(-event.deltaY / 400), event);
    }
    const [x, y] = event.shiftKey ? [event.deltaY || event.deltaX, 0] : [event.deltaX, event.deltaY];
    const before = [scrollX, scrollY];
    scrollX = Math.max(0, Math.min(geometry.across.reach, scrollX + x));
    scrollY = Math.max(0, Math.min(geometry.down.reach, scrollY + y));
    if (before[0] === scrollX && before[1] === scrollY) return; // at its end the page scrolls
    event.preventDefault();
    redraw();
  }

  function zoomBy(factor, event) {
    const { left, top, across, down } = geometry;
    const box = canvas.getBoundingClientRect();
    const [x, y] = event ? [event.clientX - box.left - left, event.clientY - box.top - top] : [across.length / 2, down.length / 2];
    const before = [(x + scrollX) / across.cell, (y + scrollY) / down.cell];
    zoom = Math.max(1, Math.min(24, zoom * factor));
    const probe = canvas.getContext("2d");
    const next = measure(probe);
    [scrollX, scrollY] = [before[0] * next.across.cell - x, before[1] * next.down.cell - y];
    redraw();
  }

  function moveCursor(rowStep, columnStep) {
    const width = data.columns.length;
    let [r, c] = [Math.floor(cursor / width), cursor % width];
    do {
      [r, c] = [r + rowStep, c + columnStep]; // over holes
    } while (r >= 0 && c >= 0 && r < data.rows.length && c < width && !exists(r * width + c));
    if (r < 0 || c < 0 || r >= data.rows.length || c >= width) return;
    placeCursor(r * width + c);
  }

  function placeCursor(index) {
    cursor = index;
    if (geometry && index < data.values.length) {
      scrollY = scrolledTo(Math.floor(index / data.columns.length), scrollY, geometry.down);
      scrollX = scrolledTo(index % data.columns.length, scrollX, geometry.across);
    }
    said.textContent = exists(index) ? lines(index).join(", ") : "";
    options.onHover?.(exists(index) ? index : -1);
    redraw();
  }

  const KEYS = {
    ArrowUp: () => moveCursor(-1, 0), ArrowDown: () => moveCursor(1, 0),
    ArrowLeft: () => moveCursor(0, -1), ArrowRight: () => moveCursor(0, 1),
    Home: () => placeCursor(Math.floor(cursor / data.columns.length) * data.columns.length),
    End: () => placeCursor((Math.floor(cursor / data.columns.length) + 1) * data.columns.length - 1),
    Enter: (event) => choose(cursor, event),
    " ": (event) => exists(cursor) && options.onSelect?.(cursor, { extend: true, range: event.shiftKey }),
    "+": () => zoomBy(1.4), "-": () => zoomBy(1 / 1.4), 0: () => ((zoom = 1), redraw()),
  };
  canvas.addEventListener("keydown", (event) => {
    const act = KEYS[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey || !data.values.length) return;
    event.preventDefault();
    act(event);
  });
  canvas.addEventListener("pointermove", hover);
  canvas.addEventListener("pointerleave", leave);
  canvas.addEventListener("click", press);
  canvas.addEventListener("wheel", wheel, { passive: false });
  canvas.addEventListener("focus", () => placeCursor(cursor));
  canvas.addEventListener("blur", redraw);
  const sized = new ResizeObserver(redraw);
  sized.observe(holder);
  const unwatch = watchTheme(root, () => ((image = null), redraw()));

  return {
    element: holder,
    canvas,
    /** Show other data; cursor and scroll stay where they are. */
    setData(next) {
      if (hovered >= 0 && !(alike(next.rows, data.rows) && alike(next.columns, data.columns))) leave(); // another cell is there
      data = next;
      image = null;
      cursor = Math.min(cursor, Math.max(0, data.values.length - 1));
      if (!exists(cursor)) cursor = Math.max(0, data.present ? data.present.indexOf(1) : 0);
      redraw();
    },
    /** Colour by another scale, called `name` in the legend. */
    setScale(next, name) {
      [scale, title, image] = [next, name, null];
      redraw();
    },
    /** Outline cells (indices), and a band of columns from one to another. */
    setSelection(indices, columns = null) {
      [selection, band] = [new Set(indices), columns];
      redraw();
    },
    /** Move the keyboard's cursor, scrolled to where it is seen. */
    setCursor: placeCursor,
    redraw,
    /** What is said about the cell under the pointer or the cursor has changed. */
    retell() {
      if (hovered >= 0 && !tip.hidden) fillTip(hovered);
      if (document.activeElement === canvas) said.textContent = exists(cursor) ? lines(cursor).join(", ") : "";
    },
    /** Draw at once, for measuring. */
    draw,
    focus: () => canvas.focus(),
    destroy() {
      redraw.cancel();
      sized.disconnect();
      unwatch();
      holder.remove();
      [data, image] = [{ rows: [], columns: [], values: new Float32Array(0) }, null];
    },
  };
}

const alike = (texts, others) => texts === others || (texts.length === others.length && texts.every((text, i) => text === others[i]));
