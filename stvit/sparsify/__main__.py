"""``python -m stvit.sparsify MODEL --tokens 16 --output DIR``: semantic tokens for a trained network of timm."""

from __future__ import annotations

import argparse
import copy
import math
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from timm.models import is_model
from timm.models.swin_transformer import SwinTransformer
from torch import nn

from stvit.errors import UserError
from stvit.measure.engines import compare_engines, engines_table
from stvit.measure.macs import count_macs
from stvit.predict.classifier import imagenet_classes
from stvit.predict.device import best_precision, keep_freed_memory
from stvit.predict.engines import ENGINES
from stvit.predict.load import Source, classes_of, load_network
from stvit.pretrained.model_cards import numbered_classes, read_card
from stvit.pretrained.records import UnknownModel, similar_names
from stvit.shell import positive

from .architectures import input_shape
from .convert import sparsify
from .fit import check_structure, default_position
from .folder import check_folder, write_folder
from .search import Setting, gain_of, placed, search, settings

DEFAULT_TOKENS = 16
#: engines that --measure takes on a kind of device
AT_HAND = {"cpu": ("eager", "openvino"), "cuda": ("eager", "cuda_graphs", "compiled")}


def main(arguments: list[str] | None = None) -> int:
    try:
        run(parse(arguments))
    except UserError as error:
        print(f"stvit.sparsify: {error}", file=sys.stderr)
        return 1
    return 0


def run(options: argparse.Namespace) -> None:
    card = read_card(options.model) if options.model.endswith(".json") else None
    source = Source(card.model if card else options.model, options.checkpoint, card)
    if ":" not in source.name and not is_model(source.name.partition(".")[0]):
        folder = Path(source.name).is_dir()
        advice = f"Of a folder, name its card (.json), or local-dir:{source.name}." if folder else None
        raise UnknownModel(f"{source.name} is not registered with timm.", advice or similar_names(source.name))
    if options.output:
        check_folder(options.output)
    original = load_network(source, torch.device("cpu"), torch.float32, random=options.random_weights)
    check_structure(original, options.method)
    shape = input_shape(original)
    tokens, position = DEFAULT_TOKENS if options.tokens is None else options.tokens, options.position
    if options.target_speedup:
        tokens, position = searched(original, shape, options)
    choice = {"method": options.method, "stgm_layers": options.stgm_layers}
    sparse = sparsify(original, tokens, position, pooling=options.pooling, **choice)
    if position is None and options.method == "stvit":
        position = default_position(original, options.stgm_layers)
    print(costs_table(original, sparse, shape, settings_in_words(original, tokens, position)))
    if options.measure:
        models = {f"{source.label}, {tokens} tokens": sparse, source.label: original}
        build = partial(placed, models, options.device)
        engines = options.engines or AT_HAND[options.device]
        measured = compare_engines(build, engines, input_shape=shape, batch_sizes=(options.batch_size,))
        print("\n" + engines_table(measured))
    if options.output:
        write_folder(
            sparse, options.output, classes=class_names(source, original), weights_of=weights_of(source, options)
        )
        print(f"\nWritten to {options.output}: timm.create_model('local-dir:{options.output}', pretrained=True)")


def searched(original: nn.Module, shape: tuple[int, ...], options: argparse.Namespace) -> tuple[int, int | None]:
    """Tokens and position that reach the wanted speed-up on this device."""
    device = torch.device(options.device)
    placed_original = placed({"original": copy.deepcopy(original)}, options.device)["original"]
    precision = best_precision(device)
    images = torch.randn(options.batch_size, *shape).to(device, precision)

    def measured(setting: Setting) -> float:
        choice = {"stgm_layers": options.stgm_layers, "method": options.method, "pooling": options.pooling}
        sparse = sparsify(placed_original, setting.num_semantic_tokens, setting.stgm_position, **choice)
        gain = gain_of(sparse, placed_original, images)
        print(f"{setting}: {gain:.2f}x", flush=True)
        return gain

    candidates = settings(original, shape, options.method, options.stgm_layers)
    found, _ = search(candidates, options.target_speedup, measured)
    return found.num_semantic_tokens, found.stgm_position


def costs_table(original: nn.Module, sparse: nn.Module, shape: tuple[int, ...], what: str) -> str:
    """Multiply-adds before and after; ``what`` are the settings in words."""
    before, after = count_macs(original, shape), count_macs(sparse, shape)
    return (
        f"{'':>12} {'G multiply-adds':>16} {'M parameters':>13}\n"
        f"{'original':>12} {before / 1e9:16.3f} {parameters(original) / 1e6:13.2f}\n"
        f"{'sparsified':>12} {after / 1e9:16.3f} {parameters(sparse) / 1e6:13.2f}\n"
        f"{what}: {before / after:.2f} times fewer multiply-adds on {shape[1]}x{shape[2]} pixels"
    )


def settings_in_words(original: nn.Module, tokens: int, position: int | None) -> str:
    """Where there are how many semantic tokens; without a position, those of ``stvit_r``."""
    if not isinstance(original, SwinTransformer):
        return f"{tokens} semantic tokens after {position} layers"
    where = "in every six layers" if position is None else f"after {position} layers"
    return f"{tokens} semantic tokens per window {where} of stage 3"


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def class_names(source: Source, network: nn.Module) -> Sequence[str]:
    """Those of the card, of the model folder or of ImageNet-1k; numbers for other classes."""
    if source.card:
        return classes_of(source, network)
    labels = network.pretrained_cfg.get("label_names") or ()
    if network.num_classes == 1000 and not labels:
        return imagenet_classes()
    return labels if len(labels) == network.num_classes else numbered_classes(network.num_classes)


def weights_of(source: Source, options: argparse.Namespace) -> str:
    """What the original's weights are, in words."""
    if options.random_weights:
        return f"{source.label}, random"
    if options.checkpoint:
        return f"{source.label}, {options.checkpoint.name}"
    return source.label if source.card else f"{source.label}, as published"


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m stvit.sparsify", description=__doc__)
    what = "name in timm (hf-hub: and local-dir: too), or the card (.json) of a trained model"
    parser.add_argument("model", metavar="MODEL", help=what)
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--checkpoint", type=Path, metavar="FILE", help="its weights (default: the published ones)")
    weights.add_argument("--random-weights", action="store_true", help="leave out all weights, to see cost and speed")
    parser.add_argument("--tokens", type=int, help=f"semantic tokens, a square number (default: {DEFAULT_TOKENS})")
    parser.add_argument("--position", type=int, help="layers before the STGM (default: a third; of Swin, half)")
    parser.add_argument("--stgm-layers", type=int, default=2, help="layers of the STGM (default: 2)")
    parser.add_argument("--method", choices=("stvit", "stvit_r"), default="stvit", help="stvit_r keeps Swin's maps")
    parser.add_argument("--pooling", choices=("average", "max", "intra_inter"), default="average")
    how = "find tokens and position that reach this, more than 1"
    parser.add_argument("--target-speedup", type=gain, metavar="X", help=how)
    parser.add_argument("--measure", action="store_true", help="also measure both under every engine at hand")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, help="those that --measure takes")
    parser.add_argument("--batch-size", type=positive, default=1, help="images of a measured pass (default: 1)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--output", type=Path, metavar="DIR", help="write a model folder")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: there is no CUDA device here")
    if options.target_speedup and (options.tokens, options.position) != (None, None):
        parser.error("--target-speedup finds tokens and position: leave out --tokens and --position")
    if options.engines and not options.measure:
        parser.error("--engines are those that --measure takes: give both")
    return options


def gain(text: str) -> float:
    """A finite number above 1."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 1 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 1")
    return value


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
