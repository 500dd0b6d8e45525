"""Models that start from trained weights of another network, with every parameter accounted for."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from torch import Tensor, nn

#: parts that Swin has nothing for: its stem is another one, and it has no semantic tokens
NEW_PARTS = (".stem.", ".pooling.", ".global_centres", ".expand.", ".ls1.", ".ls2.")
#: parts of Swin that semantic-token models lack
LEFT_OUT = ("patch_embed.", ".relative_position_index", ".attn_mask")
#: parts of Swin that layers and stages of semantic tokens lack
NOT_EVERYWHERE = (".relative_position_bias_table", ".downsample.")


def init_from_state_dict(model: nn.Module, state: Mapping[str, Tensor], new: Collection[str], source: str) -> None:
    """Load weights that cover all parameters of a model but the new ones, which keep their values.

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


def init_from_swin(model: nn.Module, full_token: Mapping[str, Tensor], layers: Sequence[Sequence[str]]) -> list[str]:
    """Initialise a semantic-token Swin from timm's Swin of the same sizes, layer by layer.

    Args:
        model: with semantic tokens; parts beside the layers are called ``stages.N.downsample``, ``norm`` and ``head``.
        full_token: state dict of timm's ``SwinTransformer``.
        layers: for every stage, the names of the model's layers, in the order of Swin's.

    Returns:
        Names of the parameters that Swin has nothing for; they keep their initial values.

    Raises:
        ValueError: the names or shapes are not those of such a model; nothing is changed.
    """
    renamed = {
        _renamed(name, layers): tensor
        for name, tensor in number_merging_by_source(full_token).items()
        if not any(part in name for part in LEFT_OUT)
    }
    new = _new_parameters(model, NEW_PARTS)
    state = _fit_semantic_layers(renamed, model)
    init_from_state_dict(model, state, new, f"the full-token Swin of {type(model).__name__}")
    return new


def init_video_swin_from_swin(model: nn.Module, image_swin: Mapping[str, Tensor]) -> list[str]:
    """Initialise Video Swin from timm's Swin (Liu et al., Video Swin Transformer, section 3.3); see
    :func:`inflate_swin`. The head keeps its initial values, which this returns the names of.

    Raises:
        ValueError: the names or shapes are not those of such a model; nothing is changed.
    """
    new = ["head.bias", "head.weight"]
    init_from_state_dict(model, inflate_swin(image_swin, model), new, f"the Swin of {type(model).__name__}")
    return new


def init_stvit_video_swin(model: nn.Module, full_token: Mapping[str, Tensor]) -> list[str]:
    """Initialise a semantic-token Video Swin from Video Swin, or from timm's Swin of images.

    Args:
        model: :class:`~stvit.models.stvit_video_swin.STViTVideoSwin`.
        full_token: state dict of a model of the same sizes; of an image model, the head is left out.

    Returns:
        Names of the parameters that the trained model has nothing for; they keep their initial values.

    Raises:
        ValueError: the names or shapes are not those of such a model; nothing is changed.
    """
    new = _new_parameters(model, [part for part in NEW_PARTS if part != ".stem."])
    if any(name.startswith("patch_embed.") for name in full_token):
        full_token, new = inflate_swin(full_token, model), sorted([*new, "head.bias", "head.weight"])
    third = model.stages[2]
    replaced = [
        *(f"stages.2.image_layers.{j}." for j in range(len(third.image_layers))),
        "stages.2.stgm_spatial.",
        "stages.2.stgm_global.",
        *(f"stages.2.semantic_layers.{j}." for j in range(len(third.semantic_layers))),
    ]
    renamed = {f"stages.2.layers.{i}.": name for i, name in enumerate(replaced)}
    renamed |= {f"stages.3.layers.{j}.": f"stages.3.{j}." for j in range(len(model.stages[3]))}
    layer = re.compile(r"^stages\.\d\.layers\.\d+\.")
    named = {layer.sub(lambda match: renamed.get(match[0], match[0]), name): t for name, t in full_token.items()}
    state = _fit_semantic_layers(named, model)
    init_from_state_dict(model, state, new, f"the full-token model of {type(model).__name__}")
    return new


def inflate_swin(image_swin: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Weights of timm's Swin -> Video Swin's, without the head, such that a still clip gives an image's features.

    Patches of several frames are projected as their mean, and positions are told apart inside the frame alone.
    """
    patch_frames = model.stem.proj.kernel_size[0]
    window_frames = model.stages[0].layers[0].window_size[0]
    state = {}
    for name, tensor in number_merging_by_source(image_swin).items():
        name = name.replace("patch_embed.", "stem.").replace("layers.", "stages.").replace(".blocks.", ".layers.")
        if name == "stem.proj.weight" and tensor.ndim == 4:
            tensor = tensor.unsqueeze(2).repeat(1, 1, patch_frames, 1, 1) / patch_frames
        if name.endswith(".relative_position_bias_table"):
            tensor = tensor.repeat(2 * window_frames - 1, 1)
        if not name.startswith("head.") and not name.endswith((".relative_position_index", ".attn_mask")):
            state[name] = tensor
    return state


def number_merging_by_source(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Number Swin's patch merging by the stage that it follows; timm numbers it by the stage that it leads to."""
    merging = re.compile(r"^layers\.(\d)\.(?=downsample\.)")
    if not any(name.startswith("layers.3.downsample.") for name in state_dict):
        return dict(state_dict)
    return {merging.sub(lambda stage: f"layers.{int(stage[1]) - 1}.", n): t for n, t in state_dict.items()}


def _fit_semantic_layers(full_token: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Split ``qkv`` into ``q`` and ``kv`` for layers of semantic tokens, and drop what they have no parameters for."""
    own, state = model.state_dict(), {}
    for name, tensor in full_token.items():
        if name not in own and ".attn.qkv." in name:
            queries, keys_values = tensor.tensor_split([tensor.shape[0] // 3])
            state |= {name.replace("qkv", "q"): queries, name.replace("qkv", "kv"): keys_values}
        elif name in own or not any(part in name for part in NOT_EVERYWHERE):
            state[name] = tensor
    return state


def _new_parameters(model: nn.Module, parts: Collection[str]) -> list[str]:
    return sorted(name for name in model.state_dict() if any(part in f".{name}" for part in parts))


def _renamed(name: str, layers: Sequence[Sequence[str]]) -> str:
    """The name of one of Swin's parameters in a semantic-token model; a layer without counterpart keeps its name."""
    kind, _, rest = name.partition(".")
    if kind != "layers":
        return name.replace("head.fc.", "head.")
    stage, part, rest = rest.split(".", 2)
    if part == "downsample":
        return f"stages.{stage}.downsample.{rest}"
    layer, _, rest = rest.partition(".")
    if int(stage) < len(layers) and int(layer) < len(layers[int(stage)]):
        return f"{layers[int(stage)][int(layer)]}.{rest}"
    return name
