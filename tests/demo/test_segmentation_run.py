"""A picture through a segmenter: the class of every pixel, its time, and what is done where memory is short."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import demo.benchmark
import demo.dense_benchmark
import demo.model_cache
import stvit.predict.segmenter
from demo.charts.dense import segmenters
from demo.dense_benchmark import benchmark_segmenters
from demo.model_cache import OutOfMemory
from demo.page.examples import garment_examples
from demo.predictors import Predictors
from demo.registry import ModelSpec, Registry
from stvit.predict.media import MediaError
from stvit.pretrained.hub import WeightsUnavailable
from tests.demo.conftest import asked_together
from tests.sure_detector import PHOTO

SCENE = garment_examples("scene")[0].path
CPU = torch.device("cpu")
NO_MEMORY = RuntimeError("[enforce fail] . DefaultCPUAllocator: not enough memory: you tried to allocate 17 GB.")


@pytest.fixture
def exact() -> Predictors:
    """Predictors in full precision."""
    return Predictors(CPU, torch.float32)


@pytest.fixture
def ours(garments: Registry) -> ModelSpec:
    """A segmenter with semantic tokens."""
    return garments.find("garments_segment_stvit_r")


@pytest.fixture
def full(garments: Registry) -> ModelSpec:
    """The segmenter with all tokens."""
    return garments.find("garments_segment_swin")


@pytest.mark.parametrize("kind", ["ours", "full"])
def test_a_scene_gets_the_labels_that_the_model_predicts_in_its_evaluation(
    exact: Predictors, kind: str, request: pytest.FixtureRequest
) -> None:
    segmenter = request.getfixturevalue(kind)
    run = exact.segment_file(SCENE, segmenter)
    expected = exact.model_cache.get(segmenter).network.predict(run.source.pixels, scale=(224, 224))
    np.testing.assert_array_equal(run.result.labels, expected)
    assert run.result.network_hw == (224, 224) and run.result.labels.dtype == np.uint8


def test_a_larger_picture_gets_the_same_labels_too(exact: Predictors, ours: ModelSpec) -> None:
    run = exact.segment_file(PHOTO, ours)
    expected = exact.model_cache.get(ours).network.predict(run.source.pixels, scale=(224, 224)).numpy()
    assert run.result.labels.shape == (675, 900) and run.result.network_hw == (168, 224)
    np.testing.assert_array_equal(run.result.labels, expected)


def test_a_photo_that_was_turned_is_labelled_upright(exact: Predictors, tmp_path: Path, full: ModelSpec) -> None:
    with Image.open(PHOTO) as photo:
        exif = Image.Exif()
        exif[0x0112] = 6
        photo.save(tmp_path / "turned.jpg", exif=exif)
    assert exact.segment_file(tmp_path / "turned.jpg", full).result.labels.shape == (900, 675)


@pytest.mark.parametrize(("height", "width"), [(8, 160), (160, 8), (97, 251)])
def test_any_shape_is_labelled_and_its_regions_cover_it(
    exact: Predictors, height: int, width: int, ours: ModelSpec
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    result = exact.segment(pixels, ours)
    assert result.labels.shape == (height, width)
    assert [entry.layer for entry in result.regions] == ["STGM 1", "STGM 2", "Recovery"]
    for regions in result.regions:
        assert all(16 * cells >= side for cells, side in zip(regions.image_grid_hw, result.network_hw, strict=True))


def test_areas_add_up_to_the_picture_largest_first(exact: Predictors, ours: ModelSpec) -> None:
    result = exact.segment_file(SCENE, ours).result
    areas = result.areas()
    assert sum(area.pixels for area in areas) == result.labels.size
    assert [area.pixels for area in areas] == sorted((area.pixels for area in areas), reverse=True)
    for area in areas:
        assert area.name == result.classes[area.label] and area.pixels == (result.labels == area.label).sum()
        assert area.share == pytest.approx(area.pixels / 224**2)


def test_every_step_is_timed(exact: Predictors, full: ModelSpec) -> None:
    times = vars(exact.segment_file(SCENE, full).result.times)
    assert times.pop("draw_ms") == 0 and all(value > 0 for value in times.values())


def test_a_model_with_all_tokens_has_no_regions(exact: Predictors, full: ModelSpec) -> None:
    assert exact.segment_file(SCENE, full).result.regions == ()


@pytest.fixture
def cramped(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """There is no memory for maps of more than 600 pixels; returns the sides that were tried."""
    make, tried = stvit.predict.segmenter.label_map, []

    def make_if_it_fits(scores: torch.Tensor, hw: tuple[int, int]) -> torch.Tensor:
        tried.append(max(hw))
        if max(hw) > 600:
            raise NO_MEMORY
        return make(scores, hw)

    monkeypatch.setattr(stvit.predict.segmenter, "label_map", make_if_it_fits)
    return tried


def test_where_memory_is_short_classes_are_found_on_a_coarser_map(
    exact: Predictors, cramped: list[int], ours: ModelSpec
) -> None:
    exact.first_use(exact.model_cache.get(ours).network)
    fine = exact.segment_file(SCENE, ours).result
    pixels = np.kron(np.array(Image.open(SCENE).convert("RGB")), np.ones((6, 6, 1), np.uint8))
    cramped.clear()
    result = exact.segment(pixels, ours)
    assert cramped == [1344, 1024, 512]
    assert (result.labelled_side, fine.labelled_side) == (512, 224)
    assert result.labels.shape == (1344, 1344)
    assert (result.labels[3::6, 3::6] == fine.labels).mean() > 0.9


def test_requests_of_scripts_run_together_and_get_the_labels_that_they_get_alone(
    exact: Predictors, cramped: list[int], ours: ModelSpec
) -> None:
    small = np.array(Image.open(SCENE).convert("RGB"))
    large = small.repeat(3, axis=0).repeat(3, axis=1)
    mirrored = [small, small[::-1], small[:, ::-1]]
    for pictures, passes in ((mirrored, 1), ([small, large], 2)):  # there is no room for a map of the large one's size
        alone = [exact.segment(picture, ours) for picture in pictures]
        together = asked_together(exact, lambda picture: exact.segment(picture, ours), pictures)
        assert len({answer.times for answer in together}) == passes
        for one, other in zip(alone, together, strict=True):
            assert one.labels.shape == other.labels.shape and one.labelled_side == other.labelled_side
            assert (one.labels == other.labels).mean() > 0.999


def test_no_memory_even_for_the_smallest_map_is_one_message(
    exact: Predictors, monkeypatch: pytest.MonkeyPatch, ours: ModelSpec, full: ModelSpec
) -> None:
    network = exact.model_cache.get(ours).network
    exact.first_use(network)
    network.backbone.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(NO_MEMORY))
    with pytest.raises(OutOfMemory, match="has not enough memory"):
        exact.segment_file(SCENE, ours)
    with pytest.raises(OutOfMemory, match="has not enough memory"):
        next(benchmark_segmenters(exact, SCENE, ours, full))


def test_without_weights_there_are_regions_and_times_but_no_labels(
    ours: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(record: object) -> None:
        raise WeightsUnavailable("damaged", "Its file is damaged.", "Install the page anew.")

    monkeypatch.setattr(demo.model_cache, "resolve_card", damaged)
    result = Predictors(CPU).segment_file(SCENE, ours).result
    assert result.labels is None and result.weights == "Its file is damaged."
    assert len(result.regions) == 3 and result.times.model_ms > 0
    with pytest.raises(ValueError, match="nothing is labelled"):
        result.areas()


def test_what_is_no_picture_is_refused(exact: Predictors, ours: ModelSpec, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(MediaError):
        exact.segment_file(tmp_path / "text.jpg", ours)


def test_both_segmenters_run_as_wholes_in_turns_on_the_same_input(
    exact: Predictors, monkeypatch: pytest.MonkeyPatch, ours: ModelSpec, full: ModelSpec
) -> None:
    monkeypatch.setattr(demo.dense_benchmark, "DENSE", demo.benchmark.Limits(1e-6, 1e-6))
    monkeypatch.setattr(demo.benchmark, "REPORT_EVERY_S", 1e-6)
    seen: dict[ModelSpec, list[torch.Tensor]] = {ours: [], full: []}
    for spec, inputs in seen.items():
        network = exact.model_cache.get(spec).network
        network.backbone.register_forward_pre_hook(lambda _, arguments, inputs=inputs: inputs.append(arguments[0]))
    states = list(benchmark_segmenters(exact, PHOTO, ours, full))
    mine, theirs = ([images for images in inputs if not images.is_meta] for inputs in seen.values())
    assert len(mine) == len(theirs) >= demo.benchmark.MIN_ROUNDS
    assert all(torch.equal(images, mine[0]) for images in (*mine, *theirs))
    last = states[-1]
    assert last.done and (last.model.spec, last.baseline.spec) == (ours, full)
    assert last.single.speed_up.median > 0 and last.model.macs < last.baseline.macs
    assert "input 168 × 224" in last.device
    assert last.single.engine == "eager" and last.model.peak_memory_bytes > 0


def test_both_segmenters_run_under_the_engine_of_the_page_which_is_named(
    monkeypatch: pytest.MonkeyPatch, direct: None, ours: ModelSpec, full: ModelSpec
) -> None:
    monkeypatch.setattr(demo.dense_benchmark, "DENSE", demo.benchmark.Limits(1e-6, 1e-6))
    *_, last = benchmark_segmenters(Predictors(CPU, torch.float32, engine="openvino"), PHOTO, ours, full)
    assert last.single.engine == "openvino" and last.model.peak_memory_bytes is None
    chart = segmenters(last)
    assert "One image at a time, OpenVINO" in chart and "ms for one picture on OpenVINO" in chart
