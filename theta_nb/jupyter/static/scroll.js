// Where the cells of a map lie: geometry without drawing, so that it can be tested.

/**
 * Extent of the cells along one axis.
 *
 * @param {number} count cells
 * @param {number} space pixels at hand
 * @param {{least: number, most: number, zoom?: number}} limits pixels per cell; `zoom` multiplies what would just fit
 * @returns {{cell: number, length: number, reach: number}} `length` is what is seen, `reach` how far it can be scrolled
 */
export function axisOf(count, space, { least, most, zoom = 1 }) {
  const fit = count ? space / count : most;
  const cell = Math.max(least, Math.min(Math.max(most, least), fit) * zoom);
  const whole = cell * count;
  return { cell, length: Math.min(space, whole), reach: Math.max(0, whole - space) };
}

/** Index of the cell at a pixel, or -1. */
export function cellAt(pixel, scroll, axis, count) {
  if (pixel < 0 || pixel >= axis.length) return -1;
  const index = Math.floor((pixel + scroll) / axis.cell);
  return index < count ? index : -1;
}

/** A scroll position at which a cell is seen whole, as close to the present one as can be. */
export function scrolledTo(index, scroll, axis) {
  const [begin, end] = [index * axis.cell, (index + 1) * axis.cell];
  if (begin < scroll) return begin;
  if (end > scroll + axis.length) return Math.min(axis.reach, end - axis.length);
  return Math.min(scroll, axis.reach);
}

/** First and last + 1 of the cells that are seen. */
export function seen(scroll, axis, count) {
  return [Math.max(0, Math.floor(scroll / axis.cell)), Math.min(count, Math.ceil((scroll + axis.length) / axis.cell))];
}
