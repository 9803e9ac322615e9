"use strict";
// The decoder's forward pass, layer by layer, on the weights that explorer.py writes. Images lie in memory as they do
// in NumPy: row by row, channels last.

const floats = text => new Float32Array(Uint8Array.from(atob(text), letter => letter.charCodeAt(0)).buffer);

function unpack(model) {
  const layers = model.layers.map(layer => ({ ...layer, kernel: floats(layer.kernel), bias: floats(layer.bias),
    condition: layer.condition === null ? null : floats(layer.condition) }));
  return { ...model, layers, embedding: model.embedding === null ? null : floats(model.embedding) };
}

// x of shape (positions, inputs) times kernel of shape (inputs, outputs).
function product(x, kernel, positions, inputs, outputs) {
  const y = new Float32Array(positions * outputs);
  for (let p = 0; p < positions; p++) {
    const row = y.subarray(p * outputs, (p + 1) * outputs);
    for (let i = 0; i < inputs; i++) {
      const value = x[p * inputs + i], from = i * outputs;
      for (let o = 0; o < outputs; o++) row[o] += value * kernel[from + o];
    }
  }
  return y;
}

// Add 4×4 windows into an image at stride 2, cut to rows × columns: window (i, j) begins at pixel (2i − 1, 2j − 1).
function overlapAdd(windows, { height, width, rows, columns, outputs }) {
  const y = new Float32Array(rows * columns * outputs);
  let from = 0;
  for (let i = 0; i < height; i++) for (let j = 0; j < width; j++)
    for (let a = 2 * i - 1; a < 2 * i + 3; a++) for (let b = 2 * j - 1; b < 2 * j + 3; b++, from += outputs) {
      if (a < 0 || b < 0 || a >= rows || b >= columns) continue;
      const to = (a * columns + b) * outputs;
      for (let o = 0; o < outputs; o++) y[to + o] += windows[from + o];
    }
  return y;
}

// What a layer adds to every position for class c: its bias, and its map of the class's embedding.
function offset({ bias, condition, outputs }, embedding, c) {
  if (condition === null) return bias;
  const features = condition.length / outputs;
  const term = product(embedding.subarray(c * features, (c + 1) * features), condition, 1, features, outputs);
  return term.map((value, o) => value + bias[o]);
}

const activations = { silu: value => value / (1 + Math.exp(-value)), tanh: Math.tanh };
const same = value => value;
const means = {
  bernoulli: value => 1 / (1 + Math.exp(-value)),
  gaussian: same,
  gaussian_learned: same,
  gaussian_optimal: same,
  continuous_bernoulli: value => Math.abs(value) < 0.2
    ? 0.5 + value / 12 - value ** 3 / 720
    : 0.5 + 0.5 / Math.tanh(0.5 * value) - 1 / value,
};

// The mean of p(x|z,c): z holds the latents in the page's order, c is the number of a class.
function decode(model, z, c) {
  let h = z, kept = null;
  for (const layer of model.layers) {
    const { inputs, outputs, kernel } = layer;
    if (layer.keep) kept = h;
    const positions = layer.height * layer.width;
    let y = layer.kind === "upsample"
      ? overlapAdd(product(h, kernel, positions, inputs, 16 * outputs), layer)
      : product(h, kernel, positions, inputs, outputs);
    const added = offset(layer, model.embedding, c);
    for (let i = 0; i < y.length; i++) y[i] += added[i % outputs];
    if (layer.activation) y = y.map(activations[layer.activation]);
    if (layer.add) y = y.map((value, i) => value + kept[i]);
    h = y;
  }
  return h.map(means[model.likelihood]);
}
