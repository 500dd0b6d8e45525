// What the pictures of dense models share: a mode of their own beside the regions of semantic tokens; pointing, pinning,
// keys, saving. Stands after view_parts.js, before a view's own script, which declares `view` (START and more) and `own`:
// what is special about it, see start(). gr.HTML gives `element`, `props` and `watch`.

// ---- token regions ----------------------------------------------------------------------------------------------

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

function describe(words) { // the picture, to who hears it
  canvas.setAttribute("aria-label", (view.data.title ? view.data.title + ": " : "") + words);
}

function refreshTokenWords() {
  const layer = currentLayer(), token = activeToken(), used = layer.counts.filter((count) => count > 0).length;
  describe("Regions of " + layer.counts.length + " semantic tokens" + (view.unit ? ", block " + view.unit : "") + ", " +
    layer.stage + ". Arrow keys choose a token, Escape lets it go.");
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

// ---- state ------------------------------------------------------------------------------------------------------

const canvas = find(".cv-canvas");
const picture = new Image();
const pair = element.closest(".dense-pair"), twin = Boolean(element.closest(".dense-twin"));
let shared = "";
const TOKENS = "Semantic tokens", VEIL = "rgba(9, 14, 22, 0.55)";
const START = { data: null, borders: true, opacity: find(".dv-mix input").value / 100, unit: null, layer: "", chosen: false, pinned: null, hovered: null };

// ---- data -------------------------------------------------------------------------------------------------------

function receive() {
  const data = props.value;
  const before = view.data;
  view.data = data && data.layers ? { ...data, layers: data.layers.map(unpack) } : null;
  view.hovered = view.pinned = null;
  find(".cv").classList.toggle("filled", Boolean(view.data));
  for (const control of element.querySelectorAll("input, button")) control.disabled = !view.data;
  if (!view.data) {
    find(".cv-readout").replaceChildren(line("cv-hint", "Nothing to show yet."));
    return;
  }
  own.unpack(view.data);
  if (!view.data.layers.length) view.mode = own.mode;
  else if (view.data.reason) view.mode = TOKENS;
  else if (before === null || before.reason) view.mode = own.mode;
  const first = view.data.layers[view.data.start];
  const same = view.data.layers.some((layer) => layer.unit === view.unit && layer.name === view.layer);
  if (first && !(view.chosen && same)) Object.assign(view, { unit: first.unit, layer: first.name, chosen: false });
  picture.onload = fit;
  picture.src = view.data.image;
  find(".cv-note").textContent = view.data.note;
  find(".cv-note").hidden = !view.data.note;
  delete find(".dv").dataset.state;
  refresh();
}

const active = () => view.hovered ?? view.pinned;

function fit() {
  const room = find(".cv-picture").clientWidth;
  if (!view.data || !picture.naturalWidth || !room) return; // in a tab that is not shown
  fitCanvas(canvas, view.data.size, room);
  refresh();
}

// ---- words and controls -----------------------------------------------------------------------------------------

function swatch(colour) {
  const made = document.createElement("i");
  if (colour) made.style.background = "rgb(" + colour.join(",") + ")";
  return made;
}

function fillList(list, entries) { // [number, colour, name, value] of each
  list.replaceChildren(...entries.map(([number, colour, name, value]) => {
    const entry = document.createElement("li"), button = document.createElement("button");
    Object.assign(button, { type: "button" });
    button.dataset.index = number;
    button.append(swatch(colour), textIn("span", name), textIn("b", value));
    entry.append(button);
    return entry;
  }));
}

function markList(list, chosen) {
  for (const button of list.querySelectorAll("button")) {
    const number = Number(button.dataset.index);
    button.classList.toggle("active", number === chosen);
    button.setAttribute("aria-pressed", String(number === view.pinned));
  }
}

function refreshControls() { // rebuilt only where something has changed, so that the focus stays
  const units = [...new Set(view.data.layers.map((layer) => layer.unit))];
  const state = JSON.stringify([view.mode, view.unit, view.layer]);
  find(".dv-own").hidden = view.mode !== own.mode || Boolean(view.data.reason);
  find(".dv-of-tokens").hidden = view.mode !== TOKENS;
  if (find(".dv").dataset.state === state) return;
  find(".dv").dataset.state = state;
  const focused = element.contains(document.activeElement) ? document.activeElement : null, [name, value] = [focused?.name, focused?.value];
  find(".dv-mode-choice").hidden = !units.length;
  segments(find(".dv-modes"), [own.mode, TOKENS], view.mode, (mode) => { view.mode = mode; view.hovered = view.pinned = null; refresh(); });
  find(".dv-unit-choice").hidden = units.length < 2;
  chooseBlock(find(".dv-units"), find(".cv-about"), units, view.unit, (unit) => { Object.assign(view, { unit, chosen: true }); refresh(); });
  const layers = view.data.layers.filter((layer) => layer.unit === view.unit);
  chooseStage(find(".dv-layers"), layers, currentLayer(), (layer) => { Object.assign(view, { layer: layer.name, chosen: true }); refresh(); });
  if (name) [...element.querySelectorAll("input[type=radio]")].find((input) => input.name === name && input.value === value)?.focus();
}

function share() { // what is set here holds for the picture of the full-token twin too, which has no controls
  const settings = own.settings(), said = JSON.stringify(settings);
  if (twin || said === shared) return;
  shared = said;
  pair.dispatchEvent(new CustomEvent("set", { detail: settings }));
}

function refresh() {
  share();
  if (!view.data) return;
  refreshControls();
  own.list();
  (view.mode === TOKENS ? refreshTokenWords : own.words)();
  if (picture.complete && picture.naturalWidth) paint(canvas, canvas.width, canvas.height, window.devicePixelRatio || 1);
}

// ---- drawing ----------------------------------------------------------------------------------------------------

function paint(target, width, height, unitPixel) {
  const context = target.getContext("2d");
  context.clearRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, width, height);
  (view.mode === TOKENS ? drawTokens : own.draw)(context, width, height, unitPixel);
  if (view.data.untrained) markUntrained(context, width, height, unitPixel);
}

function spotlight(context, mask, [left, top, w, h], width, height) { // all else under a veil, the mask as in the picture
  context.fillStyle = VEIL;
  context.fillRect(0, 0, width, height);
  const cut = document.createElement("canvas");
  Object.assign(cut, { width: Math.max(1, Math.ceil(w)), height: Math.max(1, Math.ceil(h)) });
  const inner = cut.getContext("2d");
  inner.drawImage(mask, 0, 0, w, h);
  inner.globalCompositeOperation = "source-in";
  inner.drawImage(picture, -left, -top, width, height);
  context.drawImage(cut, left, top);
}

function drawTag(context, text, colour, unitPixel, place) { // place(tagWidth, tagHeight): its left and top
  const size = 12 * unitPixel, pad = 4 * unitPixel;
  context.font = "600 " + size + "px system-ui, sans-serif";
  const tagWidth = context.measureText(text).width + 2 * pad, tagHeight = size + 1.4 * pad;
  const [x, y] = place(tagWidth, tagHeight);
  context.fillStyle = "rgb(" + colour.join(",") + ")";
  context.beginPath();
  context.roundRect(x, y, tagWidth, tagHeight, 3 * unitPixel);
  context.fill();
  const [red, green, blue] = colour;
  context.fillStyle = 0.299 * red + 0.587 * green + 0.114 * blue > 140 ? "#0b1119" : "#ffffff";
  context.textBaseline = "middle";
  context.fillText(text, x + pad, y + tagHeight / 2);
}

// ---- pointer, keys, saving --------------------------------------------------------------------------------------

function under(event) { // the object, class or token under the pointer
  const frame = canvas.getBoundingClientRect();
  const u = (event.clientX - frame.left) / frame.width, v = (event.clientY - frame.top) / frame.height;
  if (u < 0 || v < 0 || u >= 1 || v >= 1) return null;
  if (view.mode !== TOKENS) return own.under(u, v);
  return tokenUnder(u, v);
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

function nextOf(event, entries, chosen) { // in the order of the list
  const at = entries.indexOf(chosen);
  if (!entries.length) return null;
  const step = event.key === "ArrowRight" || event.key === "ArrowDown" ? 1 : -1;
  return entries[at < 0 ? (step > 0 ? 0 : entries.length - 1) : (at + step + entries.length) % entries.length];
}

function onKey(event) {
  if (!view.data) return;
  if (event.key === "Escape") view.pinned = null;
  else if (!event.key.startsWith("Arrow")) return;
  else view.pinned = view.mode === TOKENS ? nextToken(event, activeToken(), currentLayer().semanticGrid) : own.next(event);
  view.hovered = null;
  event.preventDefault();
  refresh();
}

function save() {
  const copy = document.createElement("canvas");
  [copy.height, copy.width] = view.data.size;
  paint(copy, copy.width, copy.height, Math.max(1, copy.width / 800));
  saveCanvas(copy, `${view.data.file}-${view.mode === TOKENS ? "tokens" : own.file}.png`);
  refresh();
}

function onSlider(place, use) {
  find(place + " input").addEventListener("input", (event) => {
    find(place + " output").textContent = event.target.value + " %";
    use(event.target.value / 100);
    refresh();
  });
}

function onChecks(...options) {
  for (const option of options) {
    find(".dv-" + option).addEventListener("change", (event) => { view[option] = event.target.checked; refresh(); });
  }
}

function onList(list) {
  const listed = (event) => { const button = event.target.closest("button"); return button ? Number(button.dataset.index) : null; };
  list.addEventListener("pointermove", (event) => byMouse(event) && hover(listed(event)));
  list.addEventListener("pointerleave", () => hover(null));
  list.addEventListener("focusin", (event) => hover(listed(event)));
  list.addEventListener("focusout", () => hover(null));
  list.addEventListener("click", (event) => listed(event) !== null && pin(listed(event)));
}

// own: { mode, file, unpack(data), list(), words(), draw(context, width, height, unitPixel), under(u, v), next(event),
// settings(), set(settings) }; list() and words() show what has changed, under() tells what lies there, next() where an
// arrow key leads to, and settings() what of the drawing can be chosen, as plain values.
function start() {
  canvas.addEventListener("pointermove", (event) => byMouse(event) && view.data && hover(under(event)));
  canvas.addEventListener("pointerleave", () => hover(null));
  canvas.addEventListener("click", (event) => view.data && pin(under(event)));
  canvas.addEventListener("keydown", onKey);
  onList(find(".dv-list"));
  onSlider(".dv-mix", (value) => { view.opacity = value; });
  onChecks("borders");
  find(".cv-save").addEventListener("click", save);
  if (twin) pair.addEventListener("set", ({ detail }) => { own.set(detail); refresh(); });
  new ResizeObserver(fit).observe(find(".cv-picture"));
  watch("value", receive);
  receive();
}
