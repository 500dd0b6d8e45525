"""The page on ZeroGPU, under a stand-in of ``spaces`` that enforces its rules."""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest
import torch

from demo.predictors import Predictors
from demo.registry import Registry
from demo.runtime import Runtime
from demo.space.lending import MOST_S, borrowing, clip_seconds, comparison_seconds
from demo.space.lent_models import default_models
from demo.space.stand_in import NO_CUDA, StandIn, zero_gpu
from demo.video import CLASSIFY, DETECT, ClipJob
from stvit.errors import UserError
from stvit.predict.media import MediaError
from tests.stvit.video.clips import make_clip

OWN, OWN_BASELINE = "garments_stvit_r_swin", "garments_swin"


@pytest.fixture
def spaces() -> Iterator[StandIn]:
    with zero_gpu() as stand_in:
        yield stand_in


@pytest.fixture
def runtime(spaces: StandIn, garments: Registry) -> Runtime:
    """As ``app.py`` makes it; one of two classifiers is there at the start."""
    predictors = Predictors(precision=torch.float32)
    predictors.model_cache.get(garments.find(OWN))
    return Runtime(predictors, garments)


def by_visitor(work: Callable[..., Any], *arguments: Any) -> Any:
    """What a thread of Gradio's gets."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work, *arguments).result(60)


def test_what_is_imported_under_the_stand_in_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    before = sys.modules.get("spaces")
    with zero_gpu() as stand_in:
        assert sys.modules["spaces"] is stand_in
        importlib.import_module("colorsys")
    assert "colorsys" in sys.modules and sys.modules.get("spaces") is before


def test_a_picture_borrows_a_gpu_for_five_seconds_and_gets_the_same_answer(
    runtime: Runtime, spaces: StandIn, photo: Path
) -> None:
    specs = runtime.registry.find(OWN), runtime.registry.find(OWN_BASELINE)
    by_visitor(runtime.predictors.model_cache.get, specs[1])  # chosen later: its weights wait on this process' CPU
    run = by_visitor(runtime.classify_file, str(photo), *specs)
    assert spaces.requested_s == [5]
    alone = Predictors(torch.device("cpu"), torch.float32).classify_file(photo, *specs)
    for lent, own in ((run.model, alone.model), (run.baseline, alone.baseline)):
        assert [entry.label for entry in lent.predictions] == [entry.label for entry in own.predictions]
        assert lent.predictions[0].probability == pytest.approx(own.predictions[0].probability, abs=1e-5)
        assert all(np.array_equal(a.assignment, b.assignment) for a, b in zip(lent.regions, own.regions, strict=True))
    assert torch.equal(run.picture.prepared.image, alone.picture.prepared.image)


def test_outside_of_a_lent_process_only_the_main_thread_may_use_cuda(spaces: StandIn) -> None:
    assert torch.zeros(1).to("cuda").sum() == 0
    with pytest.raises((RuntimeError, AssertionError), match=NO_CUDA[:20]):
        by_visitor(lambda: torch.zeros(1).to("cuda"))


def test_errors_for_people_keep_their_words(runtime: Runtime, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    spec = runtime.registry.find(OWN)
    with pytest.raises(MediaError, match="not an image"):
        by_visitor(runtime.classify_one, str(tmp_path / "text.png"), spec)

    def short_of_memory() -> Iterator[int]:
        yield 1
        raise torch.OutOfMemoryError

    steps = borrowing(short_of_memory)()
    assert next(steps) == 1
    with pytest.raises(UserError, match="not enough memory"):
        next(steps)


def test_what_cannot_be_pickled_and_mistakes_are_errors(spaces: StandIn) -> None:
    with pytest.raises(Exception, match="pickle"):
        borrowing(id)(lambda: None)
    with pytest.raises(gr.Error, match="ZeroDivisionError"):
        borrowing(lambda: 1 / 0)()
    with pytest.raises(gr.Error, match="aborted"):
        borrowing(lambda: os._exit(1))()


def test_a_lock_that_is_held_while_a_process_is_forked_holds_up_nobody(runtime: Runtime, photo: Path) -> None:
    cache, spec = runtime.predictors.model_cache, runtime.registry.find(OWN)
    held, done = threading.Event(), threading.Event()

    def load() -> None:
        with cache._loading[spec.name], cache._lock:
            held.set()
            done.wait(60)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(load)
        held.wait(60)
        try:
            assert by_visitor(runtime.classify_one, str(photo), spec)[1].predictions
        finally:
            done.set()


def test_a_comparison_asks_for_its_bound_and_can_be_left(runtime: Runtime, spaces: StandIn, photo: Path) -> None:
    pair = runtime.registry.find(OWN), runtime.registry.find(OWN_BASELINE)
    states = runtime.benchmark_classifiers(str(photo), *pair, None)
    assert next(states).model.spec == pair[0]
    states.close()
    assert spaces.requested_s == [11] and comparison_seconds(str(photo), *pair, 4) == 37


def test_a_clip_asks_for_seconds_by_its_frames(runtime: Runtime, spaces: StandIn, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4")
    job = ClipJob(CLASSIFY, runtime.registry.find(OWN), None, 0)
    assert [progress.done for progress in runtime.process_clip(str(clip), str(tmp_path), job)][-1]
    assert spaces.requested_s == [6] and (tmp_path / job.file_names[0]).stat().st_size


def test_no_clip_asks_for_more_than_a_day_gives(garments: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demo.space.lending.probe", lambda path: SimpleNamespace(frames=5000))
    detector = garments.first("detect")
    assert clip_seconds("clip.mp4", ".", ClipJob(DETECT, detector, None, 320)) == MOST_S < 120


def test_the_models_that_the_tabs_begin_with(garments: Registry) -> None:
    names = [spec.name for spec in default_models(Registry(garments, hub=True))]
    assert names[:2] == ["stvit_r_swin_small_224", "stvit_r_swin_small_cascade_mask_rcnn"]
    assert names[-1] == "swin_small_patch4_window7_224" and len(names) == 5
    offline = default_models(Registry(garments, hub=False))
    assert all(spec.bundled for spec in offline)
