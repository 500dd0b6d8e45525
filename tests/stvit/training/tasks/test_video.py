"""Training classifiers of clips: garments in motion, metrics, and models that start from trained ones."""

from itertools import product
from pathlib import Path

import pytest
import timm
import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from torch import nn

import stvit
from stvit.predict.clips import DEVIATION, MEAN
from stvit.training.__main__ import main
from stvit.training.batches import Share
from stvit.training.checkpoints import read_metrics
from stvit.training.recipe import DataPaths, RecipeError, load_recipe
from stvit.training.tasks.video import VideoTask
from tests.stvit.training.tiny_runs import Source, arguments, evaluations, garments_source, learn_by_heart

RECIPE = """
task = "video"
model = "stvit_video_swin_tiny"
epochs = 2
batch_size = 4
learning_rate = 1e-3
[model_options]
embed_dim = 8
depths = [1, 1, 4, 1]
num_heads = [1, 1, 2, 2]
patch_size = [2, 2, 2]
window_size = [2, 4, 4]
stgm_position = 1
img_size = 32
num_classes = 8
[data]
kind = "weights.garments.training:GarmentMotions"
size = 32
frames = 4
label = "motion"
train_samples = 8
validation_samples = 6
[augmentation]
label_smoothing = 0.05
"""
SMALL = {"embed_dim": 8, "depths": (1, 1, 4, 1), "num_heads": (1, 1, 2, 2)}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Source:
    return garments_source(tmp_path_factory.mktemp("sources"), RECIPE)


def task(source: Source, *changes: str, **places: Path) -> VideoTask:
    recipe, of_source = source
    return VideoTask(load_recipe(recipe, changes), DataPaths({**of_source, **places}))


def test_a_run_reports_loss_and_metrics_and_leaves_a_clip_model(source, tmp_path):
    assert main(arguments(source, tmp_path, "--precision=bf16")) == 0
    lines = read_metrics(tmp_path)
    assert sum("cross_entropy" in line for line in lines) == 4
    found = evaluations(tmp_path)
    assert len(found) == 2
    assert all(e.keys() == {"top1", "top5"} and 0 <= e["top1"] <= e["top5"] <= 100 for e in found)
    recipe = torch.load(tmp_path / "state.pt", weights_only=True)["recipe"]
    stvit.create_model(recipe["model"], checkpoint=tmp_path / "model.safetensors", **recipe["model_options"])


def test_training_on_one_batch_by_heart_lowers_the_loss(source):
    first, last = learn_by_heart(
        task(source, "augmentation.label_smoothing=0.0"), batch_size=4, learning_rate=5e-3, steps=40
    )
    assert last < 0.5 * first


@pytest.mark.parametrize(("label", "classes"), [("motion", 8), ("item", 10)])
def test_clips_of_garments_carry_the_label_that_the_recipe_names(source, label, classes):
    data = task(source, f"data.label={label}", f"model_options.num_classes={classes}").data
    clips = data.dataset("train", 0).samples
    for index in range(4):
        sample, told = data.dataset("train", 0)[index]
        pixels, target = clips[index]
        mean, deviation = (torch.tensor(values).view(3, 1, 1, 1) for values in (MEAN, DEVIATION))
        torch.testing.assert_close(sample, (pixels / 255 - mean) / deviation)
        assert told == target[label]


def test_every_epoch_has_other_clips_and_every_evaluation_the_same(source):
    data = task(source).data
    first, second = (data.dataset("train", epoch)[0][0] for epoch in (0, 1))
    assert not torch.equal(first, second)
    views, _ = data.dataset("validation", 0)[3]
    assert views.shape == (1, 3, 4, 32, 32)
    assert torch.equal(views, data.dataset("validation", 1)[3][0])


def test_the_test_clips_are_others_than_those_of_validation(source):
    data = task(source, "data.test_samples=5").data
    clips = {split: data.dataset(split, 0) for split in ("validation", "test")}
    assert (len(clips["validation"]), len(clips["test"])) == (6, 5)
    assert clips["test"].samples.sources.split == "test"
    ((views, labels), *_) = data.evaluation_batches("test", Share(0, 1, 4, 1), 0)
    assert views.shape == (4, 1, 3, 4, 32, 32) and labels.shape == (4,)
    assert not torch.equal(views[0], clips["validation"][0][0])


def test_the_first_clips_are_as_easy_as_the_curriculum_says_and_those_of_evaluation_never(source):
    data = task(source, "data.curriculum=[0, 0.5]").data
    assert [data.dataset("train", epoch).samples.difficulty for epoch in range(4)] == [0, 0.5, 1, 1]
    assert data.dataset("validation", 0).samples.difficulty == 1
    corner = data.dataset("train", 0)[0][0][:, 0, 0, 0]
    torch.testing.assert_close(corner, -torch.tensor(MEAN) / torch.tensor(DEVIATION))  # black


class Echo(nn.Module):
    """Takes the logits from the pixels."""

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return clips[:, 0, 0, 0]


def test_accuracy_is_that_of_the_mean_probabilities_of_all_views(source):
    logits = torch.zeros(3, 2, 8)  # clips, views, classes
    logits[0, 0, 2], logits[0, 1, 3] = 5, 1  # the first view is the surer one
    logits[1, :, 4] = 2
    logits[2] = torch.arange(8.0)
    views = logits[:, :, None, None, None].expand(3, 2, 3, 1, 1, 8)
    batches = iter([(views[:2], torch.tensor([2, 5])), (views[2:], torch.tensor([3]))])
    metrics = task(source).evaluate(Echo(), batches, Accelerator(cpu=True))
    assert metrics["top1"] == pytest.approx(100 / 3)  # the first
    assert metrics["top5"] >= 200 / 3 - 1e-6  # and the third, whose class is its fifth


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["--set=data.kind=films"],
            "no data of kind 'films' to video; choose one of kinetics, or name a class as module:Class",
        ),
        (["--set=data={kind='weights.garments.training:GarmentMotions', size=32, frames=4}"], "lacks data.label"),
        (["--set=data.label=colour"], "data.label = 'colour': input should be 'motion' or 'item'"),
        (["--set=data.label=item"], "the model has 8 classes and the data 10"),
        (["--set=data={kind='kinetics', size=32, classes=8}"], "needs --data train_list=PATH"),
    ],
)
def test_what_cannot_be_run_is_named(source, tmp_path, capsys, more, message):
    assert main(arguments(source, tmp_path, *more)) == 1
    assert message in capsys.readouterr().err


def saved(model: nn.Module, path: Path) -> Path:
    save_file(model.state_dict(), path)
    return path


def test_semantic_tokens_start_from_a_trained_video_swin(source, tmp_path):
    shared = {"patch_size": (2, 2, 2), "window_size": (2, 4, 4), "num_classes": 8}
    full_token = timm.create_model("video_swin_tiny", **SMALL, **shared)
    place = saved(full_token, tmp_path / "full.safetensors")
    sizes = "embed_dim=8, depths=[1,1,4,1], num_heads=[1,1,2,2], patch_size=[2,2,2], window_size=[2,4,4]"
    start = f"start={{model='video_swin_tiny', options={{{sizes}, num_classes=8}}}}"
    model = task(source, start, start=place).build_model()
    own, theirs = model.state_dict(), full_token.state_dict()
    q, kv = theirs["stages.2.layers.2.attn.qkv.weight"].tensor_split([32])
    assert torch.equal(own["stages.2.stgm_global.attn.q.weight"], q)
    assert torch.equal(own["stages.2.stgm_global.attn.kv.weight"], kv)
    assert torch.equal(own["stages.2.image_layers.0.attn.qkv.weight"], theirs["stages.2.layers.0.attn.qkv.weight"])
    assert torch.equal(own["stages.3.0.mlp.fc1.weight"], theirs["stages.3.layers.0.mlp.fc1.weight"])
    assert torch.equal(own["head.weight"], theirs["head.weight"])


@pytest.mark.parametrize("model", ["video_swin_tiny", "stvit_video_swin_tiny"])
def test_a_model_starts_from_its_own_weights(source, model):
    options = {**SMALL, "num_classes": 5, "img_size": 112} if model.startswith("stvit") else {**SMALL, "num_classes": 5}
    options |= {"stgm_position": 1} if model.startswith("stvit") else {}
    trained, other = (timm.create_model(model, **options) for _ in range(2))
    task(source, f"start={{model='{model}'}}").start(other, trained)
    assert all(torch.equal(other.state_dict()[name], tensor) for name, tensor in trained.state_dict().items())


def test_on_a_still_clip_a_model_started_from_images_gives_the_features_of_the_image():
    image_model = timm.create_model("swin_tiny_patch4_window7_224", **SMALL).eval()
    with torch.no_grad():
        for name, parameter in image_model.named_parameters():
            if "bias" in name:
                parameter.normal_(std=0.5)
    clip_model = timm.create_model("video_swin_tiny", **SMALL, window_size=(4, 7, 7), num_classes=5).eval()
    assert clip_model.init_from(image_model.state_dict()) == ["head.bias", "head.weight"]
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        of_image = image_model.forward_features(image)
        of_clip = clip_model.forward_features(image[:, :, None].expand(-1, -1, 16, -1, -1))
    torch.testing.assert_close(of_clip, of_image[:, None].expand_as(of_clip), atol=1e-4, rtol=1e-4)


def test_semantic_tokens_start_from_an_image_model_but_for_what_it_has_nothing_for():
    image_model = timm.create_model("swin_tiny_patch4_window7_224", **SMALL)
    model = timm.create_model("stvit_video_swin_tiny", **SMALL, stgm_position=1, num_classes=5)
    new = model.init_from(image_model.state_dict())
    assert {name.split(".")[2] if name.startswith("stages") else name for name in new} == {
        "expand",
        "head.bias",
        "head.weight",
        "stgm_global",
        "stgm_spatial",
    }
    assert all(".pooling." in name or ".global_centres" in name for name in new if ".stgm_" in name)


def test_weights_of_other_sizes_do_not_start_a_model():
    wide = timm.create_model("video_swin_tiny", **{**SMALL, "embed_dim": 16})
    with pytest.raises(ValueError, match="these are not the weights of"):
        timm.create_model("video_swin_tiny", **SMALL).init_from(wide.state_dict())


def test_a_run_names_a_start_that_does_not_fit(source, tmp_path):
    place = saved(timm.create_model("video_swin_tiny", **SMALL), tmp_path / "wide_patches.safetensors")
    start = "start={model='video_swin_tiny', options={embed_dim=8, depths=[1,1,4,1], num_heads=[1,1,2,2]}}"
    with pytest.raises(RecipeError, match="the recipe's start does not fit its model: these are not the weights of"):
        task(source, start, start=place).build_model()


def test_the_garment_clip_models_differ_in_semantic_tokens_alone_and_cost():
    full, ours = (load_recipe(name) for name in ("garments_clips_swin", "garments_clips_stvit_swin"))
    settings = ("epochs", "batch_size", "learning_rate", "warmup_epochs", "weight_decay", "clip_norm", "seed", "data")
    assert all(getattr(full, name) == getattr(ours, name) for name in (*settings, "augmentation"))
    assert full.model_options.items() <= ours.model_options.items()
    assert full.start == ours.start
    clip = (3, full.data["frames"], full.data["size"], full.data["size"])
    models = [timm.create_model(r.model, **r.model_options).eval() for r in (full, ours)]
    macs = [stvit.count_macs(model, clip) for model in models]
    assert macs[1] < 0.65 * macs[0]


@pytest.mark.parametrize(("size", "kind"), [*product(("tiny", "small"), ("video_swin", "stvit_video_swin"))])
def test_the_recipes_for_kinetics_have_the_published_settings(size, kind):
    recipe = load_recipe(f"kinetics_{kind}_{size}")
    assert (recipe.epochs, recipe.warmup_epochs, recipe.batch_size, recipe.weight_decay) == (30, 2.5, 64, 0.02)
    assert recipe.model == f"{kind}_{size}" and recipe.start.model.startswith(f"swin_{size}")
    assert recipe.model_options == {"drop_rate": 0.5, "drop_path_rate": 0.1}


@pytest.mark.parametrize("name", ["garments_clips_swin", "garments_clips_stvit_swin"])
def test_the_garment_clip_models_start_from_the_narrow_image_model(source, tmp_path, name):
    images = load_recipe("garments_start_swin")
    place = saved(timm.create_model(images.model, **images.model_options), tmp_path / "image.safetensors")
    learning = VideoTask(load_recipe(name), DataPaths({**source[1], "start": place}))
    stem = learning.build_model().stem.proj.weight
    torch.testing.assert_close(stem.sum(2), learning.trained("start").patch_embed.proj.weight)


def test_labels_of_garments_are_checked_before_anything_is_read(source):
    with pytest.raises(RecipeError, match=r"data\.label"):
        task((source[0], {}), "data.label=shape")
