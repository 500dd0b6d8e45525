"""Video files as training data: which frames are taken, how clips are cut, and files that are damaged or missing."""

from __future__ import annotations

import warnings
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from stvit.predict.clips import DEVIATION, MEAN, clip_indices
from stvit.training.batches import Share, seed_everything
from stvit.training.datasets.clips import Kinetics, VideoFile, read_list
from stvit.training.datasets.data import SkipUnreadable
from stvit.training.recipe import DataPaths, RecipeError, load_recipe

RECIPE = """
task = "video"
model = "video_swin_tiny"
epochs = 1
batch_size = 2
learning_rate = 1e-3
[data]
kind = "kinetics"
size = 16
classes = 5
frames = 4
stride = 2
clips = 2
"""
FIRST, STEP = 30, 10  # red of the first frame, and how much more every further one has
DARK, BRIGHT = 40, 200  # blue on the left and on the right


def write_video(path: Path, frames: int, size_hw: tuple[int, int] = (48, 80)) -> Path:
    """Red tells the frame, blue rises from left to right."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=10, options={"crf": "2"})
        stream.height, stream.width, stream.pix_fmt = *size_hw, "yuv444p"
        pixels = np.zeros((*size_hw, 3), np.uint8)
        pixels[..., 2] = np.linspace(DARK, BRIGHT, size_hw[1])
        for index in range(frames):
            pixels[..., 0] = FIRST + STEP * index
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        output.mux(stream.encode(None))
    return path


def colours(clip: torch.Tensor) -> torch.Tensor:
    """(3, T, H, W) normalised -> in 0..255."""
    mean, deviation = (torch.tensor(values).view(3, 1, 1, 1) for values in (MEAN, DEVIATION))
    return (clip * deviation + mean) * 255


def frame_numbers(clip: torch.Tensor) -> list[int]:
    """Which frames of the video a clip shows."""
    return ((colours(clip)[0].mean(dim=(1, 2)) - FIRST) / STEP).round().int().tolist()


def mirrored(clip: torch.Tensor) -> list[bool]:
    """Whether each frame is darker on the right."""
    blue = colours(clip)[2].mean(dim=1)
    return (blue[:, -1] < blue[:, 0]).tolist()


@pytest.fixture
def places(tmp_path) -> dict[str, Path]:
    """Videos of 20, 12 and 5 frames in training, two in validation."""
    for name, frames in (("train/a/long.mp4", 20), ("train/a/b c.mp4", 12), ("train/short.mp4", 5)):
        write_video(tmp_path / name, frames)
    for name, frames in (("validation/one.mp4", 20), ("validation/two.mp4", 9)):
        write_video(tmp_path / name, frames)
    (tmp_path / "train.txt").write_text("a/long.mp4 3\na/b c.mp4 0\n\nshort.mp4 4\n")
    (tmp_path / "validation.txt").write_text("one.mp4 1\ntwo.mp4 2\n")
    ends = {"list": ".txt", "clips": ""}
    return {f"{split}_{kind}": tmp_path / f"{split}{ends[kind]}" for split in ("train", "validation") for kind in ends}


def to_train_on(data: Kinetics) -> SkipUnreadable:
    """The samples of training, where others take the place of damaged ones."""
    return SkipUnreadable(data.dataset("train", 0), data.skip)


def kinetics(tmp_path: Path, places: dict[str, Path], *changes: str) -> Kinetics:
    file = tmp_path / "recipe.toml"
    file.write_text(RECIPE)
    return Kinetics(load_recipe(str(file), changes), DataPaths(places))


def test_training_clips_begin_anywhere_and_take_every_second_frame(tmp_path, places):
    videos = kinetics(tmp_path, places).dataset("train", 0)
    starts = set()
    for seed in range(24):
        seed_everything(seed)
        clip, label = videos[0]
        assert clip.shape == (3, 4, 16, 16) and label == 3
        numbers = frame_numbers(clip)
        assert np.diff(numbers).tolist() == [2, 2, 2] and 0 <= numbers[0] <= 12
        starts.add(numbers[0])
    assert len(starts) > 6


def test_a_short_video_is_played_in_a_loop(tmp_path, places):
    clip, label = kinetics(tmp_path, places).dataset("train", 0)[2]
    assert label == 4 and frame_numbers(clip) == [0, 2, 4, 1]


def test_all_frames_of_a_clip_are_cut_and_mirrored_alike_and_clips_are_not(tmp_path, places):
    videos = kinetics(tmp_path, places).dataset("train", 0)
    found, widths = set(), set()
    for seed in range(16):
        seed_everything(seed)
        clip, _ = videos[0]
        assert len(set(mirrored(clip))) == 1
        found.add(mirrored(clip)[0])
        blue = colours(clip)[2].mean(dim=1)
        assert torch.allclose(blue, blue[:1].expand_as(blue), atol=4)
        widths.add(round((blue[0, -1] - blue[0, 0]).abs().item() / 10))
    assert found == {True, False} and len(widths) > 3


def test_evaluation_takes_clips_all_over_the_video_and_three_crops_of_each(tmp_path, places):
    videos = kinetics(tmp_path, places).dataset("validation", 0)
    assert [videos[i][1] for i in range(2)] == [1, 2]
    views, _ = videos[0]
    assert views.shape == (6, 3, 4, 16, 16)
    expected = clip_indices(20, 2, 4, 2).tolist()
    assert [frame_numbers(view) for view in views] == [expected[0]] * 3 + [expected[1]] * 3
    left, middle, right = (colours(view)[2].mean() for view in views[:3])
    assert left < middle < right


def test_batches_of_training_and_evaluation(tmp_path, places):
    data = kinetics(tmp_path, places)
    clips, labels = next(data.training_batches(0, 0, Share(0, 1, 2, 1), 0, seed=0))
    assert clips.shape == (2, 3, 4, 16, 16) and labels.dtype == torch.int64
    evaluated = data.evaluation_batches("validation", Share(0, 1, 2, 1), 0)
    sizes = [(views.shape[:2], labels.tolist()) for views, labels in evaluated]
    assert sizes == [((1, 6), [1]), ((1, 6), [2])]  # the views of one video at a time


def test_large_frames_are_reduced_while_they_are_read(tmp_path):
    video = VideoFile(write_video(tmp_path / "large.mp4", 6, (320, 480)))
    frames, places = video.read(torch.tensor([[5, 0], [0, 3]]))
    assert frames.shape == (3, 256, 384, 3) and places.tolist() == [[2, 0], [0, 1]]


def test_a_damaged_video_is_named_once_and_replaced_in_training(tmp_path, places):
    broken = tmp_path / "train" / "a" / "long.mp4"
    broken.write_bytes(broken.read_bytes()[:300])
    data = kinetics(tmp_path, places)
    videos = to_train_on(data)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        labels = [videos[0][1] for _ in range(3)]
    assert labels == [0, 0, 0] and data.skipped == 3  # the next one's
    (message,) = [str(warning.message) for warning in caught]
    assert message.startswith(f"{broken}: ") and "takes its place in training" in message


def test_a_damaged_video_counts_as_not_recognised_in_evaluation(tmp_path, places):
    broken = tmp_path / "validation" / "one.mp4"
    broken.write_bytes(b"no video")
    with pytest.warns(UserWarning, match=r"one\.mp4: .* counts as not recognised"):
        views, label = kinetics(tmp_path, places).dataset("validation", 0)[0]
    assert label == -1 and views.shape == (1, 3, 4, 16, 16)


def test_a_video_that_ends_early_is_named_and_used(tmp_path):
    path = write_video(tmp_path / "cut.mkv", 20)  # this format tells the length at the beginning
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    video = VideoFile(path)
    assert video.num_frames >= 20
    with pytest.warns(UserWarning, match=r"cut\.mkv: .* is used"):
        frames, places = video.read(torch.arange(0, 20, 2))
    numbers = ((frames[places][..., 0].float().mean(dim=(1, 2)) - FIRST) / STEP).round().int().tolist()
    readable = next(count for count in range(1, 21) if [i % count for i in range(0, 20, 2)] == numbers)
    assert 5 < readable < 20


def test_training_stops_where_no_video_can_be_read(tmp_path, places):
    for path in (tmp_path / "train").rglob("*.mp4"):
        path.write_bytes(b"")
    with (
        pytest.warns(UserWarning),
        pytest.raises(RecipeError, match=r"3 samples in a row cannot be used, the last of them: .*mp4"),
    ):
        to_train_on(kinetics(tmp_path, places))[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("one.mp4", "line 1: 'one.mp4' is no path and class from 0 to 4"),
        ("one.mp4 1\ntwo.mp4 5", "line 2: 'two.mp4 5' is no path and class"),
        ("one.mp4 -1", "is no path and class"),
        ("../train/short.mp4 1", "leads out of"),
        ("/one.mp4 1", "leads out of"),
        ("one.mp4 1\nthree.mp4 1", "1 of 2 videos in .* are missing, the first is .*three.mp4"),
        ("\n", "lists no videos"),
    ],
)
def test_what_is_wrong_with_a_list_is_named(places, text, message):
    places["validation_list"].write_text(text)
    with pytest.raises(RecipeError, match=message):
        read_list(places["validation_list"], places["validation_clips"], 5)


def test_a_list_saved_with_a_byte_order_mark_is_read(places):
    text = places["validation_list"].read_text()
    places["validation_list"].write_text(text, encoding="utf-8-sig")
    assert read_list(places["validation_list"], places["validation_clips"], 5)
