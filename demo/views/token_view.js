// The picture of tokens: what is chosen, and what is said of it. Runs once for the component, after the scripts that
// `SCRIPTS` of token_view.py names before it; gr.HTML gives `element`, `props` and `watch`.

const canvas = find(".cv-canvas");
const picture = new Image();
const view = {
  data: null, unit: null, layer: "", chosen: false, opacity: find(".cv-opacity").value / 100, boundaries: true, smooth: true,
  pinned: null, hovered: null, playing: null, crops: {}, idle: false,
};

const MOST_SEGMENTS = 4; // more layers than these get a slider
const EDGES = { true: "Smooth", false: "Squares" };
const EDGE_TERMS = {
  true: "Attention, interpolated between the squares; each point goes to the token that looks there most",
  false: "Each square of the model's grid goes to the token that looks there most",
};
const FATES = { // of the image tokens that a layer does not process in full: in the legend, of one, and of the others
  dropped: ["dropped", "dropped", "go on"],
  halted: ["halted", "halted", "go on"],
  waiting: ["wait for a later layer", "waits for a later layer", "are processed"],
  fast: ["on the fast path", "takes the fast path", "take the full path"],
};

// ---- data -------------------------------------------------------------------------------------------------------

function receive() {
  const data = props.value, before = view.data;
  view.data = data && data.layers ? { ...data, layers: data.layers.map(unpack) } : null;
  Object.assign(view, { hovered: null, playing: null });
  find(".cv").classList.toggle("filled", Boolean(view.data));
  find(".cv").classList.toggle("untrained", Boolean(view.data?.untrained));
  find(".tv-play").classList.remove("playing");
  for (const control of element.querySelectorAll("input, button")) control.disabled = !view.data;
  if (view.data) {
    const first = view.data.layers[view.data.start];
    if (before?.layers[0].reduces !== first.reduces) view.pinned = null; // it named another kind of token
    const same = view.data.layers.some((layer) => layer.unit === view.unit && layer.name === view.layer);
    if (!view.chosen || !same) Object.assign(view, { unit: first.unit, layer: first.name, chosen: false });
    picture.onload = fit;
    picture.src = view.data.image;
    fit();
    find(".cv-note").textContent = view.data.note;
    find(".cv-note").hidden = !view.data.note;
  }
  refresh();
}

const ready = () => Boolean(view.data && picture.complete && picture.naturalWidth);
const layersOfUnit = () => view.data.layers.filter((layer) => layer.unit === view.unit);
const current = () => layersOfUnit().find((layer) => layer.name === view.layer) || layersOfUnit()[0];
const upTo = (layer) => layersOfUnit().slice(0, layersOfUnit().indexOf(layer) + 1);

function activeToken() { // null while the merging is played
  const [rows, columns] = current().semanticGrid, token = view.hovered ?? view.pinned;
  return view.playing || token === null || token >= rows * columns ? null : token;
}

function fit() { // also before the picture is there, so that nothing moves when it comes
  const room = find(".cv-picture").clientWidth;
  if (!view.data || !room) return; // in a tab that is not shown
  fitCanvas(canvas, view.data.size, room);
  refresh();
}

// ---- words and controls -----------------------------------------------------------------------------------------

function refreshControls() {
  const units = [...new Set(view.data.layers.map((layer) => layer.unit))], layers = layersOfUnit(), layer = current();
  const state = JSON.stringify([units, layers.map((entry) => entry.name), view.unit, layer.name, view.smooth]);
  if (find(".cv").dataset.state === state) return; // keeps the focus on the radio button that was just chosen
  find(".cv").dataset.state = state;
  const focused = document.activeElement && element.contains(document.activeElement) ? document.activeElement : null;
  const name = focused?.name;
  find(".cv-unit-choice").hidden = units.length < 2;
  chooseBlock(find(".cv-units"), find(".cv-about"), units, view.unit, (unit) => change({ unit, chosen: true }));
  const many = layers.length > MOST_SEGMENTS, stepper = find(".cv-step input");
  find(".cv-layer-choice").hidden = many || layers.length < 2;
  find(".cv-step").hidden = !many;
  chooseStage(find(".cv-layers"), many ? [] : layers, layer, ({ name: chosen }) => change({ layer: chosen, chosen: true }));
  Object.assign(stepper, { max: layers.length, value: layers.indexOf(layer) + 1 });
  find(".cv-step output").textContent = layer.name.replace(/^Layer /, "") + " of " + layers.length;
  find(".tv-edge-choice").hidden = layer.reduces;
  segments(find(".tv-edges"), [true, false], view.smooth, (smooth) => change({ smooth }),
    (smooth) => EDGES[smooth], (smooth) => EDGE_TERMS[smooth]);
  if (name) element.querySelector("input[name='" + name + "']:checked")?.focus();
}

function fates(layer) { // how many image tokens are kept as they are, joined with others, not processed in full
  const all = [...layer.assignment];
  const together = all.filter((group) => joined(layer, group)).length, out = all.filter((group) => group === DROPPED).length;
  return { kept: all.length - together - out, [layer.kind]: together, [layer.fate]: out };
}

function refreshKinds(layer) {
  find(".tv-legend").hidden = layer.reduces;
  find(".cv-kinds").hidden = !layer.reduces;
  if (!layer.reduces) return;
  const entries = Object.entries(fates(layer)).filter(([kind, count]) => count || kind === "kept").map(([kind, count]) => {
    const entry = line("cv-kind " + kind, "", String(count), " " + (FATES[kind]?.[0] ?? kind));
    if (PATTERNS[kind]) entry.style.setProperty("--pattern", "url(" + patternOf(layer, kind) + ")");
    return entry;
  });
  if (layer.fate === "halted") entries.push(line("tv-depth", "1 layer", "", upTo(layer).length + " layers"));
  find(".cv-kinds").replaceChildren(...entries);
}

function patternOf(layer, fate) { // as in the picture, for the legend
  const swatch = document.createElement("canvas");
  Object.assign(swatch, { width: 36, height: 36 });
  const context = swatch.getContext("2d");
  context.fillStyle = fate === "fused" ? "rgb(" + layer.rgb[byWeight(layer)[0]].join(",") + ")" : "rgb(150, 160, 172)";
  context.fillRect(0, 0, 36, 36);
  context.beginPath();
  context.rect(0, 0, 36, 36);
  fillFate(context, fate, 2);
  return swatch.toDataURL();
}

function refreshReductionReadout(layer, token) {
  const cells = layer.assignment.length, [, gone, others] = FATES[layer.fate], layers = upTo(layer);
  canvas.setAttribute("aria-label", "Image tokens of " + view.data.title + " after " + layer.name + ": " + layer.tokens + " of " +
    cells + " " + others + ". Arrow keys choose an image token, Escape lets it go.");
  if (token === null) {
    const lived = [...layer.assignment.keys()].reduce((sum, cell) => sum + depthAt(cell, layers), 0) / cells;
    find(".cv-readout").replaceChildren(
      line("cv-name", "After " + layer.name.toLowerCase() + ", ", layer.tokens + " of " + cells + " tokens", " " + others),
      ...(layer.fate === "halted" ? [line("cv-fact", "So far, a token lived ", lived.toFixed(1) + " of " + layers.length, " layers on average")] : []),
      line("cv-hint", "Step through the layers; point at a token, or use the arrow keys, to see what became of it."));
    return;
  }
  const group = layer.assignment[token], company = group === DROPPED ? 0 : layer.counts[group] - 1;
  const left = layer.fate === "halted" ? gone + " after layer " + depthAt(token, layers) : gone;
  const fate = group === DROPPED ? left : company ? layer.kind + " with " + company + (company > 1 ? " others" : " other") : "kept";
  find(".cv-readout").replaceChildren(
    line("cv-name", "", "Image token " + (token + 1), " · " + place(token, layer.imageGrid[1])),
    line("cv-fact", "By the end of " + layer.name.toLowerCase() + ": ", fate));
}

function refreshReadout() {
  const layer = current(), token = activeToken();
  if (layer.reduces) {
    refreshReductionReadout(layer, token);
    return;
  }
  const cells = layer.assignment.length;
  canvas.setAttribute("aria-label", "Regions of " + layer.tokens + " semantic tokens of " + view.data.title +
    (layer.unit ? ", block " + layer.unit : "") + ", " + layer.stage + ". Arrow keys choose a token, Escape lets it go.");
  if (token === null) {
    const used = layer.counts.filter((count) => count > 0).length;
    find(".cv-readout").replaceChildren(
      line("cv-name", "", used + " of " + layer.tokens + " tokens", " stand for a region"),
      line("cv-hint", "Point at a region, or use arrow keys: where its token looks."));
    return;
  }
  const map = mapOf(layer, token), share = ((100 * layer.counts[token]) / cells).toFixed(1) + " %";
  find(".cv-readout").replaceChildren(
    line("cv-name", "", "Token " + (token + 1), " · " + place(token, layer.semanticGrid[1])),
    line("cv-fact", "Stands for ", share, " of what the model sees"),
    line("cv-fact", "Strongest attention ", layer.strongest[token].toFixed(3),
      " on " + place(map.indexOf(Math.max(...map)), layer.imageGrid[1]) + " of " + layer.imageGrid.join(" × ")));
}

function refresh() {
  if (!view.data) return;
  refreshControls();
  refreshPlay();
  refreshKinds(current());
  refreshReadout();
  if (!ready()) return;
  refreshCrops();
  if (!view.playing) paint(canvas, canvas.width, canvas.height, window.devicePixelRatio || 1);
}

// ---- pointer, keys, saving --------------------------------------------------------------------------------------

function tokenAt(event) {
  const layer = current(), surface = surfaceOf(layer), { xs, ys, rows, columns } = lattice(surface, canvas.width, canvas.height);
  const box = canvas.getBoundingClientRect();
  const x = ((event.clientX - box.left) / box.width) * canvas.width, y = ((event.clientY - box.top) / box.height) * canvas.height;
  const column = xs.findIndex((edge, i) => i < columns && x >= edge && x < xs[i + 1]);
  const row = ys.findIndex((edge, i) => i < rows && y >= edge && y < ys[i + 1]);
  if (row < 0 || column < 0) return null;
  const cell = row * columns + column;
  return layer.reduces ? cell : surface.labels[cell];
}

function hover(token) {
  if (!view.data || view.playing || view.hovered === token) return;
  view.hovered = token;
  refresh();
}

function change(chosen) { // whatever is chosen ends the play
  Object.assign(view, chosen);
  if (view.playing) stopPlaying();
  else refresh();
}

const pin = (token) => change({ hovered: null, pinned: token === view.pinned ? null : token });

function onKey(event) {
  if (!view.data || !(event.key === "Escape" || event.key.startsWith("Arrow"))) return;
  event.preventDefault();
  change({ hovered: null, pinned: event.key === "Escape" ? null : nextToken(event, activeToken(), current().semanticGrid) });
}

function save() {
  const copy = document.createElement("canvas");
  [copy.height, copy.width] = view.data.size;
  paint(copy, copy.width, copy.height, Math.max(1, copy.width / 640));
  const place = (view.unit ? "block " + view.unit + " " : "") + current().stage;
  saveCanvas(copy, view.data.file + "-" + place.toLowerCase().replace(/\W+/g, "-") + ".png");
}

canvas.addEventListener("pointermove", (event) => byMouse(event) && view.data && hover(tokenAt(event)));
canvas.addEventListener("pointerleave", () => hover(null));
canvas.addEventListener("click", (event) => view.data && pin(tokenAt(event)));
canvas.addEventListener("keydown", onKey);
listenToCrops();
find(".tv-play").addEventListener("click", play);
find(".cv-opacity").addEventListener("input", (event) => {
  find(".cv-mix output").textContent = event.target.value + " %";
  change({ opacity: event.target.value / 100 });
});
find(".cv-step input").addEventListener("input", (event) => {
  change({ layer: layersOfUnit()[event.target.value - 1].name, chosen: true });
});
find(".cv-boundaries").addEventListener("change", (event) => change({ boundaries: event.target.checked }));
find(".cv-save").addEventListener("click", save);
new ResizeObserver(fit).observe(find(".cv-picture"));
watch("value", receive);
receive();
