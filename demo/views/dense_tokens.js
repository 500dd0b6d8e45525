// The regions of semantic tokens of a dense backbone. `view` is declared by the view's own script, `canvas`, `active()` and
// TOKENS in dense_view.js.

function unpack(layer) {
  const assignment = new Int16Array(bytes(layer.assignment).buffer), colours = bytes(layer.colours);
  const counts = new Array(layer.semanticGrid[0] * layer.semanticGrid[1]).fill(0);
  assignment.forEach((token) => { counts[token] += 1; });
  const tile = document.createElement("canvas"); // one pixel for each image token
  [tile.height, tile.width] = layer.imageGrid;
  const image = tile.getContext("2d").createImageData(tile.width, tile.height);
  assignment.forEach((token, cell) => image.data.set([...colours.subarray(3 * token, 3 * token + 3), 255], 4 * cell));
  tile.getContext("2d").putImageData(image, 0, 0);
  return { ...layer, assignment, counts, tile };
}

function currentLayer() {
  const layers = view.data.layers.filter((layer) => layer.unit === view.unit);
  return layers.find((layer) => layer.name === view.layer) || layers[0];
}

function activeToken() {
  return view.mode === TOKENS && active() !== null && active() < currentLayer().counts.length ? active() : null;
}

function refreshTokenWords() {
  const layer = currentLayer(), token = activeToken(), used = layer.counts.filter((count) => count > 0).length;
  canvas.setAttribute("aria-label", "Regions of " + layer.counts.length + " semantic tokens" + (view.unit ? ", unit " + view.unit : "") + ", " +
    layer.name + ". Arrow keys choose a token, Escape lets it go.");
  if (token === null) {
    find(".cv-readout").replaceChildren(
      line("cv-name", "", used + " of " + layer.counts.length + " tokens", " stand for the " + layer.assignment.length + " image tokens of stage 3"),
      line("cv-hint", "Point at a region, or focus the picture and use the arrow keys, to see where one token ends."));
    return;
  }
  find(".cv-readout").replaceChildren(
    line("cv-name", "", "Token " + (token + 1), " · " + place(token, layer.semanticGrid[1])),
    line("cv-fact", "Stands for ", String(layer.counts[token]), layer.counts[token] === 1 ? " image token" : " image tokens"));
}

function lattice(width, height) { // the last row and column of tokens may reach beyond the picture
  const [rows, columns] = currentLayer().imageGrid, [seenRows, seenColumns] = view.data.cells;
  return {
    xs: edges(0, (columns * width) / seenColumns, columns), ys: edges(0, (rows * height) / seenRows, rows), rows, columns,
  };
}

function drawTokens(context, width, height, unitPixel) {
  const layer = currentLayer(), token = activeToken(), grid = lattice(width, height);
  const { xs, ys, rows, columns } = grid;
  context.globalAlpha = token === null ? view.opacity : 0.45 * view.opacity;
  context.imageSmoothingEnabled = false;
  context.drawImage(layer.tile, 0, 0, xs[columns], ys[rows]);
  context.imageSmoothingEnabled = true;
  context.globalAlpha = 1;
  const at = (row, column) => (row < 0 || column < 0 || row >= rows || column >= columns ? -1 : layer.assignment[row * columns + column]);
  if (view.borders) {
    traceBorders(context, grid, at, (a, b) => a !== b && a >= 0 && b >= 0);
    strokeTwice(context, unitPixel, token === null ? 0.55 : 0.2, 0.75);
  }
  if (token === null) return;
  traceBorders(context, grid, at, (a, b) => a !== b && (a === token || b === token));
  strokeTwice(context, unitPixel, 1, 2.5);
}

function tokenUnder(u, v) { // at a place in [0, 1]
  const [rows, columns] = view.data.cells, layer = currentLayer();
  return layer.assignment[Math.floor(v * rows) * layer.imageGrid[1] + Math.floor(u * columns)];
}
