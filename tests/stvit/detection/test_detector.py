"""The whole detector against the authors' code, and the laws that any image must obey."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import stvit
from stvit.detection import CascadeMaskRCNN
from stvit.detection.detections import paste_masks
from tests.golden.fill import fill

GOLDEN = Path(__file__).parents[2] / "golden" / "detection"
FIGURES = json.loads((GOLDEN / "detector.json").read_text())
NARROW = {
    "embed_dim": 16,
    "depths": (1, 1, 6, 1),
    "num_heads": (1, 2, 4, 8),
    "fpn_channels": 16,
    "box_hidden": 32,
    "num_classes": 5,
}


def released_state_dict(size: str) -> dict[str, torch.Tensor]:
    """A state dict named as the authors name it, filled by rule, changed so that scores, boxes and masks vary."""
    state = fill(json.loads((GOLDEN / f"released_shapes_{size}.json").read_text()), attention_gain=1.0)
    if size == "small":
        for name, change in FIGURES["overrides"].items():
            state[name] = torch.tensor(change["set"]) if "set" in change else state[name] * np.float32(change["mul"])
    return state


def narrow(name: str = "stvit_r_swin_small_cascade_mask_rcnn", **options) -> CascadeMaskRCNN:
    torch.manual_seed(0)
    detector = stvit.create_model(name, **NARROW | options)
    for head in detector.roi_head.bbox_head:  # untrained logits are all alike
        torch.nn.init.normal_(head.fc_cls.weight, std=100.0)
        torch.nn.init.normal_(head.fc_reg.weight, std=5.0)
    return detector


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.asarray(Image.open(GOLDEN / "image.png").convert("RGB"))


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / "detector.safetensors")


@pytest.fixture(scope="module")
def golden_detector(tmp_path_factory) -> CascadeMaskRCNN:
    file = tmp_path_factory.mktemp("published") / "published.pth"
    torch.save({"meta": {"epoch": 36}, "state_dict": released_state_dict("small"), "optimizer": {}}, file)
    detector = stvit.create_model("stvit_r_swin_small_cascade_mask_rcnn")
    counters = {n: t for n, t in detector.state_dict().items() if n.endswith("num_batches_tracked")}
    converted = detector.convert_released_state_dict(stvit.checkpoint.read_checkpoint(file))
    detector.load_state_dict(converted | counters)
    return detector


@pytest.mark.slow
def test_every_step_equals_the_authors_code(golden_detector, golden, photo):
    """Tolerances are the reference's own float32 noise with a margin."""

    def close(name: str, found: torch.Tensor, atol: float) -> None:
        stride = FIGURES["strides"].get(name, 1)
        expected = golden[name]
        torch.testing.assert_close(
            found.flatten()[::stride].view(expected.shape), expected, atol=atol, rtol=0, msg=lambda m: f"{name}: {m}"
        )

    with torch.inference_mode():
        prepared = golden_detector.prepare(photo, tuple(FIGURES["scale"]))
        close("input", prepared.images, 1e-5)
        assert list(prepared.network_hw) == FIGURES["network_hw"]
        assert prepared.scale_factors.tolist() == FIGURES["scale_factors"]
        features = golden_detector.extract_features(prepared.images)
        for i, (feature, (logits, deltas)) in enumerate(zip(features, golden_detector.rpn_head(features), strict=True)):
            close(f"fpn.{i}", feature, 1e-4)
            close(f"rpn_cls.{i}", logits, 1e-4)
            close(f"rpn_reg.{i}", deltas, 2e-5)
        proposals = golden_detector.propose(features, prepared.network_hw)
        assert len(proposals) == 1000
        nearest = torch.cdist(golden["proposals_top200"][:, :4], proposals, p=float("inf")).min(dim=1).values
        assert nearest.max() < 5e-3
        boxes, scores, labels = golden_detector.classify(features, proposals, prepared)
        close("det_boxes", boxes, 5e-3)
        close("det_scores", scores, 3e-5)
        assert torch.equal(labels, golden["det_labels"].long())
        masks = golden_detector.segment(features, boxes, labels, prepared)
        close("mask_prob_of_label_first5", masks[:5], 3e-5)


@pytest.mark.slow
def test_predicted_masks_equal_the_authors_code(golden_detector, photo):
    mask = pytest.importorskip("pycocotools.mask")
    detections = golden_detector.predict(photo, tuple(FIGURES["scale"]))
    masks = detections.masks()
    areas = masks.sum(dim=(1, 2))
    torch.testing.assert_close(areas, torch.tensor(FIGURES["mask_areas"]), atol=3, rtol=0)
    for found, counts in zip(masks.numpy(), FIGURES["mask_rles"], strict=False):
        expected = mask.decode({"size": list(photo.shape[:2]), "counts": counts}).astype(bool)
        assert (found & expected).sum() > 0.999 * (found | expected).sum()


@pytest.mark.slow
@pytest.mark.parametrize("size", ["small", "base"])
def test_released_names_cover_every_parameter(size):
    with torch.device("meta"):
        detector = timm.create_model(f"stvit_r_swin_{size}_cascade_mask_rcnn")
    converted = detector.convert_released_state_dict(released_state_dict(size))
    own = {n: t.shape for n, t in detector.state_dict().items() if not n.endswith("num_batches_tracked")}
    assert {n: t.shape for n, t in converted.items()} == own


def test_own_checkpoints_pass_a_file_unchanged(tmp_path, photo):
    first = narrow()
    save_file(first.state_dict(), tmp_path / "own.safetensors")
    torch.manual_seed(1)
    second = stvit.create_model(
        "stvit_r_swin_small_cascade_mask_rcnn", checkpoint=tmp_path / "own.safetensors", **NARROW
    )
    expected, found = (d.predict(photo, scale=(200, 120)) for d in (first, second))
    assert len(expected) and torch.equal(found.boxes, expected.boxes) and torch.equal(found.labels, expected.labels)


@pytest.mark.parametrize("name", ["stvit_r_swin_small_cascade_mask_rcnn", "swin_base_cascade_mask_rcnn"])
def test_detections_lie_in_the_source_image_best_first(name, photo):
    detections = narrow(name).predict(photo, scale=(300, 160), score_threshold=0.2)
    assert 0 < len(detections) <= 100
    assert detections.image_hw == photo.shape[:2]
    boxes, scores = detections.boxes, detections.scores
    assert (boxes >= 0).all() and (boxes[:, 0::2] <= 640).all() and (boxes[:, 1::2] <= 300).all()
    assert (scores > 0.2).all() and (scores[:-1] >= scores[1:]).all()
    assert detections.labels.min() >= 0 and detections.labels.max() < 5
    masks = detections.masks()
    assert masks.shape == (len(detections), 300, 640)
    outside = torch.ones_like(masks)
    for keep, (x0, y0, x1, y1) in zip(outside, boxes.tolist(), strict=True):
        keep[max(int(y0) - 1, 0) : int(y1) + 2, max(int(x0) - 1, 0) : int(x1) + 2] = False
    assert not (masks & outside).any()


def test_visible_steps_make_the_prediction(photo):
    detector = narrow()
    expected = detector.predict(photo, scale=(240, 160))
    with torch.inference_mode():
        prepared = detector.prepare(photo, (240, 160))
        features = detector.extract_features(prepared.images)
        proposals = detector.propose(features, prepared.network_hw)
        boxes, _, labels = detector.classify(features, proposals, prepared)
        masks = detector.segment(features, boxes, labels, prepared)
    assert torch.equal(boxes, expected.boxes) and torch.equal(masks, expected.mask_probabilities)
    assert torch.equal(paste_masks(masks, boxes, prepared.source_hw), expected.masks())


def test_fewer_proposals_are_the_best_of_all(photo):
    detector = narrow()
    with torch.inference_mode():
        prepared = detector.prepare(photo, (240, 160))
        features = detector.extract_features(prepared.images)
        every, few = (detector.propose(features, prepared.network_hw, many) for many in (None, 30))
        expected = detector.detect(features, prepared, proposals=30)
    assert 300 < len(every) <= 1000 and torch.equal(few, every[:30])
    found = detector.predict(photo, (240, 160), proposals=30)
    assert torch.equal(found.boxes, expected.boxes)
    assert not torch.equal(found.boxes, detector.predict(photo, (240, 160)).boxes)
    with pytest.raises(ValueError, match="proposals=0"):
        detector.predict(photo, (240, 160), proposals=0)


def test_nothing_found_is_an_empty_result(photo):
    detections = narrow().predict(photo, scale=(160, 96), score_threshold=0.999999)
    assert len(detections) == 0
    assert detections.masks().shape == (0, 300, 640) and detections.mask_probabilities.shape == (0, 28, 28)


def test_half_precision_finds_the_same_objects(photo):
    """Heads decide in float32; only convolutions and attention run in the lower precision."""
    full = narrow().predict(photo, scale=(240, 160), score_threshold=0.3)
    half = narrow().bfloat16().predict(photo, scale=(240, 160), score_threshold=0.3)
    assert half.boxes.dtype == half.scores.dtype == half.mask_probabilities.dtype == torch.float32
    best = full.boxes[:5]
    nearest = torch.cdist(best, half.boxes, p=float("inf")).min(dim=1).values
    assert nearest.max() < 1  # pixel


@pytest.mark.parametrize("hw", [(1, 1), (3, 500), (40, 33)])
def test_any_image_size_goes_through(hw):
    pixels = np.random.default_rng(0).integers(0, 256, (*hw, 3), dtype=np.uint8)
    assert narrow().predict(pixels, scale=(200, 120)).image_hw == hw
