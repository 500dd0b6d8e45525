"""Answers and costs of classifiers as HTML: pure functions from a result to markup that style.css colours.

Every text that is put in is escaped here; every bar has its number beside it as text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from html import escape

from demo.answers import ClassifyAnswer, StageTimes
from demo.benchmark import BenchmarkState
from demo.charts.bars import (
    bar_chart,
    latency_chart,
    legend,
    on_engine,
    peak_memory_chart,
    percent,
    speed_tile,
    stacked_bar,
    stage_line,
)
from demo.engine_names import ENGINE_LABELS
from demo.registry import ModelSpec
from demo.specs.bundled import known_classes
from stvit.measure.timing import LatencySummary
from stvit.predict.classifier import imagenet_classes

STAGES = {"decode": "decode_ms", "preprocess": "preprocess_ms", "model": "model_ms", "draw": "draw_ms"}


def predictions(specs: Sequence[ModelSpec], results: Sequence[ClassifyAnswer], truth: str = "") -> str:
    """Show the top classes of both models side by side.

    Args:
        truth: class of an example, by which answers are marked right or wrong; empty where it is not known.
    """
    columns = "".join(map(partial(_prediction_column, truth), specs, results, ("ours", "base")))
    return f'<div class="predictions">{columns}</div>{_agreement(specs, results)}'


def _prediction_column(truth: str, spec: ModelSpec, result: ClassifyAnswer, side: str) -> str:
    head = f'<header><i class="dot {side}"></i><b>{escape(spec.label)}</b><small>{escape(spec.about)}</small></header>'
    if not result.predictions:
        why = spec.no_weights or "This model has no weights here."
        return f'<section class="card">{head}<p class="none">No predictions. {escape(why)}</p></section>'
    rows = "".join(
        f'<li title="{escape(entry.label)}"><span>{escape(short_label(entry.label))}</span>'
        f"<data value='{entry.probability:.4f}'>{percent(entry.probability)}</data>"
        f'<i class="bar {side}" style="--part:{entry.probability:.4f}"></i></li>'
        for entry in result.predictions
    )
    mark = _mark(truth, spec, short_label(result.predictions[0].label))
    guesses = f'<ol aria-label="Predictions of {escape(spec.label)}">{rows}</ol>'
    if result.in_scope:
        return f'<section class="card">{head}{guesses}{mark}</section>'
    return (
        f'<section class="card refused">{head}<p><b>Not one of the {escape(known_classes(spec.bundled))} that this '
        f"model knows.</b></p><details><summary>Its guesses all the same</summary>{guesses}</details>{mark}</section>"
    )


def _mark(truth: str, spec: ModelSpec, answer: str) -> str:
    if truth not in (spec.classes or imagenet_classes(all_names=False)):
        return ""
    if answer == truth:
        return '<p class="mark right">✓ Right</p>'
    return f'<p class="mark wrong">✗ Wrong: this example shows “{escape(truth)}”</p>'


def _agreement(specs: Sequence[ModelSpec], results: Sequence[ClassifyAnswer]) -> str:
    answered = all(result.predictions and result.in_scope for result in results)
    if not answered or specs[0].classes != specs[1].classes:
        return ""
    first, second = (result.predictions[0] for result in results)
    mine, theirs = short_label(first.label), short_label(second.label)
    if first.index == second.index:
        return f'<p class="agreement">Both say <b>{escape(mine)}</b>.</p>'
    return f'<p class="agreement differ">They differ: <b>{escape(mine)}</b> against <b>{escape(theirs)}</b>.</p>'


def request_times(specs: Sequence[ModelSpec], times: Sequence[StageTimes], engines: Sequence[str]) -> str:
    """Draw where the time of one request went, one stacked bar for each model on a common scale.

    Args:
        engines: that answered.
    """
    longest = max(entry.total_ms for entry in times)
    parts = [{stage: getattr(entry, field) for stage, field in STAGES.items()} for entry in times]
    rows = "".join(stacked_bar(spec.label, entry, longest) for spec, entry in zip(specs, parts, strict=True))
    answered = " and ".join(dict.fromkeys(ENGINE_LABELS[engine] for engine in engines))
    return (
        f'<div class="card request"><h4>This request, end to end</h4>{rows}{legend(STAGES)}'
        f'<p class="fine">Answered by {answered}. Each model ran once, with the attention maps for the '
        f"picture: which one is faster, only the comparison says.</p></div>"
    )


def comparison(state: BenchmarkState) -> str:
    """Draw what a comparison has measured so far."""
    tiles = speed_tile(state, batched=False) + (speed_tile(state, batched=True) if state.batch_size else "")
    return (
        f'<div class="race" data-done="{str(state.done).lower()}">'
        f'{stage_line(state)}<div class="tiles">{tiles}</div><details class="figures"><summary>All figures</summary>'
        f'<div class="metrics">{_metrics(state)}</div>{_published(state)}</details></div>'
    )


def _metrics(state: BenchmarkState) -> str:
    both = (state.model, state.baseline)
    charts = [
        latency_chart(
            "Latency, batch 1", f"ms{on_engine(state.single)}, median and middle half; shorter is better", state
        ),
        _throughput_chart(state) if state.batch_size else "",
        bar_chart(
            "Multiply-adds",
            "G for one image, as computed here",
            both,
            [entry.macs / 1e9 for entry in both],
            "{:.2f}",
            [f"counted the paper's way: {entry.macs_as_published / 1e9:.2f}" for entry in both],
        ),
        bar_chart("Parameters", "million", both, [entry.parameters / 1e6 for entry in both], "{:.1f}"),
        peak_memory_chart(f"Peak memory, batch {state.batch_size}", both),
    ]
    return "".join(charts)


def _throughput_chart(state: BenchmarkState) -> str:
    turns = state.batched
    latencies = (turns.model, turns.baseline) if turns else ()
    return bar_chart(
        f"Throughput, batch {state.batch_size}",
        f"images per second{on_engine(turns)}, by the median pass; longer is better",
        (state.model, state.baseline),
        [state.images_per_second(latency) for latency in latencies] or (None, None),
        "{:,.1f}",
        [_rate_spread(state.batch_size, latency) for latency in latencies],
    )


def _published(state: BenchmarkState) -> str:
    """The papers' own figures, never mixed with what was measured here; nothing where they print none."""
    specs = (state.model.spec, state.baseline.spec)
    mine, theirs = (spec.published for spec in specs)
    if not (mine or theirs):
        return ""
    rows = "".join(
        f'<tr><th scope="row">{title}</th><td>{_figure(mine, key)}</td><td>{_figure(theirs, key)}</td></tr>'
        for title, key in (("Top-1, %", "top1"), ("Multiply-adds, G", "gmacs"), ("Throughput, images/s", "throughput"))
    )
    title = "Published in the papers"
    if "throughput" in mine and "throughput" in theirs:
        ratio = mine["throughput"] / theirs["throughput"]
        title = f"Published (paper, V100, batch 128): {ratio:.2f}× the throughput"
    heads = "".join(f'<th scope="col">{escape(spec.label)}</th>' for spec in specs)
    return (
        f'<details class="card published"><summary>{title}</summary>'
        f"<table><thead><tr><th></th>{heads}</tr></thead><tbody>{rows}</tbody></table>"
        '<p class="fine">Figures of the papers and of their authors; not measured here.</p>'
        f"</details>"
    )


def _figure(figures: Mapping[str, float], key: str) -> str:
    return f"{figures[key]:,}" if key in figures else "not printed"


def _rate_spread(batch_size: int, latency: LatencySummary) -> str:
    return f"{batch_size * 1e3 / latency.q3_ms:,.1f} to {batch_size * 1e3 / latency.q1_ms:,.1f}, {latency.runs} runs"


def short_label(label: str) -> str:
    """Return the first of a class's names."""
    return label.split(",")[0]
