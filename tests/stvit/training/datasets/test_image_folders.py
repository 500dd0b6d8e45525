"""Folders of pictures: classes have the same numbers in every split."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stvit.training.datasets.classification import FolderPictures
from stvit.training.recipe import DataPaths, RecipeError, load_recipe

CLASSES = ("ant", "bee", "cat")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures of every class to train on; the second class does not occur in validation."""
    for split, classes in {"train": CLASSES, "validation": ("ant", "cat")}.items():
        for name in classes:
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(2):
                Image.fromarray(np.zeros((40, 48, 3), np.uint8)).save(tmp_path / split / name / f"{number}.png")
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
