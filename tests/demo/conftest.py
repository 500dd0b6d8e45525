from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

import demo.model_cache
from demo.model_specs import build_registry
from demo.page import document, layout
from demo.predictors import Predictors
from demo.registry import Registry
from demo.runtime import Runtime
from demo.service.page import Page
from stvit.models.stvit_r_swin import rename_released
from stvit.predict.turns import SCRIPTS, in_lane
from stvit.pretrained.hub import WeightsUnavailable
from stvit.pretrained.model_cards import BundledModels
from stvit.pretrained.records import ModelRecord
from stvit.pretrained.resolve import ResolvedWeights
from tests import bundled_stand_ins
from tests.golden.fill import fill
from tests.narrow_models import DETECTOR, DETECTORS, detector_checkpoint, narrowed
from tests.stvit.predict.test_turns import until

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
MODEL, BASELINE = "stvit_r_swin_small_224", "deit_tiny_patch16_224"
OFFERED = build_registry()


@pytest.fixture(scope="session")
def weight_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of made-up weights for one model, one baseline and one narrow detector, by the model's name."""
    folder = tmp_path_factory.mktemp("weights")
    files = {name: folder / f"{name}.safetensors" for name in (MODEL, BASELINE)}
    shapes = json.loads((GOLDEN / "released_shapes_small.json").read_text())
    released = {rename_released(name): tensor for name, tensor in fill(shapes).items()}
    counters = {rename_released(name): torch.tensor(0) for name in shapes if name.endswith("num_batches_tracked")}
    save_file(released | counters, files[MODEL])
    torch.manual_seed(0)
    save_file(timm.create_model(BASELINE).state_dict(), files[BASELINE])
    files[DETECTOR] = folder / "detector.pth"
    files[DETECTOR].write_bytes(detector_checkpoint())
    return files


@pytest.fixture
def with_weights(weight_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights come from ``weight_files`` instead of the Hub."""

    def resolve(record: ModelRecord, progress=None) -> ResolvedWeights:
        return ResolvedWeights(weight_files[record.architecture], "cache", "")

    monkeypatch.setattr(demo.model_cache, "resolve_tensors", resolve)


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """The Hub is down; returns the stand-in for ``resolve``."""
    resolve = Mock(side_effect=WeightsUnavailable("hub down", "The Hub is out of order.", "Wait a minute."))
    monkeypatch.setattr(demo.model_cache, "resolve_tensors", resolve)
    return resolve


@pytest.fixture
def predictors(with_weights: None) -> Predictors:
    return Predictors(torch.device("cpu"))


@pytest.fixture(scope="session")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> BundledModels:
    """Bundled models of random weights."""
    return BundledModels(bundled_stand_ins.write_stand_ins(tmp_path_factory.mktemp("bundled")))


@pytest.fixture(scope="session")
def garments(stand_ins: BundledModels) -> Registry:
    """The published models, the detectors among them narrow, and the stand-ins as bundled ones."""
    return narrowed(build_registry(stand_ins), DETECTORS)


def asked_together(predictors: Predictors, ask: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """Answers to scripts that all ask while the device is taken."""
    with ThreadPoolExecutor(len(items)) as pool:
        with predictors.compute._free:
            asked = [pool.submit(in_lane(SCRIPTS)(ask), item) for item in items]
            until(lambda: sum(map(len, predictors.batches._lines.values())) == len(items))
        return [one.result(60) for one in asked]


@contextmanager
def served(registry: Registry) -> Iterator[tuple[Page, str]]:
    """The page with these models, served by this process as app.py serves it, and its address."""
    page = layout.build(Runtime(Predictors(torch.device("cpu")), registry))
    kwargs = {
        "routes": [*document.routes(), *page.routes()],
        "middleware": page.middleware(document.middleware()),
        "lifespan": page.lifespan,
    }
    quiet = {"quiet": True, "run_history": False, "share": False, "ssr_mode": False}
    _, url, _ = page.launch(prevent_thread_lock=True, max_file_size="50mb", app_kwargs=kwargs, **quiet)
    try:
        yield page, url
    finally:
        page.close()


@pytest.fixture
def photo(tmp_path: Path) -> Iterator[Path]:
    """A picture with large shapes and fine grain, wider than high."""
    rows, columns = np.mgrid[0:300, 0:420]
    grain = np.random.default_rng(0).integers(0, 40, (300, 420))
    channels = [
        (rows // 60 * 40 + grain) % 256,
        (columns // 70 * 36 + grain) % 256,
        (rows + columns + grain) // 3 % 256,
    ]
    path = tmp_path / "photo.png"
    Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8)).save(path)
    yield path
