// Cells of the map of a merge: one parameter each, or all of a kind in a block.
//
// Data contract: cells of layout() in merge_data.js, values of a metric for each parameter.

/** The mean of some numbers, without those that are not known. */
function mean(numbers) {
  let [total, known] = [0, 0];
  for (const number of numbers) if (number === number) [total, known] = [total + number, known + 1];
  return known ? total / known : NaN;
}

/** What most of them are. */
function commonest(numbers) {
  const counts = new Map();
  for (const number of numbers) counts.set(number, (counts.get(number) ?? 0) + 1);
  return [...counts].reduce((best, one) => (one[1] > best[1] ? one : best), [NaN, 0])[0];
}

/** Values of the cells: means, or of categories what most of a cell have. */
export function cellValues(cells, all, categories) {
  const of = categories ? commonest : mean;
  return Float32Array.from(cells.leaves, (leaves) => (leaves.length === 1 ? all[leaves[0]] : of(leaves.map((i) => all[i]))));
}

/** The smallest and the largest of some numbers; null where none is known. */
export function extent(numbers) {
  const known = numbers.filter((number) => number === number);
  return known.length ? [Math.min(...known), Math.max(...known)] : null;
}

/** Cells in which one of some parameters is. */
export function cellsWith(cells, leaves) {
  const wanted = new Set(leaves);
  const found = [];
  cells.leaves.forEach((inside, cell) => inside.some((i) => wanted.has(i)) && found.push(cell));
  return found;
}

/** Parameters of the rectangle between a parameter and a cell; of the cell alone where the parameter is not shown. */
export function between(cells, from, cell) {
  const start = cells.leaves.findIndex((inside) => inside.includes(from));
  if (start < 0) return cells.leaves[cell];
  const width = cells.columns.length;
  const [rows, columns] = [[start, cell].map((at) => Math.floor(at / width)), [start, cell].map((at) => at % width)];
  const found = [];
  for (let r = Math.min(...rows); r <= Math.max(...rows); r += 1) {
    for (let c = Math.min(...columns); c <= Math.max(...columns); c += 1) found.push(...cells.leaves[r * width + c]);
  }
  return found;
}

/** The selection with a cell added, or taken away where all of it was selected. */
export function toggled(selection, leaves) {
  const now = new Set(selection);
  return leaves.every((i) => now.has(i)) ? selection.filter((i) => !leaves.includes(i)) : [...new Set([...selection, ...leaves])];
}
