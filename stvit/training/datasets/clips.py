"""Clips with a class each: garments in motion, or video files as of Kinetics.

Training samples are (clip (3, T, H, W) float32, normalised, class); samples to evaluate on are (views (V, 3, T, H, W)
float32, class), all views of one clip.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from stvit.predict.clip_views import CLIP_LENGTH, DEVIATION, FRAME_INTERVAL, MEAN, clip_indices, make_views
from stvit.training.batches import Share, evaluation_batches
from stvit.training.recipe import Recipe, RecipeError
from stvit.training.tasks.dense import Changed
from stvit.training.tasks.task import MapData, Places
from stvit.video.types import VideoError
from weights.garments import CLASS_NAMES, MOTIONS, GarmentClips

from .garments import GarmentData
from .transforms import draw_below
from .video_files import VideoFile, read_list

NORMALISE = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, DEVIATION)])  # of (T, 3, H, W)
LABELS = {"motion": MOTIONS, "item": CLASS_NAMES}

SMALLEST_CROP = 0.08  # of a frame's area, as published
READ_ON = 10  # clips in a row that may be damaged before training stops
NO_CLASS = -1  # of a damaged clip in evaluation: no prediction is right


class GarmentMotions(GarmentData):
    """One garment that moves before a photograph: every epoch shows the same garments, on other ground and moving in
    other ways.

    Options beside those of all garments: ``frames`` of a clip; ``label``, ``motion`` (eight) or ``item`` (ten).
    """

    def __init__(self, recipe: Recipe, places: Places) -> None:
        self.frames, self.label = recipe.data["frames"], recipe.data["label"]
        if self.label not in LABELS:
            raise RecipeError(f"clips of garments have no label {self.label!r}; choose one of {', '.join(LABELS)}")
        super().__init__(recipe, places)
        self.num_classes = len(LABELS[self.label])

    def dataset(self, split: str, epoch: int) -> Dataset:
        which = self.samples(split, epoch)
        clips = GarmentClips(self.sources[split], self.size, frames=self.frames, **which)
        return Changed(clips, self.to_train_on if split == "train" else self.to_evaluate_on)

    def to_train_on(self, sample: tuple[Tensor, dict[str, Any]]) -> tuple[Tensor, int]:
        """A clip (3, T, H, W) uint8 and all that is known of it as a training sample."""
        clip, target = sample
        return NORMALISE(clip.transpose(0, 1)).transpose(0, 1), target[self.label]

    def to_evaluate_on(self, sample: tuple[Tensor, dict[str, Any]]) -> tuple[Tensor, int]:
        """The same as a sample to evaluate on: the clip is its only view."""
        clip, label = self.to_train_on(sample)
        return clip[None], label


class Kinetics(MapData):
    """Video files and their classes, sampled as Video Swin does: in training a clip that begins anywhere, cropped and
    mirrored at random; in evaluation several clips, and several crops of each.

    Places: ``train_list`` and ``validation_list``, text files with a line ``relative/path.mp4 7`` for every video, its
    class last; ``train_clips`` and ``validation_clips``, the folders that the paths start from.
    Options: ``size``, ``classes``; ``frames`` of a clip, 32 by default, and ``stride``, frames of the video from one to
    the next, 2 by default; ``clips`` and ``crops`` of a video in evaluation, 4 and 3 by default.

    A damaged video is named in a warning and does not stop the run: in training another one takes its place, in
    evaluation it counts as not recognised, so that the figures are always those of the whole list.
    """

    def __init__(self, recipe: Recipe, places: Places) -> None:
        options = recipe.data
        self.size, self.num_classes = options["size"], options["classes"]
        self.sampling = {
            "clip_length": options.get("frames", CLIP_LENGTH),
            "frame_interval": options.get("stride", FRAME_INTERVAL),
        }
        self.views = {"clips": options.get("clips", 4), "crops": options.get("crops", 3)}
        self.files = {
            split: read_list(places.need(f"{split}_list"), places.need(f"{split}_clips"), self.num_classes)
            for split in ("train", "validation")
        }
        self.augment = v2.Compose(
            [
                v2.RandomResizedCrop(self.size, scale=(SMALLEST_CROP, 1.0), antialias=False),
                v2.RandomHorizontalFlip(),
                NORMALISE,
            ]
        )

    def dataset(self, split: str, epoch: int) -> Dataset:
        return TrainingVideos(self) if split == "train" else EvaluationVideos(self, split)

    def evaluation_batches(self, split: str, share: Share, workers: int) -> Iterator[Any]:
        """Video by video: its views are a batch."""
        return evaluation_batches(self.dataset(split, 0), replace(share, samples=1), workers=workers)


class TrainingVideos(Dataset):
    """One clip of every video of a training set."""

    def __init__(self, data: Kinetics) -> None:
        self.data, self.files = data, data.files["train"]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Raises RecipeError where video after video is damaged."""
        for offset in range(min(READ_ON, len(self.files))):
            path, label = self.files[(index + offset) % len(self.files)]
            try:
                frames = self._random_clip(path)
            except VideoError as error:
                warnings.warn(f"{path}: {error.problem} The next video takes its place in training.", stacklevel=2)
                continue
            return self.data.augment(frames.permute(0, 3, 1, 2)).transpose(0, 1), label
        raise RecipeError(f"{offset + 1} videos in a row cannot be used, up to {path}; copy them again")

    def _random_clip(self, path: Path) -> Tensor:
        """(T, H, W, 3) uint8: consecutive frames from a random one on."""
        length, stride = self.data.sampling.values()
        video = VideoFile(path)
        first = draw_below(max(video.num_frames - length * stride + 1, 1))
        frames, places = video.read((first + torch.arange(length) * stride) % video.num_frames)
        return frames[places]


class EvaluationVideos(Dataset):
    """All views of every video of a split."""

    def __init__(self, data: Kinetics, split: str) -> None:
        self.data, self.files = data, data.files[split]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        data, (path, label) = self.data, self.files[index]
        try:
            video = VideoFile(path)
            frames, places = video.read(clip_indices(video.num_frames, data.views["clips"], **data.sampling))
        except VideoError as error:
            warnings.warn(f"{path}: {error.problem} It counts as not recognised.", stacklevel=2)
            return torch.zeros(1, 3, data.sampling["clip_length"], data.size, data.size), NO_CLASS
        return make_views(frames, places, data.views["crops"], data.size), label
