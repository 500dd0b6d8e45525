"""Folders of pictures: labels and counts of torchvision's ImageFolder, every format of Pillow, nothing passed over
without a word."""

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image
from torchvision.datasets import ImageFolder

from stvit.predict.media import DECODE_ERRORS, read_image
from stvit.training.batches import Share
from stvit.training.datasets.classification import FolderPictures
from stvit.training.datasets.data import SampleError, open_picture
from stvit.training.recipe import DataPaths, RecipeError, load_recipe

CLASSES = ("ant", "bee", "cat")
SHARE = Share(0, 1, 2, 1)


def write_picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((40, 48, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures of every class to train on; the second class does not occur in validation."""
    for split, classes in {"train": CLASSES, "validation": ("ant", "cat")}.items():
        for name in classes:
            for number in range(2):
                write_picture(tmp_path / split / name / f"{number}.png")
    return tmp_path


def data(folder: Path, classes: int = 3) -> FolderPictures:
    options = "{kind = 'folder', size = 32, classes = " + str(classes) + "}"
    return FolderPictures(
        load_recipe("garments_deit", [f"data={options}", "augmentation={}"]), DataPaths({"folder": folder})
    )


def test_a_class_that_is_missing_from_a_split_shifts_no_other(folder):
    pictures = data(folder)
    assert sorted(label for _, label in pictures.dataset("train", 0)) == [0, 0, 1, 1, 2, 2]
    assert sorted(label for _, label in pictures.dataset("validation", 0)) == [0, 0, 2, 2]


def test_a_folder_inside_a_class_belongs_to_it_whatever_its_name_is(folder):
    for number in range(3):
        write_picture(folder / "train" / "ant" / "bee" / f"nested{number}.jpg")
    pictures, reference = data(folder).dataset("train", 0), ImageFolder(folder / "train")
    assert pictures.files == reference.samples
    assert [label for _, label in pictures.files].count(0) == 5


@pytest.mark.parametrize("suffix", ["webp", "bmp", "tif", "avif", "gif", "jp2", "ppm", "tga", "JPG"])
def test_every_format_that_pillow_decodes_counts(folder, suffix):
    shutil.rmtree(folder / "train")
    for name in CLASSES:
        write_picture(folder / "train" / name / f"0.{suffix}")
    samples = [data(folder).dataset("train", 0)[index] for index in range(3)]
    assert [label for _, label in samples] == [0, 1, 2]
    assert all(image.shape == (3, 32, 32) for image, _ in samples)


def test_what_is_no_picture_is_counted_once(folder):
    for name in ("ant/notes.txt", "ant/more.txt", "bee/labels.h5", "cat/clip.mpg", "README"):
        (folder / "train" / name).write_text("no picture")
    write_picture(folder / "train" / "in_no_class.png")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pictures = data(folder)
        lengths = [len(pictures.dataset("train", epoch)) for epoch in range(3)]
    (message,) = [str(warning.message) for warning in caught]
    assert lengths == [6, 6, 6] == [len(ImageFolder(folder / "train"))] * 3
    assert "6 files are no pictures in a class folder" in message and "2 .txt" in message and "1 .h5" in message


def test_a_class_without_pictures_to_train_on_is_named(folder):
    shutil.rmtree(folder / "train" / "bee")
    (folder / "train" / "bee").mkdir()
    with pytest.raises(RecipeError, match="no valid file for the classes bee"):
        data(folder).dataset("train", 0)


@pytest.mark.filterwarnings("ignore:.*takes its place")
def test_broken_training_pictures_are_counted_in_the_processes_that_read(folder):
    (folder / "train" / "bee" / "0.png").write_bytes(b"no picture")
    pictures = data(folder)
    assert len(list(pictures.training_batches(0, 0, SHARE, 2, seed=0))) == 3 and pictures.skipped == 1


def test_a_broken_training_picture_is_named_counted_and_replaced(folder):
    broken = folder / "train" / "bee" / "0.png"
    broken.write_bytes(broken.read_bytes()[:60])
    pictures = data(folder)
    with pytest.warns(UserWarning, match=r"bee/0\.png cannot be read as a picture .* takes its place"):
        batches = list(pictures.training_batches(0, 0, SHARE, 0, seed=0))
    assert len(batches) == 3 and pictures.skipped == 1


def test_broken_pictures_to_evaluate_on_are_refused_and_never_replaced(folder):
    for name in ("ant/0.png", "cat/1.png"):
        (folder / "validation" / name).write_bytes(b"no picture")
    pictures = data(folder)
    with pytest.raises(RecipeError, match=r"2 samples of validation cannot be used: .*ant/0\.png .*cat/1\.png"):
        pictures.check(SHARE, workers=0)
    with pytest.raises(SampleError, match=r"ant/0\.png"):
        list(pictures.evaluation_batches("validation", SHARE, 0))


@pytest.mark.parametrize("workers", [0, 2])
def test_good_pictures_pass_the_check(folder, workers):
    data(folder).check(SHARE, workers)


def test_an_empty_validation_set_is_named(folder):
    for path in (folder / "validation").rglob("*.png"):
        path.unlink()
    with pytest.raises(RecipeError, match="validation set is empty"):
        data(folder).check(SHARE, workers=0)


def test_another_number_of_classes_is_refused(folder):
    with pytest.raises(RecipeError, match="holds 3 folders, the recipe has 5 classes"):
        data(folder, classes=5)


def test_a_class_that_training_lacks_is_named(folder):
    (folder / "validation" / "dog").mkdir()
    with pytest.raises(RecipeError, match="folders that train lacks: dog"):
        data(folder).dataset("validation", 0)


def test_a_missing_split_is_named(folder):
    with pytest.raises(RecipeError, match="holds no folder 'test'"):
        data(folder).dataset("test", 0)


@pytest.mark.parametrize("kind", DECODE_ERRORS)
def test_whatever_a_decoder_raises_names_the_picture(kind, monkeypatch):
    def fail(*_: object) -> None:
        raise kind("broken")

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(SampleError, match=r"a\.png cannot be read as a picture"):
        open_picture(Path("a.png"), "a.png")


def test_training_and_evaluation_see_the_pixels_that_prediction_sees(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 4), np.uint8)
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=turned)
    Image.fromarray(pixels[..., :2].copy().view(np.uint16)[..., 0]).save(tmp_path / "b.png")  # 16-bit grey
    for path, size in ((tmp_path / "a.png", (20, 30)), (tmp_path / "b.png", (30, 20))):
        picture = open_picture(path, path.name)
        assert picture.size == size and (np.array(picture) == read_image(path).pixels).all()
