"""What becomes of finished runs: figures on the test split, a table, a model to ship."""

import json

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

import stvit
from stvit.training.__main__ import main
from stvit.training.recipe import RecipeError
from stvit.training.runs import TEST_FILE, FinishedRun
from tests.stvit.training.tiny_sources import TEST_ITEMS, write_items, write_photos
from weights.garments import bundle, table

RECIPE = """
task = "classify"
model = "stvit_deit_tiny_patch16_224"
epochs = 2
batch_size = 20
learning_rate = 2e-3
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
train_samples = 40
curriculum = [0.0]
"""


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("sources")
    return {"items": write_items(folder / "items"), "backgrounds": write_photos(folder / "photos")}


@pytest.fixture(scope="module")
def as_arguments(places) -> list[str]:
    """Under the former name of the option, which scripts go on using."""
    return [f"--place={name}={path}" for name, path in places.items()]


@pytest.fixture(scope="module")
def runs(as_arguments, tmp_path_factory) -> list:
    """The same recipe with two seeds."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "tiny.toml").write_text(RECIPE)
    for seed in (0, 1):
        how = [
            "--recipe",
            str(folder / "tiny.toml"),
            "--output",
            str(folder / str(seed)),
            f"--set=seed={seed}",
            "--cpu",
        ]
        assert main(["classify", *how, *as_arguments]) == 0
        AcceleratorState._reset_state(reset_partial_state=True)
    return [folder / "0", folder / "1"]


def test_runs_that_differ_in_the_seed_alone_are_one_line(runs, as_arguments, tmp_path, capsys):
    assert table.main([*map(str, runs), *as_arguments, "--output", str(tmp_path / "table.json")]) == 0
    (line,) = json.loads((tmp_path / "table.json").read_text())["lines"].values()
    model = FinishedRun.read(runs[0]).model()
    assert line["seeds"] == [0, 1] and line["macs"] == stvit.count_macs(model, (3, 32, 32))
    assert len(line["test"]["top1"]) == 2 and all(value % (100 / TEST_ITEMS) == 0 for value in line["test"]["top1"])
    assert list(line["progress"]["after_epochs"]) == ["1.0", "2.0"]
    assert "drop_path_rate" not in line["options"]
    mean = sum(line["test"]["top1"]) / 2
    assert f"top1 {mean:.1f} (" in capsys.readouterr().out


def test_a_table_of_the_validation_split_takes_what_the_runs_wrote_down(runs, capsys):
    assert table.main([*map(str, runs), "--split", "validation"]) == 0
    last = [FinishedRun.read(run).validation()[-1][1]["top1"] for run in runs]
    assert f"top1 {sum(last) / 2:.1f} (" in capsys.readouterr().out


def test_what_was_measured_on_the_test_split_is_not_measured_again(runs, as_arguments, capsys):
    (runs[0] / TEST_FILE).write_text(json.dumps({"top1": 12.5}))
    try:
        assert table.main([str(runs[0]), *as_arguments]) == 0
        assert "top1 12.5" in capsys.readouterr().out
    finally:
        (runs[0] / TEST_FILE).unlink()


def test_a_table_measures_speed_on_request(runs, places):
    lines = table.rows([FinishedRun.read(runs[0])])
    pair = [lines[0], table.Row("again", lines[0].runs)]
    speeds = table.speeds(pair, batch_size=2, rounds=2)
    assert speeds["batch_size"] == 2 and set(speeds["images_per_second"]) == {lines[0].name, "again"}
    assert speeds["speed_up_against_first"][lines[0].name] == [1.0, 1.0, 1.0]


def test_a_shipped_model_is_what_its_description_says(runs, places, as_arguments, tmp_path, capsys):
    assert bundle.main([str(runs[0]), "tiny", *as_arguments, "--output", str(tmp_path)]) == 0
    described = json.loads((tmp_path / "tiny.json").read_text())
    weights = load_file(tmp_path / "tiny.safetensors")
    assert {t.dtype for t in weights.values() if t.is_floating_point()} == {torch.float16}
    model = stvit.create_model(described["model"], tmp_path / "tiny.safetensors", **described["options"])
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, len(described["classes"]))
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == described["metrics"]
    assert described["samples_seen"] == 80 and "--set seed=0" in described["command"][0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.json", "tiny.safetensors"]


def test_what_a_run_started_from_is_part_of_its_description(runs, as_arguments, tmp_path):
    options = RECIPE.split("[model_options]")[1].split("[data]")[0]
    start = f'[start]\nmodel = "stvit_deit_tiny_patch16_224"\n[start.options]{options}'
    (tmp_path / "second.toml").write_text(RECIPE + start)
    how = ["--recipe", str(tmp_path / "second.toml"), "--output", str(tmp_path / "second"), "--cpu"]
    place = f"--data=start={runs[1] / 'model.safetensors'}"
    assert main(["classify", *how, *as_arguments, place, "--set=epochs=1", "--precision=bf16"]) == 0
    (tmp_path / "second.toml").write_text(RECIPE.replace("epochs = 2", "epochs = 9"))  # edited since
    described = bundle.describe(FinishedRun.read(tmp_path / "second"), "second")
    first, second = described["command"]
    assert "tiny.toml --set seed=1 --precision no" in first and "WEIGHTS" not in first
    assert "--set epochs=1 --precision bf16" in second and "start=WEIGHTS" in second
    assert (described["epochs"], described["samples_seen"]) == (1, 80 + 40)
    assert described["trained_on"].endswith(f"PyTorch {torch.__version__.split('+')[0]}")


def test_an_unfinished_run_is_refused(runs, tmp_path):
    with pytest.raises(RecipeError, match="holds no run"):
        FinishedRun.read(tmp_path)
    (tmp_path / "recipe.json").write_bytes((runs[0] / "recipe.json").read_bytes())
    with pytest.raises(RecipeError, match="not finished"):
        FinishedRun.read(tmp_path)
