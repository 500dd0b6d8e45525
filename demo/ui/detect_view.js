// Draws detected objects and the regions of semantic tokens; threshold, classes and highlighting act here, without a
// request. Runs once for the component, after view_parts.js and detect_drawing.js; gr.HTML gives `element`, `props` and
// `watch`.

const canvas = find(".cv-canvas");
const picture = new Image();
const OBJECTS = "Objects", TOKENS = "Semantic tokens";
const view = {
  data: null, mode: OBJECTS, minimum: 0.5, off: new Set(), masks: true, boxes: true, names: true, borders: true, opacity: 0.5,
  unit: 0, layer: "STGM 2", pinned: null, hovered: null,
};

// ---- data -------------------------------------------------------------------------------------------------------

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

function receive() {
  const data = props.value;
  const before = view.data;
  view.data = data && data.objects ? { ...data, masks: bytes(data.masks), layers: data.layers.map(unpack) } : null;
  view.hovered = view.pinned = null;
  view.off.clear();
  painted.clear();
  find(".cv").classList.toggle("filled", Boolean(view.data));
  for (const control of element.querySelectorAll("input, button")) control.disabled = !view.data;
  if (!view.data) {
    find(".cv-readout").replaceChildren(line("cv-hint", "Nothing to show yet."));
    return;
  }
  if (view.data.reason) view.mode = TOKENS;
  else if (before === null || before.reason) view.mode = OBJECTS;
  view.data.order = view.data.objects.map((_, index) => index).sort((a, b) => area(b) - area(a));
  const units = view.data.layers.map((layer) => layer.unit);
  if (!units.includes(view.unit)) view.unit = Math.max(...units);
  picture.onload = fit;
  picture.src = view.data.image;
  find(".cv-note").textContent = view.data.note;
  find(".cv-note").hidden = !view.data.note;
  delete find(".dv").dataset.state;
  refresh();
}

const object = (index) => view.data.objects[index];
const area = (index) => { const [x0, y0, x1, y1] = object(index).box; return (x1 - x0) * (y1 - y0); };
const percent = (score) => (100 * score).toFixed(score > 0.995 && score < 1 ? 1 : 0) + " %";
const inClasses = () => view.data.objects.map((_, index) => index).filter((index) => object(index).score >= view.minimum);
const shown = () => inClasses().filter((index) => !view.off.has(object(index).name));
const active = () => view.hovered ?? view.pinned;

function activeObject() {
  return view.mode === OBJECTS && active() !== null && shown().includes(active()) ? active() : null;
}

function currentLayer() {
  const layers = view.data.layers.filter((layer) => layer.unit === view.unit);
  return layers.find((layer) => layer.name === view.layer) || layers[0];
}

function activeToken() {
  return view.mode === TOKENS && active() !== null && active() < currentLayer().counts.length ? active() : null;
}

function fit() {
  if (!view.data || !picture.naturalWidth) return;
  fitCanvas(canvas, view.data.size, find(".cv-picture").clientWidth);
  refresh();
}

// ---- words and controls -----------------------------------------------------------------------------------------

function swatch(colour) {
  const made = document.createElement("i");
  made.style.background = "rgb(" + colour.join(",") + ")";
  return made;
}

function refreshControls() { // rebuilt only where something has changed, so that the focus stays
  const units = [...new Set(view.data.layers.map((layer) => layer.unit))];
  const state = JSON.stringify([view.mode, view.unit, view.layer]);
  find(".dv-of-objects").hidden = view.mode !== OBJECTS || Boolean(view.data.reason);
  find(".dv-of-tokens").hidden = view.mode !== TOKENS;
  if (find(".dv").dataset.state === state) return;
  find(".dv").dataset.state = state;
  const focused = element.contains(document.activeElement) ? document.activeElement : null, [name, value] = [focused?.name, focused?.value];
  segments(find(".dv-modes"), [OBJECTS, TOKENS], view.mode, (mode) => { view.mode = mode; view.hovered = view.pinned = null; refresh(); });
  find(".dv-unit-choice").hidden = units.length < 2;
  segments(find(".dv-units"), units, view.unit, (unit) => { view.unit = unit; refresh(); });
  const layers = view.data.layers.filter((layer) => layer.unit === view.unit).map((layer) => layer.name);
  segments(find(".dv-layers"), layers, currentLayer().name, (layer) => { view.layer = layer; refresh(); });
  if (name) [...element.querySelectorAll("input[type=radio]")].find((input) => input.name === name && input.value === value)?.focus();
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
  const visible = shown(), list = find(".dv-list"), chosen = activeObject();
  find(".dv-count").replaceChildren(textIn("span", "Objects"), textIn("b", visible.length + " of " + view.data.objects.length));
  if (list.dataset.entries !== JSON.stringify(visible) || list.dataset.image !== view.data.image.slice(-200)) {
    list.dataset.entries = JSON.stringify(visible);
    list.dataset.image = view.data.image.slice(-200);
    list.replaceChildren(...visible.map((index) => {
      const entry = document.createElement("li"), button = document.createElement("button");
      Object.assign(button, { type: "button" });
      button.dataset.index = index;
      button.append(swatch(object(index).colour), textIn("span", object(index).name), textIn("b", percent(object(index).score)));
      entry.append(button);
      return entry;
    }));
  }
  for (const button of list.querySelectorAll("button")) {
    const index = Number(button.dataset.index);
    button.classList.toggle("active", index === chosen);
    button.setAttribute("aria-pressed", String(index === view.pinned));
  }
}

function refreshObjectWords() {
  const visible = shown(), chosen = activeObject(), readout = find(".cv-readout");
  canvas.setAttribute("aria-label", "Picture with " + visible.length + " detected objects. Arrow keys go from one to the next, Escape lets it go.");
  if (view.data.reason) {
    readout.replaceChildren(line("cv-name", "", "No objects are shown."), line("cv-hint", view.data.reason));
  } else if (chosen === null) {
    const least = Math.round(100 * view.minimum) + " %";
    readout.replaceChildren(
      line("cv-name", "", visible.length + (visible.length === 1 ? " object" : " objects"), " of at least " + least + ", out of " + view.data.objects.length + " found"),
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

function refresh() {
  if (!view.data) return;
  refreshControls();
  refreshChips();
  refreshList();
  (view.mode === TOKENS ? refreshTokenWords : refreshObjectWords)();
  if (picture.complete && picture.naturalWidth) paint(canvas, canvas.width, canvas.height, window.devicePixelRatio || 1);
}

// ---- pointer, keys, saving --------------------------------------------------------------------------------------

function under(event) { // the smallest object, by mask and else by box, or the token, under the pointer
  const frame = canvas.getBoundingClientRect();
  const u = (event.clientX - frame.left) / frame.width, v = (event.clientY - frame.top) / frame.height;
  if (view.mode === TOKENS) {
    const [rows, columns] = view.data.cells, layer = currentLayer();
    const row = Math.floor(v * rows), column = Math.floor(u * columns);
    return u < 0 || v < 0 || u >= 1 || v >= 1 ? null : layer.assignment[row * layer.imageGrid[1] + column];
  }
  const smallestFirst = view.data.order.filter((index) => shown().includes(index)).reverse(), side = view.data.maskSide;
  const inBox = smallestFirst.map((index) => {
    const [left, top, width, height] = boxOn(index, 1, 1);
    return { index, x: ((u - left) / width) * side - 0.5, y: ((v - top) / height) * side - 0.5 };
  }).filter(({ x, y }) => x >= -0.5 && y >= -0.5 && x <= side - 0.5 && y <= side - 0.5);
  const onMask = inBox.find(({ index, x, y }) => maskAt(index, [Math.floor(y), y - Math.floor(y)], [Math.floor(x), x - Math.floor(x)]) >= 127.5);
  return (onMask ?? inBox[0])?.index ?? null;
}

function hover(chosen) {
  if (!view.data || view.hovered === chosen) return;
  view.hovered = chosen;
  refresh();
}

function pin(chosen) {
  view.hovered = null;
  view.pinned = chosen === view.pinned ? null : chosen;
  refresh();
}

function nextObject(event) { // in the order of the list
  const visible = shown(), at = visible.indexOf(activeObject());
  if (!visible.length) return null;
  const step = event.key === "ArrowRight" || event.key === "ArrowDown" ? 1 : -1;
  return visible[at < 0 ? (step > 0 ? 0 : visible.length - 1) : (at + step + visible.length) % visible.length];
}

function onKey(event) {
  if (!view.data) return;
  if (event.key === "Escape") view.pinned = null;
  else if (!event.key.startsWith("Arrow")) return;
  else view.pinned = view.mode === TOKENS ? nextToken(event, activeToken(), currentLayer().semanticGrid) : nextObject(event);
  view.hovered = null;
  event.preventDefault();
  refresh();
}

function save() {
  const copy = document.createElement("canvas");
  [copy.height, copy.width] = view.data.size;
  paint(copy, copy.width, copy.height, Math.max(1, copy.width / 800));
  saveCanvas(copy, view.mode === TOKENS ? "tokens.png" : "objects.png");
  refresh();
}

function onSlider(place, use) {
  find(place + " input").addEventListener("input", (event) => {
    find(place + " output").textContent = event.target.value + " %";
    use(event.target.value / 100);
    refresh();
  });
}

const listed = (event) => { const button = event.target.closest("button"); return button ? Number(button.dataset.index) : null; };
const list = find(".dv-list");
canvas.addEventListener("pointermove", (event) => byMouse(event) && view.data && hover(under(event)));
canvas.addEventListener("pointerleave", () => hover(null));
canvas.addEventListener("click", (event) => view.data && pin(under(event)));
canvas.addEventListener("keydown", onKey);
list.addEventListener("pointermove", (event) => byMouse(event) && hover(listed(event)));
list.addEventListener("pointerleave", () => hover(null));
list.addEventListener("focusin", (event) => hover(listed(event)));
list.addEventListener("focusout", () => hover(null));
list.addEventListener("click", (event) => listed(event) !== null && pin(listed(event)));
onSlider(".dv-confidence", (value) => { view.minimum = value; });
onSlider(".dv-mix", (value) => { view.opacity = value; });
for (const option of ["masks", "boxes", "names", "borders"]) {
  find(".dv-" + option).addEventListener("change", (event) => { view[option] = event.target.checked; refresh(); });
}
find(".dv-all").addEventListener("click", () => { view.off.clear(); refresh(); });
find(".dv-none").addEventListener("click", () => { view.data.objects.forEach((entry) => view.off.add(entry.name)); refresh(); });
find(".cv-save").addEventListener("click", save);
new ResizeObserver(fit).observe(find(".cv-picture"));
watch("value", receive);
receive();
