// What a Gram-determined merge method makes of inner products: how much of the ancestor and of each task vector.
//
// The same arithmetic as theta_nb/merges (averages.py, spherical.py), which the tests compare. A method is a function of
// its parameters and of a place:
//
//   {labels, depth, size, gram, at}   names of the inputs; 0 to 1; inputs + 1; inner products of the ancestor and the
//                                     task vectors, size² numbers that begin at `at`
//
// It returns `size` coordinates, or null where Python has to be asked: rows and columns as vectors need the weights, and
// where vectors cancel out, float32 products do not tell how much is left.

const PARALLEL = 0.9995; // absolute cosine above which spherical interpolation is linear
const COLLINEAR = 1e-6; // sine below which two vectors have no plane
const OPPOSITE = -0.9999; // cosine below which float32 products do not tell the plane
const SHORT = 0.01; // length of a mean direction below which they do not tell the direction

/** A parameter's value at a depth of 0 to 1: lists are gradients over the depth of the model. */
export function graded(value, depth) {
  if (!Array.isArray(value)) return value;
  const place = depth * (value.length - 1);
  const low = Math.min(Math.floor(place), Math.max(value.length - 2, 0));
  const [first, second] = [value[low], value[Math.min(low + 1, value.length - 1)]];
  const share = place - low;
  return share === 0 ? first : share === 1 ? second : (1 - share) * first + share * second; // to the last bit as in Python
}

/** One value for each input. */
export function perInput(value, preset, { labels, depth }) {
  const given = value ?? preset;
  if (given !== null && typeof given === "object" && !Array.isArray(given)) return labels.map((label) => graded(given[label] ?? preset, depth));
  return labels.map(() => graded(given, depth));
}

const sum = (numbers) => numbers.reduce((total, one) => total + one, 0);

/** Weights that sum to one; null where they cancel, which Python refuses. */
function shares(weight, place) {
  const weights = perInput(weight, 1, place);
  const total = sum(weights);
  return Math.abs(total) < 1e-8 ? null : weights.map((one) => one / total);
}

/** A combination of the inputs themselves, which are the ancestor plus their task vectors. */
const ofInputs = (coefficients, ancestor = 0) => [ancestor + sum(coefficients), ...coefficients];
/** A combination of the task vectors, added to the ancestor. */
const ofTasks = (coefficients) => [1, ...coefficients];
const inSpace = (space, coefficients) => (space === "task" ? ofTasks(coefficients) : ofInputs(coefficients));
const one = (place, which) => place.labels.map((_, k) => (k === which ? 1 : 0));

/** Inner products of the inputs, or of the task vectors, row by row. */
function products(space, { size, gram, at }) {
  const count = size - 1;
  const made = new Float64Array(count * count);
  for (let i = 0; i < count; i += 1) {
    for (let j = 0; j < count; j += 1) {
      const inner = gram[at + size * (i + 1) + j + 1];
      made[count * i + j] = space === "task" ? inner : gram[at] + gram[at + size * (i + 1)] + gram[at + j + 1] + inner;
    }
  }
  return made;
}

function norms(inner, count) {
  return Array.from({ length: count }, (_, i) => Math.sqrt(Math.max(inner[(count + 1) * i], 0)));
}

/** Cosines from inner products, 0 where a vector is zero. */
function cosines(inner, lengths) {
  const count = lengths.length;
  return inner.map((value, cell) => {
    const product = lengths[Math.floor(cell / count)] * lengths[cell % count];
    return product > 0 ? Math.max(-1, Math.min(1, value / product)) : 0;
  });
}

/** Inner products of a combination with each of the vectors. */
const along = (coefficients, inner) => coefficients.map((_, i) => sum(coefficients.map((c, j) => c * inner[coefficients.length * i + j])));
/** Norm of a combination of vectors. */
const lengthOf = (coefficients, inner) => Math.sqrt(Math.max(sum(along(coefficients, inner).map((product, i) => product * coefficients[i])), 0));
const isOpposite = (unit) => unit.some((cosine) => cosine < OPPOSITE);
const isFinite = (numbers) => numbers.every(Number.isFinite);

/** Coefficients of spherical interpolation at `t`, linear where the cosine is above the threshold or no number. */
function arc(cosine, t, threshold) {
  if (!(Math.abs(cosine) <= threshold)) return [1 - t, t];
  const theta = Math.acos(cosine);
  return [Math.sin((1 - t) * theta) / Math.sin(theta), Math.sin(t * theta) / Math.sin(theta)];
}

/** Direction of the mean on the sphere, over the unit vectors with these cosines; null where products do not tell. */
function karcherMean(unit, weights, valid, most, tolerance) {
  const length = lengthOf(weights, unit);
  if (length < SHORT) return null;
  let mean = weights.map((weight) => weight / length);
  for (let step = 0; step < most; step += 1) {
    const cosine = along(mean, unit).map((value) => Math.max(-1, Math.min(1, value)));
    if (cosine.some((value, k) => valid[k] && value < OPPOSITE)) return null;
    const pull = cosine.map((value, k) => {
      const theta = Math.acos(value);
      return valid[k] && theta >= tolerance && Math.sin(theta) > 1e-12 ? (weights[k] * theta) / Math.sin(theta) : 0;
    });
    const back = sum(pull.map((one, k) => one * cosine[k]));
    const tangent = pull.map((one, k) => one - back * mean[k]);
    const size = lengthOf(tangent, unit);
    if (!(size >= tolerance)) break;
    const moved = mean.map((one, k) => Math.cos(size) * one + (Math.sin(size) / size) * tangent[k]);
    const norm = lengthOf(moved, unit);
    mean = norm > tolerance ? moved.map((one) => one / norm) : moved;
  }
  return mean;
}

const METHODS = {
  ours: (_, place) => ofInputs(one(place, 0)),
  theirs: ({ which = 1 }, place) => (which < place.labels.length ? ofInputs(one(place, which)) : null),
  original: (_, place) => ofInputs(one(place, -1), 1),
  linear({ weight, normalize = true }, place) {
    const weights = normalize ? shares(weight, place) : perInput(weight, 1, place);
    return weights && ofInputs(weights);
  },
  task_arithmetic({ weight, normalize = false, scale = 1 }, place) {
    const weights = perInput(weight, 1, place);
    const total = sum(weights);
    const factor = graded(scale, place.depth) / (normalize && Math.abs(total) >= 1e-8 ? total : 1);
    return ofTasks(weights.map((weight) => factor * weight));
  },
  "average-ours-theirs": ({ alpha = 0.5 }, { depth }) => ofInputs([graded(alpha, depth), 1 - graded(alpha, depth)]),
  "average-all"({ alpha1 = 1 / 3, alpha2 = 1 / 3 }, { depth }) {
    const [first, second] = [graded(alpha1, depth), graded(alpha2, depth)];
    return ofInputs([first, second], 1 - first - second);
  },
  "average-ours-original": ({ alpha = 0.5 }, { depth }) => ofInputs([graded(alpha, depth), 0], 1 - graded(alpha, depth)),
  "average-theirs-original": ({ alpha = 0.5 }, { depth }) => ofInputs([0, graded(alpha, depth)], 1 - graded(alpha, depth)),
  slerp({ t = 0.5 }, place) {
    const inner = products("weights", place);
    return ofInputs(arc(cosines(inner, norms(inner, 2))[1], graded(t, place.depth), PARALLEL));
  },
  nuslerp({ weight, space = "weights", axis = "tensor" }, place) {
    if (axis !== "tensor") return null;
    const weights = perInput(weight, 1, place);
    const t = Math.abs(sum(weights)) < 1e-6 ? 0.5 : weights[1] / sum(weights);
    const inner = products(space, place);
    const cosine = cosines(inner, norms(inner, 2))[1];
    if (cosine < OPPOSITE) return null;
    return inSpace(space, arc(Math.sqrt(Math.max(1 - cosine * cosine, 0)) <= COLLINEAR ? 1 : cosine, t, 1 - 1e-16));
  },
  multislerp({ weight, space = "weights" }, place) {
    const weights = shares(weight, place);
    if (!weights) return null;
    const inner = products(space, place);
    const lengths = norms(inner, weights.length);
    if (weights.length === 1 || !isFinite(inner) || !lengths.some((norm) => norm > 0)) return inSpace(space, weights);
    const unit = cosines(inner, lengths);
    const sums = weights.map((weight, k) => (lengths[k] > 0 ? weight : 0));
    const length = lengthOf(sums, unit);
    if (length < SHORT) return null;
    const mean = sums.map((weight) => weight / length);
    const back = sum(along(mean, unit).map((product, k) => weights[k] * product));
    const tangent = mean.map((one) => one * (length - back));
    const size = lengthOf(tangent, unit);
    const norm = sum(weights.map((weight, k) => weight * lengths[k]));
    const direction = mean.map((one, k) => Math.cos(size) * one + (size > 0 ? Math.sin(size) / size : 1) * tangent[k]);
    return inSpace(space, direction.map((one, k) => (lengths[k] > 0 ? (one * norm) / lengths[k] : 0)));
  },
  karcher({ weight, max_iter = 10, tol = 1e-5 }, place) {
    const weights = shares(weight, place);
    if (!weights || Array.isArray(max_iter)) return null;
    if (weights.length === 1) return ofInputs([1]);
    const inner = products("weights", place);
    if (!isFinite(inner)) return ofInputs(weights);
    const [lengths, tolerance] = [norms(inner, weights.length), graded(tol, place.depth)];
    const valid = lengths.map((norm) => norm > tolerance);
    if (!valid.includes(true)) return ofInputs(weights.map(() => 0));
    const kept = weights.map((weight, k) => (valid[k] ? weight : 0));
    const total = sum(kept);
    const unit = cosines(inner, lengths);
    const mean = karcherMean(unit, Math.abs(total) >= 1e-8 ? kept.map((one) => one / total) : kept, valid, max_iter, tolerance);
    const norm = sum(weights.map((weight, k) => weight * lengths[k]));
    return mean && ofInputs(mean.map((one, k) => (lengths[k] > 0 ? (one * norm) / lengths[k] : 0)));
  },
  model_stock({ axis = "tensor" }, place) {
    if (axis !== "tensor") return null;
    const [inner, count] = [products("task", place), place.labels.length];
    const unit = cosines(inner, norms(inner, count));
    const pairs = [...unit].filter((_, cell) => cell % count > Math.floor(cell / count));
    const mean = sum(pairs) / pairs.length;
    const denominator = 1 + (count - 1) * mean;
    if (Math.abs(denominator) < SHORT) return null;
    return ofTasks(place.labels.map(() => mean / denominator));
  },
};

const TWO = new Set(["slerp", "nuslerp", "average-ours-theirs", "average-all", "average-ours-original", "average-theirs-original"]);
const LEAST = { theirs: 2, model_stock: 2 };

/** Whether a choice can be computed here. */
export const isLocal = (method, inputs) => Object.hasOwn(METHODS, method) && (!TWO.has(method) || inputs === 2) && inputs >= (LEAST[method] ?? 1);

/** Coordinates of the result; null where only Python can tell. */
export function coordinatesOf(method, parameters, place) {
  // A text may be a gradient or differ by input as well, which here only numbers may.
  if (["space", "axis", "normalize", "which"].some((name) => typeof (parameters[name] ?? "") === "object")) return null;
  return METHODS[method](parameters, place);
}
