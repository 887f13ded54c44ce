// Which names a person means.

/**
 * A test for names: a glob (`*.weight`), a regular expression between slashes (`/\d+\.bias$/`), a range of layers
 * (`layers 3-8`, `3–8`, `experts 0-1`, `layer 5`), or a plain piece of a name.
 *
 * @returns {{test: function(string): boolean, error: string}} nothing matches what is wrong, and `error` says why
 */
export function nameFilter(text) {
  const wanted = text.trim();
  if (!wanted) return { test: () => true, error: "" };
  if (wanted.length > 1 && wanted.startsWith("/")) {
    try {
      const pattern = new RegExp(wanted.slice(1, wanted.endsWith("/") ? -1 : undefined), "i");
      return { test: (name) => pattern.test(name), error: "" };
    } catch (error) {
      return { test: () => false, error: error.message.replace(/^Invalid regular expression: /, "") };
    }
  }
  if (!/[*?[]/.test(wanted)) {
    const [piece, within] = [wanted.toLowerCase(), layerRange(wanted)];
    return { test: (name) => within(name) || name.toLowerCase().includes(piece), error: "" };
  }
  const pattern = globPattern(wanted);
  return { test: (name) => pattern.test(name), error: "" };
}

const RANGE = /^(?:([a-z_]+?)s?\s+)?(\d+)(?:\s*[-–—]\s*(\d+))?$/i;

/** Whether a name is in a range of layers, whatever these are called in it: `h.3.attn`, `layer3.0`, `encoder.layer.3.q`. */
function layerRange(text) {
  const [, word, first, last] = RANGE.exec(text) ?? [];
  if (first === undefined || (word === undefined && last === undefined)) return () => false; // a number alone is a piece
  const [low, high] = [Number(first), Number(last ?? first)].sort((a, b) => a - b);
  const called = word === undefined || /^(?:layer|block)$/i.test(word) ? "(?:(?:layer|block)s?[._]?)?" : `${word}s?[._]?`;
  const number = new RegExp(`(?:^|[./_[])${called}(\\d+)(?=$|[./_\\]])`, "i");
  return (name) => {
    const found = number.exec(name);
    return found !== null && low <= Number(found[1]) && Number(found[1]) <= high;
  };
}

/** A glob over whole names, as in Python: `*` spans dots, `[!a]` negates. */
export function globPattern(glob) {
  let source = "";
  for (let i = 0; i < glob.length; i += 1) {
    const close = glob[i] === "[" ? glob.indexOf("]", i + 2) : -1;
    if (glob[i] === "*") source += ".*";
    else if (glob[i] === "?") source += ".";
    else if (close > 0) {
      const inner = glob.slice(i + 1, close).replace(/[\\\]^]/g, "\\$&").replace(/^!/, "^");
      source += `[${inner}]`;
      i = close;
    } else source += glob[i].replace(/[.+^${}()|[\]\\]/g, "\\$&");
  }
  try {
    return new RegExp(`^${source}$`, "is");
  } catch {
    return /(?!)/; // a range like [z-a]
  }
}
