"""WebDataset shards: every picture once, the same after going on, and nothing in a shard is ever unpickled."""

import io
import pickle
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stvit.training.batches import Share
from stvit.training.datasets.classification import ShardPictures
from stvit.training.recipe import DataPaths, RecipeError, load_recipe

SHARDS, PER_SHARD = 4, 6


class Trap:
    """Unpickling this would leave a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def add(shard: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    shard.addfile(member, io.BytesIO(content))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Grey pictures whose class is their brightness; each sample also holds a pickle that must not be touched."""
    for split in ("train", "validation"):
        for number in range(SHARDS):
            with tarfile.open(tmp_path / f"{split}-{number:03d}.tar", "w") as shard:
                for i in range(number * PER_SHARD, (number + 1) * PER_SHARD):
                    picture = io.BytesIO()
                    Image.fromarray(np.full((40, 48, 3), 10 * i, np.uint8)).save(picture, "PNG")
                    add(shard, f"sample{i:03d}.png", picture.getvalue())
                    add(shard, f"sample{i:03d}.cls", str(i).encode())
                    add(shard, f"sample{i:03d}.pkl", pickle.dumps(Trap(tmp_path / "sprung")))
    return tmp_path


def data(folder: Path, samples: int = SHARDS * PER_SHARD) -> ShardPictures:
    options = "{kind = 'shards', size = 32, classes = 24, train_samples = " + str(samples) + "}"
    recipe = load_recipe("garments_deit", [f"data={options}", "augmentation={}"])
    return ShardPictures(recipe, DataPaths({"shards": folder}))


def test_every_picture_comes_once_with_its_class_and_no_pickle_is_opened(folder):
    share = Share(0, 1, 4, 1)
    pictures = data(folder)
    assert pictures.steps_per_epoch(share) == 6
    images, labels = map(torch.cat, zip(*pictures.evaluation_batches("validation", share, workers=0), strict=True))
    assert images.shape == (24, 3, 32, 32) and labels.tolist() == list(range(24))
    brightness = images.mean(dim=(1, 2, 3))
    assert (brightness[1:] > brightness[:-1]).all()
    batches = pictures.training_batches(0, 0, share, workers=0, seed=0)
    assert sorted(label for _ in range(6) for label in next(batches)[1].tolist()) == list(range(24))
    assert not (folder / "sprung").exists()


def test_going_on_continues_the_epoch_and_epochs_differ(folder):
    share = Share(0, 1, 4, 1)

    def labels(epoch: int, first_step: int, steps: int) -> list[list[int]]:
        batches = data(folder).training_batches(epoch, first_step, share, workers=0, seed=3)
        return [next(batches)[1].tolist() for _ in range(steps)]

    whole = labels(1, 0, 6)
    assert labels(1, 2, 4) == whole[2:]
    assert labels(2, 0, 6) != whole


def test_processes_read_shards_of_their_own(folder):
    parts = [data(folder).evaluation_batches("validation", Share(rank, 2, 4, 1), workers=0) for rank in range(2)]
    first, second = ({label for _, labels in part for label in labels.tolist()} for part in parts)
    assert first | second == set(range(24)) and not first & second


def test_too_few_shards_are_named(folder):
    with pytest.raises(RecipeError, match="too few train-"):
        next(data(folder).training_batches(0, 0, Share(0, 2, 4, 1), workers=3, seed=0))


def test_a_sample_without_a_class_is_named(folder):
    with tarfile.open(folder / "validation-000.tar", "w") as shard:
        add(shard, "lonely.txt", b"no picture here")
    with pytest.raises(RecipeError, match="lonely"):
        list(data(folder).evaluation_batches("validation", Share(0, 1, 4, 1), workers=0))


def test_fewer_samples_than_a_batch_are_refused(folder):
    with pytest.raises(ValueError, match="2 samples is smaller than one batch of 4"):
        data(folder, samples=2).steps_per_epoch(Share(0, 1, 4, 1))


def rewrite(folder: Path, shard: str, samples: dict[str, tuple[bytes, bytes]]) -> None:
    """A shard of these pictures and class numbers."""
    with tarfile.open(folder / shard, "w") as file:
        for name, (picture, label) in samples.items():
            add(file, f"{name}.webp", picture)
            add(file, f"{name}.cls", label)


def picture() -> bytes:
    written = io.BytesIO()
    Image.fromarray(np.zeros((40, 48, 3), np.uint8)).save(written, "WEBP")
    return written.getvalue()


SHARE = Share(0, 1, 4, 1)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_training_picture_is_named_counted_and_left_out(folder, workers):
    rewrite(folder, "train-001.tar", {"good": (picture(), b"7"), "bad": (picture()[:40], b"8")})
    pictures = data(folder, samples=20)
    pictures.check(SHARE, workers)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        batches = pictures.training_batches(0, 0, SHARE, workers, seed=0)
        labels = [label for _ in range(4) for label in next(batches)[1].tolist()]
    assert len(labels) == 16 and 8 not in labels
    assert pictures.skipped >= 1
    if not workers:  # else they warn on their own standard error
        assert any("sample bad of " in str(w.message) and "train-001.tar" in str(w.message) for w in caught)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore")
def test_where_sample_after_sample_is_broken_training_stops(folder, workers):
    for number in range(SHARDS):
        rewrite(folder, f"train-{number:03d}.tar", {f"bad{i}": (b"", b"1") for i in range(PER_SHARD)})
    with pytest.raises(RecipeError, match=r"\A10 samples in a row cannot be used[^\n]*\Z"):
        next(data(folder).training_batches(0, 0, SHARE, workers=workers, seed=0))


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("label", [b"24", b"-1", b"seven"])
def test_class_numbers_out_of_range_are_found_before_training(folder, split, label):
    rewrite(folder, f"{split}-002.tar", {"good": (picture(), b"23\n"), "wrong": (picture(), label)})
    with pytest.raises(RecipeError, match=rf"1 samples of {split} cannot be used: wrong\.cls of .*{split}-002\.tar"):
        data(folder).check(SHARE, workers=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_pictures_to_evaluate_on_are_refused(folder, workers):
    rewrite(folder, "validation-003.tar", {"good": (picture(), b"3"), "bad": (b"none", b"3")})
    with pytest.raises(RecipeError, match=r"sample bad of .*validation-003\.tar cannot be read as a picture"):
        data(folder).check(SHARE, workers)


def test_validation_shards_without_samples_are_named(folder):
    for number in range(SHARDS):
        rewrite(folder, f"validation-{number:03d}.tar", {})
    with pytest.raises(RecipeError, match="hold no samples"):
        data(folder).check(SHARE, workers=0)


@pytest.mark.parametrize("length", [0, 300, 512, 700, 1200, 1700, 2100, 3000])
@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_shard_that_was_cut_off_is_named(folder, split, length):
    shard = folder / f"{split}-000.tar"
    shard.write_bytes(shard.read_bytes()[:length])
    with pytest.raises(RecipeError, match=rf"{split}-000\.tar cannot be read"):
        data(folder).check(SHARE, workers=0)
