"""Random resizing and cropping as the published configurations for COCO and ADE20K have them, for torchvision's v2.

Pictures are resized bilinearly without antialiasing, as :mod:`stvit.detection.preprocess` does it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from stvit.segmentation.score_maps import IGNORE_INDEX, scaled_hw

CROP_ATTEMPTS = 10


class RandomResize(v2.Transform):
    """Resize within bounds that are drawn at random, proportions kept."""

    @abstractmethod
    def draw_scale(self) -> tuple[int, int]:
        """Bounds of the long and of the short side in pixels."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"size": list(scaled_hw(v2.query_size(flat_inputs), self.draw_scale()))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return functional.resize(inpt, params["size"], antialias=False)


class RandomShortSide(RandomResize):
    """One of several short sides.

    Args:
        short_sides: in pixels.
        longest: that the long side may be, in pixels.
    """

    def __init__(self, short_sides: Sequence[int], longest: int) -> None:
        super().__init__()
        self.short_sides, self.longest = tuple(short_sides), longest

    def draw_scale(self) -> tuple[int, int]:
        return self.longest, self.short_sides[draw_below(len(self.short_sides))]


class RandomRatio(RandomResize):
    """A multiple of a scale.

    Args:
        scale: bounds of the long and of the short side in pixels.
        ratios: lowest and highest multiple.
    """

    def __init__(self, scale: tuple[int, int], ratios: tuple[float, float]) -> None:
        super().__init__()
        self.scale, self.ratios = scale, ratios

    def draw_scale(self) -> tuple[int, int]:
        low, high = self.ratios
        ratio = low + (high - low) * torch.rand(()).item()
        return tuple(max(int(side * ratio), 1) for side in self.scale)


class Crop(v2.Transform):
    """A crop whose place is drawn at random, no larger than the picture."""

    @abstractmethod
    def draw_size(self, picture_hw: tuple[int, int]) -> tuple[int, int]:
        """Height and width in pixels."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        H, W = v2.query_size(flat_inputs)
        height, width = self.draw_size((H, W))
        top, left = draw_below(H - height + 1), draw_below(W - width + 1)
        return {"top": top, "left": left, "height": height, "width": width}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return functional.crop(inpt, **params)


class CropBetween(Crop):
    """A crop with sides between two bounds, drawn independently.

    Args:
        shortest, longest: in pixels.
    """

    def __init__(self, shortest: int, longest: int) -> None:
        super().__init__()
        self.shortest, self.longest = shortest, longest

    def draw_size(self, picture_hw: tuple[int, int]) -> tuple[int, int]:
        low, high = ([min(side, bound) for side in picture_hw] for bound in (self.shortest, self.longest))
        return tuple(a + draw_below(b - a + 1) for a, b in zip(low, high, strict=True))


class CropOfSeveralClasses(Crop):
    """A square crop, drawn again, ten times at most, while one class covers too much of what is labelled in it.

    Args:
        side: in pixels.
        most: share that a class may cover.
    """

    def __init__(self, side: int, most: float) -> None:
        super().__init__()
        self.side, self.most = side, most

    def draw_size(self, picture_hw: tuple[int, int]) -> tuple[int, int]:
        return tuple(min(side, self.side) for side in picture_hw)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        labels = next(one for one in flat_inputs if isinstance(one, tv_tensors.Mask))
        for _ in range(CROP_ATTEMPTS):
            params = super().make_params(flat_inputs)
            cropped = functional.crop(labels, **params)
            counts = cropped[cropped != IGNORE_INDEX].unique(return_counts=True)[1]
            if len(counts) > 1 and counts.max() < self.most * counts.sum():
                break
        return params


def draw_below(bound: int) -> int:
    """A whole number from 0 to ``bound - 1``."""
    return int(torch.randint(bound, ()))
