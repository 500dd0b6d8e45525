// Plays how a model's many image tokens become few, layer after layer: a list of steps, each with a duration, the
// tokens before and after, and a drawing of how far it has come, in [0, 1].

const HOLD_MS = 700, DISSOLVE_MS = 1800, FADE_MS = 900, REDUCE_MS = 500;
const ONE_AFTER_THE_OTHER = 0.7; // part of the time in which tokens start to gather their squares

const calm = window.matchMedia("(prefers-reduced-motion: reduce)"); // stills, one after the other
const ease = (part) => part * part * (3 - 2 * part);

function merging() { // the layers to play: those that group, or all that change something, and the last
  const layers = layersOfUnit();
  if (!layers[0].reduces) return layers.filter((layer) => layer.kind === "stgm");
  const differs = (a, b) => a.assignment.some((group, cell) => (group === DROPPED) !== (b.assignment[cell] === DROPPED)) || a.tokens !== b.tokens;
  return layers.filter((layer, index) => index === 0 || index === layers.length - 1 || differs(layers[index - 1], layer));
}

function stepsOf(layers) {
  const cells = layers[0].assignment.length, steps = [{ ms: HOLD_MS, from: cells, to: cells, draw: (place) => drawSquares(place) }];
  let before = (place) => drawSquares(place), count = cells;
  for (const layer of layers) {
    const after = (place) => paintLayer(place.context, layer, null, place.width, place.height, place.unitPixel);
    if (layer === layers[0] && !layer.reduces) {
      steps.push({ ms: DISSOLVE_MS, layer, from: count, to: layer.tokens, draw: (place, part) => drawDissolving(place, layer, part) });
      before = (place) => drawDissolving(place, layer, 1);
      count = layer.tokens;
    }
    steps.push({ ms: layer.reduces ? REDUCE_MS : FADE_MS, layer, from: count, to: layer.tokens, draw: crossfade(before, after) });
    steps.push({ ms: layer.reduces ? 0 : HOLD_MS, layer, from: layer.tokens, to: layer.tokens, draw: after });
    [before, count] = [after, layer.tokens];
  }
  return steps;
}

function crossfade(before, after) { // two drawings that are made once
  let kept = null;
  const still = (place, draw) => {
    const copy = document.createElement("canvas");
    Object.assign(copy, { width: place.width, height: place.height });
    const context = copy.getContext("2d");
    paintPicture(context, place.width, place.height);
    draw({ ...place, context });
    return copy;
  };
  return (place, part) => {
    if (kept?.width !== place.width) kept = { width: place.width, first: still(place, before), second: still(place, after) };
    place.context.drawImage(kept.first, 0, 0);
    place.context.globalAlpha = ease(part);
    place.context.drawImage(kept.second, 0, 0);
    place.context.globalAlpha = 1;
  };
}

function drawLines(place, grid, alphaOf) { // alphaOf(cell, neighbour) of the line between them
  const { xs, ys, rows, columns } = grid, lines = new Map();
  const add = (alpha, x0, y0, x1, y1) => {
    const level = Math.round(20 * alpha);
    if (!lines.has(level)) lines.set(level, new Path2D());
    lines.get(level).moveTo(x0, y0);
    lines.get(level).lineTo(x1, y1);
  };
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1) {
      const cell = row * columns + column;
      if (row) add(alphaOf(cell, cell - columns), xs[column], ys[row], xs[column + 1], ys[row]);
      if (column) add(alphaOf(cell, cell - 1), xs[column], ys[row], xs[column], ys[row + 1]);
    }
  }
  for (const [level, path] of lines) if (level) strokeTwice(place.context, place.unitPixel, 0.85 * (level / 20), 1.25, undefined, path);
}

function drawSquares(place) {
  drawLines(place, lattice(layersOfUnit()[0].squares, place.width, place.height), () => 1);
}

function drawDissolving(place, layer, part) { // token after token, the heaviest first, from its middle to its rim
  const { context, width, height } = place, grid = lattice(layer.squares, width, height), { xs, ys, columns } = grid;
  const ranks = new Map(byWeight(layer).map((token, rank) => [token, rank / Math.max(1, layer.tokens - 1)]));
  const middles = middlesOf(layer), far = Math.hypot(...layer.imageGrid);
  const progress = Array.from(layer.assignment, (token, cell) => {
    const away = Math.hypot(Math.floor(cell / columns) - middles[token][0], (cell % columns) - middles[token][1]) / far;
    const start = ONE_AFTER_THE_OTHER * (0.6 * ranks.get(token) + 0.4 * away);
    return ease(Math.min(1, Math.max(0, (part - start) / (1 - ONE_AFTER_THE_OTHER))));
  });
  layer.assignment.forEach((token, cell) => {
    const row = Math.floor(cell / columns), column = cell % columns;
    context.globalAlpha = view.opacity * progress[cell];
    context.fillStyle = "rgb(" + layer.rgb[token].join(",") + ")";
    context.fillRect(xs[column], ys[row], xs[column + 1] - xs[column], ys[row + 1] - ys[row]);
  });
  context.globalAlpha = 1;
  const shared = (a, b) => layer.assignment[a] === layer.assignment[b];
  drawLines(place, grid, (a, b) => (shared(a, b) ? 1 - Math.min(progress[a], progress[b]) : 1));
}

function middlesOf(layer) { // row and column of each token's squares on average
  const columns = layer.imageGrid[1], sums = layer.counts.map(() => [0, 0]);
  layer.assignment.forEach((token, cell) => { sums[token][0] += Math.floor(cell / columns); sums[token][1] += cell % columns; });
  return sums.map((sum, token) => sum.map((value) => value / Math.max(1, layer.counts[token])));
}

// ---- playing ----------------------------------------------------------------------------------------------------

function play() {
  if (view.playing) { stopPlaying(); return; }
  const steps = stepsOf(merging()), run = { began: null };
  Object.assign(view, { playing: run, hovered: null, pinned: null });
  const frame = (now) => {
    if (view.playing !== run) return;
    run.began ??= now;
    let left = now - run.began;
    const at = steps.findIndex((step) => { if (left < step.ms) return true; left -= step.ms; return false; });
    if (at < 0) { stopPlaying(); return; }
    show(steps[at], calm.matches ? 1 : left / steps[at].ms);
    requestAnimationFrame(frame);
  };
  find(".tv-play").classList.add("playing");
  find(".tv-play").removeAttribute("aria-label"); // the count speaks for itself
  refresh();
  show(steps[0], 0);
  requestAnimationFrame(frame);
}

function show(step, part) {
  if (step.layer && step.layer.name !== view.layer) { view.layer = step.layer.name; refresh(); }
  find(".tv-count").textContent = String(Math.round(step.from + (step.to - step.from) * ease(part)));
  const { width, height } = canvas, context = canvas.getContext("2d");
  paintPicture(context, width, height);
  step.draw({ context, width, height, unitPixel: window.devicePixelRatio || 1 }, part);
  if (view.data.untrained) markUntrained(context, width, height, window.devicePixelRatio || 1);
}

function stopPlaying() {
  view.playing = null;
  find(".tv-play").classList.remove("playing");
  refresh();
}

function refreshPlay() {
  const layers = merging(), button = find(".tv-play");
  button.hidden = !layers.length;
  if (!layers.length || view.playing) return;
  const [before, after] = [layers[0].assignment.length, layers[layers.length - 1].tokens];
  find(".tv-count").textContent = before + " → " + after;
  button.setAttribute("aria-label", before + " → " + after + ": play how squares become tokens"); // begins with what is seen
}
