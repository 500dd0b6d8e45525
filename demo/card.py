"""One picture to share: what two models say of a photo, its tokens, what they save, and the address that opens them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from demo.answers import ClassifyAnswer
from demo.benchmark import BenchmarkState
from demo.charts.bars import percent
from demo.charts.classify import short_label
from demo.charts.costs import cost_of, giga
from demo.charts.story import arithmetic, fewer_tokens, speed
from demo.engine_names import ENGINE_LABELS
from demo.registry import ModelSpec
from demo.specs.bundled import known_classes

WIDTH, HEIGHT = 1200, 630  # as networks show it beside a link
MARGIN, GAP, SIDE = 48, 24, 316  # pixels; SIDE of each of the two pictures
PICTURES_TOP, ANSWERS_LEFT = 176, MARGIN + 2 * (SIDE + GAP) + 12
SHOWN_CLASSES = 3
PAPER, INK, GREY, TRACK = (255, 255, 255), (15, 23, 42), (71, 85, 105), (226, 232, 240)
COLOURS = (15, 118, 110), (100, 116, 139)  # of the model and what it is compared with
NOT_IN_THE_FONT = str.maketrans({"×": "x", "→": "to", "…": "..."})  # that Pillow brings along


@dataclass(frozen=True)
class Side:
    """One of two models and what it said."""

    spec: ModelSpec
    answer: ClassifyAnswer


@dataclass(frozen=True)
class Shown:
    """The two pictures of a card, (H, W, 3) uint8 RGB.

    Attributes:
        picture: as it was sent.
        tokens: the same with its tokens drawn on it; ``None`` where both models keep all of them.
        untrained: whether the tokens are those of random weights.
    """

    picture: np.ndarray
    tokens: np.ndarray | None
    untrained: bool


def card(shown: Shown, sides: Sequence[Side], state: BenchmarkState | None, address: str) -> bytes:
    """Draw the card, ``WIDTH`` x ``HEIGHT``, as PNG; nothing is computed but the layout.

    Args:
        sides: the model and what it is compared with.
        state: a comparison of these two; ``None`` where there is none.
        address: that opens the model, and the example where the picture is one.
    """
    image = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    draw = ImageDraw.Draw(image)
    model, baseline = (side.spec for side in sides)
    _write(draw, (MARGIN, 36), "STViT Studio", 22, COLOURS[0])
    _write(draw, (MARGIN, 70), _headline(model, baseline, state), 40, INK, bold=True)
    _write(draw, (MARGIN, 128), _measured(state), 18, GREY)
    _paste(image, draw, MARGIN, shown.picture, "The picture")
    if shown.tokens is not None:
        tokens = shown.tokens.mean(axis=2).astype(np.uint8) if shown.untrained else shown.tokens
        words = "Its tokens, of random weights" if shown.untrained else "Its tokens"
        _paste(image, draw, MARGIN + SIDE + GAP, tokens, words)
    for number, side in enumerate(sides):
        _answer(draw, PICTURES_TOP + number * 190, side, COLOURS[number])
    draw.line((MARGIN, 570, WIDTH - MARGIN, 570), TRACK, 2)
    _write(draw, (MARGIN, 584), address, 18, GREY)
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _headline(model: ModelSpec, baseline: ModelSpec, state: BenchmarkState | None) -> str:
    tokens = "".join(fewer_tokens(model, baseline))
    savings = ", ".join(part for part in (arithmetic(model, baseline), speed(state) if state else "") if part)
    return f"{tokens}: {savings}" if tokens else savings


def _measured(state: BenchmarkState | None) -> str:
    if state is None or not speed(state):
        return "Multiply-adds as computed from the layers; time was not measured."
    return f"Measured one picture at a time: {state.device}, {ENGINE_LABELS[state.single.engine]}."


def _paste(image: Image.Image, draw: ImageDraw.ImageDraw, left: int, pixels: np.ndarray, words: str) -> None:
    picture = ImageOps.pad(Image.fromarray(pixels).convert("RGB"), (SIDE, SIDE), color=TRACK)
    image.paste(picture, (left, PICTURES_TOP))
    _write(draw, (left, PICTURES_TOP + SIDE + 10), words, 18, GREY, SIDE)


def _answer(draw: ImageDraw.ImageDraw, top: int, side: Side, colour: tuple[int, int, int]) -> None:
    """Write a model's name, cost and first classes, or why there are none."""
    spec, answer, width = side.spec, side.answer, WIDTH - MARGIN - ANSWERS_LEFT
    cost = cost_of(spec)
    _write(draw, (ANSWERS_LEFT, top), spec.label, 24, colour, bold=True)
    tokens = " to ".join(map(str, cost.token_counts()))
    _write(draw, (ANSWERS_LEFT, top + 32), f"{tokens} tokens, {giga(cost.macs)} G multiply-adds", 17, GREY)
    if not answer.predictions or not answer.in_scope:
        words = f"Not one of the {known_classes(spec.bundled)} that it knows" if answer.predictions else ""
        _write(draw, (ANSWERS_LEFT, top + 64), words or "No weights, so no answer", 20, INK)
        return
    for row, entry in enumerate(answer.predictions[:SHOWN_CLASSES]):
        y, number = top + 62 + row * 36, percent(entry.probability)
        _write(draw, (ANSWERS_LEFT, y), short_label(entry.label), 20, INK, width - 90)
        draw.text((WIDTH - MARGIN, y), number, INK, ImageFont.load_default(20), anchor="ra")
        draw.rectangle((ANSWERS_LEFT, y + 27, WIDTH - MARGIN, y + 30), TRACK)
        draw.rectangle((ANSWERS_LEFT, y + 27, ANSWERS_LEFT + round(width * entry.probability), y + 30), colour)


def _write(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    words: str,
    size: int,
    colour: tuple[int, int, int],
    width: int | None = None,
    bold: bool = False,
) -> None:
    """Write one line, smaller where it would be wider than ``width``, or than the card."""
    words, room = words.translate(NOT_IN_THE_FONT), width or WIDTH - MARGIN - at[0]
    font = ImageFont.load_default(size)
    while font.size > 6 and font.getlength(words) > room:
        font = ImageFont.load_default(font.size - 1)
    draw.text(at, words, colour, font, stroke_width=0.5 if bold else 0, stroke_fill=colour)
