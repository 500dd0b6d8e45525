// Draws the regions of semantic tokens and where a token looks; or, for models that process fewer image tokens or join
// them, what has become of each ("reduction" layers, where the tokens to point at are the image tokens). Runs once for
// the component, after view_parts.js; gr.HTML gives `element`, `props` and `watch`.

const canvas = find(".cv-canvas");
const picture = new Image();
const view = { data: null, unit: 0, layer: "", opacity: 0.55, boundaries: true, pinned: null, hovered: null, reducing: false };

const MOST_SEGMENTS = 4; // more layers than these get a slider
const DROPPED = -1, OUTSIDE = -2;
const FATES = { // of the image tokens that a layer does not process in full: in the legend, of one, and of the others
  dropped: ["dropped", "dropped", "go on"],
  halted: ["halted", "halted", "go on"],
  waiting: ["wait for a later layer", "waits for a later layer", "are processed"],
  fast: ["on the fast path", "takes the fast path", "take the full path"],
};
const HEAT_STOPS = [[20, 11, 52], [120, 28, 109], [229, 92, 48], [251, 180, 26], [252, 255, 164]];
const HEAT = Array.from({ length: 256 }, (_, level) => {
  const at = (level / 255) * (HEAT_STOPS.length - 1);
  const low = Math.min(Math.floor(at), HEAT_STOPS.length - 2);
  const mix = HEAT_STOPS[low].map((value, i) => Math.round(value + (at - low) * (HEAT_STOPS[low + 1][i] - value)));
  return "rgb(" + mix.join(",") + ")";
});

// ---- data -------------------------------------------------------------------------------------------------------

function unpack(layer) {
  const assignment = new Int16Array(bytes(layer.assignment).buffer);
  const colours = bytes(layer.colours);
  const counts = new Array(layer.tokens ?? layer.semanticGrid[0] * layer.semanticGrid[1]).fill(0);
  assignment.forEach((token) => { if (token !== DROPPED) counts[token] += 1; });
  return {
    ...layer, assignment, counts,
    attention: bytes(layer.attention),
    colours: counts.map((_, token) => "rgb(" + colours.slice(3 * token, 3 * token + 3).join(",") + ")"),
  };
}

function receive() {
  const data = props.value;
  view.data = data && data.layers ? { ...data, layers: data.layers.map(unpack) } : null;
  view.hovered = null;
  find(".cv").classList.toggle("filled", Boolean(view.data));
  for (const control of element.querySelectorAll("input, button")) control.disabled = !view.data;
  if (view.data) {
    const units = view.data.layers.map((layer) => layer.unit);
    if (!units.includes(view.unit)) view.unit = Math.max(...units);
    if (Boolean(view.data.layers[0].reduction) !== view.reducing) view.pinned = null; // it named another kind of token
    view.reducing = Boolean(view.data.layers[0].reduction);
    picture.onload = fit;
    picture.src = view.data.image;
    find(".cv-note").textContent = view.data.note;
    find(".cv-note").hidden = !view.data.note;
  }
  refresh();
}

const layersOfUnit = () => view.data.layers.filter((layer) => layer.unit === view.unit);

function current() {
  if (!view.data) return null;
  const layers = layersOfUnit();
  return layers.find((layer) => layer.name === view.layer) || layers[layers[0].reduction ? layers.length - 1 : Math.min(1, layers.length - 1)];
}

const joined = (layer, group) => group !== DROPPED && layer.counts[group] > 1;

function activeToken() {
  const layer = current();
  const token = view.hovered ?? view.pinned;
  const tokens = layer ? layer.semanticGrid[0] * layer.semanticGrid[1] : 0;
  return token !== null && token < tokens ? token : null;
}

// ---- drawing ----------------------------------------------------------------------------------------------------

function grid(width, height) {
  const [rows, columns] = current().imageGrid;
  const [left, top, right, bottom] = view.data.crop;
  const [sourceHeight, sourceWidth] = view.data.size;
  const sx = width / sourceWidth, sy = height / sourceHeight;
  return { xs: edges(left * sx, right * sx, columns), ys: edges(top * sy, bottom * sy, rows), rows, columns };
}

function paint(target, width, height, unitPixel) {
  const context = target.getContext("2d");
  context.clearRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, width, height);
  const layer = current(), token = activeToken(), lattice = grid(width, height);
  const { xs, ys, rows, columns } = lattice;
  context.fillStyle = "rgba(9, 14, 22, 0.62)"; // outside the crop the model sees nothing
  context.beginPath();
  context.rect(0, 0, width, height);
  context.rect(xs[0], ys[0], xs[columns] - xs[0], ys[rows] - ys[0]);
  context.fill("evenodd");
  (layer.reduction ? fillReduction : fillClusters)(context, layer, lattice, token);
  context.globalAlpha = 1;
  if (view.boundaries) stroke(context, lattice, unitPixel, token === null || layer.reduction ? 0.9 : 0.3, 1.25, null);
  if (token !== null) stroke(context, lattice, unitPixel, 1, 2.5, layer.reduction ? layer.assignment[token] : token);
}

function fillCells(context, { xs, ys, rows, columns }, style) { // style(cell): colour and opacity
  for (let cell = 0; cell < rows * columns; cell += 1) {
    const row = Math.floor(cell / columns), column = cell % columns;
    [context.fillStyle, context.globalAlpha] = style(cell);
    context.fillRect(xs[column], ys[row], xs[column + 1] - xs[column], ys[row + 1] - ys[row]);
  }
}

function fillClusters(context, layer, lattice, token) {
  const cells = lattice.rows * lattice.columns;
  if (token === null) {
    fillCells(context, lattice, (cell) => [layer.colours[layer.assignment[cell]], view.opacity]);
    return;
  }
  fillCells(context, lattice, () => ["rgb(9, 14, 22)", 0.25 + 0.5 * view.opacity]);
  fillCells(context, lattice, (cell) => {
    const level = layer.attention[token * cells + cell];
    return [HEAT[level], (0.2 + 0.8 * view.opacity) * (level / 255)];
  });
}

function depth(cell) { // layers of the unit that processed an image token, up to the one that is shown
  const layers = layersOfUnit();
  return layers.slice(0, layers.indexOf(current()) + 1).filter((layer) => layer.assignment[cell] !== DROPPED).length;
}

function fillReduction(context, layer, lattice) { // kept: clear, dropped: dark, fused or merged: tinted
  const shown = layersOfUnit().indexOf(layer) + 1;
  fillCells(context, lattice, (cell) => {
    const group = layer.assignment[cell];
    const share = layer.fate === "halted" ? 1 - (0.7 * depth(cell)) / shown : 1; // the earlier it halted, the darker
    if (group === DROPPED) return ["rgb(9, 14, 22)", (0.3 + 0.6 * view.opacity) * share];
    return [layer.colours[group], joined(layer, group) ? view.opacity : 0];
  });
}

// Lines between regions, or around the region of one token; a dark line beneath keeps them visible on white.
function stroke(context, { xs, ys, rows, columns }, unitPixel, alpha, width, only) {
  const layer = current();
  const at = (row, column) =>
    row < 0 || column < 0 || row >= rows || column >= columns ? OUTSIDE : layer.assignment[row * columns + column];
  const drawn = (a, b) => !layer.reduction || [a, b].some((group) => group === DROPPED || joined(layer, group));
  const divides = (a, b) =>
    a !== b && (only === null ? a !== OUTSIDE && b !== OUTSIDE && drawn(a, b) : a === only || b === only);
  traceBorders(context, { xs, ys, rows, columns }, at, divides);
  strokeTwice(context, unitPixel, alpha, width);
}

function fit() {
  if (!view.data || !picture.naturalWidth) return;
  fitCanvas(canvas, view.data.size, find(".cv-picture").clientWidth);
  refresh();
}

// ---- words and controls -----------------------------------------------------------------------------------------

function refreshControls() {
  const units = [...new Set(view.data.layers.map((layer) => layer.unit))], names = layersOfUnit().map((layer) => layer.name);
  const state = JSON.stringify([units, names, view.unit, current().name]);
  if (find(".cv").dataset.state === state) return; // keeps the focus on the radio button that was just chosen
  find(".cv").dataset.state = state;
  const focused = document.activeElement && element.contains(document.activeElement) ? document.activeElement : null;
  const [name, value] = [focused?.name, focused?.value];
  find(".cv-unit-choice").hidden = units.length < 2;
  segments(find(".cv-units"), units, view.unit, (unit) => { view.unit = unit; refresh(); });
  const many = names.length > MOST_SEGMENTS, stepper = find(".cv-step input");
  find(".cv-layer-choice").hidden = many;
  find(".cv-step").hidden = !many;
  segments(find(".cv-layers"), many ? [] : names, current().name, (layer) => { view.layer = layer; refresh(); });
  Object.assign(stepper, { max: names.length, value: names.indexOf(current().name) + 1 });
  find(".cv-step output").textContent = current().name.replace(/^Layer /, "") + " of " + names.length;
  if (name) element.querySelector("input[name='" + name + "']:checked")?.focus();
}

function refreshTokens() {
  const layer = current(), box = find(".cv-tokens"), token = activeToken();
  find(".cv-legend").hidden = Boolean(layer.reduction);
  find(".cv-kinds").hidden = !layer.reduction;
  if (layer.reduction) {
    refreshKinds(layer);
    return;
  }
  box.style.gridTemplateColumns = "repeat(" + layer.semanticGrid[1] + ", 1fr)";
  while (box.children.length > layer.counts.length) box.lastChild.remove();
  while (box.children.length < layer.counts.length) box.append(document.createElement("i"));
  layer.counts.forEach((count, index) => {
    const swatch = box.children[index];
    swatch.style.background = layer.colours[index];
    swatch.classList.toggle("idle", count === 0);
    swatch.classList.toggle("active", index === token);
  });
}

function fates(layer) { // how many image tokens are kept as they are, joined with others, not processed in full
  const all = [...layer.assignment];
  const together = all.filter((group) => joined(layer, group)).length, out = all.filter((group) => group === DROPPED).length;
  return { kept: all.length - together - out, [layer.reduction]: together, [layer.fate]: out };
}

function refreshKinds(layer) {
  find(".cv-kinds").replaceChildren(...Object.entries(fates(layer)).filter(([kind, count]) => count || kind === "kept")
    .map(([kind, count]) => line("cv-kind " + kind, "", String(count), " " + (FATES[kind]?.[0] ?? kind))));
}

function refreshReductionReadout(layer, token) {
  const cells = layer.assignment.length, [, gone, others] = FATES[layer.fate];
  canvas.setAttribute("aria-label", "Image tokens of " + view.data.title + " after " + layer.name + ": " + layer.tokens + " of " +
    cells + " " + others + ". Arrow keys choose an image token, Escape lets it go.");
  if (token === null) {
    find(".cv-readout").replaceChildren(
      line("cv-name", "After " + layer.name.toLowerCase() + ", ", layer.tokens + " of " + cells + " tokens", " " + others),
      line("cv-hint", "Step through the layers; point at a token, or use the arrow keys, to see what became of it."));
    return;
  }
  const group = layer.assignment[token], company = group === DROPPED ? 0 : layer.counts[group] - 1;
  const left = layer.fate === "halted" ? gone + " after layer " + depth(token) : gone;
  const fate = group === DROPPED ? left : company ? layer.reduction + " with " + company + (company > 1 ? " others" : " other") : "kept";
  find(".cv-readout").replaceChildren(
    line("cv-name", "", "Image token " + (token + 1), " · " + place(token, layer.imageGrid[1])),
    line("cv-fact", "By the end of " + layer.name.toLowerCase() + ": ", fate));
}

function refreshReadout() {
  const layer = current(), token = activeToken();
  if (layer.reduction) {
    refreshReductionReadout(layer, token);
    return;
  }
  const [rows, columns] = layer.semanticGrid, cells = layer.imageGrid[0] * layer.imageGrid[1];
  canvas.setAttribute("aria-label", "Regions of " + rows * columns + " semantic tokens of " + view.data.title +
    (layer.unit ? ", unit " + layer.unit : "") + ", " + layer.name + ". Arrow keys choose a token, Escape lets it go.");
  find(".cv-strongest").textContent = token === null ? "strongest" : layer.strongest[token].toFixed(3);
  if (token === null) {
    const used = layer.counts.filter((count) => count > 0).length;
    find(".cv-readout").replaceChildren(
      line("cv-name", "", used + " of " + rows * columns + " tokens", " stand for a region"),
      line("cv-hint", "Point at a region, or focus the picture and use the arrow keys, to see where its token looks."));
    return;
  }
  const map = layer.attention.subarray(token * cells, (token + 1) * cells);
  const share = ((100 * layer.counts[token]) / cells).toFixed(1) + " %";
  find(".cv-readout").replaceChildren(
    line("cv-name", "", "Token " + (token + 1), " · " + place(token, columns)),
    line("cv-fact", "Stands for ", share, " of what the model sees"),
    line("cv-fact", "Strongest attention ", layer.strongest[token].toFixed(3),
      " on " + place(map.indexOf(255), layer.imageGrid[1]) + " of " + layer.imageGrid.join(" × ")));
}

function refresh() {
  if (!view.data) return;
  refreshControls();
  refreshTokens();
  refreshReadout();
  if (picture.complete && picture.naturalWidth) paint(canvas, canvas.width, canvas.height, window.devicePixelRatio || 1);
}

// ---- pointer, keys, saving --------------------------------------------------------------------------------------

function tokenAt(event) {
  if (!view.data) return null;
  const { xs, ys, rows, columns } = grid(canvas.width, canvas.height);
  const box = canvas.getBoundingClientRect();
  const x = ((event.clientX - box.left) / box.width) * canvas.width, y = ((event.clientY - box.top) / box.height) * canvas.height;
  const column = xs.findIndex((edge, i) => i < columns && x >= edge && x < xs[i + 1]);
  const row = ys.findIndex((edge, i) => i < rows && y >= edge && y < ys[i + 1]);
  if (row < 0 || column < 0) return null;
  const cell = row * columns + column;
  return current().reduction ? cell : current().assignment[cell];
}

function hover(token) {
  if (view.hovered === token) return;
  view.hovered = token;
  refresh();
}

function pin(token) {
  view.hovered = null;
  view.pinned = token === view.pinned ? null : token;
  refresh();
}

function onKey(event) {
  if (!view.data) return;
  if (event.key === "Escape") view.pinned = null;
  else if (event.key.startsWith("Arrow")) view.pinned = nextToken(event, activeToken(), current().semanticGrid);
  else return;
  view.hovered = null;
  event.preventDefault();
  refresh();
}

function save() {
  const copy = document.createElement("canvas");
  [copy.height, copy.width] = view.data.size;
  paint(copy, copy.width, copy.height, Math.max(1, copy.width / 640));
  saveCanvas(copy, "tokens_" + (view.unit ? "unit" + view.unit + "_" : "") + current().name.toLowerCase().replace(/\W+/g, "_") + ".png");
}

const swatchOf = (event) => [...find(".cv-tokens").children].indexOf(event.target);
canvas.addEventListener("pointermove", (event) => byMouse(event) && hover(tokenAt(event)));
canvas.addEventListener("pointerleave", () => hover(null));
canvas.addEventListener("click", (event) => pin(tokenAt(event)));
canvas.addEventListener("keydown", onKey);
find(".cv-tokens").addEventListener("pointermove", (event) => byMouse(event) && hover(swatchOf(event) < 0 ? null : swatchOf(event)));
find(".cv-tokens").addEventListener("pointerleave", () => hover(null));
find(".cv-tokens").addEventListener("click", (event) => swatchOf(event) >= 0 && pin(swatchOf(event)));
find(".cv-opacity").addEventListener("input", (event) => {
  view.opacity = event.target.value / 100;
  find(".cv-mix output").textContent = event.target.value + " %";
  refresh();
});
find(".cv-step input").addEventListener("input", (event) => {
  view.layer = layersOfUnit()[event.target.value - 1].name;
  refresh();
});
find(".cv-boundaries").addEventListener("change", (event) => { view.boundaries = event.target.checked; refresh(); });
find(".cv-save").addEventListener("click", save);
new ResizeObserver(fit).observe(find(".cv-picture"));
watch("value", receive);
receive();
