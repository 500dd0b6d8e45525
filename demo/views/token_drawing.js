// Draws a layer on the picture: the regions of all tokens, or where one of them looks; or, of models that process fewer
// image tokens or join them, what has become of each. GLOW, a colour, comes from the palette of token_view.py.

const DARK = "9, 14, 22", GLOW_STRENGTH = 0.42;
const DEPTH_STOPS = [[38, 33, 79], [33, 110, 126], [121, 176, 136], [243, 226, 160]]; // from few layers to all
const PATTERNS = { // of image tokens that do not go on by themselves: how dark, and what is drawn on them
  dropped: [0.72, (tile, side) => { diagonal(tile, side); }],
  waiting: [0.5, (tile, side) => { tile.arc(side / 2, side / 2, 0.14 * side, 0, 7); tile.fill(); }],
  fused: [0, (tile, side) => { diagonal(tile, side); tile.moveTo(0, 0); tile.lineTo(side, side); }],
  fast: [0.35, (tile, side) => { tile.moveTo(0.1 * side, side / 2); tile.lineTo(0.6 * side, side / 2); }],
};

function diagonal(tile, side) {
  for (const shift of [-side, 0, side]) { tile.moveTo(shift, side); tile.lineTo(shift + side, 0); }
}

function cropOn(width, height) { // left, top, right, bottom of what the model saw, in pixels of a target
  const [left, top, right, bottom] = view.data.crop, [sourceHeight, sourceWidth] = view.data.size;
  return [(left * width) / sourceWidth, (top * height) / sourceHeight, (right * width) / sourceWidth, (bottom * height) / sourceHeight];
}

function lattice({ rows, columns }, width, height) {
  const [left, top, right, bottom] = cropOn(width, height);
  return { xs: edges(left, right, columns), ys: edges(top, bottom, rows), rows, columns };
}

function paint(target, width, height, unitPixel) {
  const context = target.getContext("2d");
  paintPicture(context, width, height);
  paintLayer(context, current(), activeToken(), width, height, unitPixel);
  if (view.data.untrained) markUntrained(context, width, height, unitPixel);
}

function paintPicture(context, width, height) { // dark outside of the crop, where the model sees nothing
  context.clearRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, width, height);
  const [left, top, right, bottom] = cropOn(width, height).map(Math.round);
  context.fillStyle = "rgba(" + DARK + ", 0.62)";
  context.beginPath();
  context.rect(0, 0, width, height);
  context.rect(left, top, right - left, bottom - top);
  context.fill("evenodd");
}

function paintLayer(context, layer, token, width, height, unitPixel) {
  const surface = surfaceOf(layer), grid = lattice(surface, width, height);
  if (layer.reduces) fillFates(context, layer, grid, unitPixel);
  else if (token === null) drawTile(context, surface.tile, grid, view.opacity, surface !== layer.squares);
  else fillGlow(context, layer, token, grid, surface !== layer.squares);
  if (view.boundaries && (token === null || layer.reduces)) {
    const drawn = (group) => !layer.reduces || group === DROPPED || joined(layer, group);
    const divides = (a, b) => a !== b && a !== OUTSIDE && b !== OUTSIDE && (drawn(a) || drawn(b));
    surface.lines = stroke(context, surface, grid, unitPixel, [0.85, 1.25], divides, surface.lines);
  }
  if (token === null) return;
  const only = layer.reduces ? layer.assignment[token] : token, outlines = (surface.outlines ??= new Map());
  outlines.set(only, stroke(context, surface, grid, unitPixel, [1, 2.5], (a, b) => a !== b && (a === only || b === only),
    outlines.get(only), layer.reduces ? null : layer.rgb[token]));
}

function drawTile(context, tile, { xs, ys, rows, columns }, opacity, smooth) {
  context.save();
  context.globalAlpha = opacity;
  context.imageSmoothingEnabled = smooth;
  context.drawImage(tile, xs[0], ys[0], xs[columns] - xs[0], ys[rows] - ys[0]);
  context.restore();
}

// The picture goes dark, but for where the token looks: attention is how much of it is left.
function fillGlow(context, layer, token, grid, smooth) {
  const { xs, ys, rows, columns } = grid, width = xs[columns] - xs[0], height = ys[rows] - ys[0];
  const [gridRows, gridColumns] = layer.imageGrid, levels = looks(layer, token);
  const alpha = (cell, most) => Math.round(most * (levels[cell] / 255) ** 0.75);
  const seen = document.createElement("canvas");
  Object.assign(seen, { width, height });
  const inner = seen.getContext("2d");
  inner.imageSmoothingEnabled = smooth;
  inner.drawImage(tileOf(gridRows, gridColumns, (cell) => [0, 0, 0, alpha(cell, 255)]), 0, 0, width, height);
  inner.globalCompositeOperation = "source-in";
  inner.drawImage(picture, -xs[0], -ys[0], context.canvas.width, context.canvas.height);
  context.fillStyle = "rgba(" + DARK + ", " + (0.42 + 0.5 * view.opacity) + ")";
  context.fillRect(xs[0], ys[0], width, height);
  context.drawImage(seen, xs[0], ys[0]);
  context.globalCompositeOperation = "screen";
  drawTile(context, tileOf(gridRows, gridColumns, (cell) => [...GLOW, alpha(cell, 255)]), grid, GLOW_STRENGTH, smooth);
  context.globalCompositeOperation = "source-over";
}

// Lines between regions. They are returned, to be `kept` for the next time: a smooth surface has many.
function stroke(context, { labels }, grid, unitPixel, [alpha, width], divides, kept, colour) {
  const { rows, columns, xs, ys } = grid, size = [xs[0], xs[columns], ys[0], ys[rows]].join();
  const at = (row, column) => (row < 0 || column < 0 || row >= rows || column >= columns ? OUTSIDE : labels[row * columns + column]);
  let lines = kept;
  if (lines?.size !== size) {
    lines = { size, path: new Path2D() };
    traceBorders(lines.path, grid, at, divides);
  }
  strokeTwice(context, unitPixel, alpha, width, colour?.map((level) => Math.round(level + 0.35 * (255 - level))).join(", "), lines.path);
  return lines;
}

// ---- image tokens that are dropped, joined or left out ----------------------------------------------------------

function depthAt(cell, layers) { // how many of the layers processed an image token
  return layers.filter((layer) => layer.assignment[cell] !== DROPPED).length;
}

function depthColour(part) { // of an image token that was processed by a part of the layers
  const at = part * (DEPTH_STOPS.length - 1), low = Math.min(Math.floor(at), DEPTH_STOPS.length - 2);
  return DEPTH_STOPS[low].map((value, i) => Math.round(value + (at - low) * (DEPTH_STOPS[low + 1][i] - value)));
}

function fillFates(context, layer, grid, unitPixel) { // kept: clear, joined: tinted, left out: by its pattern
  if (layer.fate === "halted") {
    const layers = upTo(layer), { rows, columns } = grid;
    drawTile(context, tileOf(rows, columns, (cell) => [...depthColour(depthAt(cell, layers) / layers.length), 255]), grid,
      Math.min(1, view.opacity + 0.15), false);
    return;
  }
  drawTile(context, layer.squares.tile, grid, view.opacity, false);
  fillWhere(context, layer, grid, (group) => group === DROPPED, layer.fate, unitPixel);
  if (layer.kind === "fused") fillWhere(context, layer, grid, (group) => joined(layer, group), "fused", unitPixel);
}

function fillWhere(context, layer, { xs, ys, columns }, wanted, fate, unitPixel) {
  context.beginPath();
  layer.assignment.forEach((group, cell) => {
    const row = Math.floor(cell / columns), column = cell % columns;
    if (wanted(group)) context.rect(xs[column], ys[row], xs[column + 1] - xs[column], ys[row + 1] - ys[row]);
  });
  fillFate(context, fate, unitPixel);
}

function fillFate(context, fate, unitPixel) { // fills the current path
  const [darkness, draw] = PATTERNS[fate], side = Math.round(8 * unitPixel), tile = document.createElement("canvas");
  Object.assign(tile, { width: side, height: side });
  const inner = tile.getContext("2d");
  Object.assign(inner, { strokeStyle: "rgba(255, 255, 255, 0.45)", fillStyle: "rgba(255, 255, 255, 0.55)", lineWidth: unitPixel });
  inner.beginPath();
  draw(inner, side);
  inner.stroke();
  for (const style of ["rgba(" + DARK + ", " + darkness * (0.5 + view.opacity) + ")", context.createPattern(tile, "repeat")]) {
    context.fillStyle = style;
    context.fill();
  }
}
