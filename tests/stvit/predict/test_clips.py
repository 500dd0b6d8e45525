"""Views of a video and the prediction made from them."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from stvit.predict.clips import (
    ClipClassifier,
    average_views,
    clip_indices,
    crop_squares,
    make_views,
    resize_short_side,
)


def video(frames: int, height: int, width: int) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randint(0, 256, (frames, height, width, 3), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("num_frames", "clips", "first"),
    [
        (300, 4, [29, 88, 148, 207]),  # 237 possible first frames, cut into four parts
        (300, 1, [118]),
        (64, 4, [0, 0, 0, 0]),
        (65, 4, [0, 0, 1, 1]),
        (10, 2, [0, 0]),
    ],
)
def test_clips_start_in_the_middle_of_equal_parts(num_frames, clips, first):
    indices = clip_indices(num_frames, clips)
    assert indices.shape == (clips, 32) and indices[:, 0].tolist() == first
    if num_frames >= 64:
        assert (indices.diff(dim=1) == 2).all() and indices.max() < num_frames


def test_a_short_video_is_played_in_a_loop():
    assert clip_indices(5, 1, clip_length=6, frame_interval=2).tolist() == [[0, 2, 4, 1, 3, 0]]
    assert clip_indices(1, 1, clip_length=3).tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("numbers", [(0,), (30, 0), (30, 1, 0), (30, 1, 8, 0)])
def test_numbers_below_one_are_refused(numbers):
    with pytest.raises(ValueError, match=r"(num_frames|clips|clip_length|frame_interval)=0: must be 1 or more"):
        clip_indices(*numbers)


@pytest.mark.parametrize(("hw", "starts"), [((4, 9), [0, 2, 4]), ((8, 4), [0, 2, 4]), ((4, 4), [0, 0, 0])])
def test_three_crops_reach_from_end_to_end(hw, starts):
    frames = video(2, *hw)
    squares = crop_squares(frames, 3)
    assert squares.shape == (3, 2, 4, 4, 3)
    for square, start in zip(squares, starts, strict=True):
        expected = frames[:, :, start : start + 4] if hw[1] > hw[0] else frames[:, start : start + 4]
        assert torch.equal(square, expected)


def test_a_single_crop_stands_in_the_middle():
    frames = video(1, 4, 9)
    assert torch.equal(crop_squares(frames, 1)[0], frames[:, :, 2:6])


@pytest.mark.parametrize(("hw", "resized"), [((60, 80), (20, 27)), ((9, 6), (30, 20)), ((20, 33), (20, 33))])
def test_the_short_side_gets_its_length(hw, resized):
    frames = video(3, *hw)
    small = resize_short_side(frames, 20)
    assert small.shape == (3, *resized, 3) and small.dtype == torch.uint8
    expected = F.interpolate(frames.permute(0, 3, 1, 2).float(), resized, mode="bilinear").permute(0, 2, 3, 1)
    torch.testing.assert_close(small.float(), expected, atol=0.51, rtol=0)
    assert hw != resized or torch.equal(small, frames)


def test_views_are_normalised_crops_of_the_clips():
    frames, indices = video(20, 16, 25), torch.tensor([[0, 2, 4], [9, 11, 13]])
    views = make_views(frames, indices, crops=3, size=16)
    assert views.shape == (6, 3, 3, 16, 16) and views.dtype == torch.float32
    mean, deviation = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    for view, (clip, start) in zip(views, [(c, s) for c in (0, 1) for s in (0, 4, 8)], strict=True):
        crop = frames[indices[clip], :, start : start + 16].float()
        torch.testing.assert_close(view.permute(1, 2, 3, 0), (crop - mean) / deviation, atol=1e-4, rtol=1e-4)


def test_published_views_have_their_shape():
    views = make_views(video(3, 224, 240), clip_indices(3))
    assert views.shape == (12, 3, 32, 224, 224)


def test_only_the_frames_of_the_clips_need_decoding():
    frames, indices = video(40, 12, 18), clip_indices(40, clips=2, clip_length=4)
    used, places = indices.unique(return_inverse=True)
    assert torch.equal(make_views(frames[used], places, size=8), make_views(frames, indices, size=8))


@pytest.mark.parametrize(
    "frames",
    [torch.zeros(4, 8, 8, 3), video(4, 8, 8)[..., :1], video(4, 8, 8)[0], video(0, 8, 8)],
    ids=["floating point", "grey", "one frame", "no frames"],
)
def test_what_is_not_a_video_is_refused(frames):
    with pytest.raises(ValueError, match=r"frames must be \(T, H, W, 3\) uint8 in RGB, got .*: stack the decoded"):
        make_views(frames, torch.zeros(1, 2, dtype=torch.int64))


def test_crops_and_size_below_one_are_refused():
    with pytest.raises(ValueError, match="crops=0: must be 1 or more"):
        make_views(video(2, 8, 8), torch.zeros(1, 2, dtype=torch.int64), crops=0)


def test_probabilities_are_averaged_not_logits():
    logits = torch.tensor([[8.0, 0.0], [0.0, 1.0]])
    torch.testing.assert_close(average_views(logits), logits.softmax(-1).mean(0))
    assert average_views(logits).sum() == pytest.approx(1)
    assert average_views(logits)[0] > 0.5


class MeanOfChannels(nn.Module):
    """Three classes; remembers how many views it saw at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.num_classes = 3
        self.weight = nn.Parameter(torch.ones(()).bfloat16())
        self.seen: list[int] = []

    def forward(self, views: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(views))
        return views.mean(dim=(2, 3, 4)) * self.weight


def test_views_pass_the_model_in_batches_of_its_precision():
    model, views = MeanOfChannels(), torch.randn(5, 3, 2, 4, 4)
    probabilities = torch.from_numpy(
        ClipClassifier(model, classes=tuple("abc")).classify_views(views, at_once=2).scores
    )
    assert model.seen == [2, 2, 1] and probabilities.dtype == torch.float32
    expected = views.bfloat16().mean(dim=(2, 3, 4)).float().softmax(-1).mean(0)
    torch.testing.assert_close(probabilities, expected, atol=1e-2, rtol=0)
