"""Clips with a class each: video files, as of Kinetics.

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

from stvit.class_names import KINETICS400_CLASSES
from stvit.evaluate.coco_annotations import is_file
from stvit.predict.clips import CLIP_LENGTH, DEVIATION, FRAME_INTERVAL, MEAN, clip_indices, make_views
from stvit.training.batches import Share, evaluation_batches
from stvit.training.recipe import DataPaths, Recipe, RecipeError, Table, read_table
from stvit.video.decode import ClipReader
from stvit.video.probe import probe
from stvit.video.types import Limits, VideoError

from .data import MapData, SampleError
from .transforms import draw_below

NORMALISE = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, DEVIATION)])  # of (T, 3, H, W)

SHORT_SIDE = 256  # pixels that frames are reduced to while they are read, as published
SMALLEST_CROP = 0.08  # of a frame's area, as published
NO_CLASS = -1  # of a damaged clip in evaluation: no prediction is right
LIMITS = Limits(max_bytes=2**30, max_seconds=600.0)


class KineticsOptions(Table):
    kind: str
    size: int
    classes: int
    frames: int = CLIP_LENGTH
    stride: int = FRAME_INTERVAL
    clips: int = 4
    crops: int = 3


class Kinetics(MapData):
    """Video files and their classes, sampled as Video Swin does: in training a clip that begins anywhere, cropped and
    mirrored at random; in evaluation several clips, and several crops of each.

    Data paths: ``train_list`` and ``validation_list``, text files with a line ``relative/path.mp4 7`` for every video,
    its class last; ``train_clips`` and ``validation_clips``, the folders that the paths start from.
    Options: ``size``, ``classes``; ``frames`` of a clip, 32 by default, and ``stride``, frames of the video from one to
    the next, 2 by default; ``clips`` and ``crops`` of a video in evaluation, 4 and 3 by default.

    A damaged video is named in a warning and does not stop the run: in training another one takes its place, in
    evaluation it counts as not recognised, so that the figures are always those of the whole list.
    """

    def __init__(self, recipe: Recipe, paths: DataPaths) -> None:
        options = read_table(KineticsOptions, recipe.data, "data")
        self.size, self.num_classes = options.size, options.classes
        self.frames, self.stride = options.frames, options.stride
        self.class_names = KINETICS400_CLASSES if self.num_classes == len(KINETICS400_CLASSES) else ()
        self.sampling = {"clip_length": options.frames, "frame_interval": options.stride}
        self.views = {"clips": options.clips, "crops": options.crops}
        self.files = {
            split: read_list(paths.need(f"{split}_list"), paths.need(f"{split}_clips"), self.num_classes)
            for split in ("train", "validation")
        }
        self.augment = v2.Compose(
            [
                v2.RandomResizedCrop(self.size, scale=(SMALLEST_CROP, 1.0), antialias=False),
                v2.RandomHorizontalFlip(),
                NORMALISE,
            ]
        )

    def check(self, share: Share, workers: int) -> None:
        """Nothing: the lists have been checked, and damaged videos stop no run."""

    def dataset(self, split: str, epoch: int) -> Dataset:
        if split == "test":
            raise RecipeError("the classes of Kinetics' test videos are not public; evaluate on validation")
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
        """Raises SampleError where the video is damaged."""
        path, label = self.files[index]
        try:
            frames = self._random_clip(path)
        except VideoError as error:
            raise SampleError(f"{path}: {error.problem}") from error
        return self.data.augment(frames.permute(0, 3, 1, 2)).transpose(0, 1), label

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


class VideoFile:
    """A video whose frames are read by their numbers.

    Attributes:
        num_frames: by the header, or counted where that says nothing.

    Raises:
        VideoError: no video, or not within the limits.
    """

    def __init__(self, path: Path) -> None:
        self.info = probe(path, LIMITS)
        self.num_frames = self.info.frames or sum(1 for _ in self._reader())

    def read(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Decode the frames that are wanted, up to the last of them.

        A video that ends before that, by damage or because its header claims too much, is played in a loop.

        Args:
            indices: numbers of frames, any shape.

        Returns:
            (F, H, W, 3) uint8 RGB, upright, the short side at most ``SHORT_SIDE``, and the position among them of each
            index.

        Raises:
            VideoError: not one frame can be read, or the video exceeds the limits after all.
        """
        used, places = indices.unique(return_inverse=True)
        wanted, last = set(used.tolist()), int(used[-1])
        reader, frames, count = self._reader(), [], 0
        for frame in reader:
            count += 1
            if frame.index in wanted:
                frames.append(torch.from_numpy(frame.picture.rgb()))
            if frame.index == last:
                break
        if reader.note:
            used = " The readable part is used." if count <= last else ""
            warnings.warn(f"{self.info.path}: {reader.note}{used}", stacklevel=2)
        return (torch.stack(frames), places) if count > last else self.read(indices % count)

    def _reader(self) -> ClipReader:
        short, long = sorted(self.info.source_hw)
        return ClipReader(self.info, long if short <= SHORT_SIDE else round(long * SHORT_SIDE / short), LIMITS)


def read_list(path: Path, folder: Path, num_classes: int) -> list[tuple[Path, int]]:
    """The videos of a list and their classes.

    Args:
        path: a text file with a line ``relative/path.mp4 7`` for every video.
        folder: where the paths start.

    Raises:
        RecipeError: no text; a line that is no path and class, or leads out of the folder; no videos, or missing ones.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} cannot be read as a list ({error}). Name a text file.") from error
    videos = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, _, label = line.strip().rpartition(" ")
        if not name or not label.isdecimal() or int(label) >= num_classes:
            wanted = f"no path and class from 0 to {num_classes - 1}, with a space between"
            raise RecipeError(f"{path}, line {number}: {line!r} is {wanted}")
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise RecipeError(f"{path}, line {number}: {name!r} leads out of {folder}; write a path inside it")
        videos.append((folder / name, int(label)))
    if not videos:
        raise RecipeError(f"{path} lists no videos; write a line 'relative/path.mp4 7' for each")
    if missing := [video for video, _ in videos if not is_file(video)]:
        raise RecipeError(f"{len(missing)} of {len(videos)} videos in {path} are missing, the first is {missing[0]}")
    return videos
