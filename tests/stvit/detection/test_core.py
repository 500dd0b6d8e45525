"""Single functions of the detector against the reference's own numbers, and their laws."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torchvision.ops import batched_nms, clip_boxes_to_image

from stvit.class_names import COCO_CATEGORY_IDS, COCO_CLASSES
from stvit.detection import Detections
from stvit.detection.boxes import decode_deltas, encode_deltas
from stvit.detection.detections import mask_in_image, paste_masks
from stvit.detection.preprocess import prepare, resize_bilinear
from stvit.detection.region_crops import MANY_CHANNELS, RegionCrops
from stvit.detection.roi_heads import STAGE_STDS, select_detections
from stvit.detection.rpn import STRIDES, grid_anchors, select_proposals

GOLDEN = Path(__file__).parents[2] / "golden" / "detection"


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / "ops.safetensors")


@pytest.mark.parametrize("level", range(5))
def test_anchors(golden, level):
    grid_hw = [(4, 6), (2, 3), (1, 2), (1, 1), (1, 1)][level]
    torch.testing.assert_close(grid_anchors(grid_hw, STRIDES[level]), golden[f"anchors.grid{level}"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("stage", range(4))
def test_decoding(golden, stage):
    stds = ((1.0, 1.0, 1.0, 1.0), *STAGE_STDS)[stage]
    deltas = golden["decode.deltas"].view(-1, 2, 4)
    found = clip_boxes_to_image(decode_deltas(golden["decode.boxes"], deltas, stds), (300, 417))
    torch.testing.assert_close(found.flatten(1), golden[f"decode.out{stage}"], atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("stds", STAGE_STDS)
def test_encoding_is_the_inverse_of_decoding(stds):
    torch.manual_seed(0)
    corners = torch.rand(2, 50, 2) * 100
    boxes, targets = (torch.cat([c, c + 1 + torch.rand(50, 2) * 40], dim=1) for c in corners)
    torch.testing.assert_close(decode_deltas(boxes, encode_deltas(boxes, targets, stds), stds), targets)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("cells", "name"), [(7, "bbox"), (14, "mask")])
def test_regions_are_cropped_from_the_level_of_their_size(golden, cells, name, training):
    maps = [golden[f"roi.feat{i}_x64"].float() / 64 for i in range(4)]
    channels = maps[0].shape[1]
    pyramid = [one.repeat(1, MANY_CHANNELS, 1, 1).requires_grad_(training) for one in maps]
    found = RegionCrops(pyramid)(golden["roi.rois"], cells)
    assert found.requires_grad is training
    torch.testing.assert_close(found[:, -channels:].flatten(), golden[f"roi.{name}_feats"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("cells", [7, 14])
def test_sums_of_rows_are_what_the_kernel_of_training_crops(cells, precision):
    torch.manual_seed(0)
    pyramid = [torch.randn(2, MANY_CHANNELS, 128 // stride, 160 // stride).to(precision) for stride in (4, 8, 16, 32)]
    corners = torch.rand(200, 2) * torch.tensor([160.0, 128.0])
    boxes = torch.cat([corners, corners + torch.rand(200, 2).square() * 150], dim=1)
    boxes[:6] = torch.tensor(
        [[0, 0, 160, 128], [9, 9, 9, 9], [0, 0, 160, 2], [158, 0, 160, 128], [-40, -40, 4, 4], [200, 150, 300, 190]]
    )
    regions = torch.cat([torch.arange(200)[:, None] % 2, boxes], dim=1)
    found = RegionCrops(pyramid)(regions, cells)
    expected = RegionCrops([feature.requires_grad_() for feature in pyramid])(regions, cells)
    assert found.dtype == expected.dtype == precision
    torch.testing.assert_close(found, expected.detach(), atol=1e-4 if precision == torch.float32 else 2e-2, rtol=0)
    none = RegionCrops([feature.detach() for feature in pyramid])(regions[:0], cells)
    assert none.shape == (0, MANY_CHANNELS, cells, cells)


def test_selecting_detections(golden):
    boxes, scores = golden["mcnms.boxes"], golden["mcnms.scores"]
    found, found_scores, labels = select_detections(boxes.view(len(boxes), -1, 4), scores[:, :-1], 0.05, 0.5, 40)
    torch.testing.assert_close(torch.cat([found, found_scores[:, None]], dim=1), golden["mcnms.dets"])
    assert torch.equal(labels, golden["mcnms.labels"])


def test_suppression_is_the_references(golden):
    kept = batched_nms(golden["bnms.boxes"], golden["bnms.scores"], golden["bnms.ids"], 0.7)
    assert torch.equal(kept, golden["bnms.keep"])


def test_pasting_masks(golden):
    pasted = paste_masks(golden["paste.prob"], golden["paste.boxes"], (120, 160))
    expected = np.unpackbits(golden["paste.mask_bits"].numpy(), axis=1).reshape(-1, 120, 160).astype(bool)
    assert np.array_equal(pasted.numpy(), expected)


def test_a_box_outside_of_the_image_has_an_empty_mask():
    mask, _ = mask_in_image(torch.ones(28, 28), torch.tensor([50.0, 5.0, 60.0, 9.0]), (20, 30))
    assert mask.shape == (0, 0)
    assert not paste_masks(torch.ones(1, 28, 28), torch.tensor([[50.0, 5.0, 60.0, 9.0]]), (20, 30)).any()


@pytest.mark.parametrize(
    ("source_hw", "new_hw"), [((13, 17), (31, 44)), ((64, 48), (20, 15)), ((1, 5), (3, 10)), ((9, 9), (9, 9))]
)
def test_resizing_is_opencvs(source_hw, new_hw):
    cv2 = pytest.importorskip("cv2")
    pixels = np.random.default_rng(0).integers(0, 256, (*source_hw, 3), dtype=np.uint8)
    expected = cv2.resize(pixels, new_hw[::-1], interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(resize_bilinear(torch.from_numpy(pixels), new_hw).numpy(), expected)


@pytest.mark.parametrize(
    ("source_hw", "scale", "network_hw", "padded_hw"),
    [
        ((427, 640), (1333, 800), (800, 1199), (800, 1216)),
        ((640, 427), (1333, 800), (1199, 800), (1216, 800)),
        ((100, 1000), (1333, 800), (133, 1333), (160, 1344)),
        ((1, 4000), (1333, 800), (1, 1333), (32, 1344)),
        ((480, 480), (800, 1333), (800, 800), (800, 800)),
    ],
)
def test_the_scale_bounds_both_sides(source_hw, scale, network_hw, padded_hw):
    prepared = prepare(np.zeros((*source_hw, 3), dtype=np.uint8), scale)
    assert (prepared.network_hw, prepared.images.shape[2:]) == (network_hw, padded_hw)
    x, y = network_hw[1] / source_hw[1], network_hw[0] / source_hw[0]
    torch.testing.assert_close(prepared.scale_factors, torch.tensor([x, y, x, y]))
    assert (prepared.images[..., network_hw[0] :, :] == 0).all()
    assert (prepared.images[..., : network_hw[0], : network_hw[1]] < 0).all()


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), dtype=np.uint8),
        np.zeros((8, 8, 4), dtype=np.uint8),
        np.zeros((8, 8, 3), dtype=np.float32),
        np.zeros((0, 8, 3), dtype=np.uint8),
    ],
    ids=["grey", "alpha", "float", "empty"],
)
def test_what_is_no_rgb_image_is_refused(image):
    with pytest.raises(ValueError, match="expected an RGB image"):
        prepare(image, (1333, 800))


def test_a_scale_without_extent_is_refused():
    with pytest.raises(ValueError, match="too small"):
        prepare(np.zeros((8, 8, 3), dtype=np.uint8), (0, 100))


def test_proposals_of_different_levels_do_not_suppress_each_other():
    anchors = [torch.tensor([[0.0, 0, 50, 50], [1, 1, 50, 50]]), torch.tensor([[0.0, 0, 50, 50]])]
    predictions = [(torch.tensor([2.0, 1.0]), torch.zeros(2, 4)), (torch.tensor([3.0]), torch.zeros(1, 4))]
    boxes, scores = select_proposals(predictions, anchors, (40, 60))
    assert torch.equal(boxes, torch.tensor([[0.0, 0, 50, 40], [0, 0, 50, 40]]))
    torch.testing.assert_close(scores, torch.tensor([3.0, 2.0]).sigmoid())
    assert len(select_proposals(predictions, anchors, (40, 60), kept=1)[0]) == 1


def test_detections_that_do_not_belong_together_are_refused():
    boxes, scores, labels, masks = torch.zeros(2, 4), torch.ones(2), torch.zeros(2).long(), torch.zeros(2, 28, 28)
    assert len(Detections(boxes, scores, labels, masks, (5, 5)).select(scores > 2)) == 0
    with pytest.raises(ValueError, match="do not belong together"):
        Detections(boxes, scores[:1], labels, masks, (5, 5))
    with pytest.raises(ValueError, match="expected 2 masks"):
        Detections(boxes, scores, labels, masks[:1], (5, 5))


def test_coco_names_and_numbers():
    assert len(COCO_CLASSES) == len(set(COCO_CLASSES)) == len(COCO_CATEGORY_IDS) == 80
    numbers = dict(zip(COCO_CLASSES, COCO_CATEGORY_IDS, strict=True))
    known = {"person": 1, "stop sign": 13, "backpack": 27, "tie": 32, "wine glass": 46, "tv": 72, "toothbrush": 90}
    assert {name: numbers[name] for name in known} == known
