"""Published accuracy against measured time or computed multiply-adds, one chart for each network and machine."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Literal

from demo.charts.published import (
    BENCHMARKS,
    HEIGHT,
    TABLE_SIZES,
    WIDTH,
    Point,
    across,
    axes,
    axis,
    down,
    group_title,
    leaders,
    place_labels,
    point_words,
    published_points,
)
from demo.engine_names import engine_of_record

Against = Literal["time", "multiply-adds"]

WITHOUT_CODE = ("IA-RED2", "PS-ViT", "DGE")
ON_OTHER_NETWORKS = ("TokenLearner",)  # the published accuracy, so that none of these is on the front
WHY = {  # of a method, by the start of its label: what it does, and why that saves time or not
    "STViT-R": "Stage 3 runs on semantic tokens and the image tokens are recovered from them.",
    "STViT, 9 per window": "From stage 3 on, 9 semantic tokens stand for each window of 49, and none is turned back.",
    "STViT": "Two early layers make 16 semantic tokens; all later layers are short and of fixed shape, so time falls "
    "with the multiply-adds.",
    "DynamicViT": "Small networks score the tokens and three layers drop the lowest; counts are fixed, so the later "
    "layers save what they promise, less the scoring and gathering.",
    "EViT": "The class token's attention says who goes on; it needs no extra network, only one attention row beside "
    "the fused kernel.",
    "Evo-ViT": "Half of the tokens wait unchanged; two sorts move all of them, which multiply-adds leave out, and the "
    "first four layers are paid in full.",
    "A-ViT": "Each token halts by its own gate; pictures keep different counts, so a batch is packed and its "
    "attention padded to the picture with the most. The released code masks and saves nothing.",
    "ATC": "Agglomerative clustering merges tokens; that is one step after the other, no multiply-adds count it, and "
    "as a graph it takes longest.",
    "DiffRate": "Prunes and merges a few tokens in every layer, on DeiT's own weights; sorting and matching come "
    "twelve times, and multiply-adds leave them out.",
    "TokenLearner": "Maps pool the image into 8 tokens half-way; the first half is paid in full.",
    "DynamicSwin": "Only the feed-forward network of stage 3 becomes cheaper, attention stays full; gathering and "
    "scattering two groups comes on top in every block from the first decision on.",
}


@dataclass(frozen=True)
class Entry:
    """One model of a measured group.

    Attributes:
        label: method and setting.
        gmacs: multiply-adds as computed, 10^9.
        ms: for one picture, by the size of the batch; without those that the engine could not run.
        top1: as published, %; ``None`` where nothing is.
        note: on the published figure, or a caution on the measured one.
    """

    label: str
    gmacs: float
    ms: dict[int, float]
    top1: float | None
    note: str

    @property
    def ours(self) -> bool:
        return self.label.startswith("STViT")


@dataclass(frozen=True)
class Group:
    """Models that ran in turns on one machine under one engine.

    Attributes:
        machine: with precision and engine, in words.
        name: of the full-token network.
        full: its label.
        entries: what was measured.
        source: the file, in the folder of all of them.
        notes: what the engine could not run, and why.
    """

    machine: str
    name: str
    full: str
    entries: tuple[Entry, ...]
    source: str
    notes: tuple[str, ...] = ()

    @property
    def full_ms(self) -> float:
        """Of the full-token network, for one picture."""
        return next((entry.ms[1] for entry in self.entries if entry.label == self.full and 1 in entry.ms), math.inf)

    @property
    def batches(self) -> list[int]:
        """Sizes of the batches that were measured."""
        return sorted({batch for entry in self.entries for batch in entry.ms})


def load_groups(folder: Path = BENCHMARKS) -> tuple[Group, ...]:
    """Read every group that has published figures beside measured ones, in all files of a folder and those in it: one
    for each engine, that with the most methods, and those first whose full-token network is fastest."""
    groups = [
        _group(name, content, engine, path.relative_to(folder).as_posix())
        for path in sorted(folder.rglob("*.json"))
        for name, content in _content(path).items()
        if isinstance(content, dict) and {"rows", "published", "baseline"} <= content.keys()
        for engine in dict.fromkeys(row["engine"] for row in content["rows"])
    ]
    largest: dict[tuple[str, str], Group] = {}
    for group in sorted(groups, key=lambda group: len(group.entries)):
        largest[group.machine, group.name] = group
    return tuple(sorted(largest.values(), key=lambda group: group.full_ms))


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _group(name: str, content: dict[str, Any], engine: str, source: str) -> Group:
    published, cautions = content["published"], content.get("cautions", {})
    rows = [row for row in content["rows"] if row["engine"] == engine and not row["load"]]
    entries = []
    for label in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == label]
        ms = {row["batch_size"]: row["latency"]["median_ms"] / row["batch_size"] for row in own}
        figures = published.get(label, {})
        note = "; ".join(filter(None, (figures.get("note", ""), cautions.get(label, ""))))
        entries.append(Entry(label, own[0]["macs"] / 1e9, ms, figures.get("top1"), note))
    machine = ", ".join((content["device"], content["precision"], engine_of_record({"engine": engine})))
    notes = tuple(note for note in content.get("notes", ()) if f"{engine} " in note)
    return Group(machine, group_title(name), content["baseline"], tuple(entries), source, notes)


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the points that no other one beats in both, less (first) and more (second); from left to right."""
    best, kept = float("-inf"), []
    for index in sorted(range(len(points)), key=lambda index: (points[index][0], -points[index][1])):
        if points[index][1] > best:
            best = points[index][1]
            kept.append(index)
    return kept


def chart(group: Group, against: Against, batch: int) -> str:
    """Draw a group: the picture, the same figures as a table, and why some save no time, as HTML."""
    drawn = [entry for entry in group.entries if entry.top1 is not None and batch in entry.ms]
    values = [entry.gmacs if against == "multiply-adds" else entry.ms[batch] for entry in drawn]
    unit = "multiply-adds, G" if against == "multiply-adds" else f"ms for one picture, batch {batch}"
    title = f"{group.name} and methods on it: published top-1 against {unit}"
    alone = _published_alone(group.name) if against == "multiply-adds" else ()
    return (
        f'<div class="card accuracy"><h4>{escape(title)}</h4><p class="fine">{escape(_origin(group, against))}</p>'
        f'<div class="tradeoff">{_picture(group, drawn, values, unit, title, alone)}{_why(group)}</div>'
        f"{_table(group, batch)}</div>"
    )


def _origin(group: Group, against: Against) -> str:
    measured = f"Time: measured, {group.machine}, random weights ({group.source})."
    return f"Accuracy: published. {measured if against == 'time' else 'Multiply-adds: computed by this code.'}"


def _published_alone(name: str) -> tuple[Point, ...]:
    """Return the points of methods without public code on a network, e.g. ``"DeiT-S"``: none has a measured time."""
    size = next((size for size in TABLE_SIZES if group_title(f"deit_{size}") == name), None)
    return tuple(point for point in published_points(size) if point.label.startswith(WITHOUT_CODE)) if size else ()


def _picture(
    group: Group, drawn: Sequence[Entry], values: Sequence[float], unit: str, title: str, alone: Sequence[Point]
) -> str:
    xs = axis([*values, *(point.gmacs for point in alone)])
    ys = axis([*(entry.top1 for entry in drawn), *(point.top1 for point in alone)])
    places = [(across(value, xs), down(entry.top1, ys)) for value, entry in zip(values, drawn, strict=True)]
    compared = [index for index, entry in enumerate(drawn) if not entry.label.startswith(ON_OTHER_NETWORKS)]
    best = [compared[index] for index in front([(values[index], drawn[index].top1) for index in compared])]
    rings = [" front" if index in best else "" for index in range(len(drawn))]
    line = " ".join(f"{places[index][0]:.1f},{places[index][1]:.1f}" for index in best)
    kinds = [_kind(entry, group.full) for entry in drawn]
    dots = "".join(
        f'<circle class="{kind}{rings[index]}" cx="{x:.1f}" cy="{y:.1f}" r="5">'
        f"<title>{escape(_words(entry, value, unit))}</title></circle>"
        for index, ((x, y), entry, value, kind) in enumerate(zip(places, drawn, values, kinds, strict=True))
    )
    places += [(across(point.gmacs, xs), down(point.top1, ys)) for point in alone]
    dots += "".join(
        f'<circle class="alone" cx="{x:.1f}" cy="{y:.1f}" r="4.5"><title>{escape(point_words(point))}, both published'
        f"</title></circle>"
        for (x, y), point in zip(places[len(drawn) :], alone, strict=True)
    )
    names = [entry.label for entry in drawn] + [point.label for point in alone]
    places_of_names = place_labels(names, places)
    labels = leaders(names, places, places_of_names) + "".join(
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(name)}</text>'
        for (x, y), name, kind in zip(places_of_names, names, kinds + ["alone"] * len(alone), strict=True)
    )
    words = " Hollow: published on other networks, or without code to measure." if "alone" in dots else ""
    if missing := [entry.label for entry in group.entries if entry not in drawn]:
        words += f" In the table alone, as no accuracy is on record or no time was measured: {'; '.join(missing)}."
    return (
        f'<figure class="panel"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}; the table '
        f'below has the figures">{axes(xs, ys, unit)}<polyline points="{line}"/>{dots}{labels}</svg><figcaption '
        f'class="fine">Ringed: no other method is both cheaper and more accurate.{escape(words)}</figcaption></figure>'
    )


def _kind(entry: Entry, full: str) -> str:
    """Return the class that a method is drawn in."""
    if entry.label.startswith(ON_OTHER_NETWORKS):
        return "alone"
    return "stvit" if entry.ours else "full" if entry.label == full else "other"


def _words(entry: Entry, value: float, unit: str) -> str:
    note = f" ({entry.note})" if entry.note else ""
    return f"{entry.label}: {entry.top1} % top-1, published{note}; {value:.2f} {unit}"


def _why(group: Group) -> str:
    shown = [(entry.label, _reason(entry.label)) for entry in group.entries if _reason(entry.label)]
    items = "".join(f"<div><dt>{escape(label)}</dt><dd>{escape(words)}</dd></div>" for label, words in shown)
    return (
        f'<div class="why"><h4>Why some save multiply-adds and no time</h4><dl>{items}</dl><p class="fine">'
        f"{', '.join(WITHOUT_CODE)}: no public code or weights, so published points alone.</p></div>"
    )


def _reason(label: str) -> str:
    return next((words for start, words in WHY.items() if label.startswith(start)), "")


def _table(group: Group, batch: int) -> str:
    sizes = sorted({1, batch})
    rows = "".join(
        f'<tr><th scope="row">{escape(entry.label)}</th><td>{"" if entry.top1 is None else entry.top1}</td>'
        f"<td>{entry.gmacs:.2f}</td>{''.join(f'<td>{_time(entry, size)}</td>' for size in sizes)}"
        f"<td>{escape(entry.note)}</td></tr>"
        for entry in sorted(group.entries, key=lambda entry: entry.ms.get(1, math.inf))
    )
    notes = "".join(f'<p class="fine">{escape(note)}</p>' for note in group.notes)
    times = [f"ms a picture, batch {size}" for size in sizes]
    heads = ("method", "published top-1, %", "multiply-adds, G", *times, "note")
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    return (
        f'<details class="figures"><summary>The measured figures as a table</summary><div class="scroll"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>{notes}</details>"
    )


def _time(entry: Entry, batch: int) -> str:
    return f"{entry.ms[batch]:.1f}" if batch in entry.ms else "not run"
