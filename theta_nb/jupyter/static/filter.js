// Which names a person means.

/**
 * A test for names: a glob (`*.weight`, also part of a name: `layer.5.*`), a regular expression between slashes
 * (`/\d+\.bias$/`), or a plain piece of a name.
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
    const piece = wanted.toLowerCase();
    return { test: (name) => name.toLowerCase().includes(piece), error: "" };
  }
  const pattern = globPattern(wanted);
  return { test: (name) => pattern.test(name), error: "" };
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
