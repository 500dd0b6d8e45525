"""The detector's losses put together, and that they teach it."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou, masks_to_boxes

import stvit
from stvit.detection import CascadeMaskRCNN
from stvit.detection.assign import IGNORED, Matching, Samples, Sampling
from stvit.detection.losses import (
    PUBLISHED,
    DetectionTarget,
    assign_anchors,
    cascade_losses,
    proposal_losses,
    stage_box_losses,
)

NAMES = {"loss_rpn_cls", "loss_rpn_bbox"} | {f"s{i}.loss_{part}" for i in range(3) for part in ("cls", "bbox", "mask")}
SIDE = 64
STEPS = 180
FEW = replace(PUBLISHED, proposals=256, proposal_sampling=Sampling(64, 0.25))


def narrow_detector(seed: int = 0) -> CascadeMaskRCNN:
    torch.manual_seed(seed)
    sizes = {"embed_dim": 16, "depths": (1, 1, 6, 1), "num_heads": (1, 2, 4, 8), "fpn_channels": 32, "box_hidden": 64}
    return stvit.create_model("stvit_r_swin_small_cascade_mask_rcnn", num_classes=3, **sizes)


def target(masks: list[Tensor], labels: list[int], image_hw: tuple[int, int] = (SIDE, SIDE)) -> DetectionTarget:
    stacked = torch.stack(masks) if masks else torch.zeros(0, *image_hw, dtype=torch.bool)
    boxes = masks_to_boxes(stacked) + torch.tensor([0, 0, 1, 1])
    return DetectionTarget(boxes.float().view(-1, 4), torch.tensor(labels, dtype=torch.int64), stacked)


def scenes() -> tuple[list[Tensor], list[DetectionTarget]]:
    """Two pictures (64, 64, 3) uint8: a disc and a hook, a triangle."""
    y, x = torch.meshgrid(torch.arange(SIDE) + 0.5, torch.arange(SIDE) + 0.5, indexing="ij")
    disc = (x - 20) ** 2 + (y - 24) ** 2 < 15**2
    hook = (x > 36) & (x < 60) & (y > 24) & (y < 60) & ~((x > 46) & (y < 42))
    triangle = (y > 12) & (y < 48) & ((x - 33).abs() < (y - 12) / 2)
    first, second = (torch.full((SIDE, SIDE, 3), grey, dtype=torch.uint8) for grey in (40, 90))
    first[disc] = torch.tensor([220, 40, 40], dtype=torch.uint8)
    first[hook] = torch.tensor([40, 220, 40], dtype=torch.uint8)
    second[triangle] = torch.tensor([40, 60, 220], dtype=torch.uint8)
    return [first, second], [target([disc, hook], [0, 1]), target([triangle], [2])]


@pytest.mark.slow
def test_a_narrow_detector_learns_two_pictures_by_heart() -> None:
    pictures, targets = scenes()
    detector = narrow_detector().train()
    images = torch.cat([detector.prepare(picture, (SIDE, SIDE)).images for picture in pictures])
    optimizer = torch.optim.AdamW(detector.parameters(), lr=3e-3, weight_decay=0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=STEPS, pct_start=0.1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        sum(detector.losses(images, targets, FEW).values()).backward()
        torch.nn.utils.clip_grad_norm_(detector.parameters(), 10)
        optimizer.step()
        schedule.step()
    detector.eval()
    for picture, wanted in zip(pictures, targets, strict=True):
        found = detector.predict(picture, (SIDE, SIDE))
        best = found.select(torch.arange(len(wanted.labels)))
        overlaps = box_iou(wanted.boxes, best.boxes)
        match = overlaps.argmax(dim=1)
        assert overlaps.max(dim=1).values.min() > 0.8
        assert best.labels[match].tolist() == wanted.labels.tolist()
        masks = best.masks()[match]
        shared, either = (masks & wanted.masks).sum((1, 2)), (masks | wanted.masks).sum((1, 2))
        assert (shared / either).min() > 0.7


def test_every_parameter_gets_a_gradient() -> None:
    image_hw = (288, 288)  # large enough for anchors of four levels; an object for each
    masks = []
    for side in (40, 80, 150, 256):
        masks.append(torch.zeros(image_hw, dtype=torch.bool))
        masks[-1][8 : 8 + side, 8 : 8 + side] = True
    detector = narrow_detector().train()
    rules = replace(FEW, anchor_sampling=Sampling(1_000_000, 0.5))
    found = detector.losses(torch.randn(1, 3, *image_hw), [target(masks, [0, 1, 2, 0])], rules)
    sum(found.values()).backward()
    without = [name for name, p in detector.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert without == []


def test_losses_have_their_published_names_and_are_finite() -> None:
    _, targets = scenes()
    found = narrow_detector().train().losses(torch.randn(2, 3, SIDE, SIDE), targets)
    assert found.keys() == NAMES
    assert all(loss.ndim == 0 and loss.isfinite() for loss in found.values())
    assert found["loss_rpn_cls"].item() == pytest.approx(math.log(2), abs=0.1)
    assert found["s0.loss_cls"].item() == pytest.approx(math.log(4), abs=0.2)


@pytest.mark.parametrize("objects", [[True, False], [False, False]])
def test_images_without_objects_teach_background(objects: list[bool]) -> None:
    _, targets = scenes()
    batch = [one if there else target([], []) for one, there in zip(targets, objects, strict=True)]
    detector = narrow_detector().train()
    found = detector.losses(torch.randn(2, 3, SIDE, SIDE), batch, FEW)
    assert found.keys() == NAMES
    if not any(objects):
        absent = [found[name].item() for name in NAMES if not name.endswith("cls")]
        assert absent == [0] * len(absent)
    sum(found.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in detector.parameters())


def test_gradients_do_not_flow_through_the_boxes_into_earlier_stages() -> None:
    _, targets = scenes()
    detector = narrow_detector().train()
    found = detector.losses(torch.randn(2, 3, SIDE, SIDE), targets, FEW)
    (found["s1.loss_bbox"] + found["s2.loss_bbox"] + found["s0.loss_bbox"]).backward()
    assert detector.rpn_head.rpn_reg.weight.grad is None
    found = detector.losses(torch.randn(2, 3, SIDE, SIDE), targets, FEW)
    detector.zero_grad()
    found["s2.loss_bbox"].backward()
    assert detector.roi_head.bbox_head[0].fc_reg.weight.grad is None


def test_padding_of_a_batch_takes_part_neither_as_anchor_nor_as_box() -> None:
    wide = target([torch.ones(40, 64, dtype=torch.bool)], [0], (40, 64))
    anchors = torch.tensor([[0.0, 0, 32, 32], [0, 0, 32, 40], [0, 0, 64, 32], [-1, 0, 32, 32], [8, 9, 63, 39.5]])
    outside = assign_anchors(anchors, wide, PUBLISHED.anchor_matching) == IGNORED
    assert outside.tolist() == [True, True, True, True, False]  # the first for its IoU, 0.4
    assert assign_anchors(anchors[:1], target([], [], (40, 64)), PUBLISHED.anchor_matching).tolist() == [-1]


def test_proposal_losses_by_hand() -> None:
    anchors = torch.tensor([[0.0, 0, 20, 20], [20, 20, 40, 40], [40, 40, 60, 60], [-10, 0, 10, 20]])
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[0:20, 2:22] = True
    predictions = [(torch.zeros(2, 3), torch.zeros(2, 3, 4)), (torch.zeros(2, 1), torch.ones(2, 1, 4))]
    targets = [target([mask], [0]), target([], [])]
    found = proposal_losses(predictions, [anchors[:3], anchors[3:]], targets, PUBLISHED)
    # First image one positive and two background anchors, the second one none (counted as one) and three.
    assert found["loss_rpn_cls"].item() == pytest.approx(6 * math.log(2) / 7, rel=1e-6)
    assert found["loss_rpn_bbox"].item() == pytest.approx(0.5 * (2 / 20) ** 2 * 9 / 7, rel=1e-5)


def stub_head(num_classes: int, deltas: Tensor | None = None, best: int = 0) -> SimpleNamespace:
    """Heads that give the same answer for every region."""

    def box(crops: Tensor) -> tuple[Tensor, Tensor]:
        logits = torch.zeros(len(crops), num_classes + 1)
        logits[:, best] = 1e-6
        moves = torch.zeros(num_classes, 4) if deltas is None else deltas
        return logits, moves.expand(len(crops), num_classes, 4)

    return SimpleNamespace(
        bbox_head=[box] * 3, mask_head=[lambda crops: torch.zeros(len(crops), num_classes, 28, 28)] * 3
    )


MAPS = [torch.zeros(2, 1, SIDE // stride, SIDE // stride) for stride in (4, 8, 16, 32)]


def test_cascade_losses_by_hand() -> None:
    _, targets = scenes()
    disc, hook = targets[0].boxes
    proposals = [torch.stack([hook * 0.1, disc]), torch.tensor([[0.0, 0, 8, 8]])]
    found = cascade_losses(stub_head(3), MAPS, proposals, targets, PUBLISHED)
    for i, weight in enumerate(PUBLISHED.stage_weights):
        assert found[f"s{i}.loss_cls"].item() == pytest.approx(weight * math.log(4), rel=1e-4)
        assert found[f"s{i}.loss_mask"].item() == pytest.approx(weight * math.log(2), rel=1e-4)
        assert found[f"s{i}.loss_bbox"].item() == pytest.approx(0, abs=1e-5)  # every positive sample is exact


def test_box_loss_is_averaged_over_all_samples() -> None:
    _, (_, wanted) = scenes()
    off = wanted.boxes[0] + torch.tensor([0.0, 0, 0, 8.0])  # 8 pixels too high a box
    boxes = torch.stack([off, torch.tensor([0.0, 0, 8, 8]), torch.tensor([50.0, 50, 60, 60])])
    samples = [Samples(boxes, torch.tensor([0]), torch.tensor([False]))]
    found, _ = stage_box_losses(stub_head(3), 0, MAPS, samples, [wanted])
    height = (wanted.boxes[0, 3] - wanted.boxes[0, 1]).item()
    assert found["loss_bbox"].item() == pytest.approx(10 * (1 - height / (height + 8)) / 3, rel=1e-4)


def test_boxes_move_by_their_class_and_the_added_ones_are_dropped() -> None:
    _, (_, wanted) = scenes()  # its object is of class 2
    shift = torch.zeros(3, 4)
    shift[:, 0] = torch.tensor([1.0, 2.0, 3.0])  # tenths of the width, by class
    boxes = torch.stack([wanted.boxes[0], torch.tensor([10.0, 10, 30, 30]), torch.tensor([44.0, 0, 64, 20])])
    samples = [Samples(boxes, torch.tensor([0, 0]), torch.tensor([True, False]))]
    _, (after,) = stage_box_losses(stub_head(3, shift, best=1), 0, MAPS, samples, [wanted])
    # The positive one by its own class, background by the most probable foreground class; clipped to the image.
    torch.testing.assert_close(after, torch.tensor([[16.0, 10, 36, 30], [48, 0, 64, 20]]))


def test_background_never_moves_by_the_background_class() -> None:
    _, (_, wanted) = scenes()
    samples = [Samples(torch.tensor([[0.0, 0, 8, 8]]), torch.zeros(0).long(), torch.zeros(0, dtype=torch.bool))]
    _, (after,) = stage_box_losses(stub_head(3, best=3), 0, MAPS, samples, [wanted])
    assert after.tolist() == [[0, 0, 8, 8]]


def test_crowds_are_as_harmless_as_published_unless_the_rules_say_otherwise() -> None:
    _, targets = scenes()
    whole = torch.tensor([[0.0, 0, SIDE, SIDE]])
    crowded = [replace(one, ignore_boxes=whole) for one in targets]
    proposals = [one.boxes + 4 for one in targets]

    def box_loss(batch: list[DetectionTarget], ignore_overlap: float | None) -> float:
        rules = replace(PUBLISHED, stage_matching=(Matching(0.5, 0.5, ignore_overlap=ignore_overlap),) * 3)
        return cascade_losses(stub_head(3), MAPS, proposals, batch, rules)["s0.loss_bbox"].item()

    assert box_loss(crowded, None) == box_loss(targets, None) == box_loss(targets, 0.5) > 0.1
    assert box_loss(crowded, 0.5) == pytest.approx(0, abs=1e-5)  # the ground-truth boxes themselves are left


def test_bfloat16_gives_nearly_the_same_losses() -> None:
    pictures, targets = scenes()
    detector = narrow_detector().eval()
    images = torch.cat([detector.prepare(picture, (SIDE, SIDE)).images for picture in pictures])
    # The regions are given, so that both precisions look at the same ones.
    proposals = [one.boxes + 3 for one in targets]
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            features = detector.extract_features(images)
            found.append(cascade_losses(detector.roi_head, features, proposals, targets, FEW))
    for name, loss in found[0].items():
        assert found[1][name].item() == pytest.approx(loss.item(), rel=0.03, abs=0.01), name


def test_a_target_moves_to_a_device_as_a_whole() -> None:
    _, (one, _) = scenes()
    moved = replace(one, ignore_boxes=one.boxes).to("meta")
    assert {t.device.type for t in (moved.boxes, moved.labels, moved.masks, moved.ignore_boxes)} == {"meta"}


@pytest.mark.parametrize(
    ("boxes", "labels", "masks"),
    [((1, 5), 1, (1, 8, 8)), ((0, 4), 1, (0, 8, 8)), ((0, 4), 0, (0, 8)), ((4,), 4, (4, 8, 8))],
)
def test_targets_whose_parts_do_not_fit_each_other_are_refused(
    boxes: tuple[int, ...], labels: int, masks: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="expected boxes"):
        DetectionTarget(torch.ones(boxes), torch.zeros(labels).long(), torch.zeros(masks, dtype=torch.bool))


@pytest.mark.parametrize(
    ("size", "labels", "message"),
    [(32, [0, 1], "masks of 64x64 pixels, but its image has 32x32"), (64, [0, 3], "labels .* classes 0 to 2")],
)
def test_targets_that_do_not_fit_the_batch_are_refused(size: int, labels: list[int], message: str) -> None:
    _, (one, _) = scenes()
    with pytest.raises(ValueError, match=message):
        narrow_detector().losses(torch.zeros(1, 3, size, size), [replace(one, labels=torch.tensor(labels))])


def test_batches_that_make_no_sense_are_refused() -> None:
    _, (one, _) = scenes()
    with pytest.raises(ValueError, match="2 images and 1 targets"):
        narrow_detector().losses(torch.zeros(2, 3, SIDE, SIDE), [one])
    flat = replace(one, boxes=one.boxes * torch.tensor([1, 1, 1, 0]))
    with pytest.raises(ValueError, match="target 0 has boxes without width or height"):
        narrow_detector().losses(torch.zeros(1, 3, SIDE, SIDE), [flat])
