// What lies where: the tokens of a layer on the squares of the model's grid, or smoothly between them. A surface is
// { rows, columns, labels, tile }: a token for each cell of a lattice, and its colours as a picture of a pixel a cell.

const DROPPED = -1, OUTSIDE = -2;
const FINEST = 448; // cells of a smooth surface along its longer side

function unpack(layer) {
  const assignment = new Int16Array(bytes(layer.assignment).buffer), colours = bytes(layer.colours);
  const counts = new Array(layer.tokens).fill(0);
  assignment.forEach((token) => { if (token !== DROPPED) counts[token] += 1; });
  const unpacked = {
    ...layer, assignment, counts,
    reduces: "fate" in layer,
    attention: layer.attention ? attentionOf(layer) : null,
    rgb: counts.map((_, token) => [...colours.subarray(3 * token, 3 * token + 3)]),
  };
  unpacked.squares = surface(unpacked, ...layer.imageGrid, assignment);
  return unpacked;
}

function attentionOf({ attention, weakest, strongest, tokens }) { // as it was before it was packed into bytes
  const levels = bytes(attention), cells = levels.length / tokens;
  return Float32Array.from(levels, (level, at) => {
    const token = Math.floor(at / cells);
    return weakest[token] + ((strongest[token] - weakest[token]) * level) / 255;
  });
}

const joined = (layer, group) => group !== DROPPED && layer.counts[group] > 1;

function surface(layer, rows, columns, labels) {
  const seen = (label) => !layer.reduces || joined(layer, label); // what goes on by itself stays clear
  return { rows, columns, labels, tile: tileOf(rows, columns, (cell) => seen(labels[cell]) && [...layer.rgb[labels[cell]], 255]) };
}

function tileOf(rows, columns, rgba) { // a canvas with a pixel for each cell, clear where there is no colour
  const tile = document.createElement("canvas");
  Object.assign(tile, { width: columns, height: rows });
  const image = tile.getContext("2d").createImageData(columns, rows);
  for (let cell = 0; cell < rows * columns; cell += 1) image.data.set(rgba(cell) || [0, 0, 0, 0], 4 * cell);
  tile.getContext("2d").putImageData(image, 0, 0);
  return tile;
}

// Where fine cells lie between the middles of coarse ones: the coarse cell before, and how far on to the next.
function between(parts, factor) {
  return Array.from({ length: parts * factor }, (_, fine) => {
    const at = Math.min(Math.max((fine + 0.5) / factor - 0.5, 0), parts - 1), before = Math.floor(at);
    return [before, Math.min(before + 1, parts - 1), at - before];
  });
}

// Every token's attention, interpolated (bilinear); each fine cell goes to the token that looks there most.
function smoothOf(layer) {
  if (layer.smooth) return layer.smooth;
  const [rows, columns] = layer.imageGrid, factor = Math.max(1, Math.floor(FINEST / Math.max(rows, columns)));
  const across = between(columns, factor), tokens = layer.counts.length;
  const labels = new Int16Array(rows * columns * factor * factor), line = new Float32Array(tokens * columns);
  between(rows, factor).forEach(([above, below, down], y) => {
    for (let token = 0; token < tokens; token += 1) {
      const map = token * rows * columns;
      for (let column = 0; column < columns; column += 1) {
        const first = layer.attention[map + above * columns + column], second = layer.attention[map + below * columns + column];
        line[token * columns + column] = first + down * (second - first);
      }
    }
    across.forEach(([left, right, on], x) => {
      let best = 0, most = -1;
      for (let token = 0; token < tokens; token += 1) {
        const first = line[token * columns + left], value = first + on * (line[token * columns + right] - first);
        if (value > most) { most = value; best = token; }
      }
      labels[y * across.length + x] = best;
    });
  });
  layer.smooth = surface(layer, rows * factor, columns * factor, labels);
  return layer.smooth;
}

const surfaceOf = (layer) => (view.smooth && layer.attention ? smoothOf(layer) : layer.squares);

// Tokens in the order of their weight: how many squares they speak for, then how strongly they look.
function byWeight(layer) {
  const strength = (token) => layer.strongest?.[token] ?? 0;
  return layer.counts.map((_, token) => token)
    .sort((a, b) => layer.counts[b] - layer.counts[a] || strength(b) - strength(a));
}

const mapOf = ({ attention, assignment: { length } }, token) => attention.subarray(token * length, (token + 1) * length);

// What a token looks at, or which squares it was made of: one level for each square, 255 where it looks most.
function looks(layer, token) {
  if (layer.attention) return Uint8Array.from(mapOf(layer, token), (value) => Math.round((255 * value) / (layer.strongest[token] || 1)));
  return Uint8Array.from(layer.assignment, (group) => (group === token ? 255 : 0));
}
