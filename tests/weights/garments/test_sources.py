"""Reading garments and photographs, and keeping the splits apart."""

from __future__ import annotations

import gzip
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.stvit.training.tiny_sources import PHOTOS, TEST_ITEMS, TRAINING_ITEMS, idx_bytes, write_items, write_photos
from weights.garments.sources import MAX_PIXELS, SPLITS, SourceError, load_backgrounds, load_items, read_idx

CUBE = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


@pytest.fixture
def items(tmp_path):
    return write_items(tmp_path / "items")


@pytest.fixture
def photos(tmp_path):
    return write_photos(tmp_path / "photos")


@pytest.mark.parametrize("array", [CUBE, CUBE[0], CUBE[0, 0], CUBE[:0]], ids=lambda array: str(array.shape))
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_idx_files_are_read_back(tmp_path, array, compress):
    path = tmp_path / "file"
    path.write_bytes(compress(idx_bytes(array)))
    np.testing.assert_array_equal(read_idx(path), array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (idx_bytes(CUBE)[:-1], "24 bytes should follow its header, 23 do"),
        (idx_bytes(CUBE) + b"x", "24 bytes should follow its header, more do"),
        (idx_bytes(CUBE)[:10], "ends within its header"),
        (gzip.compress(idx_bytes(CUBE), mtime=0)[:-12], "is damaged"),
        (b"\x1f\x8b\x08" + bytes(40), "is damaged"),
        (b"", "no IDX file"),
        (b"<!DOCTYPE html>", "no IDX file"),
        (bytes([0, 0, 13, 1, 0, 0, 0, 1, 7]), "no IDX file of unsigned bytes"),  # single-precision numbers
        (bytes([0, 0, 8, 3]) + b"\xff" * 12, "announces a shape"),
    ],
)
def test_damaged_and_foreign_files_are_told_apart(tmp_path, content, message):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=message):
        read_idx(path)


def test_a_small_file_that_unpacks_to_gigabytes_is_not_unpacked(tmp_path):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(idx_bytes(CUBE) + bytes(1 << 26)))
    with pytest.raises(SourceError, match="more do"):
        read_idx(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SourceError, match=r"nothing cannot be read \(No such file"):
        read_idx(tmp_path / "nothing")


def test_splits_share_no_garment_and_leave_none_out(items):
    found = {split: [image.tobytes() for image in load_items(items, split).images] for split in SPLITS}
    assert [len(found[split]) for split in SPLITS] == [TRAINING_ITEMS * 11 // 12, TRAINING_ITEMS // 12, TEST_ITEMS]
    assert len(set().union(*found.values())) == TRAINING_ITEMS + TEST_ITEMS


def test_labels_stay_with_their_garments(items):
    labels = read_idx(items / "train-labels-idx1-ubyte")
    read = np.concatenate([load_items(items, split).labels for split in ("train", "validation")])
    np.testing.assert_array_equal(read, labels)


def test_a_folder_without_the_files_says_where_to_get_them(tmp_path):
    with pytest.raises(SourceError, match="dataset-fashion-mnist"):
        load_items(tmp_path, "test")


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("train-images-idx3-ubyte", np.zeros((TRAINING_ITEMS, 20, 28)), r"expected \(N, 28, 28\)"),
        ("train-labels-idx1-ubyte", np.zeros(TRAINING_ITEMS - 1), r"expected \(N, 28, 28\)"),
        ("train-labels-idx1-ubyte", np.full(TRAINING_ITEMS, 10), "reach 10"),
    ],
)
def test_files_of_another_data_set_are_refused(items, name, array, message):
    (items / name).write_bytes(idx_bytes(array))
    with pytest.raises(SourceError, match=message):
        load_items(items, "train")


def test_splits_share_no_photograph_and_leave_none_out(photos):
    names = [load_backgrounds(photos, split).names for split in SPLITS]
    assert sum(map(len, names)) == len(set().union(*names)) == PHOTOS
    assert len(names[0]) > len(names[1]) > 0 < len(names[2])


def test_a_photograph_stays_in_its_split_when_others_come(photos):
    before = set(load_backgrounds(photos, "test").names)
    for number in range(10):
        Image.effect_noise((90, 80), 200).save(photos / f"new{number}.png")
    assert before <= set(load_backgrounds(photos, "test").names)


def test_the_same_picture_in_another_size_is_used_once(photos):
    with Image.open(photos / "photo03.png") as picture:
        larger = picture.resize((512, 384), Image.Resampling.BICUBIC)
    for number in range(10):  # under names of several splits
        larger.save(photos / f"copy{number}.jpg")
    names = [name for split in SPLITS for name in load_backgrounds(photos, split).names]
    assert len(names) == PHOTOS and "photo03.png" not in names


def test_small_pictures_and_other_files_are_left_out(photos):
    Image.new("RGB", (300, 63)).save(photos / "strip.png")
    (photos / "licences.json").write_text("{}")
    names = [name for split in SPLITS for name in load_backgrounds(photos, split).names]
    assert len(names) == PHOTOS


def test_a_picture_that_cannot_be_decoded_is_named(photos):
    (photos / "broken.png").write_bytes((photos / "photo00.png").read_bytes()[:200])
    with pytest.raises(SourceError, match=r"broken\.png cannot be decoded"):
        load_backgrounds(photos, "train")


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(photos):
    header = (photos / "photo00.png").read_bytes()
    side = (int(MAX_PIXELS**0.5) + 1).to_bytes(4, "big")
    forged = bytearray(header[:16] + side + side + header[24:])
    forged[29:33] = zlib.crc32(bytes(forged[12:29])).to_bytes(4, "big")
    (photos / "huge.png").write_bytes(forged)
    with pytest.raises(SourceError, match="reduce it first"):
        load_backgrounds(photos, "train")


def test_folders_without_photographs_are_refused(tmp_path):
    with pytest.raises(SourceError, match="Add photographs"):
        load_backgrounds(tmp_path, "train")
    with pytest.raises(SourceError, match="is no folder"):
        load_backgrounds(tmp_path / "nowhere", "train")
