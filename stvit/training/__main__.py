"""``python -m stvit.training classify|detect|segment|video --recipe NAME --output DIR``: train, or resume training."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from timm.layers import set_fused_attn, use_fused_attn

from stvit.errors import UserError, needs_extra
from stvit.predict.device import keep_freed_memory

from .recipe import Recipe, RecipeError, add_data_option, load_recipe, names
from .tasks import TASKS, make_task


def main(arguments: list[str] | None = None) -> int:
    try:
        options = parse(arguments)
        recipe = load_recipe(options.recipe, options.set)
        if recipe.task != options.task:
            raise RecipeError(f"{options.recipe} is a recipe for {recipe.task}, not for {options.task}")
        train(recipe, options)
    except (UserError, ValueError) as error:  # ValueError: what a model says of its arguments and inputs
        print(f"stvit.training: {error}", file=sys.stderr)
        return 1
    return 0


def train(recipe: Recipe, options: argparse.Namespace) -> None:
    with needs_extra("train"):  # and seconds that --help saves
        from .loop import Run, RunOptions
        from .origin import Origin

    how = RunOptions(
        accumulation=options.accumulation,
        workers=options.workers,
        precision=options.precision,
        cpu=options.cpu,
        checkpoint_every=options.checkpoint_every,
        log_every=options.log_every,
    )
    on_cpu = options.cpu or not torch.cuda.is_available()
    with fused_attention(use_fused_attn() and not on_cpu):
        paths = dict(options.data)
        task = make_task(recipe, paths)
        recipe = task.recipe  # what the task knows of it beyond the file
        run = Run(recipe, task, options.output, how)
        if run.accelerator.is_main_process:
            given = options.recipe, options.set, recipe, paths, task.data.class_names, options.precision
            Origin.of_run(*given, run.accelerator.device.type).write(options.output)
        run.train()


@contextmanager
def fused_attention(wanted: bool) -> Iterator[None]:
    """Whether models that are built meanwhile take the fused kernel: on CPUs its backward pass takes twice as long."""
    before = use_fused_attn()
    set_fused_attn(wanted)
    try:
        yield
    finally:
        set_fused_attn(before)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m stvit.training",
        description="Train a model by a recipe. Called again with the same output folder, the run goes on where it was "
        "stopped. Several processes: accelerate launch -m stvit.training ...",
        epilog=f"Recipes: {', '.join(names())}",
    )
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--recipe", required=True, help="name of a recipe, or a .toml file")
    parser.add_argument("--output", required=True, type=Path, help="folder for state, weights and logs")
    add_data_option(
        parser,
        "where something is on this machine: folder, shards, train_images, train_annotations, validation_images, "
        "validation_annotations, train_list, train_clips, validation_list, validation_clips, start, teacher, original, "
        "or what data of one's own ask for",
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change an entry of the recipe")
    parser.add_argument("--accumulation", type=int, default=1, help="passes per step; more need less memory")
    parser.add_argument("--workers", type=int, default=0, help="processes per device that prepare data")
    parser.add_argument("--precision", choices=("no", "bf16"), default="no", help="no is float32")
    parser.add_argument("--cpu", action="store_true", help="stay on the CPU")
    parser.add_argument("--checkpoint-every", type=int, default=0, help="steps between states on disk; 0: every epoch")
    parser.add_argument("--log-every", type=int, default=20, help="steps between lines in the log")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
