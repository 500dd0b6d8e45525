"""Costs of detectors and segmenters as HTML: the steps of one run, and two models measured in turns."""

from __future__ import annotations

from html import escape

from demo.answers import DetectAnswer, SegmentAnswer
from demo.benchmark import BenchmarkEntry, BenchmarkState
from demo.charts.bars import steps_card, turns_chart
from demo.engine_names import engine_words
from demo.registry import ModelSpec

SAME_HEADS = "Backbones and feature pyramids alone: what follows is the same in both detectors."
ONLY_BACKBONES = (
    "The full-token Swin detector has no public weights, so only its backbone and feature pyramid stand beside "
    "STViT-R's, with random weights: times and multiply-adds do not depend on them. What follows is the same in both."
)
DETECTION_STEPS = {
    "decode": "decode_ms",
    "prepare": "prepare_ms",
    "backbone + FPN": "backbone_ms",
    "proposals": "proposals_ms",
    "heads": "heads_ms",
    "masks": "masks_ms",
    "drawing": "draw_ms",
}
WITH_REGIONS = "The regions of the semantic tokens are found in the same pass, and their time is counted."
UNTRAINED = "Random heads find other numbers of objects than trained ones: take proposals, heads and masks as a sketch."
SEGMENTATION_STEPS = {
    "decode": "decode_ms",
    "prepare": "prepare_ms",
    "backbone + head": "model_ms",
    "labels": "labels_ms",
    "drawing": "draw_ms",
}
WHOLE = (
    "Both networks as wholes, from the picture's pixels to the scores of all classes. Backbones differ in the tokens "
    "of their third stage alone, and the head is the same, so less is saved of the whole than of that stage."
)


def detection_steps(detector: ModelSpec, result: DetectAnswer) -> str:
    """Draw where the time of one detection went."""
    parts = {step: getattr(result.times, field) for step, field in DETECTION_STEPS.items()}
    (height, width), (padded_h, padded_w) = result.network_hw, result.padded_hw
    size = f"The network saw the picture at {height} × {width}, filled up to {padded_h} × {padded_w}."
    looked, own = result.proposals
    fewer = f" where its own setting is {own}, as the time of the heads is in proportion to them"
    heads = f"The heads looked at {looked} proposals at most{fewer if looked < own else ''}."
    backbone, own_heads = engine_words(result.engine), engine_words(result.heads_engine)
    of_heads = "" if own_heads == backbone else f", the heads on {own_heads}"
    ran = f"{'Backbone and FPN' if of_heads else 'All'} ran on {backbone}{of_heads}."
    remarks = (WITH_REGIONS if result.regions else "", UNTRAINED if result.found is None else "")
    note = " ".join(filter(None, (size, heads, ran, *remarks)))
    return steps_card("This detection, step by step", detector.label, parts, note)


def backbones(state: BenchmarkState) -> str:
    """Draw what a comparison of two backbones has measured so far, and the paper's figures of both."""
    note = SAME_HEADS if state.model.spec.bundled else ONLY_BACKBONES
    return turns_chart(state, "Backbone + FPN", note, _published((state.model, state.baseline)))


def _published(both: tuple[BenchmarkEntry, BenchmarkEntry]) -> str:
    figures = [entry.spec.published for entry in both]
    if not all(figures):
        return ""
    rows = "".join(
        f'<tr><th scope="row">{title}</th>' + "".join(f"<td>{entry[key]}</td>" for entry in figures) + "</tr>"
        for title, key in (
            ("Box AP, COCO", "box_ap"),
            ("Mask AP, COCO", "mask_ap"),
            ("Backbone multiply-adds at 800 × 1333, G", "backbone_gmacs"),
        )
    )
    heads = "".join(f'<th scope="col">{escape(entry.spec.label)}</th>' for entry in both)
    return (
        f'<section class="tile published"><h4>Published (paper, Table 5), not measured here</h4>'
        f"<table><thead><tr><td></td>{heads}</tr></thead><tbody>{rows}</tbody></table></section>"
    )


def segmentation_steps(segmenter: ModelSpec, result: SegmentAnswer) -> str:
    """Draw where the time of one segmentation went."""
    parts = {step: getattr(result.times, field) for step, field in SEGMENTATION_STEPS.items()}
    height, width = result.network_hw
    with_regions = WITH_REGIONS if result.regions else ""
    where = f"{result.device}, {engine_words(result.engine)}"
    note = f"{where}. The network saw the picture at {height} × {width}. {with_regions}"
    return steps_card("This segmentation, step by step", segmenter.label, parts, note.strip())


def segmenters(state: BenchmarkState) -> str:
    """Draw what a comparison of two segmenters has measured so far."""
    return turns_chart(state, "Segmenter", WHOLE)
