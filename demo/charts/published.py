"""Accuracy against cost as the papers print it, and the speed that was measured with this code."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from demo.engine_names import engine_of_record
from demo.registry import Registry, UnknownModel
from demo.specs.published import SIZE_LETTERS, paper_tables

BENCHMARKS = Path(__file__).resolve().parents[2] / "assets" / "benchmarks"
MEASURE = "python -m stvit.measure --suite paper --output assets/benchmarks/my_machine.json"
WIDTH, HEIGHT = 380, 300
LEFT, RIGHT, TOP, BOTTOM = 40, 12, 14, 40  # room for the axes
TABLE_SIZES = ("small", "base", "tiny")  # of DeiT, in the tables of the STViT paper
GLYPH_WIDTH, LINE_HEIGHT = 5.9, 12.0
APART = 12.0  # of a label from its point, beyond which a line joins them


@dataclass(frozen=True)
class Point:
    """One method of one paper: ``kind`` is full, stvit or other; ``delta`` is against the method's own base model."""

    label: str
    gmacs: float
    top1: float
    kind: str
    delta: float | None = None


def published_points(size: str) -> tuple[Point, ...]:
    """Collect every method of the STViT paper's Table 4 for one size of DeiT, and DeiT and STViT of its Table 1."""
    tables = paper_tables()
    own = tables["table1_stvit_deit"][size]
    base = own["base"]
    points = [Point(f"DeiT-{SIZE_LETTERS[size]}", base["gmacs"], base["top1"], "full")]
    points += [
        Point(f"STViT {row['tokens']}", row["gmacs"], row["top1"], "stvit", round(row["top1"] - base["top1"], 1))
        for row in own["variants"]
    ]
    points += [
        Point(row["method"], row["gmacs"], row["top1"], "other", row["delta"])
        for row in tables["table4_comparison"].get(f"deit_{size}", ())
        if row["method"] != "STViT"  # the same as 16 tokens of Table 1
    ]
    return tuple(points)


def section(registry: Registry) -> str:
    """Draw the whole section: three panels, the table behind them, and what was measured here."""
    panels = "".join(_panel(size, published_points(size)) for size in TABLE_SIZES)
    return (
        f'<div class="card accuracy"><h4>As published: top-1 on ImageNet against multiply-adds</h4>'
        f'<p class="fine">STViT paper, Tables 1 and 4. Not measured here. * compared with its own base model, '
        f"which is no standard DeiT.</p>"
        f'<div class="panels">{panels}</div>{_published_table()}</div>{measured(BENCHMARKS, registry)}'
    )


def _panel(size: str, points: Sequence[Point]) -> str:
    xs, ys = axis([p.gmacs for p in points]), axis([p.top1 for p in points])
    places = [(across(p.gmacs, xs), down(p.top1, ys)) for p in points]
    line = " ".join(f"{x:.1f},{y:.1f}" for (x, y), p in zip(places, points, strict=True) if p.kind == "stvit")
    dots = "".join(
        f'<circle class="{p.kind}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"><title>{escape(point_words(p))}</title></circle>'
        for (x, y), p in zip(places, points, strict=True)
    )
    names = [p.label for p in points]
    places_of_names = place_labels(names, places)
    labels = leaders(names, places, places_of_names) + "".join(
        f'<text class="{p.kind}" x="{x:.1f}" y="{y:.1f}">{escape(p.label)}</text>'
        for (x, y), p in zip(places_of_names, points, strict=True)
    )
    title = f"DeiT-{SIZE_LETTERS[size]} and methods on it"
    return (
        f'<figure><figcaption>{title}</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{title}: top-1 against multiply-adds, as published; the table below has the figures">'
        f'{axes(xs, ys)}<polyline points="{line}"/>{dots}{labels}</svg></figure>'
    )


def point_words(point: Point) -> str:
    """Write a point's figures."""
    return f"{point.label}: {point.top1} % top-1, {point.gmacs} G multiply-adds"


def axis(values: Sequence[float]) -> tuple[float, float, float]:
    """Start, end and distance of ticks of an axis that holds the values with some room around."""
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or 0.5  # of a single value
    step = next(s for s in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0) if (high - low + 2 * room) / s <= 6)
    return max(0.0, low - room), high + room, step


def across(value: float, along: tuple[float, float, float]) -> float:
    """Place a value on the horizontal axis, in units of the picture."""
    return LEFT + (value - along[0]) / (along[1] - along[0]) * (WIDTH - LEFT - RIGHT)


def down(value: float, along: tuple[float, float, float]) -> float:
    """Place a value on the vertical axis, in units of the picture."""
    return HEIGHT - BOTTOM - (value - along[0]) / (along[1] - along[0]) * (HEIGHT - TOP - BOTTOM)


def _ticks(along: tuple[float, float, float]) -> Iterator[tuple[float, str]]:
    low, high, step = along
    number = int(-(-low // step))
    while number * step <= high:
        yield number * step, f"{number * step:.0f}" if step >= 1 else f"{number * step:.1f}"
        number += 1


def axes(xs: tuple[float, float, float], ys: tuple[float, float, float], unit: str = "multiply-adds, G") -> str:
    """Draw both axes with their ticks; ``unit`` is that of the horizontal one, the other is top-1."""
    floor = HEIGHT - BOTTOM
    columns = "".join(
        f'<line x1="{across(v, xs):.1f}" x2="{across(v, xs):.1f}" y1="{TOP}" y2="{floor}"/>'
        f'<text class="tick" x="{across(v, xs):.1f}" y="{floor + 15}" text-anchor="middle">{words}</text>'
        for v, words in _ticks(xs)
    )
    rows = "".join(
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{down(v, ys):.1f}" y2="{down(v, ys):.1f}"/>'
        f'<text class="tick" x="{LEFT - 6}" y="{down(v, ys) + 4:.1f}" text-anchor="end">{words}</text>'
        for v, words in _ticks(ys)
    )
    middle = (LEFT + WIDTH - RIGHT) / 2
    names = (
        f'<text class="tick" x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{unit}</text>'
        f'<text class="tick" x="{LEFT + 4}" y="{TOP + 4}">top-1, %</text>'
    )
    return f'<g class="grid">{columns}{rows}{names}</g>'


def place_labels(labels: Sequence[str], points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Place labels (left end of the base line) so that they cover no point and no other label, if possible.

    Args:
        labels: texts.
        points: (x, y) of what they name, in units of the picture.
    """
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in points]
    taken.append((LEFT, TOP - 8, LEFT + 52, TOP + 6))  # the name of the axis
    placed = []
    for label, (x, y) in zip(labels, points, strict=True):
        width = GLYPH_WIDTH * len(label)
        centred = min(max(x - width / 2, LEFT), WIDTH - width - 4)
        sides = [(x + 10, 4), (centred, -9), (centred, 17), (x - width - 10, 4)]
        sides += [(start, drop) for drop in (-20, 28, -31, 39) for start in (x + 4, x - width - 4, x - width / 2)]
        boxes = [(left, y + drop - LINE_HEIGHT + 2, left + width, y + drop + 2) for left, drop in sides]
        inside = [b for b in boxes if b[0] >= LEFT and b[2] <= WIDTH and b[1] >= 0 and b[3] <= HEIGHT - BOTTOM]
        best = min(inside or boxes, key=lambda box: sum(_overlap(box, other) for other in taken))
        taken.append(best)
        placed.append((best[0], best[3] - 2))
    return placed


def leaders(labels: Sequence[str], points: Sequence[tuple[float, float]], places: Sequence[tuple[float, float]]) -> str:
    """Draw a thin line from a point to its label where that stands apart; ``places`` as of ``place_labels``."""
    lines = []
    for label, (x, y), (left, base) in zip(labels, points, places, strict=True):
        near_x = min(max(x, left), left + GLYPH_WIDTH * len(label))
        near_y = min(max(y, base - LINE_HEIGHT + 4), base + 2)
        if math.hypot(near_x - x, near_y - y) > APART:
            lines.append(f'<line class="leader" x1="{x:.1f}" y1="{y:.1f}" x2="{near_x:.1f}" y2="{near_y:.1f}"/>')
    return "".join(lines)


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _published_table() -> str:
    rows = "".join(
        f'<tr class="{p.kind}"><th scope="row">{escape(p.label)}</th><td>DeiT-{SIZE_LETTERS[size]}</td>'
        f"<td>{p.gmacs}</td><td>{p.top1}</td><td>{'' if p.delta is None else f'{p.delta:+.1f}'}</td></tr>"
        for size in TABLE_SIZES
        for p in sorted(published_points(size), key=lambda p: p.gmacs)
    )
    heads = "".join(
        f'<th scope="col">{name}</th>' for name in ("method", "on", "multiply-adds, G", "top-1, %", "against its base")
    )
    return (
        f'<details class="figures"><summary>The published figures as a table</summary><div class="scroll"><table>'
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div></details>"
    )


def measured(folder: Path, registry: Registry) -> str:
    """Draw the speed of this code, from the files that the suite of ``stvit.measure`` wrote; or say how to measure
    it."""
    groups = [group for path in sorted(folder.glob("*.json")) for group in _groups(path, registry)]
    if not groups:
        return (
            '<div class="card accuracy"><h4>Measured with this code</h4><p class="none">Nothing is recorded yet. To '
            f"measure every method on this machine, run <code>{MEASURE}</code>, then start the page again.</p></div>"
        )
    tables = "".join(_measured_table(title, group) for title, group in groups)
    return (
        '<div class="card accuracy"><h4>Measured with this code</h4><p class="fine">Speed over that of the '
        "full-token model, all models of a table interleaved in one process, and how many times fewer multiply-adds "
        f"it computes. Every method at once: <code>{MEASURE}</code></p>"
        f'<div class="measured">{tables}</div></div>'
    )


def _groups(path: Path, registry: Registry) -> list[tuple[str, dict[str, Any]]]:
    """The groups in one file of benchmarks; none if it is something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    if not isinstance(content, dict):
        return []
    if "speed_up_of_the_first_against" in content:
        return _pairs(content, registry)
    return [
        (group_title(name), {**group, "ratios": group["speed_up_over_full_tokens"]})
        for name, group in content.items()
        if isinstance(group, dict) and group.get("speed_up_over_full_tokens")
    ]


def _pairs(content: dict[str, Any], registry: Registry) -> list[tuple[str, dict[str, Any]]]:
    """One model against each of its baselines, as ``python -m stvit.measure MODEL BASELINE`` writes it."""
    first = next(iter(content["costs"]))
    labels = {"latency": "one image at a time", "throughput": f"batches of {content['batch_size']}"}
    many, kind = content["batch_size"] > 1, ""
    if any(spec.name == first for spec in registry.of_task("detect")):  # of these, the backbones alone are measured
        kind = "Detector backbone at {1} × {2}, ".format(*content["input_shape"])
    return [
        (
            f"{kind}{_label(first, registry)} over {_label(baseline, registry)}",
            {**content, "ratios": {labels[p]: r for p, r in phases.items() if p == "latency" or many}},
        )
        for baseline, phases in content["speed_up_of_the_first_against"].items()
    ]


def _label(model: str, registry: Registry) -> str:
    """What the page calls a registered model; the name itself if it is not on the page."""
    try:
        return registry.find(model).label
    except UnknownModel:
        return model


def group_title(name: str) -> str:
    """Return what people call a group of the suite: ``"DeiT-S"`` for ``"deit_small"``."""
    family, _, size = name.partition("_")
    return f"{ {'deit': 'DeiT', 'swin': 'Swin'}.get(family, family) }-{SIZE_LETTERS.get(size, size)}"


def _measured_table(title: str, group: dict[str, Any]) -> str:
    ratios = group["ratios"]
    fastest = max(max(ratio["measured"][1], ratio["allowed_by_macs"]) for ratio in ratios.values())
    rows = "".join(
        f'<tr><th scope="row">{escape(label)}</th><td class="meter"><i class="bar ours" '
        f'style="--part:{ratio["measured"][1] / fastest:.3f}"></i><i class="bar base" '
        f'style="--part:{ratio["allowed_by_macs"] / fastest:.3f}"></i></td><td>{ratio["measured"][1]:.2f}×</td>'
        f"<td>{ratio['allowed_by_macs']:.2f}×</td></tr>"
        for label, ratio in ratios.items()
    )
    where = f"{group['device']}, {group['precision']}, {engine_of_record(group)}, batch {group['batch_size']}"
    return (
        f'<details class="figures" open><summary>{escape(title)}: {escape(where)}</summary>'
        f'<div class="scroll"><table><thead><tr><th></th><th class="meter"></th><th scope="col">measured</th>'
        f'<th scope="col">fewer multiply-adds</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div></details>"
    )
