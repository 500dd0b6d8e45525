"""What earlier starts have kept is read when the server starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from demo import kept_graphs, server
from demo.kept_graphs import in_order, read
from demo.model_specs import build_registry
from demo.predictors import Predictors
from demo.registry import ModelSpec, Registry
from stvit.export.graph import InferenceGraph
from stvit.predict.engines import engine as engine_module
from stvit.predict.engines.backends import FileBackend
from stvit.pretrained.model_cards import BundledModels
from tests.stvit.predict.test_turns import until


class Files(FileBackend):
    """Makes empty files in no time, in this process; what reads them need not run."""

    name = "openvino"
    made = 0

    def write(self, graph: InferenceGraph, shape: tuple[int, ...], folder: Path) -> None:
        type(self).made += 1
        (folder / "model").touch()

    def read(self, folder: Path, dtype: torch.dtype, shape: tuple[int, ...]) -> Callable[[Tensor], tuple[Tensor, ...]]:
        return lambda images: ()


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[Files]:
    monkeypatch.setitem(engine_module.BACKENDS, "openvino", Files)
    monkeypatch.setattr(engine_module, "in_another_process", lambda backend: backend.write)
    monkeypatch.setattr(Files, "made", 0)
    monkeypatch.setenv("STVIT_CACHE", str(tmp_path))
    return Files


def predictors() -> Predictors:
    return Predictors(torch.device("cpu"), torch.float32, "openvino")


def ask(own: Predictors, spec: ModelSpec, photo: Path) -> None:
    """A visitor's first request; its graphs are there afterwards."""
    by_task = {"classify": own.classify_one, "segment": own.segment_file}
    by_task[spec.task](photo, spec)
    loaded = own.model_cache.get(spec)
    assert getattr(own, {"classify": "classifier", "segment": "segmenter"}[spec.task])(loaded).engine.settle(60)


def test_graphs_of_earlier_starts_answer_the_first_request(
    garments: Registry, files: type[Files], tmp_path: Path
) -> None:
    photo = tmp_path / "square.png"
    Image.new("RGB", (224, 224)).save(photo)
    earlier, specs = predictors(), [garments.first_bundled(task) for task in ("classify", "segment")]
    assert [read(earlier, spec) for spec in specs] == ["eager", "eager"] and not files.made
    for spec in specs:
        ask(earlier, spec, photo)
    assert files.made == 2
    now = predictors()
    assert [read(now, spec) for spec in specs] == ["openvino", "openvino"] and files.made == 2


def test_what_the_page_opens_on_comes_first(stand_ins: BundledModels) -> None:
    registry = build_registry(stand_ins)
    names = [spec.name for spec in in_order(registry)]
    pairs = [registry.pair(registry.first_bundled(task)) for task in ("classify", "detect")]
    assert names[:4] == [spec.name for pair in pairs for spec in pair]
    assert sorted(names) == sorted(spec.name for spec in registry if spec.bundled)


@pytest.mark.parametrize("engine", ["openvino", "eager"])
def test_the_server_reads_them_in_the_background_where_an_engine_keeps_any(
    engine: str, garments: Registry, files: type[Files], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setenv("STVIT_ENGINE", engine)
    monkeypatch.setattr(server, "predictors_of_process", lambda: Predictors(torch.device("cpu"), engine=engine))
    monkeypatch.setattr("demo.kept_graphs.read", lambda predictors, spec: asked.append(spec.name))
    server.local_runtime(garments)
    if engine == "openvino":
        until(lambda: len(asked) == len(in_order(garments)))
    assert asked == ([spec.name for spec in in_order(garments)] if engine == "openvino" else [])


def test_the_command_says_what_answers_and_after_how_long(
    garments: Registry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    specs = in_order(garments)
    monkeypatch.setattr(kept_graphs, "build_registry", lambda: garments)
    monkeypatch.setattr(kept_graphs, "predictors_of_process", predictors)
    monkeypatch.setattr(kept_graphs, "read", lambda own, spec: "eager" if spec == specs[0] else "openvino")
    assert kept_graphs.main([]) == 0
    *models, last = capsys.readouterr().out.splitlines()
    assert [line.split(" after ")[0] for line in models][:2] == [
        f"{specs[0].name}: eager",
        f"{specs[1].name}: openvino",
    ]
    assert last.startswith("* Kept graphs were read in ") and last.endswith(f"eager (1), openvino ({len(specs) - 1}).")
