"""Models in folders that are named when the server starts: on offer beside the others, or refused in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import app
import stvit
from demo.charts.story import headline
from demo.model_folders import with_folders
from demo.model_specs import build_registry
from demo.page.about import about
from demo.predictors import Predictors, preprocessing_of
from demo.registry import Registry, UnknownModel
from demo.tabs.pickers import follow, method_chosen, set_twin
from stvit.pretrained.model_cards import BundledModels, load_card, write_card
from stvit.sparsify.folder import write_folder
from tests.stvit.sparsify.hosts import host, write_trained

SIGLIP = "vit_base_patch16_siglip_224"


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that ``stvit.sparsify`` wrote, of five classes."""
    folder = tmp_path_factory.mktemp("own") / "fast"
    write_folder(stvit.sparsify(host(SIGLIP), 4), folder, classes=tuple("abcde"), weights_of="nothing")
    return folder


@pytest.fixture(scope="module")
def registry(fast: Path) -> Registry:
    return with_folders(build_registry({}), [fast])


def test_a_sparsified_model_is_offered_beside_the_others_with_its_original_as_twin(registry: Registry) -> None:
    own = registry.find("fast", "classify")
    twin = registry.counterpart(own)
    assert (twin.name, twin.model, twin.has_weights) == ("fast-original", SIGLIP, False)
    assert registry.counterpart(twin) == own and registry.first("classify").name != "fast"
    assert [spec.name for spec in registry.settings(own.method, "folder")] == ["fast"]
    for chosen in registry.methods()[-2:]:
        _, setting = method_chosen(registry, chosen.name, "deit_tiny_patch16_224")
        assert setting.value in ("fast", "fast-original")
    assert follow(registry, "fast", "deit_tiny_patch16_224")[2].value == "fast-original"
    assert set_twin(registry, "fast", "deit_tiny_patch16_224")[2].value == "fast-original"
    assert "4 tokens instead of 16" in headline(own, twin) and not about([own, twin])
    assert "fast knows 5 classes of its own" in about([own, registry.find("deit_tiny_patch16_224")])


def test_it_answers_as_its_folder_does_and_the_twin_shows_its_structure(
    registry: Registry, fast: Path, photo: Path
) -> None:
    predictors, (own, twin) = Predictors(torch.device("cpu"), torch.float32), registry.pair(registry.find("fast"))
    run = predictors.classify_file(photo, own, twin)
    network, card = load_card(fast / "model.json")
    images = preprocessing_of(own).normalise(run.picture.prepared.image)[None]
    with torch.no_grad():
        expected = network(images).softmax(-1)[0]
    assert card.mean == preprocessing_of(own).mean == (0.5, 0.5, 0.5)
    for prediction in run.model.predictions:
        assert prediction.probability == pytest.approx(float(expected[prediction.index]), abs=1e-5)
        assert prediction.label == "abcde"[prediction.index]
    assert run.model.weights == "a folder of this server" and len(run.model.regions) == 2
    assert run.baseline.predictions == () and "not in the folder" in run.baseline.weights
    assert run.baseline_picture is run.picture


def test_an_original_that_is_on_offer_with_its_classes_is_the_twin(stand_ins: BundledModels, tmp_path: Path) -> None:
    network, card = load_card(stand_ins.folder / "garments_deit.json")
    folder = tmp_path / "garments-fast"
    write_folder(stvit.sparsify(network, 16), folder, classes=card.classes, weights_of=card.name)
    offered = build_registry(stand_ins)
    registry = with_folders(offered, [folder])
    assert len(list(registry)) == len(list(offered)) + 1
    own, twin = registry.pair(registry.find("garments-fast"))
    assert twin.name == "garments_deit" and twin.bundled and own.classes == twin.classes
    others = tmp_path / "other-classes"
    write_folder(stvit.sparsify(network, 16), others, classes=list("abcdefghij"), weights_of=card.name)
    assert with_folders(offered, [others]).pair(with_folders(offered, [others]).find("other-classes"))[1].folder


def test_a_trained_model_with_all_its_tokens_is_offered_alone(tmp_path: Path) -> None:
    write_trained(tmp_path)
    folder = tmp_path / "mine"
    folder.mkdir()
    for suffix in (".json", ".safetensors"):
        (tmp_path / f"own{suffix}").rename(folder / f"model{suffix}")
    registry = with_folders(build_registry({}), [folder])
    own = registry.find("mine", "classify")
    assert own.method.full_tokens and own.setting == "DeiT" and registry.counterpart(own) is None
    with pytest.raises(UnknownModel, match="nothing to compare mine with"):
        registry.pair(own)

    network, card = load_card(folder / "model.json")
    write_folder(stvit.sparsify(network, 4), tmp_path / "faster", classes=card.classes, weights_of="mine")
    registry = with_folders(build_registry({}), [folder, tmp_path / "faster"])
    assert registry.counterpart(registry.find("faster")).name == "mine"


def test_several_folders_are_told_apart_by_their_names(fast: Path, tmp_path: Path) -> None:
    again = tmp_path / "slow"
    shutil.copytree(fast, again)
    registry = with_folders(build_registry({}), [fast, again])
    assert registry.counterpart(registry.find("slow")).name == "slow-original"


def _no_card(folder: Path) -> None:
    (folder / "model.json").unlink()


def _no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _damaged(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def _bad_card(folder: Path) -> None:
    (folder / "model.json").write_text("{}")


def _other_task(folder: Path) -> None:
    entries = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**entries, "task": "segment"}))


def _no_transformer(folder: Path) -> None:
    entries = json.loads((folder / "model.json").read_text())
    del entries["sha256"]
    write_card(folder / "model.safetensors", {**entries, "model": "resnet10t", "options": {}})


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (shutil.rmtree, "is no folder with a model.json"),
        (_no_card, "is no folder with a model.json"),
        (_no_weights, "are missing"),
        (_damaged, "are damaged"),
        (_bad_card, "does not describe a trained model"),
        (_other_task, "is no classifier: its task is segment"),
        (_no_transformer, "no transformer"),
    ],
)
def test_a_folder_without_a_model_for_the_page_ends_the_start_with_one_line(
    fast: Path, tmp_path: Path, spoil: object, words: str
) -> None:
    folder = tmp_path / "spoilt"
    shutil.copytree(fast, folder)
    spoil(folder)
    with pytest.raises(SystemExit) as end:
        app.serve(build_registry({}), [folder])
    told = str(end.value)
    assert told.startswith("app.py: ") and words in told and str(folder) in told and "\n" not in told


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "DeiT"])
def test_a_folder_with_the_name_of_a_model_or_method_is_refused(fast: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(fast, tmp_path / name)
    with pytest.raises(SystemExit, match=f"There is a model called {name} already"):
        app.serve(build_registry({}), [tmp_path / name])


def test_the_command_line_names_folders() -> None:
    assert app.parse([]).model_folder == []
    assert app.parse(["--model-folder", "a", "--model-folder", "b/c"]).model_folder == [Path("a"), Path("b/c")]
