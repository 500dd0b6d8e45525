"""Training detectors: the data that reaches the losses, and runs from recipe to metrics."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file
from torchvision.ops import masks_to_boxes

import stvit
from stvit.detection.losses import PUBLISHED
from stvit.detection.preprocess import prepare
from stvit.training.__main__ import main
from stvit.training.batches import seed_everything
from stvit.training.checkpoints import read_metrics
from stvit.training.datasets.detection import NORMALISE, DetectionData
from stvit.training.loop import Diverged
from stvit.training.recipe import DataPaths, RecipeError, load_recipe
from stvit.training.tasks.detect import DetectTask, training_rules
from tests.stvit.training.coco_folder import write_coco
from tests.stvit.training.tiny_runs import Source, arguments, evaluations, garments_source, learn_by_heart

MODEL = """
task = "detect"
model = "stvit_r_swin_small_cascade_mask_rcnn"
epochs = 2
batch_size = 2
learning_rate = 1e-3
[model_options]
embed_dim = 16
depths = [1, 1, 6, 1]
num_heads = [1, 2, 4, 8]
fpn_channels = 16
box_hidden = 32
num_classes = CLASSES
[loss]
proposals = 50
anchors = 32
regions = 16
"""
GARMENTS = """
[data]
kind = "weights.garments.training:GarmentDetection"
size = 64
max_items = 2
train_samples = 4
validation_samples = 3
"""
COCO = """
[data]
kind = "coco"
scale = [128, 64]
[augmentation]
flip = true
short_sides = [48, 64, 72]
longest = 96
crop = { short_sides = [64], sides = [40, 60] }
"""
METRICS = {f"{kind}_{name}" for kind in ("box", "mask") for name in ("AP", "AP50", "AP75")}


@pytest.fixture(scope="module")
def garments(tmp_path_factory) -> Source:
    return garments_source(tmp_path_factory.mktemp("garments"), MODEL.replace("CLASSES", "10") + GARMENTS)


@pytest.fixture(scope="module")
def coco(tmp_path_factory) -> Source:
    folder = tmp_path_factory.mktemp("coco")
    file = folder / "coco.toml"
    file.write_text(MODEL.replace("CLASSES", "2") + COCO)
    return str(file), write_coco(folder)


def run(source: Source, output: Path, *more: str) -> dict[str, torch.Tensor]:
    """Train in this process; returns the weights that are left."""
    assert main(arguments(source, output, *more)) == 0
    AcceleratorState._reset_state(reset_partial_state=True)
    return load_file(output / "model.safetensors")


def task(source: Source, *changes: str) -> DetectTask:
    recipe, places = source
    return DetectTask(load_recipe(recipe, changes), DataPaths(places))


@pytest.fixture(scope="module")
def uninterrupted(garments, tmp_path_factory) -> tuple[Path, dict[str, torch.Tensor]]:
    output = tmp_path_factory.mktemp("whole")
    return output, run(garments, output)


def test_a_run_reports_losses_and_average_precision_and_leaves_a_detector(uninterrupted):
    output, weights = uninterrupted
    lines = read_metrics(output)
    training = [line for line in lines if "evaluation" not in line]
    assert len(training) == 4 and all(line["loss_rpn_cls"] > 0 and line["s2.loss_cls"] > 0 for line in training)
    found = evaluations(output)
    assert len(found) == 2
    assert all(e.keys() == METRICS and all(0 <= v <= 100 for v in e.values()) for e in found)
    recipe = torch.load(output / "state.pt", weights_only=True)["recipe"]
    detector = stvit.create_model(recipe["model"], checkpoint=output / "model.safetensors", **recipe["model_options"])
    assert torch.equal(detector.state_dict()["rpn_head.rpn_cls.bias"], weights["rpn_head.rpn_cls.bias"])


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(uninterrupted, garments, tmp_path, monkeypatch):
    calls, losses = [], DetectTask.losses

    def failing(self, model, batch):
        calls.append(batch)
        if len(calls) == 4:
            raise Diverged("stopped")
        return losses(self, model, batch)

    monkeypatch.setattr(DetectTask, "losses", failing)
    assert main(arguments(garments, tmp_path, "--checkpoint-every", "1")) == 1
    monkeypatch.undo()
    AcceleratorState._reset_state(reset_partial_state=True)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 3
    weights = run(garments, tmp_path)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in uninterrupted[1].items())


@pytest.mark.slow
def test_two_processes_find_what_one_finds(garments, tmp_path):
    """Both compute gradients for every parameter, share the images to evaluate on, and report all results."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes=2", "--num_machines=1"]
    launch += ["--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0", "-m", "stvit.training"]
    command = [*launch, *arguments(garments, tmp_path, "--set=epochs=1")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert finished.returncode == 0, finished.stderr[-2000:]
    (found,) = evaluations(tmp_path)
    assert found.keys() == METRICS


def test_training_on_one_batch_by_heart_lowers_the_losses(garments):
    first, last = learn_by_heart(task(garments), batch_size=2, learning_rate=2e-3)
    assert last < 0.7 * first


def test_results_that_are_right_are_recognised_as_such(garments):
    """A detector that gives back the ground truth has an average precision of 100."""
    learning = task(garments)
    truth = learning.data.ground_truth("validation").ground_truth
    results = {image_id: [] for image_id in truth.getImgIds()}
    for one in truth.dataset["annotations"]:
        mask = {"segmentation": truth.annToRLE(one), "bbox": one["bbox"], "score": 0.9}
        results[one["image_id"]].append({"image_id": one["image_id"], "category_id": one["category_id"], **mask})
    assert learning._metrics(results, "validation") == pytest.approx(dict.fromkeys(METRICS, 100.0))


def test_scenes_change_from_epoch_to_epoch_and_those_to_evaluate_on_do_not(garments):
    data = task(garments).data
    one, other = (data.dataset("train", epoch)[0][0] for epoch in (0, 1))
    assert not torch.equal(one, other)
    assert torch.equal(data.dataset("validation", 0)[1][1], data.dataset("validation", 1)[1][1])


def test_training_sees_what_predict_sees(garments):
    data = task(garments).data
    picture = data.scenes("train")[0][0]
    prepared = prepare(picture.permute(1, 2, 0), data.scale)
    torch.testing.assert_close(NORMALISE(picture), prepared.images[0])


def test_images_of_a_batch_are_padded_to_common_multiples_of_32():
    images = [torch.ones(3, 40, 64), torch.ones(3, 33, 65)]
    batch, targets = DetectionData.collate([(image, {"number": i}) for i, image in enumerate(images)])
    assert batch.shape == (2, 3, 64, 96) and [target["number"] for target in targets] == [0, 1]
    assert batch[0].sum() == images[0].sum() and batch[1, :, :33, :65].all()


def test_coco_images_without_objects_and_tiny_ones_are_left_out(coco):
    data = task(coco).data
    assert [image.id for image, _ in data.training.samples] == [1, 2, 5]
    assert len(data.validation) == 5


def test_coco_objects_have_classes_in_the_order_of_the_categories(coco):
    assert task(coco).data.training[0][1]["labels"].tolist() == [1, 0]


def test_crowds_are_kept_apart_and_boxes_without_extent_are_left_out(coco):
    training = task(coco, "augmentation={short_sides=[48], longest=160}").data.training
    crowd, empty = training[1][1], training[2][1]
    assert crowd["boxes"].tolist() == [[8, 40, 38, 70]] and len(crowd["labels"]) == len(crowd["masks"]) == 1
    assert crowd["ignore_boxes"].tolist() == [[0, 0, 48, 30]]
    assert empty["labels"].tolist() == [1] and empty["ignore_boxes"].shape == (0, 4)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_boxes_masks_and_pixels_stay_together_whatever_is_drawn(coco, index):
    training = task(coco).data.training
    for seed in range(25):
        seed_everything(seed)
        image, target = training[index]
        assert target["masks"].shape == (len(target["boxes"]), *image.shape[1:])
        assert max(image.shape[1:]) <= 96
        for box, label, mask in zip(target["boxes"], target["labels"], target["masks"], strict=True):
            assert (box[2:] - box[:2] >= 1).all() and (box >= 0).all()
            if mask.sum() < 40:
                continue  # a sliver at the edge of a crop
            tight = masks_to_boxes(mask[None])[0] + torch.tensor([0, 0, 1, 1])
            torch.testing.assert_close(box, tight, atol=3.0, rtol=0)
            channel = 2 if label else 0  # bars are blue, squares red
            assert image[channel][mask].mean() > image[channel][~mask].mean() + 0.5


def test_a_run_on_a_set_in_cocos_format(coco, tmp_path):
    run(coco, tmp_path, "--set=epochs=1", "--precision=bf16")
    (found,) = evaluations(tmp_path)
    assert found.keys() == METRICS


def test_the_backbone_starts_from_a_classifier(garments, tmp_path):
    sizes = {"embed_dim": 16, "depths": [1, 1, 6, 1], "num_heads": [1, 2, 4, 8], "num_classes": 5}
    classifier = stvit.create_model("swin_small_patch4_window7_224", **sizes)
    save_file(classifier.state_dict(), tmp_path / "classifier.safetensors")
    options = ", ".join(f"{key} = {json.dumps(value)}" for key, value in sizes.items())
    start = "start={model='swin_small_patch4_window7_224', into='backbone', options={" + options + "}}"
    recipe, places = garments
    starting = task(
        (recipe, {**places, "start": tmp_path / "classifier.safetensors"}), "model=swin_small_cascade_mask_rcnn", start
    )
    built = starting.build_model().backbone.stages[2].layers[3].attn.qkv.weight
    assert torch.equal(built, classifier.layers[2].blocks[3].attn.qkv.weight)


@pytest.mark.parametrize("name", ["coco_stvit_r_swin_small", "coco_stvit_r_swin_base"])
def test_the_published_recipes_have_the_published_settings(name):
    recipe = load_recipe(name)
    assert (recipe.learning_rate, recipe.epochs, recipe.milestones, recipe.batch_size) == (1e-4, 36, (27, 33), 16)
    assert recipe.model_options["drop_path_rate"] == (0.2 if name.endswith("small") else 0.3)
    assert training_rules(recipe.loss) == PUBLISHED


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["--set=data.kind=carpets"],
            "no data of kind 'carpets' to detect; choose one of coco, or name a class as module:Class",
        ),
        (["--set=data={kind='weights.garments.training:GarmentDetection'}"], "lacks data.size"),
        (["--set=model_options.num_classes=4"], "The model has 4 classes"),
        (["--set=loss={boxes=3}"], "no loss.boxes; loss has proposals, anchors, regions"),
        (["--set=loss.regions=0"], "loss.regions = 0"),
        (["--set=data={kind='coco'}"], "needs --data train_annotations=PATH"),
    ],
)
def test_what_cannot_be_run_is_named(garments, tmp_path, capsys, more, message):
    assert main(arguments(garments, tmp_path, *more)) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: [one.pop("segmentation") for one in data["annotations"]], "lack segmentations"),
        (lambda data: data["images"][0].update(file_name="gone.png"), "1 of 5 images are missing"),
        (lambda data: data["categories"].append({"id": 9, "name": "ring"}), "has 3 categories"),
        (lambda data: data.pop("annotations"), "no list of annotations"),
        (lambda data: data["images"][4].update(height=75), "its annotation says 64x75"),
        (lambda data: data["annotations"][0].update(image_id="1"), "1 unusable of 7 objects"),
        (lambda data: data["annotations"][0].update(segmentation=[[1, 2, 3, 4]]), "--set data.skip_invalid=true"),
        (lambda data: data["images"].append(data["images"][0]), "cannot be used"),
    ],
)
def test_what_is_wrong_with_a_set_is_named(coco, tmp_path, capsys, change, message):
    recipe, places = coco
    data = json.loads(places["train_annotations"].read_text())
    change(data)
    (tmp_path / "changed.json").write_text(json.dumps(data))
    changed = (recipe, {**places, "train_annotations": tmp_path / "changed.json"})
    assert main(arguments(changed, tmp_path / "run")) == 1
    assert message in capsys.readouterr().err


def test_images_that_cannot_be_read_are_skipped_in_training_and_refused_in_evaluation(coco, tmp_path, capsys):
    recipe, paths = coco[0], write_coco(tmp_path)
    image = tmp_path / "images" / "2.png"
    image.write_bytes(image.read_bytes()[:-40])
    training = {**paths, **{name: path for name, path in coco[1].items() if name.startswith("validation")}}
    with pytest.warns(UserWarning, match=r"2\.png cannot be read as an image"):
        assert main(arguments((recipe, training), tmp_path / "run", "--set=epochs=1", "--set=batch_size=3")) == 0
    AcceleratorState._reset_state(reset_partial_state=True)
    assert main(arguments((recipe, paths), tmp_path / "refused")) == 1
    assert "1 samples of validation cannot be used" in capsys.readouterr().err
    assert not read_metrics(tmp_path / "refused")


def test_objects_that_cannot_be_used_are_left_out_on_request(coco, tmp_path):
    recipe, paths = coco[0], dict(coco[1])
    data = json.loads(paths["train_annotations"].read_text())
    data["annotations"][0].update(segmentation=[[1, 2, 3, 4]])
    paths["train_annotations"] = tmp_path / "changed.json"
    paths["train_annotations"].write_text(json.dumps(data))
    with pytest.warns(UserWarning, match="1 objects are left out: .*fewer than 3"):
        training = task((recipe, paths), "data.skip_invalid=true").data.training
    assert training[0][1]["labels"].tolist() == [0]


def test_classes_are_matched_by_name_in_evaluation(coco, tmp_path):
    """Training gives classes their numbers by ascending id, whatever the order of the categories."""
    recipe, paths = coco[0], dict(coco[1])
    data = json.loads(paths["train_annotations"].read_text())
    reverse = {3: 7, 7: 3}
    for category in data["categories"]:
        category["id"] = reverse[category["id"]]
    for one in data["annotations"]:
        one["category_id"] = reverse[one["category_id"]]
    data["categories"].reverse()
    paths["validation_annotations"] = tmp_path / "exchanged.json"
    paths["validation_annotations"].write_text(json.dumps(data))
    learned = task((recipe, paths)).data
    assert learned.class_names == ("square", "bar") and learned.categories == (7, 3)


def test_the_augmentation_of_coco_is_told_by_the_recipe(coco):
    with pytest.raises(RecipeError, match=r"lacks augmentation\.short_sides"):
        task(coco, "augmentation={}")
