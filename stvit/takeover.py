"""Taking over the weights of another, trained network, with every name accounted for."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from torch import Tensor, nn


def take_over(model: nn.Module, state: Mapping[str, Tensor], new: Collection[str], source: str) -> None:
    """Load weights that cover a model but for the named parameters, which keep their values.

    Args:
        state: weights of another network, under this model's names.
        new: parameters of the model that the other network has nothing for.
        source: what the weights should have been, for the message.

    Raises:
        ValueError: the names or shapes are others; nothing is changed.
    """
    own = model.state_dict()
    missing, unknown = sorted(own.keys() - state.keys() - set(new)), sorted(state.keys() - own.keys())
    wrong = sorted(name for name in own.keys() & state.keys() if own[name].shape != state[name].shape)
    if missing or unknown or wrong:
        raise ValueError(
            f"these are not the weights of {source}: missing {missing[:4]}, unknown {unknown[:4]}, of another shape "
            f"{wrong[:4]}; take the model of the same sizes"
        )
    model.load_state_dict({**own, **state})


def merging_after_stages(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Number Swin's patch merging by the stage that it follows; timm numbers it by the stage that it leads to."""
    merging = re.compile(r"^layers\.(\d)\.(?=downsample\.)")
    if not any(name.startswith("layers.3.downsample.") for name in state_dict):
        return dict(state_dict)
    return {merging.sub(lambda stage: f"layers.{int(stage[1]) - 1}.", n): t for n, t in state_dict.items()}
