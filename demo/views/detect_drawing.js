// Paints what detect_view.js shows: masks, boxes and names. `view` is declared there.

const SHARPEST = 512; // masks have 28 x 28 cells: drawn finer than this, they would only take memory
const painted = new Map(); // object: its mask as canvases, at the size it was last drawn

// ---- masks ------------------------------------------------------------------------------------------------------

function taps(pixels, cells) { // for each pixel of a box: the two cells around its centre, and how far it is from the first
  return Array.from({ length: pixels }, (_, pixel) => {
    const at = ((pixel + 0.5) / pixels) * cells - 0.5;
    return [Math.floor(at), at - Math.floor(at)];
  });
}

function maskAt(index, [row, down], [column, right]) { // probability in [0, 255] between four cells, 0 outside of the box
  const side = view.data.maskSide, start = index * side * side;
  const cell = (r, c) => (r < 0 || c < 0 || r >= side || c >= side ? 0 : view.data.masks[start + r * side + c]);
  const upper = cell(row, column) * (1 - right) + cell(row, column + 1) * right;
  const lower = cell(row + 1, column) * (1 - right) + cell(row + 1, column + 1) * right;
  return upper * (1 - down) + lower * down;
}

function paintMask(index, width, height, line) { // a mask and its outline, in the object's colour
  const known = painted.get(index);
  if (known && known.fill.width === width && known.fill.height === height) return known;
  const rows = taps(height, view.data.maskSide), columns = taps(width, view.data.maskSide);
  const inside = rows.map((row) => columns.map((column) => maskAt(index, row, column) >= 127.5));
  const colour = object(index).colour;
  const draw = (chosen) => {
    const target = document.createElement("canvas");
    Object.assign(target, { width, height });
    const image = target.getContext("2d").createImageData(width, height);
    inside.forEach((row, y) => row.forEach((value, x) => {
      if (value && chosen(x, y)) image.data.set([...colour, 255], 4 * (y * width + x));
    }));
    target.getContext("2d").putImageData(image, 0, 0);
    return target;
  };
  const rim = (x, y) => !(inside[y - line]?.[x] && inside[y + line]?.[x] && inside[y][x - line] && inside[y][x + line]);
  painted.set(index, { fill: draw(() => true), edge: draw(rim) });
  return painted.get(index);
}

function boxOn(index, width, height) { // left, top, width, height in pixels of a target
  const [sourceHeight, sourceWidth] = view.data.source, [x0, y0, x1, y1] = object(index).box;
  const sx = width / sourceWidth, sy = height / sourceHeight;
  return [x0 * sx, y0 * sy, (x1 - x0) * sx, (y1 - y0) * sy];
}

function maskOn(index, width, height, unitPixel) {
  const [, , w, h] = boxOn(index, width, height);
  const finest = Math.max(1, Math.max(w, h) / SHARPEST);
  return paintMask(index, Math.max(1, Math.round(w / finest)), Math.max(1, Math.round(h / finest)),
    Math.max(1, Math.round((1.5 * unitPixel) / finest)));
}

// ---- drawing ----------------------------------------------------------------------------------------------------

function drawObjects(context, width, height, unitPixel) {
  const chosen = activeObject(), visible = shown(), largestFirst = view.data.order.filter((index) => visible.includes(index));
  if (view.masks) {
    for (const index of largestFirst) {
      const { fill, edge } = maskOn(index, width, height, unitPixel), box = boxOn(index, width, height);
      context.globalAlpha = view.opacity;
      context.drawImage(fill, ...box);
      context.globalAlpha = Math.min(1, 2 * view.opacity);
      context.drawImage(edge, ...box);
    }
  }
  context.globalAlpha = 1;
  for (const index of [...visible].reverse()) { // the surest on top
    if (view.boxes) drawBox(context, boxOn(index, width, height), object(index).colour, unitPixel, 0.9, 2);
    if (view.names) drawName(context, index, width, height, unitPixel);
  }
  if (chosen !== null) spotlightObject(context, chosen, width, height, unitPixel);
}

function spotlightObject(context, index, width, height, unitPixel) {
  const box = boxOn(index, width, height), { fill, edge } = maskOn(index, width, height, unitPixel);
  spotlight(context, fill, box, width, height);
  context.drawImage(edge, ...box);
  drawBox(context, box, object(index).colour, unitPixel, 1, 3);
  drawName(context, index, width, height, unitPixel);
}

function drawBox(context, box, colour, unitPixel, alpha, width) {
  context.beginPath();
  context.rect(...box);
  strokeTwice(context, unitPixel, alpha, width, colour.join(", "));
}

function drawName(context, index, width, height, unitPixel) { // on the box, or in it at the picture's edge
  const [left, top] = boxOn(index, width, height), { name, score, colour } = object(index);
  drawTag(context, name + " " + percent(score), colour, unitPixel, (tagWidth, tagHeight) => [
    Math.min(Math.max(0, left - unitPixel), Math.max(0, width - tagWidth)), Math.max(0, top - tagHeight),
  ]);
}
