"""Training segmenters: the data that reaches the losses, the metrics, and runs from recipe to metrics."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchvision import tv_tensors

import stvit
from stvit.segmentation import IGNORE_INDEX
from stvit.training.__main__ import main
from stvit.training.batches import seed_everything
from stvit.training.checkpoints import read_metrics
from stvit.training.datasets.segmentation import read_labels
from stvit.training.datasets.transforms import CropOfSeveralClasses
from stvit.training.recipe import DataPaths, RecipeError, load_recipe
from stvit.training.tasks.segment import SegmentTask, confusion_matrix, segmentation_metrics
from tests.stvit.training.tiny_runs import Source, arguments, evaluations, garments_source, learn_by_heart

MODEL = """
task = "segment"
model = "stvit_r_swin_small_upernet"
epochs = 2
batch_size = 2
learning_rate = 1e-3
[model_options]
embed_dim = 16
depths = [1, 1, 6, 1]
num_heads = [1, 2, 4, 8]
channels = 16
auxiliary_channels = 8
num_classes = CLASSES
"""
GARMENTS = """
[data]
kind = "weights.garments.training:GarmentSegmentation"
size = 64
max_items = 2
train_samples = 4
validation_samples = 3
"""
ADE = """
[data]
kind = "ade20k"
scale = [128, 48]
[augmentation]
crop = 40
ratios = [0.5, 2.0]
flip = true
distort = true
"""
METRICS = {"mIoU", "pixel_accuracy", "mean_accuracy"}
COLOURS = np.array([[120, 120, 120], [250, 20, 20], [20, 250, 20], [20, 20, 250]], np.uint8)


def write_ade(folder: Path) -> Path:
    """Four images for each part, with quarters of three classes and, in the middle, an unlabelled grey square."""
    rng = np.random.default_rng(0)
    for part in ("training", "validation"):
        images, annotations = folder / "images" / part, folder / "annotations" / part
        images.mkdir(parents=True)
        annotations.mkdir(parents=True)
        for number, (height, width) in enumerate([(48, 64), (60, 48), (48, 48), (40, 80)]):
            labels = rng.integers(1, 4, (2, 2)).repeat(height // 2, axis=0).repeat(width // 2, axis=1).astype(np.uint8)
            labels[20:28, 20:28] = 0
            Image.fromarray(COLOURS[labels]).save(images / f"{number}.jpg", quality=95)
            Image.fromarray(labels).save(annotations / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def garments(tmp_path_factory) -> Source:
    return garments_source(tmp_path_factory.mktemp("garments"), MODEL.replace("CLASSES", "11") + GARMENTS)


@pytest.fixture(scope="module")
def ade(tmp_path_factory) -> Source:
    folder = tmp_path_factory.mktemp("ade")
    file = folder / "ade.toml"
    file.write_text(MODEL.replace("CLASSES", "3") + ADE)
    return str(file), {"folder": write_ade(folder / "set")}


def task(source: Source, *changes: str) -> SegmentTask:
    recipe, places = source
    return SegmentTask(load_recipe(recipe, changes), DataPaths(places))


def test_a_run_reports_losses_and_metrics_and_leaves_a_segmenter(garments, tmp_path):
    assert main(arguments(garments, tmp_path, "--precision=bf16")) == 0
    lines = read_metrics(tmp_path)
    training = [line for line in lines if "evaluation" not in line]
    assert len(training) == 4 and all(line["segmentation"] > 0 and line["auxiliary"] > 0 for line in training)
    found = evaluations(tmp_path)
    assert len(found) == 2
    assert all(e.keys() == METRICS and all(0 <= v <= 100 for v in e.values()) for e in found)
    recipe = torch.load(tmp_path / "state.pt", weights_only=True)["recipe"]
    stvit.create_model(recipe["model"], checkpoint=tmp_path / "model.safetensors", **recipe["model_options"])


def test_a_run_on_a_set_laid_out_like_ade20k(ade, tmp_path):
    assert main(arguments(ade, tmp_path, "--set=epochs=1")) == 0
    (found,) = evaluations(tmp_path)
    assert found.keys() == METRICS


def test_training_on_one_batch_by_heart_lowers_the_losses(garments):
    first, last = learn_by_heart(task(garments), batch_size=2, learning_rate=1e-2)
    assert last < 0.5 * first


def test_a_recipe_says_what_the_pixels_of_a_class_count(garments):
    """With all weights but one at zero, only that class teaches."""
    alone = task(garments, f"loss.class_weights={[1.0] + [0.0] * 10}")
    model = alone.build_model().eval()
    images, labels = torch.randn(2, 3, 64, 64), torch.zeros(2, 64, 64, dtype=torch.int64)
    labels[:, :32] = 3
    both, weighted = model.losses(images, labels), alone.losses(model, (images, labels))
    assert 0 < weighted["segmentation"] < both["segmentation"]
    assert not any(term.item() for term in alone.losses(model, (images, torch.full_like(labels, 3))).values())


def test_training_sees_what_predict_sees(garments):
    data = task(garments).data
    picture, target = data.scenes("train")[0]
    image, labels = data.dataset("train", 0)[0]
    by_hand = (picture / 255 - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor(
        [0.229, 0.224, 0.225]
    )[:, None, None]
    torch.testing.assert_close(image, by_hand)
    assert torch.equal(labels, target["semantic"])


def test_samples_of_ade20k_have_the_crops_size_and_labels_that_fit_the_pixels(ade):
    data = task(ade, "augmentation.distort=false").data
    ignored = 0
    for seed in range(20):
        seed_everything(seed)
        image, labels = data.dataset("train", 0)[seed % 4]
        assert image.shape == (3, 40, 40) and labels.shape == (40, 40) and labels.dtype == torch.int64
        assert set(labels.unique().tolist()) <= {0, 1, 2, IGNORE_INDEX}
        ignored += int((labels == IGNORE_INDEX).sum())
        for label in set(labels.unique().tolist()) - {IGNORE_INDEX}:
            means = image[:, labels == label].mean(dim=1)
            assert means.argmax() == label  # red, green, blue
    assert ignored


def test_on_several_gpus_the_heads_normalise_over_all_of_them(garments, monkeypatch):
    several = SimpleNamespace(num_processes=2, device=torch.device("cuda"))
    alone = task(garments).build_model()
    monkeypatch.setattr("stvit.training.tasks.task.PartialState", lambda: several)
    model = task(garments).build_model()
    synchronised = {name for name, module in model.named_modules() if isinstance(module, nn.SyncBatchNorm)}
    plain = {name for name, module in alone.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert synchronised == {name for name in plain if not name.startswith("backbone.")} and len(synchronised) > 10
    assert model.state_dict().keys() == alone.state_dict().keys()


def test_what_a_small_image_lacks_of_a_crop_is_ignored(ade):
    data = task(ade, "augmentation.ratios=[0.5, 0.5]", "augmentation.crop=64").data
    image, labels = data.dataset("train", 0)[2]
    assert (labels[:24, :24] != IGNORE_INDEX).any()
    assert (labels[24:] == IGNORE_INDEX).all() and (labels[:, 24:] == IGNORE_INDEX).all()
    assert not image[:, 24:].any() and not image[:, :, 24:].any()


def test_colours_change_and_labels_do_not_when_distorted(ade):
    plain = ["augmentation.ratios=[1.0, 1.0]", "augmentation.flip=false", "augmentation.crop=80"]
    for seed in range(4):
        samples = []
        for distort in ("true", "false"):
            seed_everything(seed)
            samples.append(task(ade, *plain, f"augmentation.distort={distort}").data.dataset("train", 0)[0])
        (distorted, labels), (image, same_labels) = samples
        assert torch.equal(labels, same_labels)
        if not torch.equal(distorted, image):
            return
    pytest.fail("four images were not distorted")


def test_crops_of_one_class_are_drawn_again():
    labels = torch.zeros(64, 64, dtype=torch.int64)
    labels[:, 48:] = 1
    crop = CropOfSeveralClasses(32, most=0.75)
    found = []
    for seed in range(30):
        seed_everything(seed)
        found.append(len(crop(tv_tensors.Mask(labels)).unique()))
    assert np.mean(np.array(found) == 2) > 0.9  # by chance, a quarter of the crops has enough of the second class


def test_labels_count_from_zero_and_unlabelled_pixels_are_ignored(tmp_path):
    Image.fromarray(np.array([[0, 1], [150, 2]], np.uint8)).save(tmp_path / "labels.png")
    assert read_labels(tmp_path / "labels.png", 150).tolist() == [[IGNORE_INDEX, 0], [149, 1]]


def test_metrics_by_hand():
    labels = torch.tensor([[0, 0, 1, 1], [0, IGNORE_INDEX, 1, 3]])
    predicted = torch.tensor([[0, 1, 1, 1], [0, 2, 1, 1]])
    metrics = segmentation_metrics(confusion_matrix(predicted, labels, 5))
    assert metrics["pixel_accuracy"] == pytest.approx(100 * 5 / 7)
    assert metrics["mIoU"] == pytest.approx(100 * (2 / 3 + 3 / 5 + 0) / 3)  # classes 2 and 4 occur nowhere
    assert metrics["mean_accuracy"] == pytest.approx(100 * (2 / 3 + 1 + 0) / 3)


def test_labels_that_are_no_class_are_refused():
    with pytest.raises(RecipeError, match="labels reach 7"):
        confusion_matrix(torch.zeros(2, 2, dtype=torch.int64), torch.full((2, 2), 7), 3)


def test_the_backbone_starts_from_a_detectors(garments, tmp_path):
    sizes = {"embed_dim": 16, "depths": [1, 1, 6, 1], "num_heads": [1, 2, 4, 8], "fpn_channels": 16, "box_hidden": 16}
    detector = stvit.create_model("stvit_r_swin_small_cascade_mask_rcnn", **sizes)
    save_file(detector.state_dict(), tmp_path / "detector.safetensors")
    options = ", ".join(f"{key} = {json.dumps(value)}" for key, value in sizes.items())
    recipe, places = garments
    starting = task(
        (recipe, {**places, "start": tmp_path / "detector.safetensors"}),
        "start={model='stvit_r_swin_small_cascade_mask_rcnn', out_of='backbone', into='backbone', options={"
        + options
        + "}}",
    )
    built, given = starting.build_model().backbone.state_dict(), detector.backbone.state_dict()
    assert built.keys() == given.keys() and all(torch.equal(built[name], given[name]) for name in given)


@pytest.mark.parametrize("name", ["ade20k_stvit_r_swin_small", "ade20k_stvit_r_swin_base"])
def test_the_published_recipes_have_the_published_settings(name):
    recipe = load_recipe(name)
    steps = 20_210 // recipe.batch_size
    assert recipe.epochs == round(160_000 / steps) and round(recipe.warmup_epochs * steps) == 1500
    assert (recipe.learning_rate, recipe.weight_decay, recipe.schedule) == (6e-5, 0.01, "polynomial")
    assert recipe.augmentation["crop"] == 512 and recipe.start.into == "backbone"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["--set=data.kind=carpets"],
            "no data of kind 'carpets' to segment; choose one of ade20k, or name a class as module:Class",
        ),
        (["--set=data={kind='weights.garments.training:GarmentSegmentation'}"], "lacks data.size"),
        (["--set=data={kind='ade20k'}"], "needs --data folder=PATH"),
        (["--set=model_options.num_classes=2"], "labels reach"),
        (["--set=batch_size=1"], "at least two images"),
        (["--set=loss={class_weight=[1.0]}"], "no loss.class_weight; loss has class_weights"),
        (["--set=loss={class_weights=[0.1, 1.0]}"], "there are 2 class_weights for 11 classes"),
    ],
)
def test_what_cannot_be_run_is_named(garments, tmp_path, capsys, more, message):
    assert main(arguments(garments, tmp_path, *more)) == 1
    assert message in capsys.readouterr().err


def spoil_labels(folder: Path) -> None:
    for file in (folder / "annotations" / "training").iterdir():
        file.write_bytes(b"no picture")


def colour_labels(folder: Path) -> None:
    for file in (folder / "annotations" / "training").iterdir():
        Image.new("RGB", (64, 48)).save(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "images" / "validation").rename(folder / "gone"), "images/validation; name a folder"),
        (lambda folder: (folder / "annotations" / "training" / "1.png").unlink(), "1 images have no labels"),
        (lambda folder: [f.unlink() for f in (folder / "images" / "training").iterdir()], "holds no images"),
        (spoil_labels, "cannot be read as an image"),
        (lambda folder: Image.new("L", (64, 48), 4).save(folder / "annotations/validation/0.png"), "labels reach 4"),
        (lambda folder: (folder / "images/validation/1.jpg").write_bytes(b"none"), "1 samples of validation cannot"),
        (colour_labels, "expected one channel of 8 bits"),
    ],
)
def test_what_is_wrong_with_a_set_is_named(ade, tmp_path, capsys, change, message):
    folder = write_ade(tmp_path / "set")
    change(folder)
    assert main(arguments((ade[0], {"folder": folder}), tmp_path / "run")) == 1
    assert message in capsys.readouterr().err


def test_the_augmentation_of_ade20k_is_told_by_the_recipe(ade):
    with pytest.raises(RecipeError, match=r"lacks augmentation\.crop"):
        task(ade, "augmentation={}")
