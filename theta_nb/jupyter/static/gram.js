// How long combinations of ancestor and task vectors are, from inner products alone.
//
// The same arithmetic as engine/merging/outcomes.py, which the tests compare. `gram` holds the inner products of the
// ancestor and the task vectors of a parameter, (inputs + 1)² numbers that begin at `at`.

/** Norm of a vector given by its coordinates. */
function lengthOf(coordinates, gram, at) {
  const size = coordinates.length;
  let square = 0;
  for (let i = 0; i < size; i += 1) {
    for (let j = 0; j < size; j += 1) square += coordinates[i] * coordinates[j] * gram[at + size * i + j];
  }
  return Math.sqrt(Math.max(square, 0));
}

/** Norm of a combination, its distance to the ancestor, and those to every input. */
export function lengthsOf(combination, gram, at = 0) {
  const coordinates = Float64Array.from(combination);
  const lengths = [lengthOf(coordinates, gram, at)];
  // The ancestor is the origin; an input is the origin plus its difference.
  coordinates[0] -= 1;
  lengths.push(lengthOf(coordinates, gram, at));
  for (let k = 1; k < coordinates.length; k += 1) {
    coordinates[k] -= 1;
    lengths.push(lengthOf(coordinates, gram, at));
    coordinates[k] += 1;
  }
  return lengths;
}
