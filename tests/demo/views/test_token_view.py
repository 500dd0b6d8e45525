"""What the browser is sent of tokens."""

from __future__ import annotations

import warnings
from base64 import b64decode

import numpy as np

from demo.views.token_view import cluster_payload, cluster_view, start_of
from stvit.predict.preprocess import Preprocessing
from stvit.predict.regions import TokenRegions

PIXELS = np.full((224, 300, 3), 128, np.uint8)
GEOMETRY = Preprocessing().geometry((224, 300))


def regions_of(layer: str, assignment: np.ndarray, attention: np.ndarray) -> TokenRegions:
    return TokenRegions("stgm", layer, assignment.astype(np.int16), 4, 0, (2, 2), attention.astype(np.float32))


def test_attention_that_is_the_same_everywhere_is_sent_as_it_is() -> None:
    even = regions_of("STGM 1", np.zeros((4, 4)), np.full((4, 4, 4), 1 / 16))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (layer,) = cluster_payload(PIXELS, GEOMETRY, [even], "even")["layers"]
    assert not np.frombuffer(b64decode(layer["attention"]), np.uint8).any()
    assert layer["weakest"] == layer["strongest"] == [1 / 16] * 4


def test_differences_far_smaller_than_the_attention_itself_survive() -> None:
    attention = np.full((4, 4, 4), 0.0625) + 1e-5 * np.random.default_rng(0).random((4, 4, 4))
    sent = regions_of("STGM 1", attention.argmax(axis=0), attention)
    (layer,) = cluster_payload(PIXELS, GEOMETRY, [sent], "nearly even")["layers"]
    levels = np.frombuffer(b64decode(layer["attention"]), np.uint8).reshape(4, 4, 4)
    weakest, strongest = (np.array(layer[name])[:, None, None] for name in ("weakest", "strongest"))
    got = weakest + levels / 255 * (strongest - weakest)
    assert (got.argmax(axis=0) == sent.assignment).mean() > 0.9


def test_the_view_starts_at_the_most_coherent_layer_and_can_start_with_a_stored_payload() -> None:
    blocks = np.kron(np.arange(4).reshape(2, 2), np.ones((4, 4), int))
    scattered = np.random.default_rng(0).permutation(blocks.ravel()).reshape(8, 8)
    layers = [
        regions_of(f"STGM {n}", grid, np.ones((4, 8, 8))) for n, grid in enumerate((scattered, blocks, scattered))
    ]
    payload = cluster_payload(PIXELS, GEOMETRY, layers, "title", untrained=True)
    assert payload["start"] == 1 and payload["untrained"] and start_of([]) == 0
    assert [layer["stage"] for layer in payload["layers"]] == ["Grouping 0", "Grouping 1", "Grouping 2"]
    assert cluster_view(payload).value == payload
