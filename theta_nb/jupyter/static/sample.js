// A sample of one parameter: some of its entries in the ancestor and in every input, ready to be merged.
//
// Data contract: `values` as Python sends them (theta_nb/jupyter/merge_samples.py), float32: `length` entries of the
// ancestor, then as many of each input in `inputs`. An entry stands for `share` of the whole; 1: they are the whole.

const MAGNITUDE = 0x7fffffff; // bits of a float32 without its sign: in the order of the magnitudes, NaN the largest
const TIE = 65536; // entries that a sample may have
const RANK = 1e-10; // of the largest eigenvalue: vectors below it add nothing

/**
 * @param {{inputs: number[], share: number, length: number, values: Float32Array}} sent
 * @returns {Object | null} `parents`: ancestor and inputs; `vectors`: ancestor and task vectors; `rank(k, lastFirst)`;
 *   `inverse`: coordinates of a projection onto the vectors from inner products with them; null if it is no sample
 */
export function createSample({ inputs, share, length, values }) {
  if (!length || length > TIE || values.length !== length * (inputs.length + 1)) return null;
  const parents = [-1, ...inputs].map((_, at) => values.subarray(at * length, (at + 1) * length));
  const [base, ...others] = parents;
  const vectors = [base, ...others.map((one) => one.map((value, i) => value - base[i]))]; // rounded to float32 as in Python
  const ranks = [new Map(), new Map()];
  return {
    inputs, share, length, parents, vectors,
    inverse: share === 1 ? null : inverseOf(productsOf(vectors)),
    /** Ranks of the entries of task vector `k`; sorted once. */
    rank(k, lastFirst = false) {
      const known = ranks[Number(lastFirst)];
      if (!known.has(k)) known.set(k, ranksOf(vectors[k + 1], lastFirst));
      return known.get(k);
    },
    isRanked: (lastFirst = false) => ranks[Number(lastFirst)].size === inputs.length,
  };
}

/** Ranks by magnitude, 0 for the largest; of equal ones the first counts as larger, or the last. */
export function ranksOf(vector, lastFirst = false) {
  const length = vector.length;
  const bits = new Uint32Array(vector.buffer, vector.byteOffset, length);
  const order = new Float64Array(length); // magnitude and place as one whole number: sorting those is fast
  for (let i = 0; i < length; i += 1) order[i] = (MAGNITUDE - (bits[i] & MAGNITUDE)) * TIE + (lastFirst ? length - 1 - i : i);
  order.sort();
  const ranks = new Uint16Array(length);
  for (let rank = 0; rank < length; rank += 1) {
    const place = order[rank] - Math.floor(order[rank] / TIE) * TIE;
    ranks[lastFirst ? length - 1 - place : place] = rank;
  }
  return ranks;
}

function productsOf(vectors) {
  const size = vectors.length;
  const made = new Float64Array(size * size);
  for (let i = 0; i < size; i += 1) {
    for (let j = i; j < size; j += 1) made[size * i + j] = made[size * j + i] = inner(vectors[i], vectors[j]);
  }
  return made;
}

/** Inner product in float64. */
export function inner(left, right) {
  let sum = 0;
  for (let i = 0; i < left.length; i += 1) sum += left[i] * right[i];
  return sum;
}

/** The pseudo-inverse of a matrix of inner products, taken of unit vectors; NaN where it is not finite. */
export function inverseOf(products) {
  const size = Math.sqrt(products.length);
  const lengths = Array.from({ length: size }, (_, i) => Math.sqrt(products[(size + 1) * i]) || 1);
  const scaled = products.map((value, cell) => value / lengths[Math.floor(cell / size)] / lengths[cell % size]);
  if (!scaled.every(Number.isFinite)) return new Float64Array(size * size).fill(NaN);
  const { values, vectors } = eigen(scaled, size);
  const least = RANK * Math.max(...values.map(Math.abs));
  const made = new Float64Array(size * size);
  for (let i = 0; i < size; i += 1) {
    for (let j = 0; j < size; j += 1) {
      for (let k = 0; k < size; k += 1) {
        if (Math.abs(values[k]) > least) made[size * i + j] += (vectors[size * i + k] * vectors[size * j + k]) / values[k];
      }
      made[size * i + j] /= lengths[i] * lengths[j];
    }
  }
  return made;
}

/** Eigenvalues and, as columns, eigenvectors of a small symmetric matrix, by Jacobi's rotations. */
function eigen(matrix, size) {
  const a = Float64Array.from(matrix);
  const vectors = new Float64Array(size * size);
  for (let i = 0; i < size; i += 1) vectors[(size + 1) * i] = 1;
  for (let sweep = 0; sweep < 30; sweep += 1) {
    let off = 0;
    for (let p = 0; p < size; p += 1) {
      for (let q = p + 1; q < size; q += 1) {
        off = Math.max(off, Math.abs(a[size * p + q]));
        rotate(a, vectors, size, p, q);
      }
    }
    if (off < 1e-15) break;
  }
  return { values: Array.from({ length: size }, (_, i) => a[(size + 1) * i]), vectors };
}

/** Turn two axes so that they have no inner product any more. */
function rotate(a, vectors, size, p, q) {
  const between = a[size * p + q];
  if (between === 0) return;
  const theta = (a[(size + 1) * q] - a[(size + 1) * p]) / (2 * between);
  const t = (theta < 0 ? -1 : 1) / (Math.abs(theta) + Math.hypot(theta, 1));
  const c = 1 / Math.hypot(t, 1);
  const s = t * c;
  const turn = (cells, first, second) => {
    const [x, y] = [cells[first], cells[second]];
    [cells[first], cells[second]] = [c * x - s * y, s * x + c * y];
  };
  for (let i = 0; i < size; i += 1) turn(a, size * i + p, size * i + q);
  for (let i = 0; i < size; i += 1) turn(a, size * p + i, size * q + i);
  for (let i = 0; i < size; i += 1) turn(vectors, size * i + p, size * i + q);
}
