"""``python -m stvit.evaluate classify``, ``segment`` and ``video`` on tiny sets with models that know the answers."""

from __future__ import annotations

import io
import json
import re
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from torch import Tensor, nn

from stvit.evaluate import __main__ as command
from stvit.evaluate import run as run_module
from stvit.evaluate.classify import labelled_folder
from stvit.evaluate.data import EvaluationError
from stvit.pretrained.model_cards import read_card
from stvit.pretrained.records import record
from stvit.training.origin import Origin
from tests.stvit.video.clips import make_clip

CLASSES = 6


class ByRed(nn.Module):
    """A classifier that reads the class off a picture's red, 40 for each class, and takes class 5 for 0."""

    num_classes = CLASSES
    pretrained_cfg: ClassVar = {"input_size": (3, 16, 16), "crop_pct": 1.0, "mean": (0, 0, 0), "std": (1, 1, 1)}

    def __init__(self, stop_after: int | None = None) -> None:
        super().__init__()
        self.unused, self.seen, self.stop_after = nn.Parameter(torch.zeros(1)), 0, stop_after

    def forward(self, images: Tensor) -> Tensor:
        if self.stop_after is not None and self.seen >= self.stop_after:
            raise KeyboardInterrupt
        self.seen += len(images)
        red = (images.flatten(2).mean(2)[:, 0] * 255 / 40).round().long()
        return nn.functional.one_hot(red % 5, CLASSES).float()


class ByRedClips(ByRed):
    output_fmt = "NTHWC"


class Blocks(nn.Module):
    """A segmenter that takes bright pixels for class 1, others for 0."""

    num_classes = 2
    auxiliary_head = nn.Identity()

    def predict(self, image: np.ndarray, **how: Any) -> Tensor:
        self.how = how
        return torch.from_numpy((image[..., 0] > 127).astype(np.int64))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, dict[str, Any]]]:
    """The command with a stand-in for the model, and the figures that it saved."""
    monkeypatch.chdir(tmp_path)

    def run(model: nn.Module, *arguments: str) -> tuple[int, dict[str, Any]]:
        monkeypatch.setattr(run_module, "create_model", lambda *args, **kwargs: model.eval())
        name = {"segment": "swin_small_upernet", "video": "video_swin_tiny"}.get(arguments[0], "deit_tiny_patch16_224")
        code = command.main([*arguments, "--model", name, "--device", "cpu", "--results", "r.jsonl"])
        saved = tmp_path / "r.metrics.json"
        return code, json.loads(saved.read_text()) if saved.exists() else {}

    return run


def picture(number: int) -> Image.Image:
    return Image.new("RGB", (20, 24), (40 * number, 0, 0))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures of each of six classes, in several formats, and a file that is none."""
    for number in range(CLASSES):
        of_class = tmp_path / "val" / f"n{number:03}"
        of_class.mkdir(parents=True)
        picture(number).save(of_class / "a.png")
        picture(number).save(of_class / "b.webp", lossless=True)
    (tmp_path / "val" / "n000" / "notes.txt").write_text("no picture")
    return tmp_path / "val"


CLASSIFY = ("classify", "--workers", "0", "--batch-size", "2")


@pytest.mark.filterwarnings("ignore:.*files are no pictures")
def test_results_under_another_engine_are_results_of_their_own(run, folder: Path, direct: None, capsys) -> None:
    arguments = (*CLASSIFY, "--images", str(folder), "--engine", "openvino")
    code, report = run(ByRed(), *arguments)
    assert code == 0 and report["engine"] == "openvino" and report["top1"] == pytest.approx(100 * 10 / 12)
    assert "batches_answered_by" not in report
    assert run(ByRed(), *arguments[:-2])[0] == 1
    assert "engine" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(ByRed(), *arguments[:-1], "auto")


@pytest.mark.filterwarnings("ignore:.*files are no pictures")
def test_what_eager_answers_under_another_engine_is_counted(
    run, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    code, report = run(ByRed(), *CLASSIFY, "--images", str(folder), "--engine", "openvino")
    assert code == 0 and report["batches_answered_by"] == {"eager": 6}
    assert "6 of 6 batches were answered by eager." in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:.*files are no pictures")
def test_a_classifier_on_a_folder(run, folder: Path, capsys) -> None:
    code, report = run(ByRed(), *CLASSIFY, "--images", str(folder))
    assert code == 0 and report["images"] == 12
    assert report["top1"] == pytest.approx(100 * 10 / 12) and report["top5"] >= report["top1"]
    assert report["top1_by_class"] == {f"n{i:03}": 0.0 if i == 5 else 100.0 for i in range(CLASSES)}
    out, err = capsys.readouterr()
    assert (
        "The paper's figures of deit_tiny_patch16_224.fb_in1k are for 1000 classes, not 6." in out
        and "12/12 images" in err
        and "0:00:00 left" in err
    )


@pytest.mark.filterwarnings("ignore:.*files are no pictures")
def test_a_stopped_classification_continues(run, folder: Path) -> None:
    assert run(ByRed(stop_after=4), *CLASSIFY, "--images", str(folder))[0] == 130
    second = ByRed()
    code, report = run(second, *CLASSIFY, "--images", str(folder))
    assert code == 0 and second.seen == 8 and report["top1"] == pytest.approx(100 * 10 / 12)


@pytest.mark.filterwarnings("ignore:.*files are no pictures")
@pytest.mark.parametrize("skip", [False, True])
def test_a_damaged_picture_is_named_counted_and_never_replaced(run, folder: Path, skip: bool, capsys) -> None:
    (folder / "n001" / "a.png").write_bytes((folder / "n001" / "a.png").read_bytes()[:40])
    more = ["--skip-invalid"] if skip else []
    code, report = run(ByRed(), *CLASSIFY, "--images", str(folder), *more)
    assert code == (0 if skip else 1)
    assert report["images"] == 11 and report["top1"] == pytest.approx(100 * 9 / 11)
    assert len(report["unusable"]) == 1 and "n001/a.png" in report["unusable"][0]
    assert "1 of 12 images cannot be used" in capsys.readouterr().err


def test_a_classifier_on_shards(run, tmp_path: Path) -> None:
    for shard in range(2):
        with tarfile.open(tmp_path / f"val-{shard}.tar", "w") as tar:
            for number in range(3 * shard, 3 * shard + 3):
                content = io.BytesIO()
                picture(number).save(content, "PNG")
                for kind, data in (("png", content.getvalue()), ("cls", str(number).encode())):
                    info = tarfile.TarInfo(f"{number}.{kind}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    shards = [str(tmp_path / f"val-{shard}.tar") for shard in range(2)]
    code, report = run(ByRed(), *CLASSIFY, "--shards", *shards)
    assert code == 0 and report["images"] == 6 and report["top1"] == pytest.approx(100 * 5 / 6)


def test_empty_folders_and_other_classes_are_one_message_before_the_first_pass(run, folder: Path, capsys) -> None:
    model = ByRed()
    (folder.parent / "empty").mkdir()
    (folder / "n006").mkdir()
    for images, message in ((folder.parent / "empty", "no folders of classes"), (folder, "7 classes, .* has 6")):
        assert run(model, *CLASSIFY, "--images", str(images))[0] == 1
        assert re.search(message, capsys.readouterr().err)
    assert model.seen == 0


def write_shard(path: Path, samples: dict[str, bytes]) -> Path:
    """A shard of pictures that are all of class 0."""
    with tarfile.open(path, "w") as tar:
        for name, content in samples.items():
            for kind, data in (("png", content), ("cls", b"0")):
                info = tarfile.TarInfo(f"{name}.{kind}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


def test_what_is_wrong_with_shards_is_one_line(run, tmp_path: Path, capsys) -> None:
    content = io.BytesIO()
    picture(0).save(content, "PNG")
    shard = write_shard(tmp_path / "a.tar", {"good": content.getvalue(), "bad": b"junk"})
    code, report = run(ByRed(), *CLASSIFY, "--shards", str(shard))
    assert code == 1 and report["unusable"] == ["a.tar/bad cannot be read as a picture (it is of no known format)."]
    (tmp_path / "text.tar").write_text("no shard")
    for shards, message in (([shard, shard], "2 samples occur several times"), ([tmp_path / "text.tar"], "text.tar")):
        capsys.readouterr()
        assert run(ByRed(), *CLASSIFY, "--shards", *map(str, shards))[0] == 1
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert message in line


@pytest.mark.parametrize("output", [".", "val.txt/figures.json"])
@pytest.mark.filterwarnings("ignore:.*files are no pictures")
def test_figures_that_cannot_be_written_are_one_message_before_the_first_pass(run, folder, output, capsys) -> None:
    (folder.parent / "val.txt").write_text("a file")
    model = ByRed()
    with pytest.raises(SystemExit):
        run(model, *CLASSIFY, "--images", str(folder), "--output", output)
    assert f"--output {output} cannot be written: " in capsys.readouterr().err and model.seen == 0


def test_missing_folders_are_named(run, tmp_path: Path, capsys) -> None:
    for arguments in (CLASSIFY, ("segment", "--annotations", "labels")):
        assert run(Blocks() if arguments[0] == "segment" else ByRed(), *arguments, "--images", "nowhere")[0] == 1
        assert "There is no folder nowhere." in capsys.readouterr().err


def test_classes_of_a_card_are_matched_by_name(folder: Path) -> None:
    names = tuple(f"n{i:03}" for i in (5, 4, 3, 2, 1, 0))
    model = SimpleNamespace(class_names=names, name="a", network=ByRed())
    with pytest.warns(UserWarning, match="files are no pictures"):
        samples, _ = labelled_folder(folder, model)
    assert dict(samples)["n000/a.png"] == 5 and dict(samples)["n004/b.webp"] == 1
    with pytest.raises(EvaluationError, match="2 of 6 classes that a does not know: n004, n005"):
        labelled_folder(folder, SimpleNamespace(class_names=names[2:], name="a", network=ByRed()))


def test_classes_are_those_that_training_noted_beside_the_weights(tmp_path: Path) -> None:
    origin = Origin(
        recipe="a", changes=(), entries={}, precision="no", device="cpu", torch="2", classes=("bag", "coat")
    )
    weights = tmp_path / "model.safetensors"
    assert run_module.trained_classes(weights) is None and run_module.trained_classes(None) is None
    origin.write(tmp_path)
    assert run_module.trained_classes(weights) == ("bag", "coat")


def test_published_figures_are_named_in_words() -> None:
    words = "The paper has top-1 72.2, GMACs 1.26, images/s on a V100 2752."
    assert run_module.in_the_paper(record("deit_tiny_patch16_224"), 1000) == words


@pytest.mark.filterwarnings("ignore:.*files are no pictures")
def test_results_of_other_weights_of_a_file_are_refused(run, folder: Path, capsys) -> None:
    (folder.parent / "a.pth").write_bytes(b"by the stand-in")
    given = [*CLASSIFY, "--images", str(folder), "--checkpoint", "a.pth"]
    assert run(ByRed(), *given, "--use-ema")[0] == 0
    assert run(ByRed(), *given, "--no-ema")[0] == 1
    assert "use_ema True there, False here" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:.*files are no pictures")
def test_results_by_another_card_of_the_same_weights_are_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    card = {
        "model": "deit_tiny_patch16_224",
        "options": {"num_classes": CLASSES},
        "task": "classify",
        "classes": [f"n{i:03}" for i in range(CLASSES)],
        "input_size": 16,
        "sha256": "0" * 64,
    }
    monkeypatch.setattr(run_module, "load_card", lambda path: (ByRed().eval(), read_card(path)))
    given = [*CLASSIFY, "--images", str(folder), "--record", str(tmp_path / "a.json"), "--device", "cpu"]
    for crop_pct, code in ((1.0, 0), (0.9, 1)):
        (tmp_path / "a.json").write_text(json.dumps({**card, "crop_pct": crop_pct}))
        assert command.main([*given, "--results", str(tmp_path / "r.jsonl")]) == code
    assert "crop_pct 1.0 there, 0.9 here" in capsys.readouterr().err


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Two pictures, half bright; one of the label maps has a quarter unlabelled, the other is half wrong."""
    bright = np.zeros((8, 8, 3), np.uint8)
    bright[:, 4:] = 255
    labels = [np.where(bright[..., 0] > 0, 2, 1).astype(np.uint8) for _ in range(2)]
    labels[0][:4, :4], labels[1][:, :4] = 0, 2
    for part in ("images", "annotations"):
        (tmp_path / part).mkdir()
    for i in range(2):
        Image.fromarray(bright).save(tmp_path / "images" / f"{i}.png")
        Image.fromarray(labels[i]).save(tmp_path / "annotations" / f"{i}.png")
    return tmp_path


def segment(scenes: Path) -> list[str]:
    return ["segment", "--images", str(scenes / "images"), "--annotations", str(scenes / "annotations")]


def test_a_segmenter(run, scenes: Path) -> None:
    model = Blocks()
    code, report = run(model, *segment(scenes))
    # class 0: 16 right, 32 predicted there wrongly; class 1: 64 right of 96
    assert code == 0 and report["pixel_accuracy"] == pytest.approx(100 * 80 / 112)
    assert report["iou_by_class"] == pytest.approx({"0": 100 * 16 / 48, "1": 100 * 64 / 96})
    assert callable(model.how.pop("run"))
    assert report["mIoU"] == pytest.approx(50) and model.how == {"scale": (2048, 512), "window": None}


def test_a_segmenter_at_several_scales(run, scenes: Path) -> None:
    model = Blocks()
    assert run(model, *segment(scenes), "--multi-scale", "--window", "512", "341")[0] == 0
    assert len(model.how["ratios"]) == 6 and model.how["flip"] and model.how["window"].stride == 341


def test_label_maps_that_do_not_fit_are_named(run, scenes: Path, capsys) -> None:
    Image.new("L", (9, 9), 1).save(scenes / "annotations" / "0.png")
    code, report = run(Blocks(), *segment(scenes))
    assert (
        code == 1 and report["images"] == 1 and "0.png has 8x8 pixels, its annotation says 9x9" in report["unusable"][0]
    )
    (scenes / "annotations" / "1.png").unlink()
    assert run(Blocks(), *segment(scenes))[0] == 1
    assert "1 of 2 pictures have no annotation, the first is 1.png" in capsys.readouterr().err


@pytest.mark.parametrize("annotated", ["as stored", "upright"])
def test_pictures_with_an_orientation_are_read_as_they_were_annotated(run, scenes: Path, annotated: str) -> None:
    labels = np.full((8, 10), 1, np.uint8)
    labels[:, 5:] = 2
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6  # to be turned clockwise
    Image.fromarray(np.where(labels[..., None] > 1, 255, 0).repeat(3, axis=2).astype(np.uint8)).save(
        scenes / "images" / "0.png", exif=turned
    )
    labels = labels if annotated == "as stored" else np.rot90(labels, -1)
    Image.fromarray(labels).save(scenes / "annotations" / "0.png")
    code, report = run(Blocks(), *segment(scenes), "--limit", "1")
    assert code == 0 and report["mIoU"] == pytest.approx(100)


def test_labels_of_no_class_at_all_are_one_message(run, scenes: Path, capsys) -> None:
    for path in (scenes / "annotations").iterdir():
        Image.new("L", (8, 8), 0).save(path)
    assert run(Blocks(), *segment(scenes)) == (1, {})
    assert "Not one pixel has a class." in capsys.readouterr().err


def test_hidden_files_are_no_pictures(run, scenes: Path) -> None:
    """As macOS leaves them beside every file on other disks."""
    (scenes / "images" / "._0.png").write_bytes(b"junk")
    code, report = run(Blocks(), *segment(scenes))
    assert code == 0 and report["images"] == 2


def test_a_clip_classifier(run, tmp_path: Path, capsys) -> None:
    for number in (1, 3):
        make_clip(tmp_path / f"{number}.mp4", 8)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    (tmp_path / "val.txt").write_text("1.mp4 1\n3.mp4 3\nbroken.mp4 0\n")
    code, report = run(ByRedClips(), "video", "--list", "val.txt", "--clips", str(tmp_path), "--views", "2x1")
    assert code == 1 and report["videos"] == 2 and "broken.mp4" in report["unusable"][0]
    assert report["views"] == [2, 1] and report["sampling"] == {"length": 32, "interval": 2, "size": 224}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("classify --images x", "name one of --model, --record and --suite"),
        ("classify --images x --suite paper --model deit_tiny_patch16_224", "name one of"),
        ("classify --images x --suite paper --checkpoint y", "without --checkpoint"),
        ("classify --images x --model deit_tiny_patch16_224 --option depth", "KEY=VALUE"),
        ("classify --images x --model deit_tiny_patch16_224 --workers -1", "'-1' is not a whole number from 0 on"),
        ("video --list x --clips y --model video_swin_tiny --views 4by3", "as 4x3"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: str, message: str, capsys) -> None:
    with pytest.raises(SystemExit):
        command.main(arguments.split())
    assert message in capsys.readouterr().err


def test_a_wrong_option_of_the_model_is_said_and_not_taken_for_missing_weights(capsys) -> None:
    wrong = "--model dynamicvit_deit_small_patch16_224 --option keep_rate=1.5 --checkpoint x"
    assert command.main(f"classify --images x {wrong}".split()) == 1
    said = capsys.readouterr().err
    assert "cannot be made with these options (keep_rate=1.5: choose a share above 0 and at most 1" in said
    assert "Check --option." in said and "weights" not in said


def test_a_suite_runs_every_classifier_of_the_catalogue() -> None:
    names = [one.model for one in command.suite(command.parse(["classify", "--images", "x", "--suite", "paper"]))]
    assert len(names) == 8 and "stvit_r_swin_base_224.in1k" in names and "deit_tiny_patch16_224.fb_in1k" in names
