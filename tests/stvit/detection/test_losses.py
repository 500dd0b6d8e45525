"""The detector's losses, by hand and against torchvision."""

import math

import pytest
import torch
from torch import Tensor
from torchvision.models.detection.roi_heads import maskrcnn_loss
from torchvision.ops import generalized_box_iou

from stvit.detection import losses


def test_objectness_loss_by_hand() -> None:
    logits = torch.tensor([0.0, math.log(3), -math.log(3)])
    loss = losses.objectness_loss(logits, torch.tensor([True, True, False]), normaliser=4)
    assert loss.item() == pytest.approx((math.log(2) + 2 * math.log(4 / 3)) / 4, rel=1e-6)


def test_delta_loss_is_quadratic_below_one_ninth_and_linear_above() -> None:
    deltas = torch.tensor([[0.0, 1 / 18, 1.0, -2.0]])
    loss = losses.delta_loss(deltas, torch.zeros(1, 4), normaliser=10)
    assert loss.item() == pytest.approx((0.5 * (1 / 18) ** 2 * 9 + (1 - 1 / 18) + (2 - 1 / 18)) / 10, rel=1e-6)


def test_classification_loss_averages_over_the_samples() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0], [math.log(2), 0.0, 0.0]])
    loss = losses.classification_loss(logits, torch.tensor([2, 0]))
    assert loss.item() == pytest.approx((math.log(3) + math.log(2)) / 2, rel=1e-6)


def test_box_loss_by_hand_and_against_the_pairwise_function() -> None:
    boxes = torch.tensor([[0.0, 0, 2, 2], [0, 0, 1, 1], [3, 4, 9, 9]])
    targets = torch.tensor([[0.0, 0, 2, 1], [3, 0, 4, 1], [3, 4, 9, 9]])
    by_hand = [1 - 0.5, 1 + 2 / 4, 0.0]  # the enclosing box of the second pair is half empty
    loss = losses.box_loss(boxes, targets, normaliser=5)
    assert loss.item() == pytest.approx(10 * sum(by_hand) / 5, abs=1e-5)
    pairwise = (1 - generalized_box_iou(boxes, targets)).diagonal().sum()
    torch.testing.assert_close(loss, 10 * pairwise / 5, atol=1e-5, rtol=1e-5)


def test_box_loss_of_a_box_without_area_has_finite_gradients() -> None:
    boxes = torch.tensor([[3.0, 3, 3, 3]], requires_grad=True)
    losses.box_loss(boxes, torch.tensor([[0.0, 0, 2, 2]]), normaliser=1).backward()
    assert torch.isfinite(boxes.grad).all()


def test_mask_loss_reads_the_channel_of_the_class_alone() -> None:
    logits = torch.full((2, 3, 4, 4), 50.0)
    logits[0, 2], logits[1, 0] = 0.0, -50.0
    targets = torch.zeros(2, 4, 4, dtype=torch.bool)
    loss = losses.mask_loss(logits, torch.tensor([2, 0]), targets)
    assert loss.item() == pytest.approx(math.log(2) / 2, rel=1e-6)


def test_mask_loss_equals_that_of_torchvision_away_from_outlines() -> None:
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, 16:48, 8:40] = True
    boxes = torch.tensor([[9.0, 17, 39, 47], [9, 17, 23, 31], [9, 17, 39, 47]])  # inside the mask; no mask at all
    matched, labels = torch.tensor([0, 0, 1]), torch.tensor([1, 4])
    logits = torch.randn(3, 5, 28, 28, generator=generator)
    own = losses.mask_loss(logits, labels[matched], losses.crop_masks(masks, boxes, matched))
    theirs = maskrcnn_loss(logits, [boxes], [masks], [labels], [matched])
    torch.testing.assert_close(own, theirs)


def test_mask_targets_of_literal_masks() -> None:
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[0, 2:6, 2:4] = True
    masks[1, :, 5:] = True
    boxes = torch.tensor([[2.0, 2, 6, 6], [0, 0, 8, 8], [4, 4, 12, 8]])  # the last one reaches beyond the image
    targets = losses.crop_masks(masks, boxes, torch.tensor([0, 0, 1]), (4, 4))
    left = [True, True, False, False]
    assert targets[0].tolist() == [left] * 4
    assert targets[1].tolist() == [[False] * 4, [False, True, False, False], [False, True, False, False], [False] * 4]
    assert targets[2].tolist() == [[False, True, True, True]] * 4


@pytest.mark.parametrize(
    "empty",
    [
        lambda x: losses.objectness_loss(x, torch.zeros(0, dtype=torch.bool), 2),
        lambda x: losses.delta_loss(x.view(0, 4), torch.zeros(0, 4), 2),
        lambda x: losses.classification_loss(x.view(0, 3), torch.zeros(0, dtype=torch.int64)),
        lambda x: losses.box_loss(x.view(0, 4), torch.zeros(0, 4), 0),
        lambda x: losses.mask_loss(x.view(0, 3, 28, 28), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 28, 28)),
    ],
)
def test_a_loss_of_nothing_is_zero_and_keeps_its_graph(empty) -> None:
    predictions = torch.zeros(0, requires_grad=True)
    loss: Tensor = empty(predictions)
    assert loss.item() == 0
    loss.backward()
    assert predictions.grad is not None


def test_mask_targets_of_no_boxes_keep_their_size() -> None:
    nothing = losses.crop_masks(torch.zeros(0, 8, 8, dtype=torch.bool), torch.zeros(0, 4), torch.zeros(0).long())
    assert nothing.shape == (0, 28, 28)
