"""``python -m stvit.predict``: pictures in, answers on standard output, everything else beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import stvit
from stvit.predict.__main__ import main
from stvit.predict.classifier import imagenet_classes
from stvit.predict.media import read_image
from tests import bundled_stand_ins

TINY = ["--model", "stvit_deit_tiny_patch16_224", "--random-weights", "--device", "cpu", "--precision", "float32"]


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundled_stand_ins.write_stand_ins(tmp_path_factory.mktemp("bundled"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (90, 120 + number, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


def by_card(bundled: Path, name: str) -> list[str]:
    return ["--record", str(bundled / f"{name}.json"), "--device", "cpu"]


def test_a_classifier_names_its_five_best_classes(
    bundled: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(photos / "0.png"), *by_card(bundled, "garments_stvit_deit")]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == str(photos / "0.png") and len(lines) == 5
    parts = [float(line.split()[0]) for line in lines]
    assert parts == sorted(parts, reverse=True) and 0 < sum(parts) <= 100.3


def test_json_lines_are_all_of_standard_output(bundled: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(photos), "--json", *by_card(bundled, "garments_stvit_deit")]) == 0
    entries = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [entry["picture"] for entry in entries] == [str(photos / f"{number}.png") for number in range(3)]
    assert [entry["size_hw"] for entry in entries] == [[90, 120], [90, 121], [90, 122]]
    assert all(len(entry["predictions"]) == 5 and entry["model"] == "garments_stvit_deit" for entry in entries)


@pytest.mark.parametrize(
    ("task", "card"),
    [
        ("classify", "garments_stvit_deit"),
        ("detect", "garments_detect_stvit_r"),
        ("segment", "garments_segment_stvit_r"),
    ],
)
def test_a_named_engine_answers_and_is_told(
    task: str, card: str, bundled: Path, photos: Path, direct: None, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(photos / "0.png"), "--json", "--precision", "float32", "--random-weights", *by_card(bundled, card)]
    answers = []
    for engine in ("eager", "openvino"):
        assert main([*arguments, "--engine", engine]) == 0
        printed = capsys.readouterr()
        answers.append(json.loads(printed.out))
        assert answers[-1].pop("engine") == engine
        assert ("Answered by openvino (1)." in printed.err) == (engine == "openvino")
    assert answers[0] == answers[1]


def test_an_engine_that_is_not_installed_leaves_eager_and_one_line(
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert main([str(photos), "--json", "--engine", "openvino", *TINY]) == 0
    assert [json.loads(line)["engine"] for line in capsys.readouterr().out.splitlines()] == ["eager"] * 3
    assert len(caplog.records) == 1 and "pip install" in caplog.text


def test_many_pictures_are_worth_a_graph_and_few_are_not(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(photos), *TINY]) == 0
    assert "Answered by" not in capsys.readouterr().err
    monkeypatch.setattr("stvit.predict.__main__.MANY", 3)
    assert main([str(photos), *TINY]) == 0
    assert "Answered by eager (3)." in capsys.readouterr().err


def test_a_pattern_a_folder_and_a_file_name_each_picture_once(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [str(photos / "1.png"), str(photos / "*.png"), str(photos)]
    assert main([*names, "--json", *TINY]) == 0
    entries = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [Path(entry["picture"]).name for entry in entries] == ["1.png", "0.png", "2.png"]
    assert all(entry["predictions"] is None for entry in entries)  # random weights


def test_bad_files_are_named_and_passed_over(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "3.jpg").write_bytes((photos / "0.png").read_bytes()[:500])
    assert main([str(photos), str(photos / "none.jpg"), str(photos / "notes.txt"), "--json", *TINY]) == 1
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 3
    assert "none.jpg: there is no picture of this name" in printed.err
    assert "3.jpg: The PNG image is damaged" in printed.err and "notes.txt: The file is not an image" in printed.err
    assert "3 of 6 passed over" in printed.err


def test_the_overlay_of_one_picture_is_a_file_with_its_token_regions(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "drawn.png"
    assert main([str(photos / "0.png"), "--overlay", str(out), *TINY]) == 0
    drawn, source = read_image(out).pixels, read_image(photos / "0.png").pixels
    assert drawn.shape == source.shape and (drawn != source).any(axis=2).mean() > 0.9
    assert [path.name for path in out.parent.iterdir()] == ["drawn.png"]


def test_overlays_of_several_pictures_go_into_a_folder(photos: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    Image.new("RGB", (40, 40), "red").save(other / "0.jpg")
    assert main([str(photos), str(other), "--overlay", str(tmp_path / "new"), *TINY]) == 0
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["0-2.jpg", "0.jpg", "1.jpg", "2.jpg"]


@pytest.mark.parametrize(
    ("name", "key"), [("garments_detect_stvit_r", "objects"), ("garments_segment_stvit_r", "classes")]
)
def test_detectors_and_segmenters_answer_and_draw(
    name: str, key: str, bundled: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--json", "--least-score", "0", "--overlay", str(tmp_path / "new.jpg")]
    assert main([str(photos / "0.png"), *more, *by_card(bundled, name)]) == 0
    (entry,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert entry[key] and read_image(tmp_path / "new.jpg").pixels.shape == (90, 120, 3)
    if key == "classes":
        assert sum(area["share"] for area in entry[key]) == pytest.approx(1, abs=1e-3)
    else:
        left, top, right, bottom = entry[key][0]["box_xyxy"]
        assert 0 <= left <= right <= 120 and 0 <= top <= bottom <= 90
    assert main([str(photos / "0.png"), "--random-weights", *more, *by_card(bundled, name)]) == 0
    assert json.loads(capsys.readouterr().out)[key] is None
    drawn, source = read_image(tmp_path / "new.jpg").pixels, read_image(photos / "0.png").pixels
    assert (drawn != source).any(axis=2).mean() > 0.9  # token regions


def test_a_picture_of_nothing_that_the_model_knows_is_told(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = bundled_stand_ins.write_stand_ins(tmp_path, "garments_deit") / "garments_deit.json"
    rates = {"refused": 5.0, "known_samples": 10, "accepted": 9.0, "other_samples": 10, "measured_on": "nothing"}
    for bias, known in ((-1.0, False), (1.0, True)):
        row = {"weight": [0.0] * 48, "bias": bias, **rates}
        card.write_text(json.dumps(json.loads(card.read_text()) | {"scope": row}))
        picture = [str(photos / "0.png"), *by_card(tmp_path, "garments_deit")]
        assert main([*picture, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["in_scope"] is known
        assert main(picture) == 0
        _, *lines = capsys.readouterr().out.splitlines()
        assert ("not one of the classes that this model knows" in lines[0]) is not known
        assert len(lines) == (5 if known else 6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "resnet_of_mine"], "unknown model: resnet_of_mine"),
        (["--model", "stvit_r_swin_smal_224"], "Did you mean stvit_r_swin_small_224"),
        (["--model", "video_swin_tiny"], "is a clip model"),
        (["--task", "detect", "--model", "deit_tiny_patch16_224"], "its --task is classify"),
        (["--scale", "0", "9", "--task", "detect"], "two numbers from 1 on"),
        (["--proposals", "0", "--task", "detect"], "whole number from 1 on"),
        (["--proposals", "300"], "--proposals is for a detector"),
        (["--least-score", "7"], "lies in [0, 1]"),
        (["--record", "none.json"], "does not describe a trained model"),
    ],
)
def test_what_cannot_be_is_one_message_before_anything_is_loaded(
    arguments: list[str], message: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([str(photos / "0.png"), *arguments])
    assert message in capsys.readouterr().err


def test_outputs_that_cannot_be_written_are_one_message(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for out, message in (
        (tmp_path / "new.gif", "no name of a JPEG or PNG"),
        (photos / "0.png", "would replace a picture"),
        (photos / "notes.txt" / "new.jpg", "cannot be made"),
    ):
        assert main([str(photos / "0.png"), "--overlay", str(out), *TINY]) == 1
        printed = capsys.readouterr()
        assert message in printed.err and len(printed.err.splitlines()) == 1 and not printed.out


def test_an_overlay_without_suffix_is_a_folder_also_of_one_picture(photos: Path, tmp_path: Path) -> None:
    assert main([str(photos / "0.png"), "--overlay", str(tmp_path / "drawn"), *TINY]) == 0
    assert [path.name for path in (tmp_path / "drawn").iterdir()] == ["0.jpg"]


def test_a_folder_without_pictures_is_said_to_have_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--device", "cpu"]) == 1
    assert f"{tmp_path}: the folder holds no pictures; folders in it are not searched" in capsys.readouterr().err


def test_weights_that_are_missing_are_one_message(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(photos / "0.png"), "--device", "cpu", "--model", "stvit_deit_tiny_patch16_224"]) == 1
    printed = capsys.readouterr().err
    assert "--random-weights" in printed and "pretrained=" not in printed
    assert main([str(photos / "0.png"), "--device", "cpu", *TINY[:2], "--checkpoint", "none.safetensors"]) == 1
    assert "none.safetensors" in capsys.readouterr().err


def test_neither_answers_nor_help_need_what_only_extras_bring(photos: Path) -> None:
    code = (
        "import sys; sys.modules |= dict.fromkeys(['cv2', 'av', 'supervision', 'scipy', 'pycocotools', 'gradio'])\n"
        "from stvit.predict.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, str(photos / "0.png"), "--json", *TINY]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    refused = subprocess.run([*command, "--overlay", "x.jpg"], capture_output=True, text=True, check=False)
    assert refused.returncode != 0 and "stvit-studio[video]" in refused.stderr and "Traceback" not in refused.stderr


def test_without_any_picture_no_model_is_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "*.jpg"), "--checkpoint", "none.pth", "--device", "cpu"]) == 1
    printed = capsys.readouterr()
    assert "there is no picture of this name" in printed.err and len(printed.err.splitlines()) == 1


@pytest.mark.parametrize("kind", ["ema", "no-ema"])
def test_of_a_file_with_averaged_weights_either_can_be_chosen(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    network = stvit.create_model("stvit_deit_tiny_patch16_224")
    favoured = {name: {**network.state_dict(), "head.bias": 99 * torch.eye(1000)[index]} for name, index in
                (("state_dict_ema", 7), ("state_dict", 3))}  # fmt: skip
    torch.save(favoured, tmp_path / "both.pth")
    arguments = [str(photos / "0.png"), "--model", "stvit_deit_tiny_patch16_224", "--device", "cpu", "--json"]
    choice = "--use-ema" if kind == "ema" else "--no-ema"
    assert main([*arguments, "--checkpoint", str(tmp_path / "both.pth"), choice]) == 0
    (best, *_) = json.loads(capsys.readouterr().out)["predictions"]
    assert best["label"] == imagenet_classes()[7 if kind == "ema" else 3]
    with pytest.raises(SystemExit):
        main([*arguments, choice])
    assert "name it with --checkpoint" in capsys.readouterr().err
