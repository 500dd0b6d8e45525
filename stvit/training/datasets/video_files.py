"""Video files to train on: which ones there are, and single frames of them."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor

from stvit.training.recipe import RecipeError
from stvit.video.decode import ClipReader
from stvit.video.probe import probe
from stvit.video.types import Limits

SHORT_SIDE = 256  # pixels that frames are reduced to while they are read, as published
LIMITS = Limits(max_bytes=2**30, max_seconds=600.0)


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
            warnings.warn(f"{self.info.path}: {reader.note} What can be read of it is used.", stacklevel=2)
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
        lines = path.read_text(encoding="utf-8").splitlines()
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
    if missing := [video for video, _ in videos if not video.is_file()]:
        raise RecipeError(f"{len(missing)} of {len(videos)} videos in {path} are missing, the first is {missing[0]}")
    return videos
