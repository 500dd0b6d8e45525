from __future__ import annotations

import importlib
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch

import demo.model_cache
from demo.dense_benchmark import benchmark_segmenters
from demo.model_cache import ModelCache, OutOfMemory
from demo.model_specs import build_registry
from demo.predictors import Predictors, UnknownEngine, preprocessing_of
from demo.registry import Registry
from stvit.predict.engines import engine as engine_module
from stvit.predict.media import MediaError
from stvit.predict.preprocess import Preprocessing
from stvit.predict.turns import SCRIPTS, in_lane
from stvit.pretrained.resolve import ResolvedWeights
from tests.demo import conftest
from tests.demo.conftest import OFFERED, asked_together
from weights.garments.sources import CLASS_NAMES

CPU = torch.device("cpu")
MODEL, BASELINE = OFFERED.find(conftest.MODEL), OFFERED.find(conftest.BASELINE)


def test_both_models_predict_five_classes_best_first(predictors: Predictors, photo: Path) -> None:
    run = predictors.classify_file(photo, MODEL, BASELINE)
    for result in (run.model, run.baseline):
        probabilities = [entry.probability for entry in result.predictions]
        assert len(probabilities) == 5
        assert probabilities == sorted(probabilities, reverse=True)
        assert 0 < sum(probabilities) <= 1.0001
        assert all(entry.label for entry in result.predictions)
    assert run.picture.decode_ms > 0 and run.picture.preprocess_ms > 0 and run.model.model_ms > 0


def test_both_models_get_the_same_pixels(predictors: Predictors, photo: Path) -> None:
    seen = []
    for name in (MODEL, BASELINE):
        predictors.model_cache.get(name).network.register_forward_pre_hook(
            lambda _, arguments: seen.append(arguments[0])
        )
    run = predictors.classify_file(photo, MODEL, BASELINE)
    assert len(seen) >= 2
    expected = Preprocessing().normalise(run.picture.prepared.image)[None].to(predictors.precision)
    assert all(torch.equal(images, expected) for images in seen)


def test_only_semantic_token_models_have_clusters(predictors: Predictors, photo: Path) -> None:
    run = predictors.classify_file(photo, MODEL, BASELINE)
    assert run.baseline.regions == ()
    assert [entry.unit for entry in run.model.regions] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    for entry in run.model.regions:
        assert entry.attention.shape == (36, 14, 14) and entry.attention.dtype == np.float32
        assert len(np.unique(entry.assignment)) > 1


def test_predictions_in_bfloat16_stay_close_to_float32(with_weights: None, photo: Path) -> None:
    probabilities = {}
    for precision in (torch.float32, torch.bfloat16):
        predictors = Predictors(CPU, precision)
        _, found = predictors.classify_one(photo, MODEL)
        assert found.device.endswith(str(precision).removeprefix("torch."))
        probabilities[precision] = {entry.index: entry.probability for entry in found.predictions}
    exact, fast = probabilities[torch.float32], probabilities[torch.bfloat16]
    shared = exact.keys() & fast.keys()
    assert len(shared) >= 3
    assert all(fast[index] == pytest.approx(exact[index], rel=0.15, abs=0.01) for index in shared)


def test_without_weights_there_are_clusters_but_no_predictions(no_weights: Mock, photo: Path) -> None:
    run = Predictors(CPU).classify_file(photo, MODEL, BASELINE)
    assert run.model.predictions == run.baseline.predictions == ()
    assert run.model.weights == "The Hugging Face Hub cannot be reached."
    assert all(len(np.unique(entry.assignment)) > 1 for entry in run.model.regions)


def test_weights_that_do_not_fit_are_a_problem_that_names_the_file_only(
    weight_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = ResolvedWeights(weight_files[MODEL.name], "cache", "")
    monkeypatch.setattr(demo.model_cache, "resolve_tensors", lambda record, progress=None: wrong)
    loaded = ModelCache(CPU, torch.float32).get(BASELINE)
    assert "does not fit" in loaded.problem
    assert (
        weight_files[MODEL.name].name in loaded.problem and str(weight_files[MODEL.name].parent) not in loaded.problem
    )


def test_an_unreadable_file_is_a_media_error_and_the_engine_goes_on(
    predictors: Predictors, photo: Path, tmp_path: Path
) -> None:
    text = tmp_path / "text.jpg"
    text.write_text("no picture")
    with pytest.raises(MediaError):
        predictors.classify_file(text, MODEL, BASELINE)
    assert predictors.classify_file(photo, MODEL, BASELINE).model.predictions


def test_a_request_names_its_engine_and_a_model_keeps_one_predictor_for_each(
    photo: Path, garments: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr(engine_module, "CANDIDATES", {"cpu": ("openvino",)})
    predictors, spec = Predictors(CPU), garments.find("garments_deit")
    assert predictors.engines == ("auto", "eager", "openvino")
    assert predictors.classify_one(photo, spec, "eager")[1].engine == "eager"
    loaded = predictors.model_cache.get(spec)
    for engine in (*predictors.engines, None, *predictors.engines):
        assert predictors.classifier(loaded, engine).engine.name == (engine or "eager")
    assert len(loaded.predictors) == len(predictors.engines)
    for ask in (
        partial(predictors.classify_file, photo, spec, spec),
        partial(predictors.detect_file, photo, garments.first_bundled("detect"), 320),
        partial(predictors.segment_file, photo, garments.first_bundled("segment")),
        lambda engine: next(
            benchmark_segmenters(predictors, photo, *garments.pair(garments.first_bundled("segment")), engine)
        ),
    ):
        with pytest.raises(UnknownEngine, match=r"no engine 'tensorrt' here.*Choose auto, eager, openvino"):
            ask("tensorrt")


@pytest.mark.slow
def test_eager_answers_until_the_graph_is_made_which_counts_in_the_budget(photo: Path) -> None:
    pytest.importorskip("openvino")
    predictors, spec = Predictors(CPU, torch.float32, "openvino"), build_registry().find("garments_stvit_deit")
    _, first = predictors.classify_one(photo, spec)
    loaded = predictors.model_cache.get(spec)
    weights, classifier = loaded.num_bytes, predictors.classifier(loaded)
    assert classifier.engine.settle(120) and classifier is predictors.classifier(loaded)
    _, second = predictors.classify_one(photo, spec)
    assert (first.engine, second.engine) == ("eager", "openvino")
    assert loaded.num_bytes == pytest.approx(2 * weights, rel=0.01)  # the graph may score the scope, too
    assert [one.index for one in first.predictions[:2]] == [one.index for one in second.predictions[:2]]
    assert all(map(np.array_equal, *([one.assignment for one in answer.regions] for answer in (first, second))))


def test_the_store_keeps_to_its_budget(no_weights: Mock) -> None:
    cache = ModelCache(CPU, torch.float32, budget_bytes=100_000_000)
    of_tiny, of_small = (OFFERED.find(f"deit_{size}_patch16_224") for size in ("tiny", "small"))
    tiny, small = cache.get(of_tiny), cache.get(of_small)
    assert tiny.num_bytes < cache.budget_bytes < tiny.num_bytes + small.num_bytes
    assert cache.get(of_small) is small
    assert cache.get(of_tiny) is not tiny


def test_where_memory_is_short_a_new_model_takes_the_place_of_the_others(
    no_weights: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ModelCache(CPU, torch.float32)
    tiny = cache.get(BASELINE)
    moves = iter([torch.OutOfMemoryError("CUDA out of memory."), None, *[MemoryError()] * 2])
    move = torch.nn.Module.to

    def cramped(network: torch.nn.Module, *where: object) -> torch.nn.Module:
        if error := next(moves, None):
            raise error
        return move(network, *where)

    monkeypatch.setattr(torch.nn.Module, "to", cramped)
    small = OFFERED.find("deit_small_patch16_224")
    assert cache.get(small).spec is small
    with pytest.raises(OutOfMemory, match="not enough memory for this model"):
        cache.get(BASELINE)
    assert cache.get(BASELINE) is not tiny


def test_two_visitors_cause_one_download(no_weights: Mock) -> None:
    cache = ModelCache(CPU, torch.float32)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(cache.get, [BASELINE, BASELINE])
    assert first is second
    assert no_weights.call_count == 1


def test_a_failed_download_is_tried_again_only_when_asked_and_after_a_while(
    no_weights: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ModelCache(CPU, torch.float32)
    cache.get(BASELINE)
    cache.get(BASELINE, retry=True)
    assert no_weights.call_count == 1
    later = time.monotonic() + demo.model_cache.RETRY_AFTER_S + 1
    monkeypatch.setattr(demo.model_cache.time, "monotonic", lambda: later)
    cache.get(BASELINE)
    assert no_weights.call_count == 1
    cache.get(BASELINE, retry=True)
    assert no_weights.call_count == 2


def test_without_published_weights_nothing_is_fetched_and_the_reason_is_said(no_weights: Mock, photo: Path) -> None:
    predictors = Predictors(CPU)
    spec = OFFERED.find("stvit_deit_tiny_patch16_224:num_semantic_tokens=16")
    _, found = predictors.classify_one(photo, spec)
    assert found.predictions == () and found.weights.startswith("Its weights were never published.")
    assert [entry.layer for entry in found.regions] == ["STGM 1", "STGM 2"]
    assert predictors.model_cache.is_ready(spec)
    assert no_weights.call_count == 0


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("evit_deit_tiny_patch16_224:keep_rate=0.7", [196] * 3 + [139] * 3 + [99] * 3 + [71] * 3),
        (
            "evit_deit_tiny_patch16_224:keep_rate=0.5,fuse_inattentive=False",
            [196] * 3 + [98] * 3 + [49] * 3 + [25] * 3,
        ),
        ("tome_deit_tiny_patch16_224:r=13", [196 - 13 * layer for layer in range(1, 13)]),
    ],
)
def test_reducing_models_predict_with_deits_weights_and_say_what_became_of_every_token(
    predictors: Predictors, photo: Path, name: str, tokens: list[int]
) -> None:
    _, found = predictors.classify_one(photo, OFFERED.find(name))
    assert len(found.predictions) == 5 and "deit_tiny_patch16_224" in found.weights
    assert [entry.num_tokens for entry in found.regions] == tokens
    assert all(entry.reduces and entry.attention is None for entry in found.regions)
    for entry in found.regions:
        shown = set(entry.assignment[entry.assignment >= 0].tolist())
        assert shown == set(range(entry.num_tokens)) or entry.kind == "fused"
        assert (entry.assignment < 0).any() == ("fuse" in name and entry.num_tokens < 196)


def test_a_model_of_this_project_names_its_own_classes_and_sees_the_whole_square(
    garments: Registry, predictors: Predictors, photo: Path
) -> None:
    run = predictors.classify_file(photo, garments.find("garments_stvit_deit"), garments.find("garments_swin"))
    for result in (run.model, run.baseline):
        assert len(result.predictions) == 5 and {entry.label for entry in result.predictions} <= set(CLASS_NAMES)
        assert result.weights == "this project (bundled)"
    assert run.picture.prepared.image.shape[1:] == (112, 112) and run.baseline_picture.prepared.image.shape[1:] == (
        224,
        224,
    )
    assert run.picture.prepared.geometry.resized_hw == (112, 156)
    assert run.picture.source is run.baseline_picture.source


def test_models_that_are_prepared_for_alike_share_their_input(predictors: Predictors, photo: Path) -> None:
    run = predictors.classify_file(photo, MODEL, BASELINE)
    assert run.baseline_picture is run.picture


def test_the_drawn_side_brings_what_it_saw_along(garments: Registry, predictors: Predictors, photo: Path) -> None:
    run = predictors.classify_file(photo, garments.find("garments_swin"), garments.find("garments_stvit_deit"))
    assert run.drawn == (run.baseline_picture, run.baseline)
    run = predictors.classify_file(photo, garments.find("garments_stvit_deit"), MODEL)
    assert run.drawn == (run.picture, run.model)


def test_damaged_weights_of_this_project_predict_nothing(
    garments: Registry, predictors: Predictors, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module("stvit.pretrained.resolve"), "sha256_of", lambda path: "0" * 64)
    _, found = predictors.classify_one(photo, garments.find("garments_deit"))
    assert found.predictions == () and "garments_deit.safetensors are damaged" in found.weights


def test_a_name_that_no_engine_has_leaves_nothing(with_weights: None) -> None:
    predictors = Predictors(CPU)
    picture = preprocessing_of(MODEL).prepare(np.zeros((224, 224, 3), np.uint8))
    with in_lane(SCRIPTS), pytest.raises(UnknownEngine):
        predictors.classify(picture, MODEL, "x" * 9000)
    assert not predictors.batches._pixel_s and not predictors.batches._lines


def test_requests_of_scripts_run_together_and_get_the_answers_that_they_get_alone(with_weights: None) -> None:
    predictors = Predictors(CPU, torch.float32)  # in bfloat16, classes that are nearly even change places
    pixels = np.random.default_rng(0).integers(0, 256, (6, 224, 224, 3), np.uint8)
    pictures = [preprocessing_of(MODEL).prepare(picture) for picture in pixels]
    alone = [predictors.classify(picture, MODEL) for picture in pictures]
    together = asked_together(predictors, lambda picture: predictors.classify(picture, MODEL), pictures)
    assert len({answer.model_ms for answer in together}) == 1  # of the one pass
    for one, other in zip(alone, together, strict=True):
        assert [entry.index for entry in one.predictions] == [entry.index for entry in other.predictions]
        assert [entry.probability for entry in one.predictions] == pytest.approx(
            [entry.probability for entry in other.predictions], abs=1e-5
        )
        assert [layer.layer for layer in one.regions] == [layer.layer for layer in other.regions]
