"""Starting from a trained full-token Swin: every layer takes the weights of the layer that it replaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from .takeover import merging_after_stages, take_over

#: parts that Swin has nothing for: its stem is another one, and it has no semantic tokens
NEW_PARTS = (".stem.", ".pooling.", ".global_centres", ".expand.", ".ls1.", ".ls2.")
#: parts of Swin that have no place here
LEFT_OUT = ("patch_embed.", ".relative_position_index", ".attn_mask")
#: parts of Swin that layers and stages of semantic tokens lack
NOT_EVERYWHERE = (".relative_position_bias_table", ".downsample.")


def initialise_from_swin(
    model: nn.Module, full_token: Mapping[str, Tensor], layers: Sequence[Sequence[str]]
) -> list[str]:
    """Take over the weights of timm's Swin of the same sizes.

    Layers of semantic tokens take ``qkv`` split into ``q`` and ``kv``, and no position bias, for they have none.

    Args:
        model: with semantic tokens; parts beside the layers are called ``stages.N.downsample``, ``norm`` and ``head``.
        full_token: state dict of timm's ``SwinTransformer``.
        layers: for every stage, the names of the layers here, in the order of Swin's.

    Returns:
        Names of the parameters that Swin has nothing for; they keep their initial values.

    Raises:
        ValueError: the names or shapes are not those of such a model; nothing is changed.
    """
    own = model.state_dict()
    state: dict[str, Tensor] = {}
    for name, tensor in merging_after_stages(full_token).items():
        new_name = _named_here(name, layers)
        parts = {new_name: tensor}
        if new_name not in own and ".attn.qkv." in new_name:
            queries, keys_values = tensor.tensor_split([tensor.shape[0] // 3])
            parts = {new_name.replace("qkv", "q"): queries, new_name.replace("qkv", "kv"): keys_values}
        lacking = new_name not in own and any(part in new_name for part in NOT_EVERYWHERE)
        if not lacking and not any(part in name for part in LEFT_OUT):
            state |= parts
    new = sorted(name for name in own if any(part in f".{name}" for part in NEW_PARTS))
    take_over(model, state, new, f"the full-token Swin of {type(model).__name__}")
    return new


def _named_here(name: str, layers: Sequence[Sequence[str]]) -> str:
    """What one of Swin's parameters is called here; a layer that there is none for keeps its name."""
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
