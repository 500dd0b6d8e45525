"""A finished run leaves a card, by which its model is evaluated and predicts what it did in training."""

import json
from pathlib import Path

import numpy as np
import pytest
from accelerate.state import AcceleratorState
from PIL import Image

from stvit.evaluate.__main__ import main as evaluate
from stvit.predict.__main__ import main as predict
from stvit.pretrained.model_cards import ModelCard, ModelCardError, read_card, write_card
from stvit.pretrained.resolve import resolve_card
from stvit.training.__main__ import main as train
from stvit.training.checkpoints import read_metrics
from stvit.video.__main__ import main as annotate
from tests.stvit.training.coco_folder import write_coco
from tests.stvit.video.clips import make_clip

HOW = "epochs = 1\nbatch_size = 2\nlearning_rate = 1e-3\n"
NARROW = "embed_dim = 16\ndepths = [1, 1, 6, 1]\nnum_heads = [1, 2, 4, 8]\n"


def trained(home: Path, recipe: str, **data: Path) -> tuple[ModelCard, dict[str, float]]:
    """The card that a run leaves, and the last evaluation in its log."""
    (home / "recipe.toml").write_text(recipe)
    task = recipe.split('"')[1]
    places = [f"--data={name}={path}" for name, path in data.items()]
    command = [task, "--recipe", str(home / "recipe.toml"), "--output", str(home / "run"), "--cpu", *places]
    assert train(command) == 0
    AcceleratorState._reset_state(reset_partial_state=True)
    assert not list((home / "run").glob("*.partial"))
    (*_, last) = [line["evaluation"] for line in read_metrics(home / "run") if "evaluation" in line]
    card = read_card(home / "run" / "model.json")
    resolve_card(card)  # its sha256 is that of the weights
    return card, last


def evaluated(folder: Path, benchmark: str, *arguments: object) -> dict:
    """The figures of the run's model."""
    record, results = folder / "run" / "model.json", folder / "results.jsonl"
    common = ["--record", record, "--device", "cpu", "--results", results]
    assert evaluate([benchmark, *map(str, [*arguments, *common])]) == 0
    return json.loads(results.with_suffix(".metrics.json").read_text())


def predicted(folder: Path, picture: Path, capsys) -> dict:
    """What the run's model says of a picture."""
    capsys.readouterr()
    arguments = [picture, "--record", folder / "run" / "model.json", "--json", "--device", "cpu"]
    assert predict(list(map(str, arguments))) == 0
    return json.loads(capsys.readouterr().out)


def write_photos(folder: Path, names: list[str], count: int) -> Path:
    """Pictures of random blocks, larger than the input, whose borders differ from their centres."""
    rng = np.random.default_rng(0)
    for split in ("train", "validation"):
        for name in names:
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                blocks = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((80, 60))
                blocks.save(folder / split / name / f"{number}.png")
    return folder


CLASSIFY = (
    'task = "classify"\nmodel = "deit_tiny_patch16_224"\n'
    + HOW.replace("= 2", "= 4").replace("1e-3", "3e-2")
    + "[model_options]\nimg_size = 32\npatch_size = 8\nembed_dim = 24\ndepth = 2\nnum_heads = 3\nnum_classes = 3\n"
    "drop_path_rate = 0.1\n"
)


def test_a_classifier_of_a_folder(tmp_path, capsys):
    photos = write_photos(tmp_path / "set", ["ant", "bee", "cat"], 8)
    recipe = CLASSIFY + '[data]\nkind = "folder"\nsize = 32\nclasses = 3\n'
    card, last = trained(tmp_path, recipe, folder=photos)
    assert (card.classes, card.input_size, card.crop_pct) == (("ant", "bee", "cat"), 32, 0.875)
    assert "drop_path_rate" not in card.options and card.options["depth"] == 2
    report = evaluated(tmp_path, "classify", "--images", photos / "validation", "--workers", 0)
    assert report["top1"] == pytest.approx(last["top1"]) and report["images"] == 24
    answer = predicted(tmp_path, photos / "validation" / "bee" / "0.png", capsys)
    assert {one["label"] for one in answer["predictions"]} == set(card.classes)


def test_classes_without_names_are_numbered_and_matched_by_their_order(tmp_path, capsys):
    photos = write_photos(tmp_path / "set", ["ant", "bee", "cat"], 4)
    kind = "tests.stvit.training.test_cards:Unnamed"
    card, last = trained(tmp_path, CLASSIFY + f'[data]\nkind = "{kind}"\nsize = 32\nclasses = 3\n', folder=photos)
    assert card.classes == ("class 0", "class 1", "class 2")
    report = evaluated(tmp_path, "classify", "--images", photos / "validation", "--workers", 0)
    assert report["top1"] == pytest.approx(last["top1"]) and report["top1_by_class"].keys() == {"ant", "bee", "cat"}


def Unnamed(recipe, paths):
    """Folders whose data do not tell the names."""
    from stvit.training.datasets.classification import FolderPictures

    options = {**recipe.data, "kind": "folder"}
    data = FolderPictures(recipe.model_copy(update={"data": options}), paths)
    data.class_names = ()
    return data


def test_a_detector_of_a_set_in_cocos_format(tmp_path, capsys):
    recipe = (
        f'task = "detect"\nmodel = "stvit_r_swin_small_cascade_mask_rcnn"\n{HOW}'
        f"[model_options]\n{NARROW}fpn_channels = 16\nbox_hidden = 32\nnum_classes = 2\n"
        "[loss]\nproposals = 50\nanchors = 32\nregions = 16\n"
        '[data]\nkind = "coco"\nscale = [96, 64]\n[augmentation]\nshort_sides = [64]\nlongest = 96\n'
    )
    paths = write_coco(tmp_path / "set")
    card, last = trained(tmp_path, recipe, **paths)
    assert (card.classes, card.scale, card.input_size) == (("square", "bar"), (96, 64), 64)
    data = ["--images", paths["validation_images"], "--annotations", paths["validation_annotations"]]
    report = evaluated(tmp_path, "coco", *data)
    assert report["scale"] == [96, 64] and 100 * report["box"]["AP"] == pytest.approx(last["box_AP"])
    assert predicted(tmp_path, tmp_path / "set" / "images" / "1.png", capsys)["objects"] == []  # untrained


def test_a_segmenter_of_a_set_laid_out_like_ade20k(tmp_path, capsys):
    recipe = (
        f'task = "segment"\nmodel = "stvit_r_swin_small_upernet"\n{HOW}'
        f"[model_options]\n{NARROW}channels = 16\nauxiliary_channels = 8\nnum_classes = 3\n"
        '[data]\nkind = "ade20k"\nscale = [128, 48]\n[augmentation]\ncrop = 40\nratios = [0.5, 2.0]\n'
    )
    rng = np.random.default_rng(0)
    for part in ("training", "validation"):
        for kind in ("images", "annotations"):
            (tmp_path / "set" / kind / part).mkdir(parents=True)
        for number in range(2):
            labels = rng.integers(0, 4, (2, 3)).repeat(24, axis=0).repeat(32, axis=1).astype(np.uint8)
            Image.fromarray(labels).save(tmp_path / "set" / "annotations" / part / f"{number}.png")
            Image.fromarray(60 * labels[..., None].repeat(3, 2)).save(
                tmp_path / "set" / "images" / part / f"{number}.png"
            )
    card, last = trained(tmp_path, recipe, folder=tmp_path / "set")
    assert (card.classes, card.scale) == (("class 0", "class 1", "class 2"), (128, 48))
    images = tmp_path / "set" / "images" / "validation"
    report = evaluated(
        tmp_path, "segment", "--images", images, "--annotations", tmp_path / "set" / "annotations" / "validation"
    )
    assert report["mIoU"] == pytest.approx(last["mIoU"])
    assert predicted(tmp_path, images / "0.png", capsys)["classes"]


def test_a_clip_model_of_a_list_of_videos(tmp_path):
    recipe = (
        f'task = "video"\nmodel = "video_swin_tiny"\n{HOW}'
        "[model_options]\nembed_dim = 8\ndepths = [1, 1, 2, 1]\nnum_heads = [1, 1, 2, 2]\nwindow_size = [2, 4, 4]\n"
        "num_classes = 2\n"
        '[data]\nkind = "kinetics"\nsize = 32\nclasses = 2\nframes = 4\nstride = 3\nclips = 2\ncrops = 1\n'
    )
    for number in range(2):
        make_clip(tmp_path / f"{number}.mp4", 12 + number)
    (tmp_path / "list.txt").write_text("0.mp4 0\n1.mp4 1\n")
    places = {f"{split}_{what}": path for split in ("train", "validation") for what, path in
              (("list", tmp_path / "list.txt"), ("clips", tmp_path))}  # fmt: skip
    card, last = trained(tmp_path, recipe, **places)
    assert (card.frames, card.stride, card.input_size, card.classes) == (4, 3, 32, ("class 0", "class 1"))
    report = evaluated(tmp_path, "video", "--list", tmp_path / "list.txt", "--clips", tmp_path, "--views", "2x1")
    assert report["top1"] == pytest.approx(last["top1"])
    arguments = [tmp_path / "0.mp4", tmp_path / "out.mp4", "--record", tmp_path / "run" / "model.json"]
    assert annotate([*map(str, arguments), "--device", "cpu"]) == 0


def test_a_card_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"weights")
    with pytest.raises(ModelCardError, match=r"classes.*it should have at least 1 item"):
        write_card(weights, {"model": "deit_tiny_patch16_224", "options": {}, "task": "classify", "classes": [],
                             "input_size": 32})  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
