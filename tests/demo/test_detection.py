from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

import demo.benchmark
import demo.dense_benchmark
from demo.charts.dense import detection_steps
from demo.dense_benchmark import benchmark_backbones
from demo.model_cache import OutOfMemory
from demo.predictors import SHORT_SIDES, BadSize, Predictors, check_short_side
from stvit.predict.detector import published_scale
from stvit.predict.media import MediaError, read_image
from tests.demo.conftest import OFFERED, asked_together
from tests.narrow_models import DETECTOR, DETECTORS, narrowed
from tests.sure_detector import PHOTO

CPU = torch.device("cpu")
OURS, FULL = (spec for spec in narrowed(OFFERED, DETECTORS) if spec.name in (DETECTOR, "swin_small_cascade_mask_rcnn"))
CUDA_ERROR = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
CPU_ERROR = RuntimeError("[enforce fail] . DefaultCPUAllocator: not enough memory: you tried to allocate 17 GB.")


@pytest.fixture
def cramped(predictors: Predictors) -> Callable[[int, Exception], list[tuple[int, ...]]]:
    """A device whose memory holds nothing longer than a number of pixels; returns the sizes that were tried."""

    def cramp(longest: int, error: Exception) -> list[tuple[int, ...]]:
        detector = predictors.model_cache.get(OURS).network
        backbone, tried = detector.backbone.forward, []

        def run_if_it_fits(images: torch.Tensor, **options: Any) -> Any:
            tried.append(tuple(images.shape[2:]))
            if max(images.shape[2:]) > longest:
                raise error
            return backbone(images, **options)

        detector.backbone.forward = run_if_it_fits
        predictors.first_use(detector)
        return tried

    return cramp


def test_the_result_is_that_of_the_detector_alone(with_weights: None, photo: Path) -> None:
    predictors = Predictors(CPU, torch.float32)
    run = predictors.detect_file(photo, OURS, 320)
    expected = predictors.model_cache.get(OURS).network.predict(run.source.pixels, published_scale(320), proposals=300)
    found = run.result.found
    assert 0 < len(found) == len(expected) <= 100
    for name in ("boxes", "scores", "labels", "mask_probabilities"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))
    assert found.image_hw == (300, 420)


def test_requests_of_scripts_run_together_and_get_the_objects_that_they_get_alone(
    with_weights: None, photo: Path
) -> None:
    predictors, pixels = Predictors(CPU, torch.float32), read_image(photo).pixels
    predictors.batches._most_pixels = 10**9
    pictures = [pixels, pixels[:, ::-1].copy(), pixels[::-1].copy()]
    alone = [predictors.detect(picture, OURS, 320) for picture in pictures]
    together = asked_together(predictors, lambda picture: predictors.detect(picture, OURS, 320), pictures)
    assert len({answer.times for answer in together}) == 1  # of the one batch
    for one, other in zip(alone, together, strict=True):
        assert len(one.found) == len(other.found) > 0
        for name in ("boxes", "scores", "labels", "mask_probabilities"):
            torch.testing.assert_close(getattr(one.found, name), getattr(other.found, name), atol=1e-3, rtol=1e-3)
        assert all(
            (mine.assignment == its.assignment).all() for mine, its in zip(one.regions, other.regions, strict=True)
        )


def test_on_a_cpu_the_heads_look_at_fewer_proposals_and_that_is_said(with_weights: None, photo: Path) -> None:
    predictors = Predictors(CPU)
    result = predictors.detect_file(photo, OURS, 320).result
    assert result.proposals == (300, 1000)
    steps = detection_steps(OURS, result)
    assert "300 proposals at most where its own setting is 1000" in steps
    assert "All ran on eager PyTorch." in steps
    predictors.device = torch.device("cuda")
    assert predictors.detector(predictors.model_cache.get(OURS)).proposals == 1000


def test_in_bfloat16_the_sure_objects_stay_where_they_are(with_weights: None) -> None:
    exact, fast = (
        Predictors(CPU, precision).detect_file(PHOTO, OURS, 320).result.found
        for precision in (torch.float32, torch.bfloat16)
    )
    sure = exact.scores > 0.5
    assert sure.any()
    distances = torch.cdist(exact.boxes[sure], fast.boxes, p=float("inf"))
    assert (distances.min(dim=1).values < 6).all()


def test_every_step_is_timed_and_the_size_is_said(predictors: Predictors, photo: Path) -> None:
    result = predictors.detect_file(photo, OURS, 480).result
    times = vars(result.times)
    assert times.pop("draw_ms") == 0
    assert all(value > 0 for value in times.values()) and result.times.total_ms == pytest.approx(sum(times.values()))
    assert (result.network_hw, result.padded_hw) == ((480, 672), (480, 672))
    assert result.device == predictors.device_words()


@pytest.mark.parametrize(("height", "width"), [(64, 64), (8, 160), (160, 8), (97, 251), (1333, 100)])
def test_any_shape_gets_regions_that_cover_its_padded_input(with_weights: None, height: int, width: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    result = Predictors(CPU).detect(pixels, OURS, 320)
    for regions in result.regions:
        assert [16 * cells for cells in regions.image_grid_hw] == list(result.padded_hw)
        assert regions.semantic_grid_hw == tuple(3 * -(-cells // 7) for cells in regions.image_grid_hw)
    assert [(entry.unit, entry.layer) for entry in result.regions] == [
        (1, name) for name in ("STGM 1", "STGM 2", "Recovery")
    ]


def test_without_weights_there_are_regions_and_times_but_no_objects(no_weights: Mock, photo: Path) -> None:
    result = Predictors(CPU).detect_file(photo, OURS, 320).result
    assert result.found is None and result.weights == "The Hugging Face Hub cannot be reached."
    assert len(result.regions) == 3 and result.times.backbone_ms > 0


@pytest.mark.parametrize("error", [CUDA_ERROR, CPU_ERROR])
def test_too_little_memory_leads_to_the_next_smaller_size(
    predictors: Predictors, photo: Path, cramped: Callable, error: Exception
) -> None:
    tried = cramped(500, error)
    result = predictors.detect_file(photo, OURS, 640).result
    assert [min(size) for size in tried] == [640, 480, 320]
    assert (result.asked_short_side, result.short_side) == (640, 320)
    assert len(result.found) > 0


def test_no_memory_even_for_the_smallest_size_is_one_message(
    predictors: Predictors, photo: Path, cramped: Callable
) -> None:
    cramped(100, CUDA_ERROR)
    with pytest.raises(OutOfMemory, match="even at the smallest size"):
        predictors.detect_file(photo, OURS, 640)


def test_other_errors_are_not_taken_for_too_little_memory(
    predictors: Predictors, photo: Path, cramped: Callable
) -> None:
    cramped(100, RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        predictors.detect_file(photo, OURS, 640)


@pytest.mark.parametrize("size", [0, 799, "800", True, None, 800.0, 10**9])
def test_sizes_that_are_not_offered_are_refused(size: object) -> None:
    with pytest.raises(BadSize, match="Choose one of 800, 640, 480, 320"):
        check_short_side(size)


def test_sizes_keep_the_published_proportion() -> None:
    assert [published_scale(side) for side in SHORT_SIDES] == [(1333, 800), (1066, 640), (800, 480), (533, 320)]


def test_what_is_no_picture_is_refused(predictors: Predictors, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(MediaError):
        predictors.detect_file(tmp_path / "text.jpg", OURS, 320)


@pytest.fixture
def short_benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo.dense_benchmark, "DENSE", demo.benchmark.Limits(1e-6, 1e-6))
    monkeypatch.setattr(demo.benchmark, "REPORT_EVERY_S", 1e-6)


def test_both_backbones_run_on_the_same_input(predictors: Predictors, photo: Path, short_benchmarks: None) -> None:
    seen: dict[str, list] = {}
    for name in (OURS, FULL):
        inputs = seen.setdefault(name, [])
        backbone = predictors.model_cache.get(name).network.backbone
        backbone.register_forward_pre_hook(lambda _, arguments, inputs=inputs: inputs.append(arguments[0]))
    states = list(benchmark_backbones(predictors, photo, OURS, FULL, 320))
    ours, theirs = ([images for images in inputs if not images.is_meta] for inputs in seen.values())  # meta: counted
    assert len(ours) == len(theirs) >= demo.benchmark.MIN_ROUNDS
    assert all(torch.equal(a, ours[0]) for a in (*ours, *theirs))
    assert states[-1].done and states[-1].single.speed_up.median > 0
    assert "input 320 × 448" in states[-1].device
    assert states[0].model.macs != states[0].baseline.macs and states[0].single is None


def test_a_benchmark_falls_back_to_a_size_that_fits_and_says_so(
    predictors: Predictors, photo: Path, short_benchmarks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = predictors.model_cache.get(FULL).network.backbone

    def fail_if_large(_: object, arguments: tuple) -> None:
        if max(arguments[0].shape) > 500:
            raise CUDA_ERROR

    backbone.register_forward_pre_hook(fail_if_large)
    last = list(benchmark_backbones(predictors, photo, OURS, FULL, 480))[-1]
    assert "input 320 × 448, as there was not enough memory for 480" in last.device


def test_a_picture_of_the_largest_size_is_drawn_where_its_objects_are(predictors: Predictors, photo: Path) -> None:
    pixels = np.repeat(np.repeat(read_image(photo).pixels, 8, axis=0), 8, axis=1)
    found = predictors.detect(pixels, OURS, 320).found
    assert found.image_hw == (2400, 3360)
    assert found.boxes[:, 2].max() > 1000
