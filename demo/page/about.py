"""Cards of bundled models, as HTML: what they know, how well, and where they come from."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from demo.charts.bars import notice
from demo.registry import ModelSpec
from demo.specs.bundled import known_classes
from stvit.pretrained.model_cards import BundledCard
from stvit.pretrained.scope import ScopeRow

METRICS = {
    "top1": "top-1",
    "top5": "top-5",
    "box_ap": "box AP",
    "box_ap50": "box AP50",
    "box_ap75": "box AP75",
    "mask_ap": "mask AP",
    "mask_ap50": "mask AP50",
    "mask_ap75": "mask AP75",
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
}
PUBLISHED_CLASSES = {
    "classify": "the 1000 classes of ImageNet",
    "detect": "the 80 classes of COCO",
    "video": "the 400 actions of Kinetics",
}
NO_PERCENTAGES = ("cross entropy", "loss")


def about(specs: Sequence[ModelSpec]) -> str:
    """Write the cards of the bundled models among the chosen ones, and a note where their classes differ."""
    bundled = {spec.name: spec for spec in specs if spec.bundled}
    return _different_classes(specs) + "".join(map(_card, bundled.values()))


def _different_classes(specs: Sequence[ModelSpec]) -> str:
    if len({spec.classes for spec in specs}) < 2:
        return ""
    each = ", ".join(f"{spec.label} knows {_known(spec)}" for spec in specs)
    return notice(f"{each}: their predictions cannot be compared.", "info", "Speed and cost can.")


def _known(spec: ModelSpec) -> str:
    if spec.folder:
        return f"{len(spec.folder.classes)} classes of its own"
    return known_classes(spec.bundled) if spec.bundled else PUBLISHED_CLASSES[spec.task]


def _card(spec: ModelSpec) -> str:
    record = spec.bundled
    title = f"About {spec.label}"
    rows = "".join(
        f"<div><dt>{name}</dt><dd>{escape(text)}</dd></div>" for name, text in _facts(record).items() if text
    )
    command = escape("\n".join(record.command))
    return (
        f'<details class="card about-model"><summary>{escape(title)}</summary><dl>{rows}</dl>'
        f'<p class="fine">Trained with</p><pre><code>{command}</code></pre></details>'
    )


def _facts(record: BundledCard) -> dict[str, str]:
    runs = len(record.command)
    length = (
        [f"{record.epochs:g} epochs" + (f" in the last of {runs} runs" if runs > 1 else "")] if record.epochs else []
    )
    length += [f"{record.samples_seen:,} samples seen in all"] if record.samples_seen else []
    clip = f", {record.frames} frames, {record.stride} apart in the clip" if record.frames else ""
    return {
        "Knows": ", ".join(record.classes),
        "Data": record.data,
        f"On the {record.split} split": f"{_metrics(record)} ({record.num_samples:,} samples), measured here",
        "Other pictures": _refusals(record.scope),
        "Input": f"{record.input_size} × {record.input_size} pixels{clip}",
        "Multiply-adds": f"{record.macs / 1e6:,.0f} million for one input",
        "Recipe": f"{record.recipe}, seed {record.seed}",
        "Trained": ", ".join([*length, record.trained_on]),
        "Licence": record.licence,
    }


def _refusals(scope: ScopeRow | None) -> str:
    if scope is None:
        return ""
    return (
        f"refuses {100 - scope.accepted:.1f} % of them ({scope.other_samples:,}), and {scope.refused:.1f} % of what it "
        f"knows ({scope.known_samples:,}); measured here on {scope.measured_on}"
    )


def _metrics(record: BundledCard) -> str:
    named = {METRICS.get(name.lower(), name.replace("_", " ")): value for name, value in record.metrics.items()}
    return ", ".join(f"{value:.1f} % {name}" for name, value in named.items() if name not in NO_PERCENTAGES)
