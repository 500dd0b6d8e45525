"""The loop: runs that are killed and go on, several processes, and what a run leaves behind."""

import itertools
import json
import math
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import load_file, save_file

import stvit
from stvit.training import loop
from stvit.training.__main__ import main
from stvit.training.checkpoints import MetricsLog, ResumeError, load_state, read_metrics, save_state
from stvit.training.recipe import load_recipe, plain
from stvit.training.tasks.classify import ClassifyTask
from tests.stvit.training.tiny_sources import write_items, write_photos

RECIPE = """
task = "classify"
model = "stvit_deit_tiny_patch16_224"
epochs = 3
batch_size = 20
learning_rate = 2e-3
warmup_epochs = 0.5
clip_norm = 1.0
ema_decay = 0.9
[model_options]
img_size = 32
patch_size = 8
embed_dim = 24
depth = 6
num_heads = 3
stgm_position = 2
num_semantic_tokens = 4
num_classes = 10
drop_path_rate = 0.1
[data]
kind = "weights.garments.training:GarmentPictures"
size = 32
[augmentation]
flip = true
mixup_alpha = 0.4
label_smoothing = 0.1
"""
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}  # as in this process; more of them sum in another order
STEPS = 15  # 110 training garments give 5 steps of 20
SHARDS = "{kind = 'shards', size = 32, classes = 10, train_samples = 40}"
VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 6, "num_heads": 3, "num_classes": 10}


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("sources")
    paths = {"items": write_items(folder / "items"), "backgrounds": write_photos(folder / "photos")}
    (folder / "tiny.toml").write_text(RECIPE)
    return ["--recipe", str(folder / "tiny.toml"), *(f"--data={name}={path}" for name, path in paths.items())]


def run(places: list[str], output: Path, *more: str) -> dict[str, torch.Tensor]:
    """Train in this process; returns the weights that are left."""
    assert main(["classify", *places, "--output", str(output), "--cpu", "--log-every", "1", *more]) == 0
    AcceleratorState._reset_state(reset_partial_state=True)
    return load_file(output / "model.safetensors")


@pytest.fixture(scope="module")
def uninterrupted(places, tmp_path_factory) -> tuple[Path, dict[str, torch.Tensor]]:
    output = tmp_path_factory.mktemp("whole")
    return output, run(places, output)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], atol: float = 0.0) -> bool:
    return a.keys() == b.keys() and all(torch.allclose(a[n], b[n], atol=atol, rtol=0) for n in a)


def test_a_run_leaves_weights_that_load_and_a_log_of_every_step(uninterrupted):
    output, weights = uninterrupted
    options = load_recipe_options(output)
    model = stvit.create_model("stvit_deit_tiny_patch16_224", checkpoint=output / "model.safetensors", **options)
    assert same(dict(model.state_dict().items()), weights)
    lines = read_metrics(output)
    training = [line for line in lines if "evaluation" not in line]
    assert [line["step"] for line in training] == list(range(1, STEPS + 1))
    evaluations = [line["evaluation"] for line in lines if "evaluation" in line]
    assert len(evaluations) == 3 and all(0 <= e["top1"] <= e["top5"] <= 100 for e in evaluations)
    assert any((output / "tensorboard").iterdir())
    assert not list(output.glob("*.partial"))


def load_recipe_options(output: Path) -> dict:
    return torch.load(output / "state.pt", weights_only=True)["recipe"]["model_options"]


def test_a_finished_run_has_nothing_left_to_do(uninterrupted, places):
    output, weights = uninterrupted
    log = (output / "metrics.jsonl").read_text()
    assert same(run(places, output), weights)
    assert (output / "metrics.jsonl").read_text() == log


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_weights(uninterrupted, places, tmp_path):
    """Killed without warning in the middle of an epoch, wherever it happens to be."""
    command = [sys.executable, "-m", "stvit.training", "classify", *places, "--output", str(tmp_path), "--cpu"]
    often = ["--log-every", "1", "--checkpoint-every", "2"]
    process = subprocess.Popen([*command, *often], start_new_session=True, env=ONE_THREAD)
    deadline = time.monotonic() + 120
    while len(read_metrics(tmp_path)) < 4 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    reached = torch.load(tmp_path / "state.pt", weights_only=True)["step"]
    assert 0 < reached < STEPS
    assert same(run(places, tmp_path), uninterrupted[1])
    steps = [line["step"] for line in read_metrics(tmp_path) if "evaluation" not in line]
    assert steps == list(range(1, STEPS + 1))


class Stopped(Exception):
    """What ends a run in the middle of an epoch."""


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let runs end at the first state that they save from this step on, once it is saved."""

    def save_and_stop(folder, state):
        save_state(folder, state)
        if state["step"] >= step:
            raise Stopped

    monkeypatch.setattr(loop, "save_state", save_and_stop)


REPEATED = ["--set=repeats=3", "--set=layer_decay=0.7"]
SHRINKING = [
    "--set=model=evit_deit_tiny_patch16_224",
    "--set=keep_rate_epochs=[0.4, 2.0]",
    "--set=ema_decay=0.0",
    "--set=model_options={keep_rate = 0.5, reduction_layers = [1, 3], "
    + ", ".join(f"{name} = {value}" for name, value in VIT.items())
    + "}",
]


@pytest.mark.parametrize("more", [REPEATED, SHRINKING], ids=["repeated augmentation", "shrinking keep rate"])
def test_a_run_stopped_within_an_epoch_goes_on_to_the_same_weights(places, tmp_path, monkeypatch, more):
    expected = run(places, tmp_path / "whole", *more)
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        stop_at(patch, 7)
        run(places, tmp_path / "stopped", *more, "--checkpoint-every", "7")
    AcceleratorState._reset_state(reset_partial_state=True)
    assert load_state(tmp_path / "stopped", entries(tmp_path / "whole"))["step"] == 7
    assert same(run(places, tmp_path / "stopped", *more), expected)
    whole, stopped = ([without_time(line) for line in read_metrics(tmp_path / name)] for name in ("whole", "stopped"))
    assert stopped == whole


def test_a_run_stopped_before_an_evaluation_makes_up_for_it(places, uninterrupted, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        stop_at(patch, 5)
        run(places, tmp_path)
    AcceleratorState._reset_state(reset_partial_state=True)
    assert not [line for line in read_metrics(tmp_path) if "evaluation" in line]
    run(places, tmp_path)
    whole = [without_time(line) for line in read_metrics(uninterrupted[0])]
    assert [without_time(line) for line in read_metrics(tmp_path)] == whole


@pytest.mark.parametrize(
    ("content", "message"),
    [(pickle.dumps(Path("elsewhere")), "cannot be read"), (None, "is not the state of a run")],
    ids=["pickled code", "another program's"],
)
def test_a_state_that_is_none_is_named(tmp_path, content, message):
    if content is None:
        torch.save({"weights": torch.zeros(2)}, tmp_path / "state.pt")
    else:
        (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(ResumeError, match=message):
        load_state(tmp_path, {})


def entries(output: Path) -> dict:
    return torch.load(output / "state.pt", weights_only=True)["recipe"]


def without_time(line: dict) -> dict:
    return {name: value for name, value in line.items() if name != "samples_per_second"}


def test_repeated_samples_take_as_many_steps_and_teach_something_else(places, uninterrupted, tmp_path):
    weights = run(places, tmp_path, "--set=repeats=3")
    assert len([line for line in read_metrics(tmp_path) if "evaluation" not in line]) == STEPS
    assert not same(weights, uninterrupted[1], atol=1e-4)


def test_the_keep_rate_shrinks_step_by_step_and_evaluation_has_the_models_own(places, tmp_path, monkeypatch):
    evaluated_at, evaluate = [], ClassifyTask.evaluate

    def noted(task, model, *more):
        evaluated_at.append(model.keep_rate)
        return evaluate(task, model, *more)

    monkeypatch.setattr(ClassifyTask, "evaluate", noted)
    run(places, tmp_path, *SHRINKING)
    rates = [line["keep_rate"] for line in read_metrics(tmp_path) if "evaluation" not in line]
    falling = [0.5 + 0.25 * (1 + math.cos(math.pi * (step - 2) / 8)) for step in range(2, 10)]
    assert rates == pytest.approx([1.0, 1.0, *falling, *[0.5] * 5])
    assert evaluated_at == [0.5] * 3


def test_the_log_has_the_full_learning_rate_where_layers_have_less(places, tmp_path):
    run(places, tmp_path, "--set=layer_decay=0.5", "--set=epochs=1", "--set=warmup_epochs=0")
    assert read_metrics(tmp_path)[0]["learning_rate"] == pytest.approx(2e-3)


@pytest.mark.parametrize("more", [["--accumulation", "2"], ["--workers", "1"]], ids=["two passes", "a worker"])
def test_how_a_recipe_is_run_does_not_change_its_samples(places, tmp_path, more):
    """Without what is random in the model and in the mixing, which are drawn for each pass, the result is the same."""
    plain = [
        "--set=epochs=1",
        "--set=warmup_epochs=0",
        "--set=model_options.drop_path_rate=0.0",
        "--set=augmentation={}",
    ]
    expected = run(places, tmp_path / "one", *plain)
    assert same(run(places, tmp_path / "other", *plain, *more), expected, atol=2e-4)


@pytest.mark.slow
def test_two_processes_train_as_one_does(places, tmp_path):
    """With repeated samples, whose copies are flipped each for itself and go to different processes."""
    plain = [
        "--set=epochs=1",
        "--set=warmup_epochs=0",
        "--set=model_options.drop_path_rate=0.0",
        "--set=augmentation={flip = true}",
        "--set=repeats=2",
    ]
    expected = run(places, tmp_path / "one", *plain)
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes=2", "--num_machines=1"]
    launch += ["--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0", "-m", "stvit.training"]
    command = [*launch, "classify", *places, "--output", str(tmp_path / "two"), "--cpu", *plain]
    finished = subprocess.run(command, capture_output=True, text=True, env=ONE_THREAD)
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert same(load_file(tmp_path / "two" / "model.safetensors"), expected, atol=2e-4)


def test_training_learns(places, tmp_path):
    """The stand-ins' classes are their numbers modulo 10, so only by heart; the loss of seen samples must fall."""
    run(places, tmp_path, "--set=epochs=6", "--set=augmentation={}", "--precision", "bf16")
    losses = [line["cross_entropy"] for line in read_metrics(tmp_path) if "evaluation" not in line]
    assert sum(losses[-5:]) < sum(losses[:5])


def test_a_start_from_full_tokens_is_evaluated_before_training(places, tmp_path):
    options = {**VIT, "class_token": False, "global_pool": "avg", "fc_norm": False}
    full = stvit.create_model("deit_tiny_patch16_224", **options)
    save_file(full.state_dict(), tmp_path / "full.safetensors")
    entry = "{model = 'deit_tiny_patch16_224', options = " + toml(options) + "}"
    for role in ("start", "teacher"):
        output = tmp_path / role
        given = [f"--set={role}={entry}", f"--data={role}={tmp_path / 'full.safetensors'}", "--set=epochs=1"]
        run(places, output, *given)
        lines = read_metrics(output)
        assert (lines[0]["step"] == 0) == (role == "start")
        assert ("distillation" in lines[1]) == (role == "teacher")


def toml(options: dict) -> str:
    return "{" + ", ".join(f"{k} = {json.dumps(v)}" for k, v in options.items()) + "}"


def test_another_recipe_in_the_same_folder_is_refused(uninterrupted, places, capsys):
    output, _ = uninterrupted
    assert main(["classify", *places, "--output", str(output), "--cpu", "--set=learning_rate=1e-4"]) == 1
    assert "run of another recipe: learning_rate differ" in capsys.readouterr().err


def test_a_run_from_before_an_entry_existed_goes_on_while_it_has_its_default(tmp_path):
    recipe = plain(load_recipe("garments_deit"))
    older = {name: value for name, value in recipe.items() if name not in ("repeats", "layer_decay")}
    save_state(tmp_path, {"recipe": older, "step": 3, "model": {}, "optimizer": {}})
    assert load_state(tmp_path, recipe)["step"] == 3
    with pytest.raises(ResumeError, match="another recipe: repeats differ"):
        load_state(tmp_path, recipe | {"repeats": 2})


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--set=batch_size=21", "--accumulation", "2"], "does not divide"),
        (["--set=batch_size=500"], "smaller than one batch"),
        (["--set=data.kind=carpets"], "no data of kind 'carpets'"),
        (["--set=data={kind='weights.garments.training:GarmentPictures'}"], "lacks data.size"),
        (["--data=backgrounds=/nowhere/at/all"], "there is no /nowhere/at/all"),
        (["--set=start={model='deit_tiny_patch16_224'}"], "needs --data start=PATH"),
        (["--set=model_options.num_classes=7"], "the data has 10 classes"),
        (["--set=model=no_such_model"], "model cannot be built"),
        (["--set=augmentation.flop=true"], "no augmentation.flop; augmentation has flip, crop"),
        (["--set=keep_rate_epochs=[0, 1]"], "stvit_deit_tiny_patch16_224 has no keep rate"),
        (
            ["--set=repeats=2", f"--set=data={SHARDS}", "--set=augmentation={}", "--data=shards=."],
            "'shards' comes as a stream, which repeats no samples: set repeats = 1",
        ),
    ],
)
def test_what_cannot_be_run_is_named(places, tmp_path, capsys, more, message):
    assert main(["classify", *places, "--output", str(tmp_path), "--cpu", *more]) == 1
    assert message in capsys.readouterr().err


def folder_run(folder: Path, recipe: list[str], *more: str) -> list[str]:
    """Arguments of a run on pictures in folders of ten classes, four in each to train on and two to evaluate on."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("validation", 2)):
        for name, number in itertools.product("abcdefghij", range(count)):
            (folder / split / name).mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
            picture.save(folder / split / name / f"{number}.png")
    changed = ["--set=data={kind='folder', size=32, classes=10}", "--set=augmentation={}", "--set=epochs=1"]
    return [
        "classify",
        *recipe[:2],
        *changed,
        f"--data=folder={folder}",
        "--output",
        str(folder / "run"),
        "--cpu",
        *more,
    ]


def test_the_data_of_ones_own_in_the_documentation_can_be_trained_on(places, tmp_path, monkeypatch):
    text = (Path(__file__).parents[3] / "docs" / "training.md").read_text()
    (tmp_path / "squares.py").write_text(text.split("```python\n")[1].split("```")[0])
    monkeypatch.syspath_prepend(tmp_path)
    own = ["--set=data={kind='squares:Squares', size=32}", "--set=model_options.num_classes=2", "--set=augmentation={}"]
    run(places, tmp_path / "run", *own, "--set=epochs=1")
    assert [line["step"] for line in read_metrics(tmp_path / "run")] == [1, 1]  # a step, and its evaluation


def test_training_samples_that_cannot_be_used_are_in_the_log(places, tmp_path, capsys):
    arguments = folder_run(tmp_path, places)
    for name in "abc":
        (tmp_path / "train" / name / "0.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match=r"a/0\.png cannot be read as a picture"):
        assert main(arguments) == 0
    assert [line["skipped_samples"] for line in read_metrics(tmp_path / "run") if "skipped_samples" in line] == [3]
    assert "3 training samples could not be used" in capsys.readouterr().out


def no_validation(folder: Path) -> None:
    shutil.rmtree(folder / "validation")


def empty_validation(folder: Path) -> None:
    for path in (folder / "validation").rglob("*.png"):
        path.unlink()


def broken_validation(folder: Path) -> None:
    (folder / "validation" / "j" / "1.png").write_bytes(b"no picture")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (no_validation, "holds no folder 'validation'"),
        (empty_validation, "the validation set is empty"),
        (broken_validation, "1 samples of validation cannot be used"),
    ],
)
def test_what_is_wrong_with_a_validation_set_is_found_before_the_first_step(places, tmp_path, capsys, change, message):
    arguments = folder_run(tmp_path, places)
    change(tmp_path)
    assert main(arguments) == 1
    assert message in capsys.readouterr().err and not read_metrics(tmp_path / "run")


def test_mixing_an_odd_number_of_samples_is_refused_before_the_first_step(places, tmp_path, capsys):
    assert (
        main(["classify", *places, "--output", str(tmp_path), "--cpu", "--set=batch_size=6", "--accumulation=2"]) == 1
    )
    assert "even number of samples per process and pass, not 3" in capsys.readouterr().err
    assert not read_metrics(tmp_path)


def test_a_recipe_of_another_task_is_refused(places, tmp_path, capsys):
    assert main(["detect", *places, "--output", str(tmp_path)]) == 1
    assert "is a recipe for classify" in capsys.readouterr().err


def test_a_line_that_was_cut_off_is_dropped(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    MetricsLog(tmp_path, last_step=2).write(step=3, loss=0.5)
    assert read_metrics(tmp_path) == [{"step": 1}, {"step": 2}, {"step": 3, "loss": 0.5}]
