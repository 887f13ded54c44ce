// Lanes of a commit graph.

/**
 * A lane for every commit, so that lines of commits do not cross more than they must.
 *
 * @param {number[][]} parents positions of the parents of each commit, first parent first; older commits have smaller
 *   positions
 * @returns {{lane: number[], lanes: number, edges: Array<{child, parent, merge: boolean}>}} the line of first parents
 *   of the newest commit has lane 0; `merge` marks edges to other than first parents
 */
export function lanesOf(parents) {
  const lane = new Array(parents.length).fill(-1);
  const waiting = []; // by lane: which commit comes next, or -1
  const edges = [];
  let lanes = 0;
  const place = (wanted) => {
    const found = waiting.indexOf(wanted);
    if (found >= 0) return found;
    const free = waiting.indexOf(-1);
    const at = free >= 0 ? free : waiting.length;
    waiting[at] = wanted;
    lanes = Math.max(lanes, at + 1);
    return at;
  };
  for (let commit = parents.length - 1; commit >= 0; commit -= 1) {
    const at = place(commit);
    lane[commit] = at;
    for (let i = 0; i < waiting.length; i += 1) if (waiting[i] === commit) waiting[i] = -1;
    parents[commit].forEach((parent, i) => {
      if (!(parent >= 0 && parent < commit)) return; // not listed, or not older: no line to draw
      edges.push({ child: commit, parent, merge: i > 0 });
      // Several lanes may wait for one commit; it takes the first of them, and the others end there.
      if (i === 0) waiting[at] = parent;
      else if (!waiting.includes(parent)) place(parent);
    });
  }
  return { lane, lanes, edges };
}
