"""Clips under way and finished ones as HTML: pure functions from progress to markup."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from contextlib import closing
from html import escape
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np

from demo.charts.bars import notice, percent, step_rows
from demo.engine_names import ENGINE_LABELS
from demo.export import jpeg_bytes
from stvit.video.decode import ClipReader
from stvit.video.probe import probe
from stvit.video.types import STAGES, ClipInfo, Progress, VideoError

PREVIEW_SIDE, RACE = 720, "race"


def live(progress: Progress, words: str) -> str:
    """Show the newest frame, how far the work is, and how long it will take."""
    image = ""
    if progress.preview is not None:
        data = b64encode(jpeg_bytes(_small(progress.preview.rgb()))).decode("ascii")
        image = f'<img src="data:image/jpeg;base64,{data}" alt="Frame {progress.frames} of the new clip">'
    value = "" if progress.part is None else f' value="{progress.part:.3f}"'
    left = "" if progress.eta_s is None else f", about {duration(progress.eta_s)} left"
    total = f" of about {progress.info.frames}" if progress.info.frames else ""
    return (
        f'<figure class="vv-live">{image}<figcaption role="status">'
        f"<span>{escape(words)}: frame {progress.frames}{total}{left}</span>"
        f"<b>{progress.frames_per_second:.1f} frames/s{_ran_on(progress)}</b>"
        f'<progress max="1"{value} aria-label="Progress of the clip"></progress></figcaption></figure>'
    )


def sent_clip(path: str) -> str:
    """Show a clip as it was sent: it plays where the browser can, else its first frame stands; empty where it cannot
    be read."""
    try:
        with closing(iter(ClipReader(probe(path), PREVIEW_SIDE))) as frames:
            first = next(frames, None)
    except VideoError:
        return ""
    poster = "" if first is None else b64encode(jpeg_bytes(first.picture.rgb())).decode("ascii")
    return (
        f'<video class="vv-sent" src="gradio_api/file={quote(path)}" poster="data:image/jpeg;base64,{poster}" '
        'controls muted loop playsinline preload="metadata" aria-label="The clip as it was sent"></video>'
    )


def finished(progress: Progress) -> str:
    """Show what was made, and where the time went."""
    info, busy_ms = progress.info, {name: 1e3 * progress.busy_s.get(name, 0.0) for name in STAGES}
    share = progress.frames_per_second / (progress.model_frames_per_second or 1.0)
    return (
        f'<div class="card request"><h4>{progress.frames} frames in {duration(progress.elapsed_s)}: '
        f"{progress.frames_per_second:.1f} frames/s{_ran_on(progress)}</h4>{step_rows(busy_ms)}"
        f'<p class="fine">The stages work at the same time, so their times overlap. The stage “model” (side by side: '
        f"both models, and a few trial passes) would have reached {progress.model_frames_per_second:.1f} frames/s by "
        f"itself, with the others at work beside it: {share:.0%} of that came out at the end. "
        f"Read: {escape(clip_words(info))}. Written: H.264, 4:2:0, index in front.</p></div>"
        f"{''.join(whole_clip(answer) for side, answer in progress.conclusion.items() if side != RACE)}"
    )


def _ran_on(progress: Progress) -> str:
    return f" on {' and '.join(map(ENGINE_LABELS.__getitem__, progress.engines))}" if progress.engines else ""


def race_headline(progress: Progress, device: str) -> str:
    """Say which of two models was faster, under which engines, and on what; empty for one model alone."""
    if RACE not in progress.conclusion:
        return ""
    race = progress.conclusion[RACE]
    engines = " and ".join(ENGINE_LABELS[engine] for engine in race["engines"])
    return (
        f'<p class="vv-headline"><b>{escape(race["headline"])}</b>'
        f"<span>Medians of the turns on this clip of {progress.frames} frames; "
        f"{escape(engines)}, {escape(device)}</span></p>"
    )


def whole_clip(conclusion: Mapping[str, Any]) -> str:
    """Show the answer of a clip model for the whole clip."""
    classes = "".join(
        f"<li>{escape(entry['label'])} <b>{escape(percent(entry['probability']))}</b></li>"
        for entry in conclusion["top5"]
    )
    windows = conclusion["windows"]
    mean = "from one window" if windows == 1 else f"mean over {windows} windows"
    return (
        f'<div class="card request"><h4>{escape(conclusion["model"])} on the whole clip, {mean}</h4>'
        f'<ol class="vv-classes">{classes}</ol></div>'
    )


def clip_words(info: ClipInfo) -> str:
    """Describe a clip in a few words."""
    height, width = info.source_hw
    turned = (f", turned by {info.rotation}°" if info.rotation else "") + (", mirrored" if info.mirrored else "")
    sound = f"sound {info.sound}" if info.sound else "no sound"
    return f"{info.codec}, {width} × {height}{turned}, {info.fps:.3g} frames/s, {sound}"


def duration(seconds: float) -> str:
    """Write a time span for people."""
    if seconds >= 90:
        return f"{seconds / 60:.1f} min"
    return f"{seconds:.0f} s" if seconds >= 9.5 else f"{seconds:.1f} s"


def stopped() -> str:
    """Say that a run was cancelled."""
    return notice("Stopped. Nothing is left of the new clip.")


def _small(pixels: np.ndarray) -> np.ndarray:
    scale = PREVIEW_SIDE / max(pixels.shape[:2])
    if scale >= 1:
        return pixels
    return cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
