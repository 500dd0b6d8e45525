"""Models by their registered names, for inputs of a size."""

from __future__ import annotations

import timm
import torch
from torch import nn

from stvit.errors import UserError
from stvit.factory import create_model

from .macs import count_macs
from .processes import CannotMeasure


def named(
    names: list[str], input_hw: tuple[int, int], backbones: bool, device: torch.device, precision: torch.dtype
) -> dict[str, nn.Module]:
    """The models by name, placed, in evaluation mode; see :func:`build`."""
    return {name: build(name, input_hw, backbones).to(device, precision).eval() for name in names}


def build(name: str, input_hw: tuple[int, int], backbone: bool) -> nn.Module:
    """A model for inputs of a size, or its backbone.

    Raises:
        CannotMeasure: the model does not take that size, or has no backbone.
    """
    try:
        model = _for_size(name, input_hw)
        if backbone:
            if not hasattr(model, "backbone"):
                raise CannotMeasure(f"{name} is no detector or segmenter.", "Leave out --backbones.")
            model = model.backbone
        else:
            _check_patches(model, input_hw)
        count_macs(model, (3, *input_hw))
    except (AssertionError, TypeError, ValueError, RuntimeError) as error:  # what networks and timm raise
        if isinstance(error, UserError):
            raise
        raise CannotMeasure(
            f"{name} cannot be measured on inputs of {input_hw[0]}x{input_hw[1]} pixels: {error}.",
            "Choose another --input-size, or --backbones for a detector.",
        ) from error
    return model


def _for_size(name: str, input_hw: tuple[int, int]) -> nn.Module:
    """The model made for the size where that is an option of it, as of vision transformers; else as it is."""
    if timm.get_pretrained_cfg_value(name, "input_size") in (None, (3, *input_hw)):
        return create_model(name)
    try:
        return create_model(name, img_size=input_hw[0] if input_hw[0] == input_hw[1] else input_hw)
    except TypeError:  # no such option: the network takes any size, or says what it takes when it runs
        return create_model(name)


def _check_patches(model: nn.Module, input_hw: tuple[int, int]) -> None:
    """Refuse sizes of which timm's patch embedding would cut off what makes no whole patch.

    Raises:
        ValueError: see above.
    """
    patch_hw = getattr(getattr(model, "patch_embed", None), "patch_size", (1, 1))[-2:]
    if any(side % patch for side, patch in zip(input_hw, patch_hw, strict=True)):
        raise ValueError(f"both sides must be whole patches of {patch_hw[0]}x{patch_hw[1]} pixels")
