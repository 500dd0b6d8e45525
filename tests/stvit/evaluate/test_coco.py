"""``python -m stvit.evaluate coco`` on sets that the tests make, of known objects."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

import stvit
from stvit.detection.detections import Detections
from stvit.detection.preprocess import PreparedImage
from stvit.evaluate import __main__ as command
from stvit.evaluate import run as run_module
from stvit.evaluate.coco import encode_mask

MODEL = "swin_small_cascade_mask_rcnn"
SIZE_HW = (96, 128)
CATEGORIES = [{"id": 3, "name": "plate"}, {"id": 7, "name": "flag"}]
# Image number -> objects: class, box XYXY, and whether the mask is the left half of the box or all of it.
Object = tuple[int, tuple[int, int, int, int], bool]
SCENES: dict[int, list[Object]] = {
    1: [(0, (10, 20, 50, 60), False), (1, (60, 10, 100, 50), True)],
    2: [(1, (20, 30, 60, 70), True)],
    3: [],
    4: [(0, (70, 40, 110, 80), False)],
}


def annotation(image_id: int, label: int, box: tuple[int, int, int, int], half: bool) -> dict[str, Any]:
    x1, y1, x2, y2 = box
    right = (x1 + x2) // 2 if half else x2
    return {
        "id": 0,  # ids need not be unique here, nor start at one
        "image_id": image_id,
        "category_id": CATEGORIES[label]["id"],
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": (right - x1) * (y2 - y1),
        "iscrowd": 0,
        "segmentation": [[x1, y1, right, y1, right, y2, x1, y2]],
    }


def annotation_data() -> dict[str, Any]:
    """Ground truth of the scenes, as the annotation file holds it."""
    H, W = SIZE_HW
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "height": H, "width": W} for i in SCENES],
        "annotations": [annotation(i, *thing) for i, things in SCENES.items() for thing in things],
        "categories": [dict(category) for category in CATEGORIES],
    }


class OneLevel(nn.Module):
    """A pyramid of the input alone."""

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (images,)


class Scripted(nn.Module):
    """A stand-in whose detections are made up for each image; it knows an image by the red of its first pixel."""

    num_classes, num_proposals = len(CATEGORIES), 1000

    def __init__(self, scenes: dict[int, list[Object]], shift: int = 0, stop_at: int | None = None) -> None:
        super().__init__()
        self.scenes, self.shift, self.stop_at = scenes, shift, stop_at
        self.seen: list[int] = []
        self.unused, self.backbone, self.neck = nn.Parameter(torch.zeros(1)), nn.Identity(), OneLevel()
        self.roi_head = nn.Module()
        self.roi_head.bbox_head, self.roi_head.mask_head = nn.ModuleList(), nn.ModuleList([nn.Linear(1, 1)])

    def prepare(self, image: np.ndarray, scale: tuple[int, int]) -> PreparedImage:
        hw = image.shape[:2]
        return PreparedImage(torch.from_numpy(image).float().permute(2, 0, 1)[None], hw, torch.ones(4), hw)

    def predict(self, features: list[Tensor], prepared: PreparedImage, *how: object) -> Detections:
        number = int(features[0][0, 0, 0, 0])
        if number == self.stop_at:
            raise KeyboardInterrupt
        self.seen.append(number)
        things = self.scenes[number]
        boxes = torch.tensor([box for _, box, _ in things], dtype=torch.float32).view(-1, 4)
        boxes[:, 0::2] += self.shift
        masks = torch.ones(len(things), 28, 28)
        for mask, (_, _, half) in zip(masks, things, strict=True):
            mask[:, 14 if half else 28 :] = 0
        scores = torch.linspace(0.9, 0.5, len(things))
        return Detections(boxes, scores, torch.tensor([c for c, _, _ in things]).long(), masks, prepared.source_hw)

    detect = predict  # the first tells the command that it is a detector


@pytest.fixture
def coco_set(tmp_path: Path) -> Path:
    """A folder with ``images/`` and ``instances.json``."""
    folder = tmp_path / "set"
    (folder / "images").mkdir(parents=True)
    for number in SCENES:
        Image.new("RGB", SIZE_HW[::-1], (number, 0, 0)).save(folder / "images" / f"{number}.png")
    (folder / "instances.json").write_text(json.dumps(annotation_data()))
    return folder


@pytest.fixture
def run(coco_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command with a stand-in for the model."""

    def run(model: nn.Module, *options: str) -> int:
        monkeypatch.setattr(run_module, "create_model", lambda *args, **kwargs: model)
        given = ["coco", "--images", str(coco_set / "images"), "--annotations", str(coco_set / "instances.json")]
        given += ["--model", MODEL, "--results", str(tmp_path / "results.jsonl"), "--device", "cpu"]
        return command.main([*given, *options])

    return run


@pytest.fixture
def metrics(tmp_path: Path) -> Callable[[], dict[str, Any]]:
    return lambda: json.loads((tmp_path / "results.metrics.json").read_text())


def test_perfect_detections_have_full_precision(run, metrics, capsys) -> None:
    assert run(Scripted(SCENES)) == 0
    for kind in ("box", "mask"):
        found = metrics()[kind]
        assert (found["AP"], found["AP50"], found["AP75"], found["AR100"]) == pytest.approx((1, 1, 1, 1))
        assert found["APl"] is None  # there is no large object
    out, err = capsys.readouterr()
    assert "100.00" in out and "n/a" in out
    assert "4/4 images" in err and "0:00:00 left" in err


def test_shifted_boxes_pass_the_thresholds_that_their_overlap_reaches(run, metrics) -> None:
    assert run(Scripted(SCENES, shift=4)) == 0  # boxes 36 / 44, half masks 16 / 24, full masks as boxes
    assert metrics()["box"]["AP"] == pytest.approx(0.7)
    assert metrics()["mask"]["AP"] == pytest.approx((0.7 + 0.4) / 2)


def test_a_missed_object_costs_its_recall(run, metrics) -> None:
    assert run(Scripted({**SCENES, 4: []})) == 0
    assert metrics()["box"]["AR100"] == pytest.approx((0.5 + 1) / 2)
    assert metrics()["box"]["AP"] == pytest.approx((51 / 101 + 1) / 2)


def test_a_detector_that_finds_nothing_has_precision_zero(run, metrics) -> None:
    assert run(Scripted({number: [] for number in SCENES})) == 0
    assert metrics()["box"]["AP"] == metrics()["mask"]["AP"] == 0


def test_swapped_classes_find_nothing(run, metrics) -> None:
    assert run(Scripted({i: [(1 - c, *rest) for c, *rest in things] for i, things in SCENES.items()})) == 0
    assert metrics()["box"]["AP"] == 0


def test_masks_have_their_own_area_unless_the_box_is_asked_for(run, metrics) -> None:
    # Half of a 40 x 40 box is small, the box is medium. The false one comes first, so small precision is one half.
    scenes = {**SCENES, 1: [(1, (60, 50, 100, 90), True), *SCENES[1]]}
    assert run(Scripted(scenes)) == 0
    assert metrics()["mask"]["APs"] == pytest.approx(2 / 3, abs=0.01)
    assert run(Scripted(scenes), "--mask-area-from-box") == 0
    assert metrics()["mask"]["APs"] == pytest.approx(1)


def test_limit_takes_the_first_images_alone(run, metrics) -> None:
    model = Scripted({**SCENES, 4: []})
    assert run(model, "--limit", "2") == 0
    assert model.seen == [1, 2]
    assert metrics()["images"] == 2
    assert metrics()["box"]["AP"] == pytest.approx(1)  # of the images that count


def test_a_stopped_run_continues_with_the_same_result(run, metrics, tmp_path: Path, capsys) -> None:
    assert run(Scripted(SCENES, shift=4)) == 0
    uninterrupted = metrics()
    (tmp_path / "results.jsonl").unlink()

    assert run(Scripted(SCENES, shift=4, stop_at=3)) == 130
    assert "continues" in capsys.readouterr().err
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"id":3,"resul')  # killed while writing
    second = Scripted(SCENES, shift=4)
    assert run(second) == 0
    assert second.seen == [3, 4]
    assert metrics() == uninterrupted
    assert "2 of 4 images are finished already" in capsys.readouterr().err

    third = Scripted(SCENES, shift=4)
    assert run(third) == 0
    assert third.seen == []
    assert metrics() == uninterrupted


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--scale", "640", "480"], "scale [1333, 800] there, [640, 480] here"),
        (["--proposals", "300"], "proposals 1000 there, 300 here"),
        (["--precision", "bfloat16"], "bfloat16"),
    ],
)
def test_results_of_another_run_are_refused(run, capsys, options: list[str], named: str) -> None:
    assert run(Scripted(SCENES)) == 0
    other = Scripted(SCENES)
    assert run(other, *options) == 1
    assert not other.seen
    assert named in capsys.readouterr().err


def without(part: str, field: str | None = None) -> Callable[[dict[str, Any]], Any]:
    def change(data: dict[str, Any]) -> None:
        if field is None:
            del data[part]
        else:
            del data[part][0][field]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("annotations"), "no list of annotations"),  # as in COCO's test sets
        (without("images", "height"), "entry 0 of images lacks height"),
        (without("annotations", "area"), "entry 0 of annotations lacks area"),
        (without("categories", "name"), "entry 0 of categories lacks name"),
        (lambda data: data["categories"].append({"id": 9, "name": "cup"}), "2 classes, the annotation file has 3"),
        (lambda data: data["images"][0].update(file_name="5.png"), "1 of 4 images are missing"),
        (lambda data: data["images"][0].update(file_name="../images/1.png"), "outside of"),
        (lambda data: data["images"][0].update(file_name="/1.png"), "outside of"),
        (lambda data: data["images"][0].update(width=640), "128x96 pixels, its annotation says 640x96"),
    ],
)
def test_annotations_that_do_not_fit_are_named(run, coco_set: Path, capsys, change, message: str) -> None:
    data = annotation_data()
    change(data)
    (coco_set / "instances.json").write_text(json.dumps(data))
    assert run(Scripted(SCENES)) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("content", ["no json", "[]", '{"images": 3}'])
def test_a_file_that_is_no_annotation_file_is_named(run, coco_set: Path, capsys, content: str) -> None:
    (coco_set / "instances.json").write_text(content)
    assert run(Scripted(SCENES)) == 1
    assert "instances.json" in capsys.readouterr().err


def test_a_missing_annotation_file_is_named(run, coco_set: Path, capsys) -> None:
    (coco_set / "instances.json").unlink()
    assert run(Scripted(SCENES)) == 1
    assert "Check --annotations" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"<html>", b"whole"])
def test_a_damaged_image_is_named_and_the_finished_ones_stay(run, coco_set: Path, capsys, content: bytes) -> None:
    path = coco_set / "images" / "2.png"
    path.write_bytes(path.read_bytes()[:-40] if content == b"whole" else content)
    assert run(Scripted(SCENES)) == 1
    assert f"{path} cannot be read as an image" in capsys.readouterr().err
    Image.new("RGB", SIZE_HW[::-1], (2, 0, 0)).save(path)
    second = Scripted(SCENES)
    assert run(second) == 0
    assert second.seen == [2]  # the others were measured in the first run


def test_objects_without_segmentation_are_evaluated_by_box_alone(run, coco_set: Path, metrics, capsys) -> None:
    data = annotation_data()
    for one in data["annotations"]:
        del one["segmentation"], one["iscrowd"]
    (coco_set / "instances.json").write_text(json.dumps(data))
    assert run(Scripted(SCENES)) == 0
    assert metrics()["box"]["AP"] == pytest.approx(1)
    assert metrics()["mask"] is None
    assert "no masks" in capsys.readouterr().out


def test_detections_in_a_crowd_are_not_false(coco_set: Path, run, metrics, tmp_path: Path) -> None:
    scenes = {**SCENES, 2: [(0, (80, 10, 120, 50), False), *SCENES[2]]}
    assert run(Scripted(scenes)) == 0
    assert metrics()["box"]["AP"] == pytest.approx(((51 + 50 * 2 / 3) / 101 + 1) / 2)
    (tmp_path / "results.jsonl").unlink()

    crowd = np.zeros(SIZE_HW, dtype=bool)
    crowd[:, 60:] = True
    region = {"image_id": 2, "category_id": 3, "bbox": [60, 0, 68, 96], "area": 6528, "iscrowd": 1}
    data = annotation_data()
    data["annotations"].append({**region, "segmentation": encode_mask(crowd)})
    (coco_set / "instances.json").write_text(json.dumps(data))
    assert run(Scripted(scenes)) == 0
    assert metrics()["box"]["AP"] == metrics()["mask"]["AP"] == pytest.approx(1)


def test_a_real_detector_is_evaluated_with_its_checkpoint(coco_set: Path, tmp_path: Path, monkeypatch) -> None:
    narrow = {"embed_dim": 8, "depths": (1, 1, 6, 1), "num_heads": (1, 1, 2, 2), "fpn_channels": 8, "box_hidden": 8}

    def create(name: str, checkpoint: Path | None = None, pretrained: bool = False, **size: int) -> nn.Module:
        return stvit.create_model(name, checkpoint, pretrained, **narrow, **size)

    torch.manual_seed(0)
    model = create("stvit_r_swin_small_cascade_mask_rcnn", num_classes=2)
    nn.init.constant_(model.roi_head.bbox_head[0].fc_cls.bias[:2], 5)  # so that it finds something somewhere
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    monkeypatch.setattr(run_module, "create_model", create)
    monkeypatch.chdir(tmp_path)
    given = ["coco", "--images", str(coco_set / "images"), "--annotations", str(coco_set / "instances.json")]
    given += ["--model", "stvit_r_swin_small_cascade_mask_rcnn", "--scale", "96", "64", "--device", "cpu"]
    given += ["--num-classes", "2", "--checkpoint", "weights.safetensors"]
    assert command.main(given) == 0
    lines = Path("stvit_r_swin_small_cascade_mask_rcnn.coco.jsonl").read_text().splitlines()
    results = json.loads(lines[1])["result"]
    assert results
    assert {r["category_id"] for r in results} <= {3, 7}
    assert all(tuple(r["segmentation"]["size"]) == SIZE_HW for r in results)
    report = json.loads(Path("stvit_r_swin_small_cascade_mask_rcnn.coco.metrics.json").read_text())
    assert 0 <= report["box"]["AP"] < 0.5
    assert len(report["checkpoint"]) == 64


def test_a_trained_detector_is_evaluated_by_its_card(coco_set: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    options = {"embed_dim": 8, "depths": [1, 1, 6, 1], "num_heads": [1, 1, 2, 2], "fpn_channels": 8, "box_hidden": 8}
    options["num_classes"] = 2
    torch.manual_seed(0)
    model = stvit.create_model(MODEL, **options)
    nn.init.constant_(model.roi_head.bbox_head[0].fc_cls.bias[:2], 5)
    weights = tmp_path / "mine.safetensors"
    save_file(model.state_dict(), weights)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    names = [category["name"] for category in annotation_data()["categories"]]
    card = {"model": MODEL, "options": options, "task": "detect", "input_size": 64, "sha256": digest}
    (tmp_path / "mine.json").write_text(json.dumps({**card, "classes": names[::-1]}))
    monkeypatch.chdir(tmp_path)
    given = ["coco", "--images", str(coco_set / "images"), "--annotations", str(coco_set / "instances.json")]
    given += ["--record", "mine.json", "--device", "cpu"]
    assert command.main(given) == 0
    report = json.loads(Path("mine.coco.metrics.json").read_text())
    assert (report["model"], report["checkpoint"], report["scale"]) == ("mine", digest, [107, 64])
    by_name = {category["name"]: category["id"] for category in annotation_data()["categories"]}
    assert report["categories"] == [by_name[name] for name in names[::-1]]
    with weights.open("ab") as file:
        file.write(b"x")
    assert command.main(given) == 1
    assert "mine.safetensors are damaged: their sha256 is" in capsys.readouterr().err


def test_a_classifier_is_no_detector(run, capsys) -> None:
    assert run(nn.Linear(1, 1)) == 1
    message = f"{MODEL} is no detector but a classifier of pictures. Evaluate it by `python -m stvit.evaluate classify`"
    assert message in capsys.readouterr().err


def test_a_model_without_published_weights_asks_for_a_checkpoint(coco_set: Path, tmp_path: Path, capsys) -> None:
    given = ["coco", "--images", str(coco_set / "images"), "--annotations", str(coco_set / "instances.json")]
    assert command.main([*given, "--model", MODEL, "--results", str(tmp_path / "r.jsonl"), "--device", "cpu"]) == 1
    assert "--checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "no_such_model"], "unknown model"),
        (["--model", MODEL + "s"], f"Did you mean {MODEL}"),
        (["--model", MODEL, "--use-ema"], "of a --checkpoint"),
        (["--model", MODEL, "--scale", "0", "800"], "whole number"),
        (["--model", MODEL, "--limit", "-1"], "whole number"),
        (["--model", MODEL, "--precision", "int4"], "invalid choice"),
        ([], "--model"),
        (["--model", MODEL, "--record", "card.json"], "not allowed with"),
        (["--record", "card.json", "--num-classes", "2"], "without --checkpoint and --num-classes"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: list[str], message: str, capsys) -> None:
    with pytest.raises(SystemExit):
        command.main(["coco", "--images", "i", "--annotations", "a", *options])
    assert message in capsys.readouterr().err
