// Converts a network's output to probabilities by its kind in model.json ("output"), as in se_keras/scores.py.

const sigmoid = (x) => 1 / (1 + Math.exp(-x));
const bothClasses = (second) => Float32Array.of(1 - second, second);

const CONVERSIONS = {
  probabilities: (scores) => scores,
  independent_probabilities: (scores) => scores,
  probability: ([second]) => bothClasses(second),
  logits: softmax,
  logit: ([x]) => bothClasses(sigmoid(x)),
};

/**
 * @param {number} columns - Length of the output.
 * @param {string} [kind] - "output" in model.json.
 * @returns {number} Number of classes: a single probability or logit is that of the second of two classes.
 */
export function classCount(columns, kind) {
  if (kind === "probability" || kind === "logit") return 2;
  if (columns === 1) {
    throw new Error(
      "The model has one output, and model.json does not state whether it is a probability or a logit. " +
        "Export the model with se_keras.",
    );
  }
  return columns;
}

/**
 * @param {Float32Array|Uint8Array} scores - The output.
 * @param {string} [kind] - "output" in model.json; without it, scores that add up to one are taken as probabilities.
 * @returns {Float32Array} The probability of each class.
 */
export function probabilitiesOf(scores, kind) {
  const known = kind in CONVERSIONS;
  if (scores instanceof Uint8Array) {
    if (kind?.startsWith("logit")) throw new Error("8-bit logits cannot be read here. Export them as float32.");
    scores = Float32Array.from(scores, (score) => score / 256); // TFLite's fixed scale after a softmax or sigmoid
    return known ? CONVERSIONS[kind](scores) : scores;
  }
  return known ? CONVERSIONS[kind](scores) : isDistribution(scores) ? scores : softmax(scores);
}

function isDistribution(scores) {
  return scores.every((p) => p >= 0) && Math.abs(scores.reduce((sum, p) => sum + p, 0) - 1) < 0.01;
}

function softmax(scores) {
  const greatest = scores.reduce((a, b) => Math.max(a, b));
  const powers = scores.map((score) => Math.exp(score - greatest));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}
