"""From pixels to classes: predictions, batches, regions on request."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import stvit
from stvit.predict.classifier import Classifier, imagenet_classes
from stvit.predict.device import Compute
from stvit.predict.preprocess import Preprocessing
from stvit.predict.timing import timed


def picture(seed: int, height: int = 90, width: int = 130) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture(scope="module")
def semantic() -> torch.nn.Module:
    torch.manual_seed(0)
    return stvit.create_model("stvit_deit_tiny_patch16_224", num_semantic_tokens=16)


class Sure(torch.nn.Module):
    """Gives one class all it has."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(20.0 * torch.nn.functional.one_hot(torch.tensor(index), 1000))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(images), -1)


def test_labels_are_those_of_imagenet() -> None:
    best = Classifier(Sure(347))(picture(0)).predictions[0]
    assert (best.index, best.label) == (347, "bison")
    assert best.probability > 0.99
    assert imagenet_classes()[0] == "tench, Tinca tinca" and imagenet_classes(all_names=False)[0] == "tench"


def test_predictions_are_the_networks_best_first(semantic: torch.nn.Module) -> None:
    preprocessing, pixels = Preprocessing(), picture(1)
    result = Classifier(semantic, preprocessing=preprocessing)(pixels)
    with torch.inference_mode():
        expected = semantic(preprocessing.normalise(preprocessing.resize(pixels))[None]).softmax(-1)[0].topk(5)
    assert [entry.index for entry in result.predictions] == expected.indices.tolist()
    assert [entry.probability for entry in result.predictions] == pytest.approx(expected.values.tolist(), abs=1e-6)
    assert result.geometry == preprocessing.geometry((90, 130))


def test_a_batch_in_parts_gives_what_single_pictures_do(semantic: torch.nn.Module) -> None:
    compute = Compute(torch.device("cpu"))
    compute.lanes = 2
    classifier = Classifier(semantic, compute=compute)
    batch = [classifier.preprocessing.prepare(picture(seed)) for seed in range(5)]
    together = classifier.classify(batch, regions="last")
    for prepared, result in zip(batch, together, strict=True):
        (alone,) = classifier.classify([prepared], regions="last")
        assert alone.predictions[0].index == result.predictions[0].index
        (own,), (other,) = alone.regions, result.regions
        assert (own.assignment == other.assignment).mean() > 0.98


@pytest.mark.parametrize(
    ("wanted", "layers", "attention"),
    [
        ("none", [], False),
        ("last", ["STGM 2"], False),
        ("all", ["STGM 1", "STGM 2"], False),
        ("attention", ["STGM 1", "STGM 2"], True),
    ],
)
def test_regions_come_as_far_as_they_are_wanted(
    semantic: torch.nn.Module, wanted: str, layers: list[str], attention: bool
) -> None:
    regions = Classifier(semantic)(picture(2), regions=wanted).regions
    assert [entry.layer for entry in regions] == layers
    assert all((entry.attention is not None) == attention for entry in regions)


def test_a_network_without_a_trace_has_no_regions() -> None:
    assert Classifier(Sure(3))(picture(3), regions="attention").regions == ()


def test_steps_are_timed_from_outside(semantic: torch.nn.Module) -> None:
    classifier = Classifier(semantic)
    (result,), laps_ms = timed(classifier.compute, classifier.classify, [classifier.preprocessing.prepare(picture(4))])
    assert list(laps_ms) == ["input", "model"] and all(value > 0 for value in laps_ms.values())
    assert result.predictions


def test_as_many_predictions_as_there_are_classes() -> None:
    torch.manual_seed(0)
    network = stvit.create_model("deit_tiny_patch16_224", num_classes=3)
    predictions = Classifier(network, classes=("a", "b", "c"))(picture(5)).predictions
    assert sorted(entry.label for entry in predictions) == ["a", "b", "c"]
    assert sum(entry.probability for entry in predictions) == pytest.approx(1, abs=1e-5)
