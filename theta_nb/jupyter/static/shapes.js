// Lists of weights over the blocks of a model: shapes with names, mirrored, moved, written and read as text.

const cosine = (place) => (1 - Math.cos(Math.PI * place)) / 2;

/** Shapes by name: from a place in the model, 0 to 1, to a height, 0 to 1. */
export const SHAPES = {
  "linear ramp up": (place) => place,
  "linear ramp down": (place) => 1 - place,
  "cosine ramp up": cosine,
  "cosine ramp down": (place) => cosine(1 - place),
  "middle layers": (place) => Math.sin(Math.PI * place) ** 2,
  "first and last layers": (place) => 1 - Math.sin(Math.PI * place) ** 2,
  "lower half": (place) => (place < 0.5 ? 1 : 0),
  "upper half": (place) => (place >= 0.5 ? 1 : 0),
  "all low": () => 0,
  "halfway": () => 0.5,
  "all high": () => 1,
};

/** The values of a shape for so many blocks, between two bounds. */
export function shaped(name, number, low, high) {
  const shape = SHAPES[name];
  return Array.from({ length: number }, (_, at) => Number((low + shape(number > 1 ? at / (number - 1) : 0.5) * (high - low)).toFixed(3)));
}

/** All values moved by the same amount, inside bounds. */
export const moved = (values, by, low, high) => values.map((value) => rounded(Math.min(Math.max(value + by, Math.min(low, value)), Math.max(high, value))));

/** The same values from the last block to the first. */
export const mirrored = (values) => [...values].reverse();

/** Values as text, to be pasted elsewhere. */
export const written = (values) => values.map((value) => String(rounded(value))).join(", ");

/** Without the dust of binary fractions. */
export const rounded = (value) => Number(Number(value).toPrecision(6));

/** A list of numbers as people write them, `0, 0.5 1` or `[0, 0.5, 1]`; null if it is none. */
export function parsedList(text) {
  const parts = text.trim().replace(/^\[|\]$/g, "").split(/[\s,;]+/).filter(Boolean);
  const numbers = parts.map(Number);
  return parts.length && numbers.every(Number.isFinite) ? numbers : null;
}
