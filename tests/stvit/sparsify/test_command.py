import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.models._hub import save_for_hf

import stvit
from stvit.evaluate.__main__ import main as evaluate
from stvit.export.__main__ import main as export
from stvit.predict.__main__ import main as predict
from stvit.predict.preprocess import Preprocessing
from stvit.pretrained.model_cards import load_card, read_card
from stvit.sparsify.__main__ import main
from stvit.sparsify.fit import CannotSparsify
from stvit.sparsify.folder import write_folder
from stvit.sparsify.search import Setting, search, settings
from tests.stvit.sparsify.hosts import HOSTS, VIT, host, images_for, write_pictures, write_trained

SIGLIP = "vit_base_patch16_siglip_224"


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """The card of a trained model."""
    return write_trained(tmp_path)


def test_a_trained_model_becomes_a_folder_that_everything_takes(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "fast"
    command = [str(trained), "--tokens", "4", "--output", str(folder)]
    assert main(command) == 0
    assert "4 semantic tokens after 1 layers: 1.7" in capsys.readouterr().out
    expected = stvit.sparsify(load_card(trained)[0], 4)
    images = images_for("deit_tiny_patch16_224")
    with torch.no_grad():
        logits = expected(images)
        assert torch.equal(timm.create_model(f"local-dir:{folder}", pretrained=True).eval()(images), logits)
        network, card = load_card(folder / "model.json")
        assert torch.equal(network(images), logits)
    assert card.classes == tuple("abcde") and card.crop_pct == 0.9 and card.input_size == 32
    entries = json.loads((folder / "model.json").read_text())
    assert entries["weights_of"] == "own" and entries["options"]["of"] == "deit_tiny_patch16_224"
    assert entries["options"]["num_semantic_tokens"] == 4 and entries["options"]["stgm_position"] == 1

    picture = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(picture)
    record = ["--record", str(folder / "model.json")]
    assert predict([str(picture), *record]) == 0
    assert "%" in capsys.readouterr().out
    assert export([record[1], str(tmp_path / "model.pt2")]) == 0

    pictures = write_pictures(tmp_path / "pictures") / "validation"
    for number, name in enumerate("abcde"):
        (pictures / f"class{number}").rename(pictures / name)
    figures = tmp_path / "figures.json"
    where = ["--results", str(tmp_path / "results.jsonl"), "--output", str(figures)]
    assert evaluate(["classify", "--images", str(pictures), *record, "--device", "cpu", "--workers", "0", *where]) == 0
    found, how = json.loads(figures.read_text()), Preprocessing.of(network.pretrained_cfg)
    read = {file: how.prepare(np.array(Image.open(file))).image for file in sorted(pictures.glob("*/*.png"))}
    with torch.no_grad():
        answers = network(how.normalise(torch.stack(list(read.values())))).argmax(1).tolist()
    right = [file.parent.name == "abcde"[answer] for file, answer in zip(read, answers, strict=True)]
    assert found["images"] == len(right) == 10 and found["top1"] == pytest.approx(100 * sum(right) / 10)

    assert main(command) == 1 and "is there already" in capsys.readouterr().err
    assert not list(tmp_path.glob(".fast*"))


def test_the_card_keeps_the_preprocessing_of_the_original(tmp_path: Path) -> None:
    sparse = stvit.sparsify(host(SIGLIP), np.int64(4))  # as JSON has it, an int
    write_folder(sparse, tmp_path / "siglip", classes=tuple("abcde"), weights_of="nothing")
    card = read_card(tmp_path / "siglip" / "model.json")
    assert card.mean == (0.5, 0.5, 0.5) == card.build().pretrained_cfg["mean"]


@torch.no_grad()
def test_a_network_without_head_or_square_colour_pictures_or_registration(tmp_path: Path) -> None:
    for number, options in enumerate(({"num_classes": 0}, {"img_size": (32, 64)}, {"in_chans": 1})):
        folder, sparse = tmp_path / str(number), stvit.sparsify(host(SIGLIP, **options), 4)
        write_folder(sparse, folder, classes=(), weights_of="nothing")
        assert sorted(file.name for file in folder.iterdir()) == ["config.json", "model.safetensors"]
        images = torch.randn(1, sparse.in_chans, *sparse.patch_embed.img_size)
        loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        assert torch.equal(loaded(images), sparse(images))
    own = timm.models.VisionTransformer(**VIT)
    with pytest.raises(CannotSparsify, match="not registered"):
        write_folder(stvit.sparsify(own, 4), tmp_path / "b", classes=(), weights_of="nothing")


def test_a_folder_of_timm_is_sparsified_with_the_names_of_its_classes(tmp_path: Path) -> None:
    original, names = host("deit_tiny_patch16_224"), {"label_names": list("vwxyz")}
    save_for_hf(original, str(tmp_path / "own"), model_config=names, safe_serialization=True)
    assert main([f"local-dir:{tmp_path / 'own'}", "--tokens", "4", "--output", str(tmp_path / "fast")]) == 0
    network, card = load_card(tmp_path / "fast" / "model.json")
    images = images_for("deit_tiny_patch16_224")
    with torch.no_grad():
        assert card.classes == tuple("vwxyz") and torch.equal(network(images), stvit.sparsify(original, 4)(images))


def test_both_are_measured_under_every_engine(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("stvit.sparsify.__main__.compare_engines", lambda *given, **how: asked.append((given, how)))
    monkeypatch.setattr("stvit.sparsify.__main__.engines_table", str)
    assert main([str(trained), "--tokens", "4", "--measure", "--device", "cpu"]) == 0
    [((build, engines), how)] = asked
    assert engines == ("eager", "openvino") and how["input_shape"] == (3, 32, 32)
    assert not build.func.__module__.endswith("__main__")  # which the processes that measure do not have
    models = pickle.loads(pickle.dumps(build))()
    assert list(models) == ["own, 4 tokens", "own"]  # the baseline last
    assert models["own, 4 tokens"].semantic_grid_hw == (2, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet10t", "--random-weights"], "cannot be sparsified"),
        (["no_such_model", "--random-weights"], "not registered"),
        (["deit_tiny_patch16_224", "--random-weights", "--tokens", "5"], "no square number"),
        (["deit_tiny_patch16_224", "--checkpoint", "nowhere.pth"], "cannot be opened"),
        (["local-dir:nowhere"], "cannot be loaded"),
        (["docs"], "or local-dir:docs"),
    ],
)
def test_what_cannot_be_done_is_said(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target-speedup", "nan"], "'nan' is not a number above 1"),
        (["--target-speedup", "0.5"], "'0.5' is not a number above 1"),
        (["--target-speedup", "2", "--tokens", "16"], "leave out --tokens and --position"),
        (["--engines", "eager"], "give both"),
        (["--batch-size", "0"], "not a whole number from 1 on"),
    ],
)
def test_options_that_say_nothing_together_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["deit_tiny_patch16_224", *arguments])
    assert message in capsys.readouterr().err


def test_search_keeps_as_many_multiply_adds_as_the_speed_allows() -> None:
    candidates = [Setting(16, position, 100 - position) for position in range(20)]
    asked = []

    def measured(setting: Setting) -> float:
        asked.append(setting)
        return 100 / setting.macs

    found, gain = search(candidates, 1.1, measured)
    assert found.macs == 90 and gain == pytest.approx(100 / 90) and len(asked) <= 6
    with pytest.raises(CannotSparsify, match=r"reach 1\.23"):
        search(candidates, 2.0, measured)


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_settings_to_search_begin_with_the_most_multiply_adds(name: str) -> None:
    side = HOSTS[name]["img_size"]
    shallow = {"depths": (1, 1, 3, 1)} if name.startswith("swin") else {}
    found = settings(host(name, **shallow), (3, side, side))
    assert [one.macs for one in found] == sorted((one.macs for one in found), reverse=True) and len(found) > 2
    assert all(one.num_semantic_tokens in (4, 9, 16) for one in found)


def test_settings_to_search_fit_the_shorter_side() -> None:
    narrow = settings(host("deit_tiny_patch16_224", img_size=(16, 64)), (3, 16, 64))
    assert {one.num_semantic_tokens for one in narrow} == {4}
    with pytest.raises(CannotSparsify, match="too few image tokens"):
        settings(host("deit_tiny_patch16_224", img_size=16), (3, 16, 16))
    dumbbells = settings(host("swin_tiny_patch4_window7_224"), (3, 112, 112), "stvit_r")
    assert [str(one) for one in dumbbells] == ["16 semantic tokens", "9 semantic tokens", "4 semantic tokens"]


def test_a_target_is_searched_for(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gains = {0: 2.0, 1: 1.0, 2: 1.0}
    monkeypatch.setattr("stvit.sparsify.__main__.gain_of", lambda sparse, *_: gains[sparse.stgm_position])
    assert main([str(trained), "--target-speedup", "1.5"]) == 0
    assert "4 semantic tokens after 0 layers" in capsys.readouterr().out
