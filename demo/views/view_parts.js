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
// value.
function traceBorders(context, { xs, ys, rows, columns }, at, divides) {
  context.beginPath();
  for (let row = 0; row <= rows; row += 1) {
    for (let column = 0; column <= columns; column += 1) {
      if (column < columns && divides(at(row - 1, column), at(row, column))) {
        context.moveTo(xs[column], ys[row]);
        context.lineTo(xs[column + 1], ys[row]);
      }
      if (row < rows && divides(at(row, column - 1), at(row, column))) {
        context.moveTo(xs[column], ys[row]);
        context.lineTo(xs[column], ys[row + 1]);
      }
    }
  }
}

function strokeTwice(context, unitPixel, alpha, width, colour = "255, 255, 255") { // a dark line beneath shows on white
  context.lineCap = "round";
  for (const [style, extra] of [["rgba(9, 14, 22, " + 0.55 * alpha + ")", 1.5], ["rgba(" + colour + ", " + alpha + ")", 0]]) {
    context.strokeStyle = style;
    context.lineWidth = (width + extra) * unitPixel;
    context.stroke();
  }
}

function fitCanvas(canvas, [height, width], room) { // as large as the column allows, sharp on dense screens
  const tallest = Math.max(260, Math.min(window.innerHeight * 0.75, 620));
  const scale = Math.min(room / width, tallest / height);
  const ratio = window.devicePixelRatio || 1;
  canvas.style.width = Math.round(width * scale) + "px";
  canvas.width = Math.round(width * scale * ratio);
  canvas.height = Math.round(height * scale * ratio);
}

function segments(box, entries, chosen, choose) { // radio buttons side by side
  const group = box.className + uid;
  box.replaceChildren(...entries.map((entry) => {
    const label = document.createElement("label"), input = document.createElement("input");
    Object.assign(input, { type: "radio", name: group, value: String(entry), checked: entry === chosen });
    input.addEventListener("change", () => choose(entry));
    label.append(input, textIn("span", String(entry)));
    return label;
  }));
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

function saveCanvas(canvas, name) {
  canvas.toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
}
