// Draws detected objects; threshold, classes and highlighting act here, without a request. Runs once for the component,
// after view_parts.js, dense_view.js and detect_drawing.js.

const OBJECTS = "Objects";
const view = { ...START, mode: OBJECTS, minimum: 0.5, off: new Set(), masks: true, boxes: true, names: true };
const own = {
  mode: OBJECTS, file: "objects.png", unpack: unpackObjects, list: refreshObjects, words: refreshObjectWords, draw: drawObjects,
  under: objectUnder, next: (event) => nextOf(event, shown(), activeObject()),
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
