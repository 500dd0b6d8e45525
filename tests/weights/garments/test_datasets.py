"""Composed samples: reproducible, labelled exactly, and readable by others."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from stvit.evaluate.coco import average_precision, encode_mask
from stvit.evaluate.coco_annotations import category_ids, find_images, read_annotations
from tests.stvit.training.tiny_sources import write_items, write_photos
from weights.garments.__main__ import main
from weights.garments.compose import Placement, make_tile, paste, tight_boxes
from weights.garments.datasets import MOTIONS, GarmentClassification, GarmentClips, GarmentScenes
from weights.garments.export import coco_annotations, run_lengths
from weights.garments.sources import CLASS_NAMES, SPLITS, Sources

DATASETS = [GarmentClassification, GarmentScenes, GarmentClips]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    return {"items": write_items(folder / "items"), "backgrounds": write_photos(folder / "photos")}


@pytest.fixture(scope="module")
def sources(folders):
    return {split: Sources.load(split=split, **folders) for split in SPLITS}


def small(dataset, sources, **options):
    options |= {"frames": 5} if dataset is GarmentClips else {}
    return dataset(sources, size=48, **options)


def same(one, other) -> bool:
    """Whether two samples are equal, tensor by tensor."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_sample_depends_on_nothing_but_seed_split_and_index(dataset, sources):
    first = small(dataset, sources["train"])
    samples = [first[i] for i in range(6)]
    np.random.seed(5)
    torch.manual_seed(5)
    again = small(dataset, sources["train"], length=1000)
    assert all(same(again[i], samples[i]) for i in (4, 0, 5, 1))
    for other in (small(dataset, sources["train"], seed=1), small(dataset, sources["test"])):
        assert not any(same(other[i][0], samples[i][0]) for i in range(6))


def test_workers_give_the_same_samples(sources):
    dataset = small(GarmentClassification, sources["train"], length=12)
    alone = [dataset[i] for i in range(12)]
    loaded = [sample for batch in DataLoader(dataset, batch_size=None, num_workers=2) for sample in [batch]]
    assert all(same(list(one), list(other)) for one, other in zip(alone, loaded, strict=True))


@pytest.mark.parametrize("dataset", DATASETS)
def test_samples_beyond_the_end_are_refused(dataset, sources):
    data = small(dataset, sources["test"])
    assert len(data) == len(sources["test"].items) == sum(1 for _ in data)
    for index in (-1, len(data)):
        with pytest.raises(IndexError, match=f"sample {index} of 20"):
            data[index]


def test_the_data_may_be_longer_than_the_list_of_garments(sources):
    data = small(GarmentClassification, sources["test"], length=45)
    labels = [label for _, label in data]
    assert labels == [int(sources["test"].items.labels[i % 20]) for i in range(45)]
    assert not torch.equal(data[0][0], data[20][0])


@pytest.mark.parametrize("size", [32, 112])
def test_classification_pictures_show_the_garment_of_their_label(sources, size):
    picture, label = GarmentClassification(sources["test"], size)[7]
    assert picture.shape == (3, size, size) and picture.dtype == torch.uint8 and label == 7


def test_the_transform_gets_the_picture_and_nothing_else(sources):
    data = small(GarmentScenes, sources["train"], transform=lambda picture: picture.float() / 255)
    picture, target = data[0]
    assert picture.dtype == torch.float32 and target["masks"].dtype == torch.bool


def test_scenes_are_labelled_exactly(sources):
    data = GarmentScenes(sources["train"], 64, max_items=5)
    counts = set()
    for index in range(40):
        picture, target = data[index]
        masks, labels = target["masks"], target["labels"]
        counts.add(len(labels))
        assert picture.shape == (3, 64, 64) and target["image_id"] == index
        assert masks.shape == (len(labels), 64, 64) and masks.any(dim=(1, 2)).all()
        assert masks.sum(0).max() == 1  # disjoint
        expected = torch.zeros(64, 64, dtype=torch.int64)
        for mask, label in zip(masks, labels, strict=True):
            expected[mask] = label + 1
        assert torch.equal(target["semantic"], expected)
        for mask, box in zip(masks, target["boxes"], strict=True):
            rows, columns = mask.nonzero().unbind(1)
            tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert box.tolist() == [float(side) for side in tight]
    assert counts >= {1, 2, 3, 4}


def test_some_garments_are_hidden_in_part_but_none_wholly(sources, monkeypatch):
    data = GarmentScenes(sources["train"], 64)
    wholes: list[torch.Tensor] = []

    def watched(canvas, tile, placement):
        wholes.append(paste(canvas, tile, placement))
        return wholes[-1]

    monkeypatch.setattr("weights.garments.datasets.paste", watched)
    shares = []
    for index in range(20):
        wholes.clear()
        for mask in data[index][1]["masks"]:
            areas = [whole.sum() for whole in wholes if not (mask & ~whole).any()]
            shares.append(float(mask.sum() / min(areas)))
    assert min(shares) >= 0.4 and sum(share < 0.95 for share in shares) > 5


def test_clips_move_as_their_label_says(sources):
    data = GarmentClips(sources["train"], 64, frames=6, length=60)
    seen = set()
    for index in range(60):
        clip, target = data[index]
        left, top, right, bottom = target["boxes"].unbind(1)
        dx, dy = ((ends[-1] - ends[0]).item() for ends in ((left + right) / 2, (top + bottom) / 2))
        area = target["masks"].sum((1, 2)).float()
        motion = MOTIONS[target["motion"]]
        seen.add(motion)
        assert clip.shape == (3, 6, 64, 64) and target["item"] == index % 10
        assert {
            "left": dx < -5 and abs(dy) < 3,
            "right": dx > 5 and abs(dy) < 3,
            "up": dy < -5 and abs(dx) < 3,
            "down": dy > 5 and abs(dx) < 3,
            "grow": area[-1] > 1.3 * area[0],
            "shrink": area[-1] < 0.77 * area[0],
        }.get(motion, max(abs(dx), abs(dy)) < 5 and 0.8 < area[-1] / area[0] < 1.25), (index, motion)
    assert seen == set(MOTIONS)


@pytest.mark.parametrize(("angle", "corner"), [(0, (0, 0)), (90, (0, -1)), (180, (-1, -1)), (270, (-1, 0))])
def test_angles_turn_clockwise(angle, corner):
    image = np.zeros((28, 28), np.uint8)
    image[4:24, 4:24] = 60
    image[4:14, 4:14] = 255  # the top left quarter is bright
    canvas = torch.zeros(3, 40, 40)
    mask = paste(canvas, make_tile(image, 0, (1.0, 1.0, 1.0)), Placement(20, 20, 30, angle))
    assert tight_boxes(mask[None])[0].tolist() == pytest.approx([5, 5, 35, 35], abs=1)
    bright = canvas[0, 10:30, 10:30]
    quarters = torch.nn.functional.avg_pool2d(bright[None], 10)[0]
    assert quarters[corner] == quarters.max()


def test_the_holes_of_bags_stay_open_and_dark_prints_on_shirts_do_not():
    ring = np.zeros((28, 28), np.uint8)
    ring[4:24, 4:24] = 200
    ring[9:19, 9:19] = 0
    for name, shown in (("bag", False), ("shirt", True)):
        tile = make_tile(ring, CLASS_NAMES.index(name), (1.0, 0.5, 0.5))
        assert bool(paste(torch.zeros(3, 56, 56), tile, Placement(28, 28, 50))[28, 28]) is shown


@pytest.mark.parametrize(
    ("dataset", "options", "message"),
    [
        (GarmentClassification, {"size": 7}, "too small"),
        (GarmentScenes, {"max_items": 0}, "at least one garment"),
        (GarmentClips, {"frames": 1}, "at least two frames"),
    ],
)
def test_options_that_make_no_sample_are_refused(sources, dataset, options, message):
    with pytest.raises(ValueError, match=message):
        dataset(sources["test"], **options)


@pytest.mark.parametrize(
    ("mask", "lengths"),
    [
        ([[0, 0], [0, 0]], [4]),
        ([[1, 1], [1, 1]], [0, 4]),
        ([[1, 0], [0, 1]], [0, 1, 2, 1]),
        ([[0, 1], [1, 0]], [1, 2, 1]),
    ],
)
def test_run_lengths_go_down_the_columns_and_begin_with_zeros(mask, lengths):
    assert run_lengths(np.array(mask, dtype=bool)) == lengths


def test_coco_annotations_hold_what_the_scenes_hold(sources):
    data = small(GarmentScenes, sources["test"], length=5)
    described = json.loads(json.dumps(coco_annotations(data)))
    assert [category["name"] for category in described["categories"]] == list(CLASS_NAMES)
    assert len({annotation["id"] for annotation in described["annotations"]}) == len(described["annotations"])
    for index in range(5):
        target = data[index][1]
        mine = [annotation for annotation in described["annotations"] if annotation["image_id"] == index]
        assert [annotation["category_id"] - 1 for annotation in mine] == target["labels"].tolist()
        for annotation, mask, box in zip(mine, target["masks"], target["boxes"], strict=True):
            left, top, width, height = annotation["bbox"]
            assert [left, top, left + width, top + height] == box.tolist()
            counts = annotation["segmentation"]["counts"]
            decoded = np.repeat(np.arange(len(counts)) % 2, counts).reshape(48, 48, order="F")
            np.testing.assert_array_equal(decoded, mask.numpy())
            assert annotation["area"] == mask.sum() and annotation["iscrowd"] == 0


def arguments(folders, *more: object) -> list[str]:
    named = [str(part) for name, folder in folders.items() for part in (f"--{name}", folder)]
    return [*map(str, more), *named]


def test_exported_scenes_are_the_samples(folders, sources, tmp_path):
    counts = ("--train", 0, "--validation", 2, "--test", 3)
    assert main(arguments(folders, "export", "scenes", "--out", tmp_path, "--size", 48, *counts)) == 0
    assert not (tmp_path / "train").exists() and "photo" in (tmp_path / "SOURCES-test.txt").read_text()
    described = json.loads((tmp_path / "annotations" / "test.json").read_text())
    data = small(GarmentScenes, sources["test"])
    for record in described["images"]:
        picture, target = data[record["id"]]
        with Image.open(tmp_path / "test" / record["file_name"]) as saved:
            np.testing.assert_array_equal(np.asarray(saved), picture.permute(1, 2, 0))
        with Image.open(tmp_path / "semantic" / "test" / record["file_name"]) as saved:
            np.testing.assert_array_equal(np.asarray(saved), target["semantic"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning:pycocotools.*")
def test_exported_scenes_can_be_evaluated_on(folders, sources, tmp_path):
    counts = ("--train", 0, "--validation", 0, "--test", 6)
    assert main(arguments(folders, "export", "scenes", "--out", tmp_path, "--size", 48, *counts)) == 0
    annotations = read_annotations(tmp_path / "annotations" / "test.json")
    assert category_ids(len(CLASS_NAMES), annotations.categories) == tuple(range(1, 11))
    assert len(find_images(tmp_path / "test", annotations.images)) == 6
    truth, finished = annotations.ground_truth, {image.id: [] for image in annotations.images}
    for annotation in truth.dataset["annotations"]:
        found = {key: annotation[key] for key in ("image_id", "category_id", "bbox")}
        found |= {"score": 1.0, "segmentation": encode_mask(truth.annToMask(annotation))}
        finished[annotation["image_id"]].append(found)
    metrics = average_precision(annotations, annotations.images, finished)
    assert metrics["box"]["AP"] == metrics["mask"]["AP"] == 1.0


def test_the_exported_image_folder_has_a_folder_named_after_every_class(folders, sources, tmp_path):
    counts = ("--train", 11, "--validation", 0, "--test", 0)
    assert main(arguments(folders, "export", "classification", "--out", tmp_path, "--size", 32, *counts)) == 0
    assert {path.name for path in (tmp_path / "train").iterdir()} == set(CLASS_NAMES)
    data = GarmentClassification(sources["train"], 32)
    saved = {path.name: CLASS_NAMES.index(path.parent.name) for path in (tmp_path / "train").glob("*/*.png")}
    assert saved == {f"{i:06d}.png": data[i][1] for i in range(11)}


def test_export_writes_into_no_folder_that_holds_something(folders, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("keep")
    assert main(arguments(folders, "export", "scenes", "--out", tmp_path)) == 1
    assert "is not empty" in capsys.readouterr().err and len(list(tmp_path.iterdir())) == 1


def test_the_preview_is_three_sheets(folders, tmp_path):
    assert main(arguments(folders, "preview", "--split", "test", "--out", tmp_path / "sheets")) == 0
    names = sorted(path.name for path in (tmp_path / "sheets").iterdir())
    assert names == ["classification-test.png", "clips-test.png", "scenes-test.png"]


def test_missing_files_are_one_line_on_the_terminal(folders, tmp_path, capsys):
    assert main(arguments({**folders, "items": tmp_path}, "preview", "--out", tmp_path)) == 1
    assert capsys.readouterr().err.startswith("error: ")
