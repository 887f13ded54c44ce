// Numbers as people read them: the same words as theta_nb/report/numbers.py.

/** Three significant digits: 0.0123, 1.50e-7, inf; a dash for NaN. */
export function short(value) {
  if (Number.isNaN(value)) return "—";
  if (!Number.isFinite(value)) return value < 0 ? "-inf" : "inf";
  if (value === 0) return "0";
  const [mantissa, exponent] = value.toExponential(2).split("e");
  const power = Number(exponent);
  if (power > -3 && power < 4) return Number(value.toExponential(2)).toFixed(Math.max(0, 2 - power));
  return `${mantissa}e${power}`;
}

/** A share of 0 to 1 as per cent; what is not zero, or not everything, never looks like it. */
export function percent(share) {
  if (Number.isNaN(share)) return "—";
  if (share === 0) return "0 %";
  if (share === 1) return "100 %";
  if (share < 0.001) return "<0.1 %";
  return share > 0.999 ? ">99.9 %" : `${(share * 100).toFixed(1)} %`;
}

/** A cosine, given its distance from 1, which is what keeps its digits. */
export function cosine(distance) {
  if (Number.isNaN(distance)) return "—";
  if (distance === 0) return "1";
  if (distance > 0 && distance < 1e-4) {
    const [mantissa, exponent] = distance.toExponential(1).split("e");
    return `1-${mantissa}e${Number(exponent)}`;
  }
  return (1 - distance).toFixed(4);
}

/** Bytes in decimal units. */
export function size(nbytes) {
  if (nbytes < 1000) return `${nbytes} B`;
  let value = nbytes;
  for (const unit of ["kB", "MB", "GB", "TB", "PB"]) {
    value /= 1000;
    if (value < 999.95 || unit === "PB") return `${value.toFixed(1)} ${unit}`;
  }
}

/** A number with its noun. */
export const count = (number, noun) => `${number.toLocaleString("en-US")} ${noun}${number === 1 ? "" : "s"}`;

/** What metrics are called, and how their values are written. */
export const METRICS = {
  relative: { label: "‖Δ‖/‖old‖", long: "relative change", write: short },
  delta_norm: { label: "‖Δ‖", long: "norm of the change", write: short },
  max_abs_delta: { label: "max |Δ|", long: "largest change of an entry", write: short },
  changed_share: { label: "changed", long: "share of entries changed", write: percent },
  flipped_share: { label: "flips", long: "share of signs flipped", write: percent },
  distance: { label: "1 − cosine", long: "turn: one minus the cosine", write: short },
};
