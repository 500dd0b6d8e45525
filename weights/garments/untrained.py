"""``python -m weights.garments.untrained --data backgrounds=DIR``: fewer tokens without any training, on one network.

The network is a bundled DeiT with a class token; semantic tokens, ToMe and EViT take its weights as they are, at equal
multiply-adds as nearly as their settings allow. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

import stvit
from stvit.checkpoint import load_checkpoint
from stvit.errors import UserError
from stvit.pretrained.model_cards import read_card
from stvit.training.recipe import DataPaths, add_data_option, load_recipe

from .training import GarmentPictures

CARD = Path(__file__).parents[1] / "bundled" / "garments_evit_07.json"
TOKENS = (100, 64, 36, 16)
RATES = [rate / 200 for rate in range(20, 200)]  # of the tokens that EViT keeps
MERGED = range(1, 60)  # tokens that ToMe merges in a layer
ARCHITECTURE = "deit_tiny_patch16_224"


def networks(card_file: Path) -> Iterator[tuple[str, nn.Module]]:
    """The full-token network, then its versions with fewer tokens."""
    card = read_card(card_file)
    options = {name: value for name, value in card.options.items() if name != "keep_rate"}

    def build(name: str, **more: float) -> nn.Module:
        model = stvit.create_model(name, **options, **more)
        load_checkpoint(model, card.path)
        return model

    original = build(ARCHITECTURE)
    shape = (3, card.input_size, card.input_size)
    yield "all 196 image tokens", original
    for count in TOKENS:
        sparse = stvit.sparsify(original, count)
        macs = stvit.count_macs(sparse, shape)
        yield f"{count} semantic tokens", sparse
        for label, make in (
            ("ToMe, r = {}", lambda r: build(f"tome_{ARCHITECTURE}", r=r)),
            ("EViT, keep rate {}", lambda rate: build(f"evit_{ARCHITECTURE}", keep_rate=rate)),
        ):
            choices = MERGED if label.startswith("ToMe") else RATES
            setting = nearest(lambda value, make=make: stvit.count_macs(make(value), shape), list(choices), macs)
            yield label.format(setting), make(setting)


def nearest(costs: Callable[[float], int], choices: list[float], macs: int) -> float:
    """The choice whose cost is nearest, by bisection over choices whose costs all rise or all fall."""
    rising = costs(choices[0]) < costs(choices[-1])
    low, high = 0, len(choices) - 1
    while high - low > 1:
        middle = (low + high) // 2
        if (costs(choices[middle]) < macs) == rising:
            low = middle
        else:
            high = middle
    return min(choices[low], choices[high], key=lambda choice: abs(costs(choice) - macs))


@torch.inference_mode()
def accuracy(model: nn.Module, batches: DataLoader) -> float:
    """Top-1, percent."""
    hits = [(model(images).argmax(1) == labels).float() for images, labels in batches]
    return 100 * torch.cat(hits).mean().item()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m weights.garments.untrained", description=__doc__)
    add_data_option(parser, "backgrounds=DIR, photographs; items=DIR, the files of Fashion-MNIST")
    parser.add_argument("--samples", type=int, default=2000, help="pictures of the test split (default: 2000)")
    parser.add_argument("--card", type=Path, default=CARD, help="of a bundled EViT, whose DeiT is taken")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        changes = [f"data.test_samples={options.samples}"]
        recipe = load_recipe(str(Path(__file__).parent / "recipes" / "garments_evit_07.toml"), changes)
        data = GarmentPictures(recipe, DataPaths(dict(options.data)))
        batches = DataLoader(data.dataset("test", 0), batch_size=50)
        print("| network | M multiply-adds | top-1 (%) |\n|---|---|---|")
        for name, model in networks(options.card):
            macs = stvit.count_macs(model, (3, data.size, data.size)) / 1e6
            print(f"| {name} | {macs:.0f} | {accuracy(model, batches):.1f} |", flush=True)
    except UserError as error:
        print(f"weights.garments.untrained: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
