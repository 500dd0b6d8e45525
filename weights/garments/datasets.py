"""Three data sets of garments on photographs: pictures to classify, scenes to segment and clips that move.

Every sample is a pure function of (seed, split, index); between versions of PyTorch or kinds of processor, pixels may
differ by rounding. Test garments and test photographs never occur in training.
Pictures are uint8; ``stvit`` models take them divided by 255 and normalised with ImageNet's mean and deviation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from .compose import Draws, Placement, Tile, draw_background, draw_colour, make_tile, paste, tight_boxes, to_uint8
from .sources import SPLITS, SourceError, Sources

MIN_VISIBLE = 0.4  # share of a garment that later ones must leave uncovered
ATTEMPTS = 8  # to place a garment without covering others too much

MOTIONS = ("left", "right", "up", "down", "grow", "shrink", "clockwise", "anticlockwise")


def difficulty_of(epoch: int, curriculum: Sequence[float]) -> float:
    """The difficulty of an epoch: the curriculum's, and 1 once it is over."""
    return curriculum[epoch] if epoch < len(curriculum) else 1.0


class Composites(Dataset):
    """A data set of composed samples.

    Args:
        sources: garments and photographs of a split.
        size: height and width in pixels.
        seed: another seed, another data set from the same sources.
        length: number of samples, as many as there are garments by default; the sources do not limit it.
        transform: applied to the picture, uint8; for training-time augmentation.
        difficulty: in [0, 1], for a curriculum: 0 for white garments on black, 1 for coloured ones on photographs, and
            everything between. Placements and annotations are the same.
    """

    STREAM: int  # keeps the random numbers of the data sets apart

    def __init__(
        self,
        sources: Sources,
        size: int,
        *,
        seed: int = 0,
        length: int | None = None,
        transform: Callable[[Tensor], Any] | None = None,
        difficulty: float = 1.0,
    ) -> None:
        if size < 8:
            raise SourceError(f"pictures of {size} pixels are too small; take 8 or more")
        if not 0 <= difficulty <= 1:
            raise SourceError(f"a difficulty lies in [0, 1], not at {difficulty}")
        self.difficulty = difficulty
        self.sources, self.size, self.seed, self.transform = sources, size, seed, transform
        self.length = len(sources.items) if length is None else length

    def __len__(self) -> int:
        return self.length

    def photograph(self, index: int) -> str:
        """File name of the photograph behind a sample."""
        backgrounds = self.sources.backgrounds
        return backgrounds.names[self._draws(index).below(len(backgrounds))]  # the first that draw_background() draws

    def _draws(self, index: int) -> Draws:
        """The random numbers of a sample.

        Raises:
            IndexError: no such sample.
        """
        if not 0 <= index < self.length:
            raise IndexError(f"sample {index} of {self.length}")
        return Draws(self.seed, self.STREAM, SPLITS.index(self.sources.split), index)

    def _canvas(self, draws: Draws) -> Tensor:
        return self.difficulty * draw_background(self.sources.backgrounds.photos, (self.size, self.size), draws)

    def _tile(self, item: int, draws: Draws) -> tuple[Tile, int]:
        """A garment in a random colour, and its class."""
        label = int(self.sources.items.labels[item])
        red, green, blue = (1 - self.difficulty * (1 - channel) for channel in draw_colour(draws))
        return make_tile(self.sources.items.images[item], label, (red, green, blue)), label

    def _finish(self, canvas: Tensor) -> Any:
        picture = to_uint8(canvas)
        return picture if self.transform is None else self.transform(picture)


class GarmentClassification(Composites):
    """One garment that fills much of the picture; sample i shows garment i, counted modulo their number and from where
    the set of the seed before ends.

    Samples are (picture (3, size, size) uint8, class int).
    """

    STREAM = 0

    def __init__(self, sources: Sources, size: int = 112, **options: Any) -> None:
        super().__init__(sources, size, **options)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        draws = self._draws(index)
        canvas = self._canvas(draws)
        tile, label = self._tile((index + self.seed * self.length) % len(self.sources.items), draws)
        length = self.size * draws.uniform(0.65, 0.95)
        slack = (self.size - length) / 2
        x, y = (self.size / 2 + draws.uniform(-slack, slack) for _ in range(2))
        paste(canvas, tile, Placement(x, y, length, draws.uniform(-12, 12), draws.chance(0.5)))
        return self._finish(canvas), label


class GarmentScenes(Composites):
    """Several garments, some in front of others, for detection, instance and semantic segmentation.

    Samples are (picture (3, size, size) uint8, target), the target a dict:
        ``boxes`` (N, 4) float32, XYXY pixels, tight around what is visible; ``labels`` (N,) int64 from 0;
        ``masks`` (N, size, size) bool, what is visible, disjoint; ``semantic`` (size, size) int64, 0 for background,
        else the class plus 1; ``image_id`` int, the index. N is 1 to ``max_items``; at least 40 % of every garment is
        visible.
    """

    STREAM = 1

    def __init__(self, sources: Sources, size: int = 256, *, max_items: int = 6, **options: Any) -> None:
        if max_items < 1:
            raise SourceError(f"a scene has at least one garment, not {max_items}")
        super().__init__(sources, size, **options)
        self.max_items = max_items

    def __getitem__(self, index: int) -> tuple[Any, dict[str, Any]]:
        draws = self._draws(index)
        canvas = self._canvas(draws)
        masks, whole, labels = torch.zeros(0, self.size, self.size, dtype=torch.bool), torch.zeros(0), []
        for _ in range(1 + draws.below(self.max_items)):
            tile, label = self._tile(draws.below(len(self.sources.items)), draws)
            for _ in range(ATTEMPTS):
                attempt = canvas.clone()
                mask = paste(attempt, tile, self._placement(draws))
                uncovered = masks & ~mask
                if (uncovered.sum((1, 2)) >= MIN_VISIBLE * whole).all() and mask.any():
                    canvas, masks = attempt, torch.cat([uncovered, mask[None]])
                    whole, labels = torch.cat([whole, mask.sum()[None]]), [*labels, label]
                    break
        classes = torch.tensor(labels)
        target = {
            "boxes": tight_boxes(masks),
            "labels": classes,
            "masks": masks,
            "semantic": (masks * (classes + 1)[:, None, None]).sum(0),
            "image_id": index,
        }
        return self._finish(canvas), target

    def _placement(self, draws: Draws) -> Placement:
        length = self.size * draws.uniform(0.18, 0.5)
        x, y = (draws.uniform(length / 2, self.size - length / 2) for _ in range(2))
        return Placement(x, y, length, draws.uniform(-25, 25), draws.chance(0.5))


class GarmentClips(Composites):
    """One garment that moves in one of eight ways before a photograph that stands still.

    Samples are (clip (3, frames, size, size) uint8, target), the target a dict: ``item`` int, the class;
    ``motion`` int, index into ``MOTIONS``; ``boxes`` (frames, 4) float32, XYXY pixels; ``masks``
    (frames, size, size) bool. The motion is drawn at random for every clip, and single frames do not tell it.
    """

    STREAM = 2

    def __init__(self, sources: Sources, size: int = 112, *, frames: int = 16, **options: Any) -> None:
        if frames < 2:
            raise SourceError(f"motion takes at least two frames, not {frames}")
        super().__init__(sources, size, **options)
        self.frames = frames

    def __getitem__(self, index: int) -> tuple[Any, dict[str, Any]]:
        draws = self._draws(index)
        background = self._canvas(draws)
        tile, label = self._tile(index % len(self.sources.items), draws)
        motion = draws.below(len(MOTIONS))
        clip = background[:, None].repeat(1, self.frames, 1, 1)
        masks = [
            paste(clip[:, frame], tile, placement) for frame, placement in enumerate(self._path(MOTIONS[motion], draws))
        ]
        masks = torch.stack(masks)
        target = {"item": label, "motion": motion, "boxes": tight_boxes(masks), "masks": masks}
        return self._finish(clip), target

    def _path(self, motion: str, draws: Draws) -> list[Placement]:
        """A placement for every frame; start and end lie evenly around a random middle."""
        side, mirrored = self.size, draws.chance(0.5)
        x, y = (side * draws.uniform(0.42, 0.58) for _ in range(2))
        length, angle = side * draws.uniform(0.45, 0.6), draws.uniform(-15, 15)
        shift, stretch, turn = side * draws.uniform(0.2, 0.4), draws.uniform(1.4, 1.8), draws.uniform(50, 110)
        dx = {"left": -shift, "right": shift}.get(motion, 0.0)
        dy = {"up": -shift, "down": shift}.get(motion, 0.0)
        factor = {"grow": stretch, "shrink": 1 / stretch}.get(motion, 1.0)
        turned = {"clockwise": turn, "anticlockwise": -turn}.get(motion, 0.0)
        times = [frame / (self.frames - 1) - 0.5 for frame in range(self.frames)]
        return [Placement(x + t * dx, y + t * dy, length * factor**t, angle + t * turned, mirrored) for t in times]
