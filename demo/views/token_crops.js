// The strip of crops: what each token looks at, in the order of their weight. Of models that join image tokens, the
// groups that they were joined to.

const CROP_SIDE = 132; // pixels of a crop
const MOST_SEEN = 0.7; // a crop shows this part of what the token looks at in its own region, or more
const NARROWEST = 5; // squares along a side of a crop
const DIMMEST = 0.16; // opacity of what a token does not look at

function cropped(layer) { // the tokens that have a crop; those that speak for no square only if they are asked for
  const least = layer.reduces ? 2 : view.idle ? 0 : 1;
  return byWeight(layer).filter((token) => layer.counts[token] >= least);
}

// The smallest window, in squares of the grid, that holds most of the levels: [top, left, side].
function windowOf(levels, rows, columns) {
  const sums = new Float64Array((rows + 1) * (columns + 1)), wide = columns + 1;
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1) {
      const at = (row + 1) * wide + column + 1;
      sums[at] = levels[row * columns + column] + sums[at - 1] + sums[at - wide] - sums[at - wide - 1];
    }
  }
  const wanted = MOST_SEEN * sums[sums.length - 1], largest = Math.min(rows, columns);
  for (let side = Math.min(NARROWEST, largest); side < largest; side += 1) {
    let best = [0, 0, side], most = -1;
    for (let top = 0; top + side <= rows; top += 1) {
      for (let left = 0; left + side <= columns; left += 1) {
        const bottom = top + side, right = left + side;
        const held = sums[bottom * wide + right] - sums[top * wide + right] - sums[bottom * wide + left] + sums[top * wide + left];
        if (held > most) { most = held; best = [top, left, side]; }
      }
    }
    if (most >= wanted) return best;
  }
  return [Math.floor((rows - largest) / 2), Math.floor((columns - largest) / 2), largest];
}

function drawCrop(canvas, layer, token) { // the picture, with the attention as its opacity
  const [rows, columns] = layer.imageGrid, levels = looks(layer, token);
  const own = layer.counts[token] ? levels.map((level, cell) => (layer.assignment[cell] === token ? level : 0)) : levels;
  const [top, left, side] = windowOf(own, rows, columns);
  const [cropLeft, cropTop, cropRight, cropBottom] = view.data.crop;
  const within = (cell) => {
    const row = Math.floor(cell / columns), column = cell % columns;
    return row >= top && row < top + side && column >= left && column < left + side;
  };
  const perColumn = (cropRight - cropLeft) / columns, perRow = (cropBottom - cropTop) / rows;
  const inside = levels.filter((_, cell) => own[cell] && within(cell)), most = Math.max(1, ...inside);
  const context = canvas.getContext("2d"), alpha = (cell) => 255 * Math.min(1, DIMMEST + (1 - DIMMEST) * (levels[cell] / most) ** 0.6);
  context.clearRect(0, 0, CROP_SIDE, CROP_SIDE);
  context.imageSmoothingEnabled = view.smooth;
  context.drawImage(tileOf(rows, columns, (cell) => [0, 0, 0, alpha(cell)]), left, top, side, side, 0, 0, CROP_SIDE, CROP_SIDE);
  context.globalCompositeOperation = "source-in";
  context.imageSmoothingEnabled = true;
  context.drawImage(picture, cropLeft + left * perColumn, cropTop + top * perRow, side * perColumn, side * perRow, 0, 0, CROP_SIDE, CROP_SIDE);
  context.globalCompositeOperation = "source-over";
}

// The token of the view that a crop stands for: itself, or the first image token of its group.
const tokenOfCrop = (layer, group) => (layer.reduces ? layer.assignment.indexOf(group) : group);

function makeCrop(layer, token) {
  const entry = document.createElement("li"), button = document.createElement("button"), canvas = document.createElement("canvas");
  const count = layer.counts[token], cells = layer.assignment.length;
  Object.assign(canvas, { width: CROP_SIDE, height: CROP_SIDE });
  Object.assign(button, { type: "button", className: "tv-crop" + (count ? "" : " idle"), title: squaresOf(count) + " of " + cells });
  canvas.setAttribute("aria-hidden", "true");
  button.dataset.token = tokenOfCrop(layer, token);
  button.style.setProperty("--token", "rgb(" + layer.rgb[token].join(",") + ")");
  button.setAttribute("aria-label", (layer.reduces ? "Joined: " : "Token " + (token + 1) + ": ") + squaresOf(count) + " of " + cells);
  drawCrop(canvas, layer, token);
  button.append(canvas, textIn("span", String(count)));
  entry.append(button);
  return entry;
}

const squaresOf = (count) => count + (count === 1 ? " square" : " squares");

function refreshCrops() {
  const layer = current(), list = find(".tv-crops"), tokens = cropped(layer);
  find(".tv-looks").hidden = !tokens.length;
  find(".tv-number").textContent = layer.reduces ? "and of how many squares" : "and how many squares it speaks for";
  find(".tv-looks h3").textContent = layer.reduces ? "What was joined" : "What each token looks at";
  if (view.crops.layer !== layer || view.crops.smooth !== view.smooth || view.crops.idle !== view.idle) {
    view.crops = { layer, smooth: view.smooth, idle: view.idle };
    refreshIdle(layer.reduces ? 0 : layer.counts.filter((count) => !count).length);
    list.style.setProperty("--columns", tokens.length > 16 ? 6 : 4);
    list.replaceChildren(...tokens.map((token) => makeCrop(layer, token)));
  }
  const token = activeToken(), chosen = (button) => {
    const own = Number(button.dataset.token);
    return token !== null && (layer.reduces ? layer.assignment[token] === layer.assignment[own] : token === own);
  };
  const buttons = cropButtons(), lit = buttons.find(chosen);
  for (const button of buttons) {
    button.classList.toggle("active", button === lit);
    button.setAttribute("aria-pressed", String(view.pinned !== null && button === lit));
    button.tabIndex = button === (lit ?? buttons[0]) ? 0 : -1;
  }
  if (lit && lit !== document.activeElement) reveal(list, lit);
}

function refreshIdle(count) {
  const button = find(".tv-idle");
  button.hidden = !count;
  button.setAttribute("aria-expanded", String(view.idle));
  button.textContent = (view.idle ? "Hide " : "Show ") + count + " that speak" + (count === 1 ? "s" : "") + " for no square";
}

const cropButtons = () => [...find(".tv-crops").querySelectorAll("button")];

function reveal(list, button) { // scrolls the strip, never the page
  const [frame, box] = [list.getBoundingClientRect(), button.getBoundingClientRect()];
  if (box.left < frame.left || box.right > frame.right) list.scrollLeft += box.left - frame.left - (frame.width - box.width) / 2;
  if (box.top < frame.top || box.bottom > frame.bottom) list.scrollTop += box.top - frame.top - (frame.height - box.height) / 2;
}

function onCropKey(event) { // one tab stop for all crops; arrow keys walk, up and down by rows
  const buttons = cropButtons(), at = buttons.indexOf(document.activeElement);
  if (event.key === "Escape") change({ pinned: null });
  const inRow = buttons.filter((button) => button.offsetTop === buttons[0].offsetTop).length;
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: inRow, ArrowUp: -inRow, Home: -at, End: buttons.length - 1 - at }[event.key];
  if (at < 0 || step === undefined) return;
  event.preventDefault();
  buttons[Math.min(buttons.length - 1, Math.max(0, at + step))].focus();
}

function listenToCrops() {
  const list = find(".tv-crops");
  const of = (event) => { const button = event.target.closest("button"); return button && Number(button.dataset.token); };
  list.addEventListener("pointermove", (event) => byMouse(event) && hover(of(event)));
  list.addEventListener("pointerleave", () => hover(null));
  // Not under a finger: what it shows may move the crop away before the tap is complete
  list.addEventListener("focusin", (event) => event.target.matches(":focus-visible") && hover(of(event)));
  list.addEventListener("focusout", () => hover(null));
  list.addEventListener("click", (event) => of(event) !== null && pin(of(event)));
  list.addEventListener("keydown", onCropKey);
  find(".tv-idle").addEventListener("click", () => change({ idle: !view.idle }));
}
