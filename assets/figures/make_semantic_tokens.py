"""Makes the README's figure with a bundled model: ``PYTHONPATH=. python assets/figures/make_semantic_tokens.py``

A picture with its 196 image tokens, the windows that 16 centres are pooled from, what one token attends to, and the
regions of all 16.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from stvit.draw.palette import token_colours
from stvit.predict.preprocess import preprocess
from stvit.pretrained.model_cards import load_card
from stvit.trace import LayerTrace

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "assets" / "examples" / "garments" / "trouser.jpg"
CARD = ROOT / "weights" / "bundled" / "garments_stvit_deit.json"
FIGURE = Path(__file__).with_name("semantic_tokens.jpg")
SIDE, GAP, TEXT, SCALE = 280, 24, 58, 2  # pixels; everything is drawn at twice the size
INK, GREY = (31, 41, 55), (107, 114, 128)


def main() -> None:
    picture = Image.open(PICTURE).convert("RGB").resize((SIDE * SCALE,) * 2, Image.Resampling.LANCZOS)
    layer, answer, num_layers = run()
    token = largest(layer)
    panels = [
        (gridded(picture, layer.image_grid_hw), "196 image tokens", "the first layers run on all of them"),
        (gridded(picture, layer.semantic_grid_hw, dots=True), "16 centres", "pooled, one from each window"),
        (lit(picture, layer, token), "attention gathers", "what is like the centre: one token's view"),
        (tinted(picture, layer), "16 semantic tokens", f"the last {num_layers} layers run on them: {answer}"),
    ]
    width = (len(panels) * SIDE + (len(panels) + 1) * GAP) * SCALE
    sheet = Image.new("RGB", (width, (SIDE + TEXT + GAP) * SCALE), "white")
    for number, (panel, title, words) in enumerate(panels):
        left = (GAP + number * (SIDE + GAP)) * SCALE
        sheet.paste(panel, (left, GAP * SCALE))
        draw, below = ImageDraw.Draw(sheet), (GAP + SIDE) * SCALE
        draw.text((left, below + 14), title, INK, ImageFont.load_default(17 * SCALE))
        draw.text((left, below + 60), words, GREY, ImageFont.load_default(12 * SCALE))
    sheet.save(FIGURE, quality=88, optimize=True)
    print(f"{FIGURE}: {sheet.size[0]} x {sheet.size[1]}, {FIGURE.stat().st_size / 1000:.0f} KB")


def run() -> tuple[LayerTrace, str, int]:
    """The last layer that makes semantic tokens, the answer in words, and how many layers come after."""
    network, card = load_card(CARD)
    cfg = network.pretrained_cfg
    seen = {"input_size": card.input_size, "crop_pct": card.crop_pct, "mean": cfg["mean"], "std": cfg["std"]}
    with Image.open(PICTURE) as image:
        images, _ = preprocess(np.array(image.convert("RGB")), **seen)
    with torch.inference_mode():
        logits, trace = network(images, return_trace=True)
    probability, best = logits.softmax(dim=-1)[0].max(dim=0)
    answer = f"{card.classes[int(best)]}, {100 * float(probability):.0f} %"
    last = trace.cluster_layers()[-1]
    return last, answer, len(trace.layers) - 1 - trace.layers.index(last)


def largest(layer: LayerTrace) -> int:
    """The token with the largest region."""
    return int(layer.clusters()[0].bincount(minlength=layer.num_tokens).argmax())


def gridded(picture: Image.Image, grid_hw: tuple[int, int], dots: bool = False) -> Image.Image:
    """The picture with the lines of a grid, and a dot in the middle of every cell."""
    drawn = picture.copy()
    draw, side = ImageDraw.Draw(drawn), drawn.width
    for line in range(1, grid_hw[0]):
        at = round(line * side / grid_hw[0])
        draw.line([(at, 0), (at, side)], "white", SCALE)
        draw.line([(0, at), (side, at)], "white", SCALE)
    if dots:
        colours = token_colours(grid_hw[0] * grid_hw[1], grid_hw[1])
        for number, colour in enumerate(colours.tolist()):
            row, column = divmod(number, grid_hw[1])
            centre = [(place + 0.5) * side / grid_hw[0] for place in (column, row)]
            draw.circle(centre, 11 * SCALE, tuple(colour), "white", 2 * SCALE)
    return drawn


def lit(picture: Image.Image, layer: LayerTrace, token: int) -> Image.Image:
    """The picture, bright where one token looks."""
    attention = layer.semantic_to_image()[0, token].view(layer.image_grid_hw).float().numpy()
    light = 0.15 + 0.85 * np.sqrt(attention / attention.max())
    mask = Image.fromarray(np.rint(light * 255).astype(np.uint8)).resize(picture.size, Image.Resampling.NEAREST)
    return Image.composite(picture, Image.new("RGB", picture.size, INK), mask)


def tinted(picture: Image.Image, layer: LayerTrace) -> Image.Image:
    """The picture with every token's region in its colour."""
    clusters = layer.clusters()[0].view(layer.image_grid_hw).numpy()
    colours = token_colours(layer.num_tokens, layer.semantic_grid_hw[1])[clusters]
    regions = Image.fromarray(colours).resize(picture.size, Image.Resampling.NEAREST)
    drawn = Image.blend(picture, regions, 0.55)
    draw, cell = ImageDraw.Draw(drawn), picture.width / clusters.shape[0]
    for row, column in np.argwhere(clusters[:, 1:] != clusters[:, :-1]):
        x = (column + 1) * cell
        draw.line([(x, row * cell), (x, (row + 1) * cell)], "white", SCALE + 1)
    for row, column in np.argwhere(clusters[1:] != clusters[:-1]):
        y = (row + 1) * cell
        draw.line([(column * cell, y), ((column + 1) * cell, y)], "white", SCALE + 1)
    return drawn


if __name__ == "__main__":
    main()
