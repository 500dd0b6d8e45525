"""Pictures of results as HTML: pure functions from a result to markup that style.css colours in light and dark.

Every text that is put in is escaped here; every bar has its number beside it as text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from demo.race import Racer, RaceState
from demo.roster import find, published_figures
from demo.types import Classification, StageTimes
from stvit.measure.timing import LatencySummary

STAGES = (("decode", "decode_ms"), ("preprocess", "preprocess_ms"), ("model", "model_ms"), ("draw", "draw_ms"))


def notice(text: str, kind: str = "info", detail: str = "", progress: float | None = None) -> str:
    """A message across the page: ``kind`` is info, busy, warning or error; ``progress`` in [0, 1] adds a bar."""
    if not text:
        return ""
    role = "alert" if kind in ("warning", "error") else "status"
    more = f"<span>{escape(detail)}</span>" if detail else ""
    bar = "" if progress is None else f'<progress max="1" value="{progress:.3f}" aria-label="Progress"></progress>'
    return f'<div class="notice {kind}" role="{role}"><b>{escape(text)}</b>{more}{bar}</div>'


def predictions(model: Classification, baseline: Classification) -> str:
    """The top classes of both models side by side."""
    columns = _prediction_column(model, "ours") + _prediction_column(baseline, "base")
    return f'<div class="predictions">{columns}</div>{_agreement(model, baseline)}'


def _prediction_column(result: Classification, side: str) -> str:
    choice = find(result.model)
    head = (
        f'<header><i class="dot {side}"></i><b>{escape(choice.label)}</b><small>{escape(choice.about)}</small></header>'
    )
    if not result.predictions:
        why = choice.no_weights or "This model has no weights here."
        return f'<section class="card">{head}<p class="none">No predictions. {escape(why)}</p></section>'
    rows = "".join(
        f'<li title="{escape(entry.label)}"><span>{escape(short_label(entry.label))}</span>'
        f"<data value='{entry.probability:.4f}'>{percent(entry.probability)}</data>"
        f'<i class="bar {side}" style="--part:{entry.probability:.4f}"></i></li>'
        for entry in result.predictions
    )
    return f'<section class="card">{head}<ol aria-label="Predictions of {escape(choice.label)}">{rows}</ol></section>'


def _agreement(model: Classification, baseline: Classification) -> str:
    if not (model.predictions and baseline.predictions):
        return ""
    mine, theirs = (short_label(result.predictions[0].label) for result in (model, baseline))
    if model.predictions[0].index == baseline.predictions[0].index:
        return f'<p class="agreement">Both say <b>{escape(mine)}</b>.</p>'
    return f'<p class="agreement differ">They differ: <b>{escape(mine)}</b> against <b>{escape(theirs)}</b>.</p>'


def request_times(names: Sequence[str], times: Sequence[StageTimes]) -> str:
    """Where the time of one request went, one stacked bar for each model on a common scale."""
    longest = max(entry.total_ms for entry in times)
    legend = "".join(f'<span><i class="stage {stage}"></i>{stage}</span>' for stage, _ in STAGES)
    rows = "".join(_request_row(find(name).label, entry, longest) for name, entry in zip(names, times, strict=True))
    ratio = times[1].total_ms / times[0].total_ms
    words = speed_words(ratio, find(names[1]).label)
    return (
        f'<div class="card request"><h4>This request, end to end</h4>{rows}<p class="legend">{legend}</p>'
        f'<p class="fine">From file to picture: {escape(words)}. The model part of this request includes the attention '
        f"maps for the picture; the comparison measures without them.</p></div>"
    )


def _request_row(label: str, times: StageTimes, longest_ms: float) -> str:
    parts = "".join(
        f'<i class="stage {stage}" style="--part:{getattr(times, field) / longest_ms:.4f}" '
        f'title="{stage} {milliseconds(getattr(times, field))}"></i>'
        for stage, field in STAGES
    )
    words = ", ".join(f"{stage} {milliseconds(getattr(times, field))}" for stage, field in STAGES)
    return (
        f'<div class="measure"><span>{escape(label)}</span><div class="stack">{parts}</div>'
        f"<b>{milliseconds(times.total_ms)}</b><small>{words}</small></div>"
    )


def comparison(state: RaceState) -> str:
    """All that a comparison has measured so far."""
    heading = "Measured" if state.done else state.stage
    tiles = _speed_tile(state, batched=False) + _speed_tile(state, batched=True)
    return (
        f'<div class="race" data-done="{str(state.done).lower()}">'
        f'<p class="stage-line" role="status"><span>{escape(heading)}</span><span>{escape(state.device)}</span>'
        f'<progress max="1" value="{state.progress:.3f}" aria-label="Progress of the comparison"></progress></p>'
        f'<div class="tiles">{tiles}</div><div class="metrics">{_metrics(state)}</div>{_published(state)}</div>'
    )


def _speed_tile(state: RaceState, batched: bool) -> str:
    title = f"Batches of {state.batch_size}" if batched else "One image at a time"
    speedup, allowed = state.speedup(batched), state.allowed_speedup
    if speedup is None:
        return f'<section class="tile pending"><h4>{title}</h4><strong>…</strong><p>not measured yet</p></section>'
    kind = "slower" if speedup < 0.97 else "faster" if speedup > 1.03 else "even"
    return (
        f'<section class="tile {kind}"><h4>{title}</h4><strong>{speedup:.2f}×</strong>'
        f"<p>{escape(speed_words(speedup, find(state.baseline.name).label))}</p>"
        f"<dl><div><dt>multiply-adds would allow</dt><dd>{allowed:.2f}×</dd></div>"
        f"<div><dt>measured ÷ allowed</dt><dd>{speedup / allowed:.2f}</dd></div></dl></section>"
    )


def _metrics(state: RaceState) -> str:
    both = (state.model, state.baseline)
    rates = [state.images_per_second(racer) for racer in both]
    peaks = [racer.peak_memory_bytes for racer in both]
    charts = [
        _latency_chart("Latency, batch 1", "ms, median and middle half; shorter is better", both),
        _bar_chart(
            f"Throughput, batch {state.batch_size}",
            "images per second by the median pass; longer is better",
            both,
            rates,
            "{:,.1f}",
            [_rate_spread(state.batch_size, racer.batch_latency) for racer in both],
        ),
        _bar_chart(
            "Multiply-adds",
            "G for one image, as computed here",
            both,
            [racer.macs / 1e9 for racer in both],
            "{:.2f}",
            [f"counted the paper's way: {racer.macs_as_published / 1e9:.2f}" for racer in both],
        ),
        _bar_chart("Parameters", "million", both, [racer.parameters / 1e6 for racer in both], "{:.1f}"),
    ]
    if any(peaks):
        mebibytes = [peak / 2**20 if peak else None for peak in peaks]
        charts.append(
            _bar_chart(f"Peak memory, batch {state.batch_size}", "MiB on the device", both, mebibytes, "{:,.0f}")
        )
    return "".join(charts)


def _rate_spread(batch_size: int, latency: LatencySummary | None) -> str:
    if latency is None:
        return ""
    return f"{batch_size * 1e3 / latency.q3_ms:,.1f} to {batch_size * 1e3 / latency.q1_ms:,.1f}, {latency.runs} runs"


def _bar_chart(
    title: str, unit: str, racers: Sequence[Racer], values: Sequence[float | None], form: str, notes: Sequence[str] = ()
) -> str:
    longest = max((value for value in values if value), default=1.0)
    rows = "".join(
        _bar_row(
            racer,
            side,
            "" if value is None else f'<i class="bar {side}" style="--part:{value / longest:.4f}"></i>',
            "…" if value is None else form.format(value),
            note,
        )
        for racer, side, value, note in zip(racers, ("ours", "base"), values, notes or ("", ""), strict=True)
    )
    return _chart(title, unit, rows)


def _latency_chart(title: str, unit: str, racers: Sequence[Racer]) -> str:
    longest = max((racer.latency.q3_ms for racer in racers if racer.latency), default=1.0)
    rows = "".join(
        _bar_row(racer, side, *_latency_bar(racer.latency, side, longest))
        for racer, side in zip(racers, ("ours", "base"), strict=True)
    )
    return _chart(title, unit, rows)


def _latency_bar(latency: LatencySummary | None, side: str, longest_ms: float) -> tuple[str, str, str]:
    if latency is None:
        return "", "…", ""
    bar = (
        f'<i class="bar {side}" style="--part:{latency.median_ms / longest_ms:.4f}"></i>'
        f'<i class="whisker" style="--from:{latency.q1_ms / longest_ms:.4f};--to:{latency.q3_ms / longest_ms:.4f}"></i>'
    )
    return bar, f"{latency.median_ms:.1f}", f"{latency.q1_ms:.1f} to {latency.q3_ms:.1f}, {latency.runs} runs"


def _bar_row(racer: Racer, side: str, bars: str, value: str, note: str = "") -> str:
    return (
        f'<div class="measure" data-model="{escape(racer.name)}"><span>{escape(find(racer.name).label)}</span>'
        f'<div class="track">{bars}</div><b>{value}</b>{f"<small>{escape(note)}</small>" if note else ""}</div>'
    )


def _chart(title: str, unit: str, rows: str) -> str:
    return f'<section class="card chart"><h4>{escape(title)}</h4><p class="fine">{escape(unit)}</p>{rows}</section>'


def _published(state: RaceState) -> str:
    """The papers' own figures, never mixed with what was measured here; nothing where they print none."""
    names = (state.model.name, state.baseline.name)
    mine, theirs = (published_figures(name) for name in names)
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
    heads = "".join(f'<th scope="col">{escape(find(name).label)}</th>' for name in names)
    return (
        f'<details class="card published"><summary>{title}</summary>'
        f"<table><thead><tr><th></th>{heads}</tr></thead><tbody>{rows}</tbody></table>"
        f'<p class="fine">Figures of the STViT paper, Tables 1 to 3, and of the EViT paper; not measured here.</p>'
        f"</details>"
    )


def _figure(figures: Mapping[str, float], key: str) -> str:
    return f"{figures[key]:,}" if key in figures else "not printed"


def speed_words(speedup: float, baseline_label: str) -> str:
    """A speed-up in plain words; slower is called slower."""
    if speedup > 1.03:
        return f"faster: {1 / speedup:.0%} of the time of {baseline_label}"
    if speedup < 0.97:
        return f"slower: {1 / speedup:.2f} times the time of {baseline_label}"
    return f"as fast as {baseline_label}"


def short_label(label: str) -> str:
    """The first of a class's names."""
    return label.split(",")[0]


def percent(probability: float) -> str:
    """A probability for people: one decimal, and never a false 0 or 100."""
    if 0 < probability < 0.001:
        return "< 0.1 %"
    if 0.999 < probability < 1:
        return "> 99.9 %"
    return f"{probability:.1%}".replace("%", " %")


def milliseconds(value: float) -> str:
    """A duration with a sensible number of digits."""
    return f"{value:.0f} ms" if value >= 100 else f"{value:.1f} ms"
