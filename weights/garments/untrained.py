"""``python -m weights.garments.untrained --data backgrounds=DIR``: fewer tokens without any training, on one network.

The network is a bundled DeiT with a class token; semantic tokens, ToMe, EViT and ATC take its weights as they are, at
equal multiply-adds as nearly as their settings allow; with ``--engine``, at equal measured time (ATC, whose graphs are
slower than the original's, under eager alone). Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import stvit
from stvit.checkpoint import load_checkpoint
from stvit.errors import UserError
from stvit.export.graph import example_images
from stvit.measure.timing import Quartiles, interleave, speed_up
from stvit.predict.device import best_precision, device_name
from stvit.predict.engines import Engine
from stvit.pretrained.model_cards import ModelCard, read_card
from stvit.shell import positive
from stvit.training.recipe import DataPaths, add_data_option, load_recipe

from .training import GarmentPictures

CARD = Path(__file__).parents[1] / "bundled" / "garments_evit_07.json"
TOKENS = (100, 64, 36, 16)
RATES = [rate / 200 for rate in range(20, 200)]  # of the tokens that EViT and ATC keep
MERGED = range(1, 60)  # tokens that ToMe merges in a layer
ARCHITECTURE = "deit_tiny_patch16_224"
OF_CPUS = ("eager", "openvino")  # engines; auto might run two networks under two

Build = Callable[..., nn.Module]  # (registered name, its options) -> a network with the weights of the card


def builder(card: ModelCard) -> Build:
    """What builds networks of the card's size with its weights."""
    options = {name: value for name, value in card.options.items() if name != "keep_rate"}

    def build(name: str, **more: float) -> nn.Module:
        model = stvit.create_model(name, **options, **more)
        load_checkpoint(model, card.path)
        return model

    return build


def networks(
    build: Build, original: nn.Module, cost: Callable[[nn.Module], float], *, graphs: bool
) -> Iterator[tuple[str, nn.Module]]:
    """The full-token network, then its versions with fewer tokens: semantic ones, and of the other methods those whose
    cost is nearest.

    Args:
        graphs: the cost is that of graphs. ATC is left out: its graph, one step for every merge, takes minutes to make
            and runs slower than the original's.
    """
    yield "all 196 image tokens", original
    families = [
        ("ToMe, r = {}", list(MERGED), lambda r: build(f"tome_{ARCHITECTURE}", r=r)),
        ("EViT, keep rate {}", RATES, lambda rate: build(f"evit_{ARCHITECTURE}", keep_rate=rate)),
    ]
    if not graphs:
        families.append(("ATC, keep rate {}", RATES, lambda rate: build(f"atc_{ARCHITECTURE}", keep_rate=rate)))
    others = [
        (label, choices, make, cache(lambda value, make=make: cost(make(value)))) for label, choices, make in families
    ]
    for count in TOKENS:
        sparse = stvit.sparsify(original, count)
        wanted = cost(sparse)
        yield f"{count} semantic tokens", sparse
        for label, choices, make, costs in others:
            setting = nearest(costs, choices, wanted)
            yield label.format(setting), make(setting)


class Clock:
    """Measures networks beside the original, in turns under one engine on the CPU, in its fastest precision.

    Args:
        images: of a pass.
        engine: one of ``OF_CPUS``.
        rounds: of a measurement.
    """

    def __init__(self, original: nn.Module, images: Tensor, engine: str, rounds: int) -> None:
        self.images, self.engine, self.rounds = images, engine, rounds
        self.precision = best_precision(images.device)
        self._original = self._run(original)

    def __call__(self, model: nn.Module) -> Quartiles:
        """How many times as fast as the original, in the rounds.

        Raises:
            UserError: the engine cannot run it.
        """
        runs = {"model": self._run(model), "original": self._original}
        rounds = [one.times_ms for one in interleave(runs, self.images, rounds=self.rounds)]
        return speed_up([one["model"] for one in rounds], [one["original"] for one in rounds])

    def share(self, model: nn.Module) -> float:
        """Part of the original's time."""
        return 1 / self(model).median

    def _run(self, model: nn.Module) -> Engine:
        run = Engine(copy.deepcopy(model).to(self.precision), self.engine, wait=True)
        run(self.images)
        served = run.serving(tuple(self.images.shape))
        if served != self.engine:
            raise UserError(f"{self.engine} cannot run {type(model).__name__}, {served} does: {' '.join(run.notes)}")
        return run

    def __str__(self) -> str:
        batch = f"batches of {len(self.images)}" if len(self.images) > 1 else "one image at a time"
        where = device_name(self.images.device)
        return f"{self.engine}, {batch}, {str(self.precision).removeprefix('torch.')}, {self.rounds} rounds on {where}"


def nearest(costs: Callable[[float], float], choices: list[float], wanted: float) -> float:
    """The choice whose cost is nearest, by bisection over choices whose costs all rise or all fall."""
    rising = costs(choices[0]) < costs(choices[-1])
    low, high = 0, len(choices) - 1
    while high - low > 1:
        middle = (low + high) // 2
        if (costs(choices[middle]) < wanted) == rising:
            low = middle
        else:
            high = middle
    return min(choices[low], choices[high], key=lambda choice: abs(costs(choice) - wanted))


@torch.inference_mode()
def accuracy(model: nn.Module, batches: DataLoader) -> float:
    """Top-1, percent."""
    hits = [(model(images).argmax(1) == labels).float() for images, labels in batches]
    return 100 * torch.cat(hits).mean().item()


def table(card: ModelCard, batches: DataLoader, options: argparse.Namespace) -> None:
    """Print cost and accuracy of all networks."""
    build, shape = builder(card), (3, card.input_size, card.input_size)
    original, clock = build(ARCHITECTURE), None
    if options.engine:
        clock = Clock(original, example_images(shape, options.batch_size), options.engine, options.rounds)
        print(f"Speed-up under {clock}: median and middle half.\n")
    cost = clock.share if clock else lambda model: stvit.count_macs(model, shape)
    print(f"| network | M multiply-adds |{' speed-up |' if clock else ''} top-1 (%) |")
    print("|---" * (4 if clock else 3) + "|")
    for name, model in networks(build, original, cost, graphs=options.engine == "openvino"):
        macs = stvit.count_macs(model, shape) / 1e6
        faster = f" {spread(clock(model))} |" if clock else ""
        print(f"| {name} | {macs:.0f} |{faster} {accuracy(model, batches):.1f} |", flush=True)


def spread(of: Quartiles) -> str:
    return f"{of.median:.2f} ({of.q1:.2f} to {of.q3:.2f})"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m weights.garments.untrained", description=__doc__)
    add_data_option(parser, "backgrounds=DIR, photographs; items=DIR, the files of Fashion-MNIST")
    parser.add_argument("--samples", type=int, default=2000, help="pictures of the test split (default: 2000)")
    parser.add_argument("--card", type=Path, default=CARD, help="of a bundled EViT, whose DeiT is taken")
    parser.add_argument("--engine", choices=OF_CPUS, help="measure under it, and pair settings at equal time")
    parser.add_argument("--batch-size", type=positive, default=1, help="images of a measured pass (default: 1)")
    parser.add_argument("--rounds", type=positive, default=30, help="of a measurement (default: 30)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        changes = [f"data.test_samples={options.samples}"]
        recipe = load_recipe(str(Path(__file__).parent / "recipes" / "garments_evit_07.toml"), changes)
        data = GarmentPictures(recipe, DataPaths(dict(options.data)))
        table(read_card(options.card), DataLoader(data.dataset("test", 0), batch_size=50), options)
    except UserError as error:
        print(f"weights.garments.untrained: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
