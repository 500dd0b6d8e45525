"""Clip models that start from trained weights: Swin's of images, Video Swin's, or their own."""

from __future__ import annotations

from collections.abc import Mapping

from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

from stvit.init_weights import NEW_PARTS
from stvit.models.stvit_video_swin import STViTVideoSwin
from stvit.models.video_swin import VideoSwin
from stvit.takeover import merging_after_stages, take_over

HEAD = ("head.weight", "head.bias")


def start_clip_model(model: VideoSwin | STViTVideoSwin, trained: nn.Module) -> list[str]:
    """Take over the weights of a trained model of the same sizes.

    Args:
        model: to be trained.
        trained: timm's Swin, whose weights are spread over the frames (Liu et al., Video Swin Transformer, section
            3.3) and whose head, for other classes, is left out; or a clip model.

    Returns:
        Names of the parameters that the trained model has nothing for; they keep their initial values.

    Raises:
        ValueError: the names or shapes are not those of such a model; nothing is changed.
    """
    state, new = trained.state_dict(), []
    if isinstance(trained, SwinTransformer):
        state, new = inflate(state, model), list(HEAD)
    if isinstance(model, STViTVideoSwin) and not isinstance(trained, STViTVideoSwin):
        state = with_semantic_tokens(state, model)
        new += [name for name in model.state_dict() if any(part in name for part in NEW_PARTS if part != ".stem.")]
    take_over(model, state, new, f"{type(trained).__name__} to start {type(model).__name__} from")
    return sorted(new)


def inflate(image_swin: Mapping[str, Tensor], model: VideoSwin | STViTVideoSwin) -> dict[str, Tensor]:
    """Weights of timm's Swin -> Video Swin's, without the head, such that a still clip gives an image's features.

    Patches of several frames are projected as their mean, and positions are told apart inside the frame alone.
    """
    patch_frames = model.stem.proj.kernel_size[0]
    window_frames = model.stages[0].layers[0].window_size[0]
    state = {}
    for name, tensor in merging_after_stages(image_swin).items():
        name = name.replace("patch_embed.", "stem.").replace("layers.", "stages.").replace(".blocks.", ".layers.")
        if name == "stem.proj.weight":
            tensor = tensor.unsqueeze(2).repeat(1, 1, patch_frames, 1, 1) / patch_frames
        if name.endswith(".relative_position_bias_table"):
            tensor = tensor.repeat(2 * window_frames - 1, 1)
        if not name.startswith("head.") and not name.endswith((".relative_position_index", ".attn_mask")):
            state[name] = tensor
    return state


def with_semantic_tokens(video_swin: Mapping[str, Tensor], model: STViTVideoSwin) -> dict[str, Tensor]:
    """Weights of Video Swin under the names of the layers that replace its own.

    Layers of semantic tokens take ``qkv`` split into ``q`` and ``kv``, and no position bias, for they have none.
    """
    third = model.stages[2]
    names = [
        *(f"stages.2.image_layers.{j}." for j in range(len(third.image_layers))),
        "stages.2.stgm_spatial.",
        "stages.2.stgm_global.",
        *(f"stages.2.semantic_layers.{j}." for j in range(len(third.semantic_layers))),
    ]
    renamed = {f"stages.2.layers.{i}.": name for i, name in enumerate(names)}
    renamed |= {f"stages.3.layers.{j}.": f"stages.3.{j}." for j in range(len(model.stages[3]))}
    own, state = model.state_dict(), {}
    for name, tensor in video_swin.items():
        layer = next((layer for layer in renamed if name.startswith(layer)), "")
        name = renamed.get(layer, "") + name.removeprefix(layer)
        if name not in own and ".attn.qkv." in name:
            queries, keys_values = tensor.tensor_split([tensor.shape[0] // 3])
            state |= {name.replace("qkv", "q"): queries, name.replace("qkv", "kv"): keys_values}
        elif name in own or not (name.startswith("stages.2.downsample.") or name.endswith("position_bias_table")):
            state[name] = tensor
    return state
