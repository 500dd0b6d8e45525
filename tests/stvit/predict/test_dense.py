"""Detectors and segmenters on pictures: the same as the networks say alone, with regions and steps on request."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

import stvit
from stvit.detection import CascadeMaskRCNN
from stvit.predict.detector import Detector
from stvit.predict.segmenter import Segmenter
from stvit.predict.timing import FirstUse, timed
from stvit.segmentation import UperNet
from tests.narrow_models import DETECTOR, NARROW_DETECTOR
from tests.sure_detector import make_sure

SCALE = (200, 120)
PRECISIONS = [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.slow)]
NARROW_UPERNET = {"embed_dim": 16, "depths": (1, 1, 6, 1), "num_heads": (1, 2, 4, 8), "channels": 16}


def picture(height: int = 90, width: int = 150) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture(scope="module")
def detector() -> CascadeMaskRCNN:
    torch.manual_seed(0)
    return stvit.create_model(DETECTOR, **NARROW_DETECTOR)


@pytest.fixture(scope="module")
def segmenter() -> UperNet:
    torch.manual_seed(0)
    return stvit.create_model("stvit_r_swin_small_upernet", num_classes=5, auxiliary_channels=8, **NARROW_UPERNET)


def test_a_detector_finds_what_its_network_finds(detector: CascadeMaskRCNN) -> None:
    expected = detector.predict(picture(), SCALE, score_threshold=0.0)
    result = Detector(detector)(picture(), scale=SCALE, least_score=0.0)
    assert 0 < len(result.found) == len(expected) and result.regions == ()
    for name in ("boxes", "scores", "labels", "mask_probabilities"):
        torch.testing.assert_close(getattr(result.found, name), getattr(expected, name))


def test_a_detector_looks_at_as_many_proposals_as_it_is_told(detector: CascadeMaskRCNN) -> None:
    expected = detector.predict(picture(), SCALE, score_threshold=0.0, proposals=7)
    found = Detector(detector, proposals=7)(picture(), scale=SCALE, least_score=0.0).found
    torch.testing.assert_close(found.boxes, expected.boxes)
    every = Detector(detector)
    assert every.proposals == 1000
    assert not torch.equal(every(picture(), scale=SCALE, least_score=0.0).found.boxes, expected.boxes)
    with pytest.raises(ValueError, match="proposals=0"):
        Detector(detector, proposals=0)


def test_regions_of_a_detector_cover_its_padded_input(detector: CascadeMaskRCNN) -> None:
    result = Detector(detector)(picture(), scale=SCALE, regions="all", objects=False)
    assert result.found is None and [entry.layer for entry in result.regions] == ["STGM 1", "STGM 2", "Recovery"]
    assert result.network_hw == (120, 200) and result.padded_hw == (128, 224)
    assert all(entry.image_grid_hw == (8, 14) and entry.attention is None for entry in result.regions)
    assert result.geometry.input_xyxy == pytest.approx((0, 0, 168, 96))


def test_the_steps_of_a_detection_are_timed_from_outside(detector: CascadeMaskRCNN) -> None:
    predictor = Detector(detector)
    _, laps_ms = timed(predictor.compute, predictor, picture(), scale=SCALE, regions="last")
    assert list(laps_ms) == ["prepare", "backbone", "proposals", "heads", "masks"]
    assert all(value > 0 for value in laps_ms.values())


@pytest.fixture
def graphs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache of graphs."""
    monkeypatch.setenv("STVIT_CACHE", str(tmp_path))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_detector_finds_the_same_under_openvino(
    detector: CascadeMaskRCNN, precision: torch.dtype, graphs: None
) -> None:
    exact = copy.deepcopy(detector)
    with torch.inference_mode():
        make_sure(exact)
    network = copy.deepcopy(exact).to(precision)
    by_graph = Detector(network, proposals=60, engine="openvino", wait=True)
    looks = [Detector(network, proposals=60), by_graph]
    eager, own = (one(picture(), scale=SCALE, regions="last") for one in looks)
    assert (eager.engine, eager.heads_engine) == ("eager", "eager")
    assert (own.engine, own.heads_engine) == ("openvino", "openvino")
    assert by_graph.engine.answered == {"openvino": 5} and by_graph.engine.graph_bytes > 0
    if precision == torch.float32:
        assert torch.equal(own.found.labels, eager.found.labels) and (own.found.scores > 0.5).any()
        torch.testing.assert_close(own.found.boxes, eager.found.boxes, atol=0.05, rtol=0)
        for name in ("scores", "mask_probabilities"):
            torch.testing.assert_close(getattr(own.found, name), getattr(eager.found, name), atol=1e-4, rtol=0)
        return
    true = Detector(exact, proposals=60)(picture(), scale=SCALE).found
    sure = true.boxes[true.scores > 0.5]
    of_eager, of_graph = (torch.cdist(sure, one.found.boxes, p=float("inf")).amin(dim=1).max() for one in (eager, own))
    assert of_graph < 2 * of_eager + 1


def test_without_objects_no_mask_head_runs(detector: CascadeMaskRCNN) -> None:
    predictor = Detector(detector, proposals=5)
    found = predictor(picture(), scale=SCALE, least_score=1.0).found
    assert len(found) == 0 and found.mask_probabilities.shape == (0, 28, 28)
    assert predictor.engine.answered == {"eager": 4}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_segmenter_labels_the_same_under_openvino(segmenter: UperNet, precision: torch.dtype, graphs: None) -> None:
    network = copy.deepcopy(segmenter).to(precision)
    how = {"classes": tuple("abcde"), "scale": (128, 128)}
    true = Segmenter(segmenter.float(), **how)(picture()).labels
    eager, own = (
        Segmenter(network, **how)(picture()),
        Segmenter(network, engine="openvino", wait=True, **how)(picture()),
    )
    assert (eager.engine, own.engine) == ("eager", "openvino")
    of_eager, of_graph = ((one.labels != true).mean() for one in (eager, own))
    assert of_graph <= 2 * of_eager + 1e-3


@pytest.mark.parametrize("size", [(90, 150), (64, 64), (151, 40)])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_segmenter_gives_every_pixel_the_class_that_its_network_predicts(
    segmenter: UperNet, size: tuple[int, int], precision: torch.dtype
) -> None:
    network = segmenter.to(precision)
    expected = network.predict(picture(*size), scale=(128, 128))
    result = Segmenter(network, classes=tuple("abcde"), scale=(128, 128))(picture(*size))
    np.testing.assert_array_equal(result.labels, expected)
    assert sum(area.pixels for area in result.areas()) == size[0] * size[1]


def test_a_coarser_map_of_classes_is_enlarged_by_repeating_its_pixels(segmenter: UperNet) -> None:
    predictor = Segmenter(segmenter.float(), classes=tuple("abcde"), scale=(128, 128))
    result = predictor(picture(90, 150), labelled_side=50, regions="last")
    assert result.labels.shape == (90, 150) and result.labelled_side == 50 and len(result.regions) == 1
    np.testing.assert_array_equal(result.labels[::3, ::3].repeat(3, axis=0).repeat(3, axis=1), result.labels)


def test_a_first_use_is_one_for_each_network_and_way(segmenter: UperNet, detector: CascadeMaskRCNN) -> None:
    first_use = FirstUse()
    assert [first_use(segmenter), first_use(segmenter), first_use(segmenter, "batch"), first_use(detector)] == [
        True,
        False,
        True,
        True,
    ]
