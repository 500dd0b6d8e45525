import io
import json
import tarfile
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from stvit.pretrained.model_cards import load_card
from stvit.training import runs
from stvit.training.__main__ import main
from stvit.training.checkpoints import read_metrics
from stvit.training.recipe import RecipeError, load_recipe
from stvit.training.tasks import make_task
from stvit.training.tasks.sparsify import SparsifyTask
from tests.stvit.sparsify.hosts import VIT, host, write_pictures, write_trained
from tests.stvit.training.tiny_runs import learn_by_heart

DINO = "vit_small_patch14_reg4_dinov2"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of five classes in two splits."""
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The card of a trained model."""
    return write_trained(tmp_path_factory.mktemp("trained"))


SMALL = ("data.size=32", "data.classes=5", "batch_size=10", "model_options.num_semantic_tokens=4")


class Stopped(Exception):
    """What ends a run in a test."""


def command(pictures: Path, original: Path, output: Path, *changes: str) -> list[str]:
    sets = [word for change in (*SMALL, *changes) for word in ("--set", change)]
    data = ["--data", f"folder={pictures}", "--data", f"original={original}"]
    return ["sparsify", "--recipe", "sparsify", *sets, *data, "--output", str(output), "--cpu"]


def test_a_run_leaves_a_model_that_everything_loads_and_a_table(
    pictures: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = command(pictures, trained, tmp_path / "run", "epochs=2")
    assert main(one) == 0
    told = capsys.readouterr().out
    assert [
        line[:22].strip() for line in told.splitlines() if line.startswith(("the original", "before", "after"))
    ] == ["the original", "before training", "after epoch 1", "after epoch 2"]
    first, *_, last = [line["evaluation"] for line in read_metrics(tmp_path / "run") if "evaluation" in line]
    assert last["cosine"] > first["cosine"] and first["original_top1"] == last["original_top1"]

    network, card = load_card(tmp_path / "run" / "model.json")
    assert card.model == "sparsified" and card.task == "classify" and card.options["of"] == "deit_tiny_patch16_224"
    loaded = timm.create_model(f"local-dir:{tmp_path / 'run'}", pretrained=True).eval()
    with torch.no_grad():
        assert torch.equal(loaded(torch.ones(1, 3, 32, 32)), network(torch.ones(1, 3, 32, 32)))

    assert main(one) == 0  # the run is at its end: it goes on from there, and tells the same
    assert [line for line in capsys.readouterr().out.splitlines() if line in told.splitlines()]
    paths = {"folder": pictures, "original": trained}
    (pictures / "test").symlink_to(pictures / "validation")
    assert runs.test(runs.FinishedRun.read(tmp_path / "run"), paths) == pytest.approx(last)
    (pictures / "test").unlink()

    again = command(pictures, trained, tmp_path / "more", "epochs=1", "warmup_epochs=0")
    assert main([*again, "--data", f"start={tmp_path / 'run' / 'model.safetensors'}"]) == 0
    begun = next(line["evaluation"] for line in read_metrics(tmp_path / "more") if "evaluation" in line)
    assert begun == pytest.approx(last)


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(
    pictures: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped while the first layers are frozen, which they no longer are in the second epoch."""
    changes = ("epochs=2", "warmup_epochs=0", "loss.freeze_epochs=1")
    assert main(command(pictures, trained, tmp_path / "whole", *changes)) == 0
    stopped = [*command(pictures, trained, tmp_path / "stopped", *changes), "--checkpoint-every", "1"]
    before_step, epochs = SparsifyTask.before_step, []

    def until_the_second(task: SparsifyTask, model: nn.Module, epoch: float) -> None:
        epochs.append(epoch)
        if len(epochs) == 2:
            raise Stopped
        before_step(task, model, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(SparsifyTask, "before_step", until_the_second)
        with pytest.raises(Stopped):
            main(stopped)
    assert epochs == [0.0, 0.5] and not (tmp_path / "stopped" / "model.safetensors").exists()
    assert main(stopped) == 0
    whole, again = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "stopped"))
    assert whole.keys() == again.keys() and all(torch.equal(whole[name], again[name]) for name in whole)


def test_shards_teach_as_a_folder_does(pictures: Path, trained: Path, tmp_path: Path) -> None:
    for split in ("train", "validation"):
        with tarfile.open(tmp_path / f"{split}-000.tar", "w") as shard:
            for number, file in enumerate(sorted((pictures / split).glob("*/*.png"))):
                for kind, content in (("png", file.read_bytes()), ("cls", file.parent.name[-1].encode())):
                    member = tarfile.TarInfo(f"sample{number:03d}.{kind}")
                    member.size = len(content)
                    shard.addfile(member, io.BytesIO(content))
    changes = ("epochs=1", "warmup_epochs=0", "data.kind=shards", "data.train_samples=20")
    data = ["--data", f"shards={tmp_path}"]
    assert main([*command(pictures, trained, tmp_path / "run", *changes), *data]) == 0
    first, last = (line["evaluation"] for line in read_metrics(tmp_path / "run") if "evaluation" in line)
    assert last["cosine"] > first["cosine"] and first["original_top1"] == last["original_top1"]
    network, card = load_card(tmp_path / "run" / "model.json")
    assert network.num_classes == 5 and card.classes == tuple(f"class {number}" for number in range(5))


def test_the_recipe_learns_without_labels_and_keeps_the_classes(pictures: Path, trained: Path, tmp_path: Path) -> None:
    changes = ("data.kind=pictures", "epochs=1", "warmup_epochs=0")
    assert main(command(pictures, trained, tmp_path / "run", *changes)) == 0
    assert load_card(tmp_path / "run" / "model.json")[1].classes == tuple("abcde")
    learned = {key for line in read_metrics(tmp_path / "run") if "samples_per_second" in line for key in line}
    assert {"features", "distillation"} <= learned and "cross_entropy" not in learned


def test_options_of_the_recipe_come_before_those_of_the_card(pictures: Path, trained: Path) -> None:
    paths = {"folder": pictures, "original": trained}
    task = make_task(load_recipe("sparsify", [*SMALL, "model_options.drop_path_rate=0.2"]), paths)
    assert task.build_model().blocks[3].drop_path1.drop_prob == pytest.approx(0.2)
    assert task.recipe.model_options["of"] == "deit_tiny_patch16_224"
    unknown = [*SMALL, "model_options.of=deit_tiny_patch16_224", "model_options.nothing=1"]
    with pytest.raises(RecipeError, match=r"cannot be built with its weights: .*nothing"):
        make_task(load_recipe("sparsify", unknown), {**paths, "original": trained.with_suffix(".safetensors")})


def test_a_network_without_a_head_learns_without_labels(pictures: Path, tmp_path: Path) -> None:
    weights = tmp_path / "dino.safetensors"
    options = {**VIT, "num_classes": 0}
    save_file(host(DINO, num_classes=0).state_dict(), weights)
    recipe = tmp_path / "dino.toml"
    listed = "\n".join(f"{name} = {value}" for name, value in options.items())
    recipe.write_text(
        f'task = "sparsify"\nmodel = "sparsified"\nepochs = 1\nbatch_size = 10\nlearning_rate = 1e-3\n'
        f'[model_options]\nof = "{DINO}"\nnum_semantic_tokens = 4\n{listed}\n'
        f'[teacher]\nmodel = "original"\n[data]\nkind = "pictures"\nsize = 32\n'
    )
    data = ["--data", f"folder={pictures}", "--data", f"original={weights}"]
    assert main(["sparsify", "--recipe", str(recipe), *data, "--output", str(tmp_path / "run"), "--cpu"]) == 0
    lines = read_metrics(tmp_path / "run")
    assert [set(line["evaluation"]) for line in lines if "evaluation" in line] == [{"cosine"}, {"cosine"}]
    learned = {key for line in lines if "samples_per_second" in line for key in line}
    assert "features" in learned and not learned & {"distillation", "cross_entropy"}
    assert json.loads((tmp_path / "run" / "config.json").read_text())["architecture"] == "sparsified"


def test_layers_before_the_module_learn_when_they_are_no_longer_frozen(pictures: Path, trained: Path) -> None:
    task = make_task(load_recipe("sparsify", SMALL), {"folder": pictures, "original": trained})
    first, last = learn_by_heart(task, batch_size=10, learning_rate=1e-3, steps=10)
    assert last < first
    model = task.build_model().train()
    batch = torch.randn(2, 3, 32, 32), torch.tensor([0, 1])
    for epoch, learns in ((0.5, False), (1.0, True)):
        task.before_step(model, epoch)
        model.zero_grad()
        sum(task.losses(model, batch).values()).backward()
        grads = {name: parameter.grad is not None for name, parameter in model.named_parameters()}
        assert grads["blocks.0.attn.qkv.weight"] == grads["cls_token"] == learns
        assert grads["blocks.1.attn.qkv.weight"] and grads["blocks.2.global_centres"]
    assert not any(parameter.requires_grad for parameter in task.original.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["data.size=64"], "data.size=32"),
        (["model_options.img_size=[32, 64]"], "made for 32x64 pixels, data are square"),
        (["model=deit_tiny_patch16_224"], "has model = 'sparsified'"),
        (["data.classes=3"], "holds 5 folders"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused(pictures: Path, trained: Path, changes: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        make_task(load_recipe("sparsify", [*SMALL, *changes]), {"folder": pictures, "original": trained})
