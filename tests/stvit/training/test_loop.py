"""The loop: runs that are killed and go on, several processes, and what a run leaves behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file

import stvit
from stvit.training.__main__ import main
from stvit.training.checkpoints import MetricsLog, read_metrics
from stvit.training.loop import make_schedule
from stvit.training.recipe import load_recipe
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
kind = "garments"
size = 32
[augmentation]
flip = true
mixup_alpha = 0.4
label_smoothing = 0.1
"""
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}  # as in this process; more of them sum in another order
STEPS = 15  # 110 training garments give 5 steps of 20


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("sources")
    paths = {"items": write_items(folder / "items"), "backgrounds": write_photos(folder / "photos")}
    (folder / "tiny.toml").write_text(RECIPE)
    return ["--recipe", str(folder / "tiny.toml"), *(f"--place={name}={path}" for name, path in paths.items())]


@pytest.fixture(autouse=True)
def fresh_accelerator():
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


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
    assert [line for line in read_metrics(output) if "evaluation" not in line] == [
        json.loads(line) for line in log.splitlines() if "evaluation" not in line
    ]


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


def test_two_processes_train_as_one_does(places, tmp_path):
    plain = [
        "--set=epochs=1",
        "--set=warmup_epochs=0",
        "--set=model_options.drop_path_rate=0.0",
        "--set=augmentation={}",
    ]
    expected = run(places, tmp_path / "one", *plain)
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes=2", "--num_machines=1"]
    launch += ["--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0", "-m", "stvit.training"]
    command = [*launch, "classify", *places, "--output", str(tmp_path / "two"), "--cpu", *plain]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=200, env=ONE_THREAD)
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert same(load_file(tmp_path / "two" / "model.safetensors"), expected, atol=2e-4)


def test_training_learns(places, tmp_path):
    """The stand-ins' classes are their numbers modulo 10, so only by heart; the loss of seen samples must fall."""
    run(places, tmp_path, "--set=epochs=6", "--set=augmentation={}", "--precision", "bf16")
    losses = [line["cross_entropy"] for line in read_metrics(tmp_path) if "evaluation" not in line]
    assert sum(losses[-5:]) < sum(losses[:5])


def test_a_start_from_full_tokens_is_evaluated_before_training(places, tmp_path):
    options = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 6, "num_heads": 3, "num_classes": 10}
    options |= {"class_token": False, "global_pool": "avg", "fc_norm": False}
    full = stvit.create_model("deit_tiny_patch16_224", **options)
    save_file(full.state_dict(), tmp_path / "full.safetensors")
    entry = "{model = 'deit_tiny_patch16_224', options = " + toml(options) + "}"
    for role in ("start", "teacher"):
        output = tmp_path / role
        given = [f"--set={role}={entry}", f"--place={role}={tmp_path / 'full.safetensors'}", "--set=epochs=1"]
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


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--set=batch_size=21", "--accumulation", "2"], "does not divide"),
        (["--set=batch_size=500"], "smaller than one batch"),
        (["--set=data.kind=carpets"], "no data of kind 'carpets'"),
        (["--set=data={kind='garments'}"], "needs 'size'"),
        (["--place=backgrounds=/nowhere/at/all"], "there is no /nowhere/at/all"),
        (["--set=start={model='deit_tiny_patch16_224'}"], "needs --place start=PATH"),
    ],
)
def test_what_cannot_be_run_is_named(places, tmp_path, capsys, more, message):
    assert main(["classify", *places, "--output", str(tmp_path), "--cpu", *more]) == 1
    assert message in capsys.readouterr().err


def test_a_recipe_of_another_task_is_refused(places, tmp_path, capsys):
    assert main(["detect", *places, "--output", str(tmp_path)]) == 1
    assert "is a recipe for classify" in capsys.readouterr().err


@pytest.mark.parametrize("schedule", ["cosine", "polynomial", "steps"])
def test_the_learning_rate_is_a_function_of_the_step(places, schedule):
    recipe = load_recipe(places[1], [f"schedule={schedule}", "milestones=[1, 2]", "warmup_learning_rate=0"])
    parameter = torch.nn.Parameter(torch.zeros(1))

    def rates(steps) -> list[float]:
        optimizer = torch.optim.SGD([parameter], lr=recipe.learning_rate)
        planned = make_schedule(recipe, optimizer, steps_per_epoch=10)
        found = []
        for step in steps:
            planned.step_update(step)
            found.append(optimizer.param_groups[0]["lr"])
        return found

    whole = rates(range(30))
    assert whole[0] == 0 and max(whole) == pytest.approx(recipe.learning_rate)
    assert whole[29] < 0.2 * recipe.learning_rate
    assert rates([17]) == [whole[17]]


def test_a_line_that_was_cut_off_is_dropped(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    MetricsLog(tmp_path, last_step=2).write(step=3, loss=0.5)
    assert read_metrics(tmp_path) == [{"step": 1}, {"step": 2}, {"step": 3, "loss": 0.5}]
