"""Pictures of what a segmenter takes, as HTML: the steps of one segmentation, and two segmenters side by side."""

from __future__ import annotations

from demo.answers import SegmentAnswer
from demo.benchmark import RaceState
from demo.charts.bars import steps_card, turns_chart
from demo.registry import ModelSpec

STEPS = {
    "decode": "decode_ms",
    "prepare": "prepare_ms",
    "backbone": "backbone_ms",
    "head": "head_ms",
    "labels": "labels_ms",
    "drawing": "draw_ms",
}
NOT_TIMED = "For semantic tokens the backbone runs once more, to see their regions; that pass is not counted."
WHOLE = (
    "Both networks as wholes, from the picture's pixels to the scores of all classes. Backbones differ in the tokens "
    "of their third stage alone, and the head is the same, so less is saved of the whole than of that stage."
)


def step_times(segmenter: ModelSpec, result: SegmentAnswer) -> str:
    """Where the time of one segmentation went."""
    parts = {step: getattr(result.times, field) for step, field in STEPS.items()}
    height, width = result.network_hw
    note = f"{result.device}. The network saw the picture at {height} × {width}. {NOT_TIMED if result.regions else ''}"
    return steps_card("This segmentation, step by step", segmenter.label, parts, note.strip())


def segmenters(state: RaceState) -> str:
    """Everything that a comparison of two segmenters has measured so far."""
    return turns_chart(state, "Segmenter", WHOLE)
