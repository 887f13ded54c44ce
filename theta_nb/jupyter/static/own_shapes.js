// Lists of weights that a person keeps under names, in the browser: for the next merge, of any number of blocks.

import { rounded } from "./shapes.js";

const PLACE = "theta-nb:shapes";
const MOST = 50; // shapes, and letters of a name
const LONGEST = 1000;

/** Shapes by name; whatever else is stored there counts as nothing. */
export function ownShapes(storage = globalThis.localStorage) {
  let found = null;
  try {
    found = JSON.parse(storage.getItem(PLACE) ?? "{}");
  } catch {
    return new Map(); // broken, or a page that may store nothing
  }
  const fits = ([name, list]) => name && name.length <= MOST && Array.isArray(list) && list.length > 0 && list.length <= LONGEST && list.every(Number.isFinite);
  return new Map(found && typeof found === "object" ? Object.entries(found).filter(fits).slice(0, MOST) : []);
}

/** Keep a list under a name, or forget the name where there is no list; says whether that was possible. */
export function keepShape(name, list, storage = globalThis.localStorage) {
  const shapes = ownShapes(storage);
  const key = name.trim().slice(0, MOST);
  if (!key || (list && !shapes.has(key) && shapes.size >= MOST)) return false;
  if (list) shapes.set(key, list);
  else shapes.delete(key);
  try {
    storage.setItem(PLACE, JSON.stringify(Object.fromEntries(shapes)));
  } catch {
    return false;
  }
  return true;
}

/** A list for another number of blocks: the same line, read at other places. */
export function resampled(list, number) {
  const at = (place) => {
    const [left, share] = [Math.floor(place), place % 1];
    return list[left] + (share ? share * (list[left + 1] - list[left]) : 0);
  };
  return Array.from({ length: number }, (_, i) => rounded(at(number > 1 ? (i / (number - 1)) * (list.length - 1) : (list.length - 1) / 2)));
}
