"""Matching and sampling, with literal boxes."""

import pytest
import torch

from stvit.detection.assign import BACKGROUND, IGNORED, Matching, Sampling, assign, sample, sample_proposals

RPN = Matching(0.7, 0.3, low_quality_iou=0.3)
STAGE = Matching(0.5, 0.5)
TARGETS = torch.tensor([[0.0, 0, 10, 10], [20, 20, 40, 40]])


@pytest.mark.parametrize(
    ("rule", "box", "expected"),
    [
        (STAGE, [0.0, 0, 10, 10], 0),
        (STAGE, [0.0, 0, 10, 5], 0),  # IoU exactly 0.5 is positive
        (STAGE, [0.0, 0, 10, 4.9], BACKGROUND),
        (STAGE, [21.0, 20, 40, 40], 1),
        (STAGE, [50.0, 50, 60, 60], BACKGROUND),
        (STAGE, [5.0, 5, 5, 5], BACKGROUND),  # without area
        (RPN, [0.0, 0, 10, 7], 0),  # IoU exactly 0.7
        (Matching(0.7, 0.3), [0.0, 0, 10, 6.9], IGNORED),
        (Matching(0.7, 0.3), [0.0, 0, 10, 3], IGNORED),  # IoU exactly 0.3 is not background
        (Matching(0.7, 0.3), [0.0, 0, 10, 2.9], BACKGROUND),
    ],
)
def test_thresholds_include_their_own_value(rule: Matching, box: list[float], expected: int) -> None:
    assert assign(torch.tensor([box]), TARGETS, rule).tolist() == [expected]


def test_low_quality_matches_give_each_target_its_best_candidates_and_all_in_a_tie() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 4], [0, 6, 10, 10], [0, 0, 10, 3.5], [20, 20, 40, 25], [60, 60, 70, 70]])
    # Target 0: two candidates tie at 0.4. Target 1: the best reaches 0.25 only.
    assert assign(boxes, TARGETS, RPN).tolist() == [0, 0, IGNORED, BACKGROUND, BACKGROUND]


def test_a_low_quality_match_takes_the_candidate_from_its_nearest_target() -> None:
    targets = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8]])
    boxes = torch.tensor([[0.0, 0, 10, 9.5]])  # IoU 0.95 with the first, 0.84 with the second
    assert assign(boxes, targets, Matching(0.7, 0.3)).tolist() == [0]
    assert assign(boxes, targets, RPN).tolist() == [1]


@pytest.mark.parametrize("rule", [RPN, STAGE])
def test_without_ground_truth_everything_is_background(rule: Matching) -> None:
    assert assign(TARGETS, torch.zeros(0, 4), rule).tolist() == [BACKGROUND, BACKGROUND]


@pytest.mark.parametrize("rule", [RPN, STAGE])
def test_no_candidates_give_no_assignment(rule: Matching) -> None:
    assert assign(torch.zeros(0, 4), TARGETS, rule).shape == (0,)


@pytest.mark.parametrize(
    ("ignore_overlap", "targets", "expected"),
    [
        (None, TARGETS, [0, BACKGROUND, BACKGROUND]),  # as published: crowds have no effect
        (0.5, TARGETS, [0, IGNORED, BACKGROUND]),
        (0.5, torch.zeros(0, 4), [BACKGROUND, IGNORED, BACKGROUND]),
    ],
)
def test_crowds_hide_candidates_only_if_the_rule_says_so(
    ignore_overlap: float | None, targets: torch.Tensor, expected: list[int]
) -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60], [45, 50, 51, 60]])
    crowds = torch.tensor([[50.0, 40, 90, 90]])
    rule = Matching(0.5, 0.5, ignore_overlap=ignore_overlap)
    assert assign(boxes, targets, rule, crowds).tolist() == expected


def test_a_target_takes_its_best_candidate_outside_of_crowds() -> None:
    rule = Matching(0.7, 0.3, low_quality_iou=0.3, ignore_overlap=0.5)
    boxes = torch.tensor([[0.0, 4, 10, 10], [0, 0, 10, 4]])
    assert assign(boxes, TARGETS, rule).tolist() == [0, IGNORED]
    assert assign(boxes, TARGETS, rule, torch.tensor([[0.0, 4, 10, 10]])).tolist() == [IGNORED, 0]


@pytest.mark.parametrize(
    ("positive", "background", "expected"),
    [
        (10, 100, (2, 6)),  # a quarter at most is positive
        (1, 100, (1, 7)),  # background fills the rest
        (0, 100, (0, 8)),
        (10, 3, (2, 3)),  # too little of either: fewer samples
        (0, 0, (0, 0)),
    ],
)
def test_sampling_keeps_the_share_and_fills_with_background(
    positive: int, background: int, expected: tuple[int, int]
) -> None:
    assigned = torch.tensor([0] * positive + [IGNORED] * 5 + [BACKGROUND] * background, dtype=torch.int64)
    chosen = sample(assigned, Sampling(8, 0.25))
    assert tuple(map(len, chosen)) == expected
    assert (assigned[chosen[0]] >= 0).all()
    assert (assigned[chosen[1]] == BACKGROUND).all()
    for indices in chosen:
        assert (indices.diff() > 0).all()


def test_sampling_draws_every_candidate_equally_often() -> None:
    torch.manual_seed(0)
    assigned = torch.full((8,), BACKGROUND)
    counts = torch.zeros(8)
    for _ in range(400):
        counts[sample(assigned, Sampling(2, 0.5))[1]] += 1
    assert counts.sum() == 800
    assert (counts - 100).abs().max() < 40


def test_ground_truth_joins_the_proposals_and_matches_itself() -> None:
    proposals = torch.tensor([[60.0, 60, 70, 70], [20, 20, 40, 39]])
    samples = sample_proposals(proposals, TARGETS, STAGE, Sampling(8, 0.5))
    assert samples.boxes.tolist() == [*TARGETS.tolist(), proposals[1].tolist(), proposals[0].tolist()]
    assert samples.positive_boxes.shape == (3, 4)
    assert samples.matched.tolist() == [0, 1, 1]
    assert samples.is_ground_truth.tolist() == [True, True, False]
    assert samples.labels(torch.tensor([7, 3]), background=80).tolist() == [7, 3, 3, 80]


def test_an_image_without_ground_truth_gives_background_samples_alone() -> None:
    samples = sample_proposals(TARGETS, torch.zeros(0, 4), STAGE, Sampling(8, 0.25))
    assert samples.boxes.tolist() == TARGETS.tolist()
    assert samples.positive_boxes.shape == (0, 4)
    assert samples.labels(torch.zeros(0, dtype=torch.int64), background=80).tolist() == [80, 80]


def test_an_image_without_ground_truth_and_proposals_gives_no_samples() -> None:
    samples = sample_proposals(torch.zeros(0, 4), torch.zeros(0, 4), STAGE, Sampling(8, 0.25))
    assert samples.boxes.shape == (0, 4)
    assert samples.labels(torch.zeros(0, dtype=torch.int64), background=80).shape == (0,)
