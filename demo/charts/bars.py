"""Bars, tiles and messages that several charts are made of, as HTML.

Every text that is put in is escaped here; every bar has its number beside it as text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from demo.benchmark import BenchmarkEntry, BenchmarkState, Turns
from demo.engine_names import ENGINE_LABELS
from stvit.measure.timing import LatencySummary, Quartiles

CALM_SPREAD = 0.1  # of the middle half of a speed-up, as part of its median, on a machine that does nothing else


def notice(text: str, kind: str = "info", detail: str = "", progress: float | None = None, retry: bool = False) -> str:
    """Write a message across the page.

    Args:
        kind: info, busy, warning or error.
        progress: in [0, 1], adds a bar.
        retry: adds a button, see ``demo.tabs.parts.read_aloud``.
    """
    if not text:
        return ""
    role = "alert" if kind in ("warning", "error") else "status"
    more = f"<span>{escape(detail)}</span>" if detail else ""
    bar = "" if progress is None else f'<progress max="1" value="{progress:.3f}" aria-label="Progress"></progress>'
    button = '<button type="button" class="retry">Retry</button>' if retry else ""
    return f'<div class="notice {kind}" role="{role}"><b>{escape(text)}</b>{more}{bar}{button}</div>'


def stage_line(state: BenchmarkState) -> str:
    """Show what a comparison is doing, on which device, and how much of it is done."""
    heading = "Measured" if state.done else state.stage
    return (
        f'<p class="stage-line" role="status"><span>{escape(heading)}</span><span>{escape(state.device)}</span>'
        f'<progress max="1" value="{state.progress:.3f}" aria-label="Progress of the comparison"></progress></p>'
    )


def on_engine(turns: Turns | None) -> str:
    """Say what measured models ran on; empty while nothing is measured."""
    return f" on {ENGINE_LABELS[turns.engine]}" if turns else ""


def speed_tile(state: BenchmarkState, batched: bool) -> str:
    """Show a speed-up in large figures where its verdict is clear, beside how many multiply-adds fewer there are."""
    title = f"Batches of {state.batch_size}" if batched else "One image at a time"
    turns = state.batched if batched else state.single
    if turns is None or turns.verdict is None:
        words = "too slow here for a verdict" if state.done else "not measured yet"
        return f'<section class="tile pending"><h4>{title}</h4><strong>…</strong><p>{words}</p></section>'
    kind, speedup, baseline = turns.verdict, turns.speed_up, state.baseline.spec.label
    title += f", {ENGINE_LABELS[turns.engine]}"
    if kind != "unclear":
        large, words = f"{speedup.median:.2f}×", speed_words(speedup.median, baseline)
    elif state.done:
        large, words = "no clear difference", _why_unclear(speedup, baseline)
    else:
        large, words = "…", "no clear difference yet: measuring on"
    return (
        f'<section class="tile {kind}"><h4>{title}</h4><strong>{large}</strong><p>{escape(words)}</p>'
        f"<dl><div><dt>median, middle half</dt>"
        f"<dd>{speedup.median:.2f}, {speedup.q1:.2f} to {speedup.q3:.2f}</dd></div>"
        f"<div>{_multiply_adds(state.allowed_speedup)}</div></dl>{_explained(state, batched)}</section>"
    )


def _explained(state: BenchmarkState, batched: bool) -> str:
    if batched or not state.explanation:
        return ""
    return f'<details class="fine"><summary>What limits it</summary><p>{escape(state.explanation)}</p></details>'


def _why_unclear(speedup: Quartiles, baseline_label: str) -> str:
    if is_calm(speedup):
        return f"takes as long as {baseline_label}"
    return "this machine is busy"


def is_calm(speedup: Quartiles) -> bool:
    """Whether the rounds agree as well as on a machine that does nothing else."""
    return speedup.q3 - speedup.q1 < CALM_SPREAD * speedup.median


def _multiply_adds(fewer: float) -> str:
    words, factor = ("Fewer", fewer) if fewer >= 1 else ("More", 1 / fewer)
    return f"<dt>{words} multiply-adds</dt><dd>{factor:.2f}×</dd>"


def turns_chart(state: BenchmarkState, what: str, note: str, beside: str = "") -> str:
    """Draw what a comparison of single inputs has measured so far.

    Args:
        state: the comparison.
        what: is compared, as the first word of the titles.
        note: shown beneath.
        beside: HTML of a second tile.
    """
    both = (state.model, state.baseline)
    macs, parameters = [entry.macs / 1e9 for entry in both], [entry.parameters / 1e6 for entry in both]
    ran_on = on_engine(state.single)
    charts = (
        latency_chart(f"{what} time", f"ms for one picture{ran_on}, median and middle half; shorter is better", state),
        bar_chart(f"{what} multiply-adds", "G at this input, as computed here", both, macs, _digits(macs)),
        bar_chart(f"{what} parameters", "million", both, parameters, _digits(parameters)),
        peak_memory_chart(f"{what} peak memory", both),
    )
    return (
        f'<div class="race" data-done="{str(state.done).lower()}">{stage_line(state)}'
        f'<div class="tiles">{speed_tile(state, batched=False)}{beside}</div>'
        f'<div class="metrics">{"".join(charts)}</div><p class="fine">{escape(note)}</p></div>'
    )


def _digits(values: Sequence[float]) -> str:
    return "{:.1f}" if min(values) >= 1 else "{:.2f}"


def bar_chart(
    title: str,
    unit: str,
    entries: Sequence[BenchmarkEntry],
    values: Sequence[float | None],
    form: str,
    notes: Sequence[str] = (),
) -> str:
    """Draw one bar for each side; ``None`` where nothing is measured yet."""
    longest = max((value for value in values if value), default=1.0)
    rows = "".join(
        _bar_row(
            entry,
            side,
            "" if value is None else f'<i class="bar {side}" style="--part:{value / longest:.4f}"></i>',
            "…" if value is None else form.format(value),
            note,
        )
        for entry, side, value, note in zip(entries, ("ours", "base"), values, notes or ("", ""), strict=True)
    )
    return _chart(title, unit, rows)


def latency_chart(title: str, unit: str, state: BenchmarkState) -> str:
    """Draw median times of single images with the middle half as whiskers."""
    latencies = (state.single.model, state.single.baseline) if state.single else (None, None)
    longest = max((latency.q3_ms for latency in latencies if latency), default=1.0)
    rows = "".join(
        _bar_row(entry, side, *_latency_bar(latency, side, longest))
        for entry, side, latency in zip((state.model, state.baseline), ("ours", "base"), latencies, strict=True)
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


def _bar_row(entry: BenchmarkEntry, side: str, bars: str, value: str, note: str = "") -> str:
    return (
        f'<div class="measure" data-model="{escape(entry.spec.name)}"><span>{escape(entry.spec.label)}</span>'
        f'<div class="track">{bars}</div><b>{value}</b>{f"<small>{escape(note)}</small>" if note else ""}</div>'
    )


def peak_memory_chart(title: str, entries: Sequence[BenchmarkEntry]) -> str:
    """Draw the peak memory of both sides; nothing where it is not known."""
    peaks = [entry.peak_memory_bytes / 2**20 if entry.peak_memory_bytes else None for entry in entries]
    return (
        bar_chart(title, "MiB held at once, beside weights and input", entries, peaks, "{:,.0f}") if any(peaks) else ""
    )


def _chart(title: str, unit: str, rows: str) -> str:
    return f'<section class="card chart"><h4>{escape(title)}</h4><p class="fine">{escape(unit)}</p>{rows}</section>'


def stacked_bar(label: str, parts_ms: Mapping[str, float], longest_ms: float) -> str:
    """Draw a row of a chart: a label, one bar of consecutive parts (class name: milliseconds), and the sum."""
    parts = "".join(
        f'<i class="stage {part}" style="--part:{value / longest_ms:.4f}" title="{part} {milliseconds(value)}"></i>'
        for part, value in parts_ms.items()
    )
    words = ", ".join(f"{part} {milliseconds(value)}" for part, value in parts_ms.items())
    return (
        f'<div class="measure"><span>{escape(label)}</span><div class="stack">{parts}</div>'
        f"<b>{milliseconds(sum(parts_ms.values()))}</b><small>{words}</small></div>"
    )


def steps_card(title: str, label: str, parts_ms: Mapping[str, float], note: str) -> str:
    """Draw where the time of one request went, step by step (its name: milliseconds)."""
    return (
        f'<div class="card request"><h4>{escape(title)}</h4>'
        f"<p>{escape(label)}: {milliseconds(sum(parts_ms.values()))}</p>{step_rows(parts_ms)}"
        f'<p class="fine">{escape(note)}</p></div>'
    )


def step_rows(parts_ms: Mapping[str, float]) -> str:
    """Draw one row for each step (its name, whose first word is the class of its colour: milliseconds)."""
    longest = max(parts_ms.values()) or 1.0
    return "".join(
        f'<div class="measure step"><span>{escape(step)}</span><div class="track">'
        f'<i class="bar stage {step.split()[0]}" style="--part:{value / longest:.4f}"></i></div>'
        f"<b>{milliseconds(value)}</b></div>"
        for step, value in parts_ms.items()
    )


def legend(parts: Iterable[str]) -> str:
    """Name the colours of stacked bars."""
    return '<p class="legend">' + "".join(f'<span><i class="stage {part}"></i>{part}</span>' for part in parts) + "</p>"


def speed_words(speedup: float, baseline_label: str) -> str:
    """Say a speed-up in plain words; slower is called slower."""
    if speedup > 1:
        return f"faster: {1 / speedup:.0%} of the time of {baseline_label}"
    return f"slower: {1 / speedup:.2f} times the time of {baseline_label}"


def percent(probability: float) -> str:
    """Write a probability with one decimal, and never a false 0 or 100."""
    if 0 < probability < 0.001:
        return "< 0.1 %"
    if 0.999 < probability < 1:
        return "> 99.9 %"
    return f"{probability:.1%}".replace("%", " %")


def milliseconds(value: float) -> str:
    """Write a duration with a sensible number of digits."""
    if value >= 10_000:
        return f"{value / 1e3:.1f} s"
    return f"{value:.0f} ms" if value >= 100 else f"{value:.1f} ms"
