"""A few samples of the test split, made to be handed on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stvit.video.probe import probe
from tests.stvit.training.tiny_sources import write_items, write_photos
from weights.garments.__main__ import main
from weights.garments.datasets import GarmentClassification, GarmentClips, GarmentScenes
from weights.garments.examples import (
    CLIP_FRAMES,
    CLIP_MOTIONS,
    LONG_FPS,
    LONG_FRAMES,
    LOOKED_AT,
    SIDE,
    read_licences,
    write_examples,
)
from weights.garments.sources import CLASS_NAMES, SourceError, Sources, split_of


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sources")
    photos = write_photos(folder / "photos")
    rng = np.random.default_rng(2)
    for number in range(200):
        name = f"more{number}.png"
        if split_of(name) == "test":
            Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((128, 96)).save(photos / name)
    return {"items": write_items(folder / "items"), "backgrounds": photos}


@pytest.fixture(scope="module")
def licences(folders, tmp_path_factory) -> Path:
    """All photographs are free, but for one without a source and one with a licence that is not."""
    names = Sources.load(split="test", **folders).backgrounds.names
    entries = {name: {"licence": "CC0-1.0", "author": "A", "source": f"https://example.org/{name}"} for name in names}
    entries[names[0]]["source"] = None
    entries[names[1]]["licence"] = "CC-BY-4.0"
    path = tmp_path_factory.mktemp("licences") / "licences.json"
    path.write_text(json.dumps(entries))
    return path


@pytest.fixture(scope="module")
def written(folders, licences, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("out") / "examples"
    places = ["--backgrounds", str(folders["backgrounds"]), "--items", str(folders["items"])]
    assert main(["examples", *places, "--licences", str(licences), "--out", str(out)]) == 0
    return out


def test_there_are_pictures_of_every_class_scenes_and_clips(written) -> None:
    entries = json.loads((written / "licences.json").read_text())
    by_kind = {"classify": [], "scene": [], "clip": []}
    for entry in entries.values():
        by_kind[entry["kind"]].append([known["name"] for known in entry["truth"]])
    assert by_kind["classify"] == [[name] for name in CLASS_NAMES]
    assert list(map(len, by_kind["scene"])) == [3, 4, 5, 6] and len(by_kind["clip"]) == len(CLIP_MOTIONS)
    titles = " ".join(entry["title"] for entry in entries.values())
    assert not [name for name in CLASS_NAMES if name in titles]
    assert set(entries) == {path.name for path in written.iterdir()} - {"licences.json"}


def test_each_stands_on_another_photograph_that_may_be_handed_on(written, licences) -> None:
    entries = json.loads((written / "licences.json").read_text()).values()
    photographs = [entry["photograph"] for entry in entries]
    assert len(set(photographs)) == len(photographs)
    assert set(photographs) <= set(read_licences(licences))
    assert {entry["licence"] for entry in entries} == {"MIT, CC0-1.0"}
    assert all(entry["source"].endswith(entry["photograph"]) for entry in entries)


def test_they_are_the_samples_of_the_test_split_that_the_list_names(written, folders) -> None:
    entries = json.loads((written / "licences.json").read_text())
    dataset = GarmentClassification(Sources.load(split="test", **folders), SIDE)
    entry = entries["ankle_boot.jpg"]
    picture, label = dataset[entry["sample"]]
    assert CLASS_NAMES[label] == "ankle boot"
    assert dataset.photograph(entry["sample"]) == entry["photograph"]
    with Image.open(written / "ankle_boot.jpg") as image:
        difference = np.asarray(image).astype(int) - picture.permute(1, 2, 0).numpy()
    assert np.abs(difference).mean() < 6


def test_scenes_and_clips_begin_with_chosen_samples(folders, licences, tmp_path) -> None:
    sources = Sources.load(split="test", **folders)
    scenes = GarmentScenes(sources, SIDE, length=LOOKED_AT)
    free = read_licences(licences)
    first = next(index for index in range(LOOKED_AT) if scenes.photograph(index) in free)
    clips = GarmentClips(sources, SIDE, length=LOOKED_AT)
    long = next(i for i in range(LOOKED_AT) if clips.photograph(i) in {*free} - {scenes.photograph(first)})
    taken = {scenes.photograph(first), clips.photograph(long)}
    pictures = GarmentClassification(sources, SIDE)
    shown = max(index for index in range(len(pictures)) if pictures.photograph(index) in {*free} - taken)
    write_examples(sources, free, tmp_path, first_scene=first, long_clip=long, picture=shown)
    entries = json.loads((tmp_path / "licences.json").read_text())
    name = CLASS_NAMES[pictures[shown][1]].replace(" ", "_")
    assert entries[f"{name}.jpg"]["sample"] == shown
    assert (entries["scene_1.jpg"]["sample"], entries["long.mp4"]["sample"]) == (first, long)
    boxes = [known["box"] for known in entries["scene_1.jpg"]["truth"]]
    assert boxes == scenes[first][1]["boxes"].tolist()
    assert round(probe(tmp_path / "long.mp4").duration_s * LONG_FPS) == LONG_FRAMES
    held = {name: entry for name, entry in free.items() if name != scenes.photograph(first)}
    with pytest.raises(SourceError, match="may not be handed on"):
        write_examples(sources, held, tmp_path, first_scene=first)


def test_clips_are_whole_and_can_be_played(written) -> None:
    for path in written.glob("*.mp4"):
        assert probe(path).source_hw == (SIDE, SIDE) and round(probe(path).duration_s * 4) == CLIP_FRAMES


def test_the_same_command_writes_the_same_pictures(written, folders, licences, tmp_path) -> None:
    write_examples(Sources.load(split="test", **folders), read_licences(licences), tmp_path)
    for path in written.glob("*.jp*"):
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()


def test_too_few_free_photographs_are_said(folders, licences, tmp_path, capsys) -> None:
    few = dict(list(json.loads(licences.read_text()).items())[:5])
    (tmp_path / "few.json").write_text(json.dumps(few))
    places = ["--backgrounds", str(folders["backgrounds"]), "--items", str(folders["items"])]
    assert main(["examples", *places, "--licences", str(tmp_path / "few.json"), "--out", str(tmp_path / "out")]) == 1
    assert "of 10 examples can be made" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["{", "[1]", '{"a.png": {}}', '{"a.png": 3}'])
def test_a_list_of_licences_that_is_none_is_refused(tmp_path, content) -> None:
    (tmp_path / "list.json").write_text(content)
    with pytest.raises(ValueError, match="is no list of photographs' licences"):
        read_licences(tmp_path / "list.json")
