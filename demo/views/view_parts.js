// What the interactive pictures share; it stands in front of their scripts. gr.HTML gives `element`. Text only ever
// enters the page through textContent.

const uid = Math.random().toString(36).slice(2); // radio groups of two views on one page stay apart

const find = (selector) => element.querySelector(selector);
const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
const byMouse = (event) => event.pointerType !== "touch";

function edges(from, to, parts) { // token borders, rounded once so that neighbours share them
  return Array.from({ length: parts + 1 }, (_, i) => Math.round(from + ((to - from) * i) / parts));
}

// Lines of a lattice { xs, ys, rows, columns } between cells for which divides(a, b) holds; at(row, column) is a cell's
// value. They go to a context or a Path2D, as long as they run straight on.
function traceBorders(path, { xs, ys, rows, columns }, at, divides) {
  path.beginPath?.();
  const run = (along, divided, draw) => {
    for (let part = 0, from = -1; part <= along; part += 1) {
      const on = part < along && divided(part);
      if (on && from < 0) from = part;
      if (!on && from >= 0) { draw(from, part); from = -1; }
    }
  };
  for (let row = 0; row <= rows; row += 1) {
    run(columns, (column) => divides(at(row - 1, column), at(row, column)),
      (from, to) => { path.moveTo(xs[from], ys[row]); path.lineTo(xs[to], ys[row]); });
  }
  for (let column = 0; column <= columns; column += 1) {
    run(rows, (row) => divides(at(row, column - 1), at(row, column)),
      (from, to) => { path.moveTo(xs[column], ys[from]); path.lineTo(xs[column], ys[to]); });
  }
}

function strokeTwice(context, unitPixel, alpha, width, colour = "255, 255, 255", path = null) { // dark beneath, for white ground
  context.lineCap = "round";
  for (const [style, extra] of [["rgba(9, 14, 22, " + 0.55 * alpha + ")", 1.5], ["rgba(" + colour + ", " + alpha + ")", 0]]) {
    context.strokeStyle = style;
    context.lineWidth = (width + extra) * unitPixel;
    if (path) context.stroke(path); else context.stroke();
  }
}

function fitCanvas(canvas, [height, width], room) { // as large as the column allows, sharp on dense screens
  const tallest = Math.max(260, Math.min(window.innerHeight * 0.75, 620));
  const scale = Math.min(room / width, tallest / height);
  const ratio = window.devicePixelRatio || 1;
  canvas.style.width = Math.round(width * scale) + "px";
  canvas.style.aspectRatio = width + " / " + height;
  canvas.width = Math.round(width * scale * ratio);
  canvas.height = Math.round(height * scale * ratio);
}

function segments(box, entries, chosen, choose, words = String, term = () => "") { // radio buttons side by side
  const group = box.className + uid;
  box.replaceChildren(...entries.map((entry) => {
    const label = document.createElement("label"), input = document.createElement("input");
    Object.assign(input, { type: "radio", name: group, value: words(entry), checked: entry === chosen });
    input.addEventListener("change", () => choose(entry));
    label.title = term(entry);
    label.append(input, textIn("span", words(entry)));
    return label;
  }));
}

function chooseBlock(box, about, units, chosen, choose) { // among the paper's dumbbell units, in plain words
  segments(box, units, chosen, choose, String, (unit) => "Dumbbell unit " + unit +
    " in the paper: it groups the squares into tokens, processes these, and spreads the result back to the squares");
  about.textContent = "Block " + chosen + " of " + units.length + ": group, process, spread back";
}

function chooseStage(box, layers, chosen, choose) { // in words, with the paper's term as a tooltip
  segments(box, layers, chosen, choose, (layer) => layer.stage, (layer) => layer.term);
}

function textIn(tag, text) {
  const made = document.createElement(tag);
  made.textContent = text;
  return made;
}

function line(className, ...parts) { // every second part in bold
  const paragraph = document.createElement("p");
  paragraph.className = className;
  paragraph.append(...parts.map((part, index) => textIn(index % 2 ? "b" : "span", part)));
  return paragraph;
}

const place = (index, width) => "row " + (Math.floor(index / width) + 1) + ", column " + ((index % width) + 1);

function nextToken(event, token, [rows, columns]) { // where an arrow key leads on a grid of tokens; from nowhere: its middle
  const [down, right] = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  if (token === null) return Math.floor(rows / 2) * columns + Math.floor(columns / 2);
  const row = Math.min(rows - 1, Math.max(0, Math.floor(token / columns) + down));
  return row * columns + Math.min(columns - 1, Math.max(0, (token % columns) + right));
}

function markUntrained(context, width, height, unitPixel) { // grey, and said across it: random weights mean nothing
  context.save();
  context.globalCompositeOperation = "saturation";
  context.fillStyle = "#808080";
  context.fillRect(0, 0, width, height);
  context.globalCompositeOperation = "source-over";
  context.translate(width / 2, height / 2);
  context.rotate(-Math.PI / 9);
  context.font = "700 " + Math.min(0.15 * Math.min(width, height), 84 * unitPixel) + "px system-ui, sans-serif";
  Object.assign(context, { textAlign: "center", textBaseline: "middle", lineJoin: "round", lineWidth: 6 * unitPixel });
  context.strokeStyle = "rgba(9, 14, 22, 0.6)";
  context.fillStyle = "rgba(255, 255, 255, 0.92)";
  context.strokeText("untrained", 0, 0);
  context.fillText("untrained", 0, 0);
  context.restore();
}

function saveCanvas(canvas, name) {
  canvas.toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
}
