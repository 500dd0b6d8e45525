// Draws the class of every pixel; opacity and highlighting act here, without a request. Runs once for the component, after
// view_parts.js and dense_view.js.

const CLASSES = "Classes", BACKGROUND = 0;
const view = { ...START, mode: CLASSES, lines: true, names: true };
const own = {
  mode: CLASSES, file: "classes", unpack: unpackClasses, list: markClasses, words: refreshClassWords, draw: drawClasses,
  under: classUnder, next: (event) => nextOf(event, listed(view.data).map(({ label }) => label), activeClass()),
  settings: () => ({ lines: view.lines, names: view.names, opacity: view.opacity }),
  set: (settings) => Object.assign(view, settings),
};
const painted = new Map(); // "fill", "edge" or a class: canvases of the map's size, made when they are first drawn

// ---- data -------------------------------------------------------------------------------------------------------

function unpackClasses(data) {
  const starts = new Int32Array(bytes(data.starts).buffer), labels = bytes(data.labels), [height, width] = data.size;
  data.map = new Uint8Array(height * width);
  starts.forEach((start, run) => data.map.fill(labels[run], start, starts[run + 1] ?? data.map.length));
  painted.clear();
  fillList(find(".dv-list"), listed(data).map(({ label, colour, name, share }) => [label, label && colour, name, part(share)]));
  const rest = data.classes.filter((entry) => !listed(data).includes(entry)), item = document.createElement("li");
  if (!rest.length) return;
  item.className = "dv-rest";
  item.append(textIn("span", rest.length + (rest.length === 1 ? " class under 1 %" : " classes under 1 % each")),
    textIn("b", part(rest.reduce((sum, { share }) => sum + share, 0))));
  find(".dv-list").append(item);
}

const LEAST_SHARE = 0.01; // of the picture: classes that cover less share one row
const listed = (data) => data.classes.filter(({ share }) => share >= LEAST_SHARE);

const part = (share) => (share < 0.0005 ? "< 0.1" : (100 * share).toFixed(1)) + " %";
const ofLabel = (label) => view.data.classes.find((entry) => entry.label === label);

function markClasses() {
  markList(find(".dv-list"), activeClass());
}

function activeClass() {
  return view.mode === CLASSES && ofLabel(active()) ? active() : null;
}

function classUnder(u, v) {
  const [height, width] = view.data.size, label = view.data.map[Math.floor(v * height) * width + Math.floor(u * width)];
  return label === BACKGROUND ? null : label;
}

// ---- words ------------------------------------------------------------------------------------------------------

function refreshClassWords() {
  const garments = listed(view.data).filter(({ label }) => label !== BACKGROUND), chosen = ofLabel(activeClass()), readout = find(".cv-readout");
  describe("Picture with the pixels of " + garments.length + " classes beside background. Arrow keys go from one class to the next, Escape lets it go.");
  if (view.data.reason) {
    readout.replaceChildren(line("cv-name", "", "No classes are shown."), line("cv-hint", view.data.reason));
  } else if (!chosen) {
    const covered = garments.reduce((sum, { share }) => sum + share, 0);
    readout.replaceChildren(
      garments.length ? line("cv-name", "", garments.length + (garments.length === 1 ? " class" : " classes"), " beside background, on ", part(covered), " of the picture")
        : line("cv-name", "", "No garment found"),
      line("cv-hint", garments.length ? "Point at the picture or at a class, or focus the picture and use the arrow keys, to single a class out."
        : "The picture is taken for background."));
  } else {
    readout.replaceChildren(
      line("cv-name", "", chosen.name, " · " + part(chosen.share) + " of the picture"),
      line("cv-fact", "Number ", String(chosen.label), " in the map of classes · ", chosen.pixels.toLocaleString("en"), " pixels"));
  }
}

// ---- drawing ----------------------------------------------------------------------------------------------------

function layerOf(key, chosen) { // a canvas with the chosen(label, x, y) pixels in the colours of their classes
  if (!painted.has(key)) {
    const [height, width] = view.data.size, target = document.createElement("canvas");
    Object.assign(target, { width, height });
    const context = target.getContext("2d"), image = context.createImageData(width, height);
    const colours = new Map(view.data.classes.map(({ label, colour }) => [label, colour]));
    for (let y = 0, at = 0; y < height; y += 1) {
      for (let x = 0; x < width; x += 1, at += 1) {
        const label = view.data.map[at];
        if (chosen(label, x, y)) image.data.set([...colours.get(label), 255], 4 * at);
      }
    }
    context.putImageData(image, 0, 0);
    painted.set(key, target);
  }
  return painted.get(key);
}

const fill = () => layerOf("fill", (label) => label !== BACKGROUND);
const only = (label) => layerOf(label, (other) => other === label);

function edge() { // pixels of a class beside another one
  const [height, width] = view.data.size, { map } = view.data, reach = Math.max(1, Math.round(Math.max(height, width) / 600));
  const differs = (label, x, y) => x >= 0 && y >= 0 && x < width && y < height && map[y * width + x] !== label;
  return layerOf("edge", (label, x, y) => label !== BACKGROUND && (differs(label, x - reach, y) || differs(label, x + reach, y)
    || differs(label, x, y - reach) || differs(label, x, y + reach)));
}

function drawClasses(context, width, height, unitPixel) {
  if (view.data.reason) return;
  const chosen = activeClass();
  context.globalAlpha = view.opacity;
  context.drawImage(fill(), 0, 0, width, height);
  context.globalAlpha = Math.min(1, 2 * view.opacity);
  if (view.lines) context.drawImage(edge(), 0, 0, width, height);
  context.globalAlpha = 1;
  if (chosen !== null) spotlight(context, only(chosen), [0, 0, width, height], width, height);
  if (!view.names) return;
  for (const { label, x, y } of view.data.tags) {
    if (chosen !== null && label !== chosen) continue;
    drawTag(context, ofLabel(label).name, ofLabel(label).colour, unitPixel, (tagWidth, tagHeight) => [
      Math.max(0, Math.min(x * width - tagWidth / 2, width - tagWidth)), Math.max(0, Math.min(y * height - tagHeight / 2, height - tagHeight)),
    ]);
  }
}

onChecks("lines", "names");
start();
