// Draws detected objects; threshold, classes and highlighting act here, without a request. Runs once for the component,
// after view_parts.js and dense_view.js.

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
  const surestLast = [...visible].reverse(); // on top; no box crosses a name
  for (const index of view.boxes ? surestLast : []) drawBox(context, boxOn(index, width, height), object(index).colour, unitPixel, 0.9, 2);
  for (const index of view.names ? surestLast : []) drawName(context, index, width, height, unitPixel);
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

// ---- state ------------------------------------------------------------------------------------------------------

const OBJECTS = "Objects";
const view = { ...START, mode: OBJECTS, minimum: 0.5, off: new Set(), masks: true, boxes: true, names: true };
const own = {
  mode: OBJECTS, file: "objects", unpack: unpackObjects, list: refreshObjects, words: refreshObjectWords, draw: drawObjects,
  under: objectUnder, next: (event) => nextOf(event, shown(), activeObject()),
  settings: () => ({ minimum: view.minimum, off: [...view.off], masks: view.masks, boxes: view.boxes, names: view.names, opacity: view.opacity }),
  set: (settings) => Object.assign(view, settings, { off: new Set(settings.off) }),
};

// ---- data -------------------------------------------------------------------------------------------------------

function unpackObjects(data) {
  data.masks = bytes(data.masks);
  data.order = data.objects.map((_, index) => index).sort((a, b) => area(b) - area(a));
  view.off.clear();
  painted.clear();
}

const object = (index) => view.data.objects[index];
const area = (index) => { const [x0, y0, x1, y1] = object(index).box; return (x1 - x0) * (y1 - y0); };
const percent = (score) => (100 * score).toFixed(score > 0.995 && score < 1 ? 1 : 0) + " %";
const inClasses = () => view.data.objects.map((_, index) => index).filter((index) => object(index).score >= view.minimum);
const shown = () => inClasses().filter((index) => !view.off.has(object(index).name));

function activeObject() {
  return view.mode === OBJECTS && active() !== null && shown().includes(active()) ? active() : null;
}

// ---- words and controls -----------------------------------------------------------------------------------------

function refreshObjects() {
  refreshChips();
  refreshList();
}

function refreshChips() {
  const names = [...new Set(view.data.objects.map((entry) => entry.name))], box = find(".dv-chips");
  if (box.dataset.names !== JSON.stringify(names)) {
    box.dataset.names = JSON.stringify(names);
    box.replaceChildren(...names.map((name) => {
      const chip = document.createElement("label"), input = document.createElement("input");
      input.type = "checkbox";
      input.addEventListener("change", () => { input.checked ? view.off.delete(name) : view.off.add(name); refresh(); });
      chip.append(input, swatch(view.data.objects.find((entry) => entry.name === name).colour), textIn("span", name), textIn("b", ""));
      return chip;
    }));
  }
  const sure = inClasses().map((index) => object(index).name);
  [...box.children].forEach((chip, index) => {
    const count = sure.filter((name) => name === names[index]).length;
    chip.querySelector("input").checked = !view.off.has(names[index]);
    chip.querySelector("b").textContent = String(count);
    chip.hidden = count === 0;
  });
  find(".dv-classes").hidden = sure.length === 0;
}

function refreshList() {
  const visible = shown(), list = find(".dv-list");
  find(".dv-count").replaceChildren(textIn("span", "Objects"), textIn("b", visible.length + " of " + view.data.objects.length));
  if (list.dataset.entries !== JSON.stringify(visible) || list.dataset.image !== view.data.image.slice(-200)) {
    list.dataset.entries = JSON.stringify(visible);
    list.dataset.image = view.data.image.slice(-200);
    fillList(list, visible.map((index) => [index, object(index).colour, object(index).name, percent(object(index).score)]));
  }
  markList(list, activeObject());
}

function refreshObjectWords() {
  const visible = shown(), chosen = activeObject(), readout = find(".cv-readout");
  describe("Picture with " + visible.length + " detected objects. Arrow keys go from one to the next, Escape lets it go.");
  if (view.data.reason) {
    readout.replaceChildren(line("cv-name", "", "No objects are shown."), line("cv-hint", view.data.reason));
  } else if (chosen === null) {
    const least = Math.round(100 * view.minimum) + " %";
    readout.replaceChildren(
      line("cv-name", "", visible.length ? visible.length + (visible.length === 1 ? " object" : " objects") : "No object found", " of at least " + least + ", out of " + view.data.objects.length + " found"),
      line("cv-hint", visible.length ? "Point at an object, or focus the picture and use the arrow keys, to single it out."
        : view.data.objects.length ? "Lower the confidence, or switch classes on, to see more." : "The detector is sure of nothing in this picture."));
  } else {
    const [x0, y0, x1, y1] = object(chosen).box.map(Math.round);
    readout.replaceChildren(
      line("cv-name", "", object(chosen).name, " · " + percent(object(chosen).score) + " · object " + (visible.indexOf(chosen) + 1) + " of " + visible.length),
      line("cv-fact", "Box ", x0 + ", " + y0 + " to " + x1 + ", " + y1, " (" + (x1 - x0) + " × " + (y1 - y0) + " pixels)"),
      line("cv-fact", "Mask ", (100 * object(chosen).covers).toFixed(1) + " %", " of the picture"));
  }
}

// ---- pointer ----------------------------------------------------------------------------------------------------

function objectUnder(u, v) { // the smallest object under a place in [0, 1], by its mask and else by its box
  const smallestFirst = view.data.order.filter((index) => shown().includes(index)).reverse(), side = view.data.maskSide;
  const inBox = smallestFirst.map((index) => {
    const [left, top, width, height] = boxOn(index, 1, 1);
    return { index, x: ((u - left) / width) * side - 0.5, y: ((v - top) / height) * side - 0.5 };
  }).filter(({ x, y }) => x >= -0.5 && y >= -0.5 && x <= side - 0.5 && y <= side - 0.5);
  const onMask = inBox.find(({ index, x, y }) => maskAt(index, [Math.floor(y), y - Math.floor(y)], [Math.floor(x), x - Math.floor(x)]) >= 127.5);
  return (onMask ?? inBox[0])?.index ?? null;
}

onSlider(".dv-confidence", (value) => { view.minimum = value; });
onChecks("masks", "boxes", "names");
find(".dv-all").addEventListener("click", () => { view.off.clear(); refresh(); });
find(".dv-none").addEventListener("click", () => { view.data.objects.forEach((entry) => view.off.add(entry.name)); refresh(); });
start();
