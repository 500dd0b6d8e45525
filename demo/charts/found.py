"""What detectors and segmenters found in words, as HTML, and of examples, how much of what they show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape

import torch
from torchvision.ops import box_iou

from demo.answers import DetectAnswer, SegmentAnswer
from demo.page.examples import Known
from demo.registry import ModelSpec
from stvit.detection.detections import SHOWN_SCORE

LEAST_OVERLAP = 0.5  # of boxes, as intersection over union
LEAST_COVER = 0.2  # of a thing's box that its class has to cover
LEAST_SHARE = 0.01  # of a picture that a class has to cover
BACKGROUND = 0


def found_objects(
    specs: Sequence[ModelSpec], results: Sequence[DetectAnswer], truth: Sequence[Known], noun: str
) -> str:
    """Show what each detector found with a score of at least ``SHOWN_SCORE``.

    Args:
        truth: what the picture is known to show; empty for pictures that are no examples.
        noun: of what the detectors know, e.g. ``"garment"``.
    """
    return _cards(specs, [_of_objects(result, truth, noun) for result in results])


def found_classes(
    specs: Sequence[ModelSpec], results: Sequence[SegmentAnswer], truth: Sequence[Known], noun: str
) -> str:
    """Show which classes each segmenter found on at least ``LEAST_SHARE`` of the picture; arguments as of
    ``found_objects``."""
    return _cards(specs, [_of_classes(result, truth, noun) for result in results])


def _of_objects(result: DetectAnswer, truth: Sequence[Known], noun: str) -> str:
    if result.found is None:
        return ""
    sure = result.found.select(result.found.scores >= SHOWN_SCORE)
    names, truth = [result.classes[label] for label in sure.labels.tolist()], _placed(truth, result.classes)
    if not truth or not names:
        return _answer(names, truth, [], noun)
    overlaps = box_iou(torch.tensor([known.box for known in truth]), sure.boxes.float())
    same = torch.tensor([[known.name == name for name in names] for known in truth])
    hits = (overlaps >= LEAST_OVERLAP) & same
    extra = [name for name, hit in zip(names, hits.any(dim=0).tolist(), strict=True) if not hit]
    seen = [known for known, hit in zip(truth, hits.any(dim=1).tolist(), strict=True) if hit]
    return _answer(names, truth, seen, noun, extra)


def _of_classes(result: SegmentAnswer, truth: Sequence[Known], noun: str) -> str:
    if result.labels is None:
        return ""
    names = [area.name for area in result.areas() if area.label != BACKGROUND and area.share >= LEAST_SHARE]
    truth = _placed(truth, result.classes)
    there = {known.name for known in truth}
    found = [known for known in truth if _covered(result, known) >= LEAST_COVER]
    return _answer(names, truth, found, noun, [name for name in names if name not in there])


def _placed(truth: Sequence[Known], classes: Sequence[str]) -> list[Known]:
    """Return what is known with its place, of classes that the model knows."""
    return [known for known in truth if known.box is not None and known.name in classes]


def _covered(result: SegmentAnswer, known: Known) -> float:
    """Return how much of a thing's box has its class, in [0, 1]."""
    left, top, right, bottom = (round(side) for side in known.box)
    return float((result.labels[top:bottom, left:right] == list(result.classes).index(known.name)).mean())


def _answer(
    names: Sequence[str], truth: Sequence[Known], found: Sequence[Known], noun: str, extra: Sequence[str] = ()
) -> str:
    """Say what was found: of an example, what of it and what besides, else how often each class."""
    if not truth:
        counted = ", ".join(f"{count} × {name}" if count > 1 else name for name, count in Counter(names).items())
        return f"<p><b>{escape(counted)}</b></p>" if names else f'<p class="none">No {noun} found</p>'
    whole = len(found) == len(truth) and not extra
    ticks = [(known in found, known.name, "") for known in truth] + [(False, name, " is not there") for name in extra]
    return (
        f'<p class="mark {"right" if whole else "wrong"}">Found {len(found)} of {len(truth)}</p><ul class="ticks">'
        + "".join(
            f'<li class="mark {"right" if right else "wrong"}">{"✓" if right else "✗"} {escape(name)}{words}</li>'
            for right, name, words in ticks
        )
        + "</ul>"
    )


def _cards(specs: Sequence[ModelSpec], answers: Sequence[str]) -> str:
    """Put the answers of one or two models side by side; empty without any."""
    if not any(answers):
        return ""
    cards = "".join(
        f'<section class="card"><header><i class="dot {side}"></i><b>{escape(spec.label)}</b>'
        f"<small>{escape(spec.about.split(';')[0])}</small></header>{answer}</section>"
        for spec, answer, side in zip(specs, answers, ("ours", "base"), strict=False)
    )
    return f'<div class="predictions found">{cards}</div>'
