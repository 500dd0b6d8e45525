"""The one training loop, on accelerate: a CPU, a GPU, several of them, or several machines."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from stvit.errors import UserError
from stvit.pretrained.model_cards import ModelCardError, write_card
from stvit.training.datasets.data import MapData
from stvit.training.tasks.task import Task

from .batches import Share, seed_everything
from .checkpoints import MetricsLog, ResumeError, load_state, read_metrics, save_state, save_weights
from .recipe import Recipe, RecipeError, plain
from .runs import card_entries
from .schedules import make_keep_rate, make_optimizer, make_schedule


class Diverged(UserError):
    """The loss is no longer finite."""


@dataclass(frozen=True)
class RunOptions:
    """How a recipe is run; the result is the same up to rounding.

    Attributes:
        accumulation: passes per step; more of them need less memory.
        workers: processes per device that prepare data.
        precision: ``no`` (float32) or ``bf16``.
        cpu: stay on the CPU even where there is a GPU.
        checkpoint_every: steps between states on disk; 0 for once an epoch.
        log_every: steps between lines in the log.
    """

    accumulation: int = 1
    workers: int = 0
    precision: str = "no"
    cpu: bool = False
    checkpoint_every: int = 0
    log_every: int = 20


class LossModule(nn.Module):
    """The model and its loss as one module: what is wrapped for several processes is what is called."""

    def __init__(self, task: Task, model: nn.Module) -> None:
        super().__init__()
        self.task, self.model = task, model

    def forward(self, batch: Any) -> dict[str, Tensor]:
        return self.task.losses(self.model, batch)


class Run:
    """One training run in an output folder; resumes the run that the folder holds.

    Args:
        recipe: what to train.
        task: made from the recipe; knows data, loss and metrics.
        output: folder for state, weights, log and TensorBoard files.
        options: how to run it.

    Raises:
        ResumeError: the folder holds a run of another recipe.
        RecipeError: an entry of the recipe that its data or its model cannot follow, data that cannot be used, a batch
            that does not divide among processes and passes, or too little data for one batch.
    """

    def __init__(self, recipe: Recipe, task: Task, output: Path, options: RunOptions) -> None:
        self.recipe, self.task, self.output, self.options = recipe, task, output, options
        self.accelerator = Accelerator(
            cpu=options.cpu,
            mixed_precision=options.precision,
            gradient_accumulation_steps=options.accumulation,
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=task.may_skip_parameters)],
        )
        self.share = self._share()
        self.steps_per_epoch = task.data.steps_per_epoch(self.share)
        self.total_steps = self.steps_per_epoch * recipe.epochs
        seed_everything("weights", recipe.seed)
        model = task.build_model()
        optimizer = make_optimizer(recipe, model)
        self.schedule = make_schedule(recipe, optimizer, self.steps_per_epoch)
        self.keep_rate = make_keep_rate(recipe, model, self.steps_per_epoch)
        if task.teacher is not None:
            task.teacher.to(self.accelerator.device)
        self.losses, self.optimizer = self.accelerator.prepare(LossModule(task, model), optimizer)
        self.model = self.accelerator.unwrap_model(self.losses).model
        self.average = ModelEmaV3(self.model, decay=recipe.ema_decay) if recipe.ema_decay else None
        self.step = self._resume()
        if self.step < self.total_steps:
            task.check(self.share, options.workers)

    def train(self) -> dict[str, float]:
        """Run to the end; returns the last evaluation's metrics, which are also in the log, and leaves the model."""
        main, metrics = self.accelerator.is_main_process, self._already_evaluated()
        self.accelerator.wait_for_everyone()  # all have read the log
        self.log = MetricsLog(self.output, self.step) if main else None
        self.board = SummaryWriter(str(self.output / "tensorboard"), purge_step=self.step) if main else None
        # at step 0: the initial weights without any training
        begun = self.step or self.recipe.start or self.task.starts_trained
        if not metrics and self.step % self.steps_per_epoch == 0 and begun:
            metrics = self._evaluate()
        progress = tqdm(total=self.total_steps, initial=self.step, unit="step", disable=not main)
        for epoch in range(self.step // self.steps_per_epoch, self.recipe.epochs):
            self._train_epoch(epoch, progress)
            self._report_skipped()
            self._save()
            metrics = self._evaluate()
        progress.close()
        if main:
            self._leave_model()
            self.board.close()
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        return metrics

    def _leave_model(self) -> None:
        """Write the weights and then the card that names them."""
        weights = save_weights(self.output, self._evaluated().state_dict())
        self.task.finish(self._evaluated(), self.output)
        try:
            write_card(weights, card_entries(self.recipe, self.task.data, self.model))
        except ModelCardError as error:  # data or a model of one's own: the weights load without a card
            tqdm.write(str(error))

    def _already_evaluated(self) -> dict[str, float]:
        """The metrics at this step that an interrupted run has left in the log; none if it was stopped before."""
        lines = [line for line in read_metrics(self.output) if line["step"] == self.step and "evaluation" in line]
        return lines[-1]["evaluation"] if lines else {}

    def _share(self) -> Share:
        world, passes = self.accelerator.num_processes, self.options.accumulation
        samples, rest = divmod(self.recipe.batch_size, world * passes)
        if rest or not samples:
            raise RecipeError(
                f"a batch of {self.recipe.batch_size} does not divide among {world} processes with {passes} passes each"
            )
        if self.recipe.repeats > 1 and not isinstance(self.task.data, MapData):
            kind = self.recipe.data["kind"]
            raise RecipeError(f"data of kind {kind!r} comes as a stream, which repeats no samples: set repeats = 1")
        return Share(self.accelerator.process_index, world, samples, passes, self.recipe.repeats)

    def _train_epoch(self, epoch: int, progress: tqdm) -> None:
        first = self.step % self.steps_per_epoch
        batches = self.task.data.training_batches(epoch, first, self.share, self.options.workers, self.recipe.seed)
        self.losses.train()
        started, first_logged, sums = time.perf_counter(), self.step, {}
        for _ in range(first, self.steps_per_epoch):
            terms = self._step(batches)
            progress.update()
            sums = {name: sums.get(name, 0.0) + value for name, value in terms.items()}
            if self.step % self.options.log_every == 0 or self.step % self.steps_per_epoch == 0:
                steps = self.step - first_logged
                means = {name: round(value / steps, 6) for name, value in sums.items()}
                rate = steps * self.recipe.batch_size / (time.perf_counter() - started)
                self._report(epoch, means, rate, progress)
                started, first_logged, sums = time.perf_counter(), self.step, {}
            if self.options.checkpoint_every and self.step % self.options.checkpoint_every == 0:
                self._save()

    def _step(self, batches: Iterator[Any]) -> dict[str, float]:
        """One optimiser step; returns the means of the loss terms."""
        self.schedule.step_update(self.step)
        self.task.before_step(self.model, self.step / self.steps_per_epoch)
        if self.keep_rate is not None:
            self.model.keep_rate = self.keep_rate(self.step)
        sums: dict[str, Tensor] = {}
        for index in range(self.share.passes):
            batch = to_device(next(batches), self.accelerator.device)
            seed_everything("step", self.recipe.seed, self.step, index, self.share.rank)
            with self.accelerator.accumulate(self.losses):
                terms = self.losses(batch)
                loss = sum(terms.values())
                self.accelerator.backward(loss)
                if self.recipe.clip_norm and self.accelerator.sync_gradients:
                    self.accelerator.clip_grad_norm_(self.losses.parameters(), self.recipe.clip_norm)
                self.optimizer.step()
                self.optimizer.zero_grad()
            for name, term in terms.items():
                sums[name] = sums.get(name, 0.0) + term.detach() / self.share.passes
        self.step += 1
        if self.average is not None:
            self.average.update(self.model)
        means = self.accelerator.reduce(torch.stack([t.float() for t in sums.values()]), reduction="mean").tolist()
        by_name = dict(zip(sums, means, strict=True))
        if not all(map(math.isfinite, means)):
            raise Diverged(
                f"the loss is no longer finite at step {self.step}: {by_name}.",
                "Lower learning_rate or set clip_norm, and start again in another folder.",
            )
        return by_name

    def _report(self, epoch: int, means: dict[str, float], rate: float, progress: tqdm) -> None:
        if self.log is None:
            return
        rates = {"learning_rate": max(group["lr"] for group in self.optimizer.param_groups)}
        if self.keep_rate is not None:
            rates["keep_rate"] = self.model.keep_rate
        self.log.write(step=self.step, epoch=epoch, **rates, samples_per_second=round(rate, 1), **means)
        for name, value in {**means, **rates, "samples_per_second": rate}.items():
            self.board.add_scalar(f"training/{name}", value, self.step)
        progress.set_postfix(loss=f"{sum(means.values()):.3f}", samples_per_s=f"{rate:.0f}")

    def _report_skipped(self) -> None:
        """Say and log how many training samples could not be used since the run began or went on."""
        skipped = torch.tensor(self.task.data.skipped, device=self.accelerator.device)
        total = int(self.accelerator.reduce(skipped, reduction="sum"))
        if total and self.log is not None:
            self.log.write(step=self.step, epoch=self.step / self.steps_per_epoch, skipped_samples=total)
            tqdm.write(f"step {self.step}: {total} training samples could not be used and were skipped")

    def _evaluate(self) -> dict[str, float]:
        if self.keep_rate is not None:
            self.model.keep_rate = self.keep_rate(self.total_steps)  # the model's own
        model = self._evaluated().eval()
        batches = self.task.data.evaluation_batches("validation", self.share, self.options.workers)
        with torch.inference_mode(), self.accelerator.autocast():
            metrics = self.task.evaluate(model, batches, self.accelerator)
        if self.log is not None:
            self.log.write(step=self.step, epoch=self.step / self.steps_per_epoch, evaluation=metrics)
            for name, value in metrics.items():
                self.board.add_scalar(f"validation/{name}", value, self.step)
            tqdm.write(f"step {self.step}: " + ", ".join(f"{k} {v:.4g}" for k, v in metrics.items()))
        return metrics

    def _evaluated(self) -> nn.Module:
        """The weights that count: their moving average, if there is one."""
        return self.average.module if self.average is not None else self.model

    def _save(self) -> None:
        if not self.accelerator.is_main_process:
            return
        state = {
            "step": self.step,
            "recipe": plain(self.recipe),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        if self.average is not None:
            state["average"] = self.average.module.state_dict()
        save_state(self.output, state)

    def _resume(self) -> int:
        self.output.mkdir(parents=True, exist_ok=True)
        state = load_state(self.output, plain(self.recipe))
        if state is None:
            return 0
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.average is not None:
                self.average.module.load_state_dict(state["average"])
        except (KeyError, ValueError, RuntimeError) as error:
            raise ResumeError(f"the state in {self.output} does not fit the model: {error}") from error
        return state["step"]


def to_device(batch: Any, device: torch.device) -> Any:
    """A batch of tensors in tuples, lists and dictionaries, on a device."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        return type(batch)(to_device(value, device) for value in batch)
    return batch
