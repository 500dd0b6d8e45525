"""DynamicViT, DynamicSwin, Evo-ViT, A-ViT, ATC and DiffRate against what the official code computes.

The golden values were made by running it in float64 on computed weights; see tests/golden/rivals/manifest.json.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import stvit
from stvit.models.dynamicvit import TokenPredictor
from stvit.trace import TokenTrace
from tests.golden.fill import fill, structured_images

pytestmark = pytest.mark.slow  # full-size models

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "rivals"
MANIFEST = json.loads((GOLDEN / "manifest.json").read_text(encoding="utf-8"))
CASES = MANIFEST["cases"]
NUM_TOKENS, DEPTH = 196, 12
PRECISIONS = {"float32": torch.float32, "float64": torch.float64}


def build(case: str) -> nn.Module:
    info = CASES[case]
    if case.startswith("dynamicvit"):
        return stvit.create_model("dynamicvit_deit_small_patch16_224", keep_rate=info["keep_rate"])
    if case.startswith("dynamicswin"):
        return stvit.create_model("dynamicswin_small_224", keep_rate=info["base_rate"])
    if case.startswith("evo_vit"):
        return stvit.create_model("evo_vit_deit_small_patch16_224", auxiliary_head=True)
    if case.startswith("avit"):
        gate = {"gate_scale": info["gate_scale"], "gate_centre": info["gate_center"]}
        return stvit.create_model("avit_small_patch16_224", **gate)
    if case.startswith("atc"):
        options = {name: info[name] for name in ("linkage", "proportional_attention", "keep_rate")}
        return stvit.create_model("atc_deit_small_patch16_224", **options)
    schedule = (info["prune_kept_num"], info["merge_kept_num"])
    return stvit.create_model("diffrate_deit_small_patch16_224", schedule=schedule)


def predictors(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, TokenPredictor)]


class Run:
    """One case in one precision: the model with the computed weights, and what it does to the computed picture."""

    def __init__(self, case: str, precision: str) -> None:
        self.case, self.info = case, CASES[case]
        weights = fill(MANIFEST["keys"][self.info["keys"]], seed=self.info["weight_seed"])
        for name, factor in self.info.get("weight_scale_after_fill", {}).items():
            weights[name] = weights[name] * factor
        self.model = build(case)
        self.model.load_state_dict(self.model.convert_released_state_dict(weights))
        self.model.to(PRECISIONS[precision])
        self.images = structured_images(batch=1, seed=self.info["input_seed"]).to(PRECISIONS[precision])
        self.entering: dict[int, Tensor] = {}
        self.scores: dict[int, Tensor] = {}
        with torch.inference_mode():
            hooks = list(self._hooks())
            self.logits, trace = self.model(self.images, return_trace=True)
            for hook in hooks:
                hook.remove()
        assert isinstance(trace, TokenTrace)
        self.trace = trace
        file = load_file(GOLDEN / self.info["file"])
        prefix = self.info.get("prefix", "")
        self.golden = {name.removeprefix(prefix): value for name, value in file.items() if name.startswith(prefix)}

    def _hooks(self) -> Iterator[Any]:
        for i, block in enumerate(getattr(self.model, "blocks", [])):
            yield block.norm1.register_forward_pre_hook(
                lambda module, inputs, i=i: self.entering.__setitem__(i, inputs[0])
            )
        for i, predictor in enumerate(predictors(self.model)):
            yield predictor.register_forward_hook(
                lambda module, inputs, output, i=i: self.scores.__setitem__(i, output[..., 0])
            )

    def check(self, name: str, found: Tensor) -> None:
        expected, entry = self.golden[name], self.info["tensors"][name]
        assert list(found.shape) == entry["shape"], name
        if not expected.is_floating_point():
            assert torch.equal(found.long(), expected.long()), name
            return
        found = found.reshape(-1)[:: entry["stride"]] if entry["kind"] == "strided" else found
        allowed = entry["atol_fp64" if found.dtype == torch.float64 else "atol_fp32"]
        assert (found.double() - expected.double()).abs().max().item() <= allowed, name

    def class_tokens(self) -> Tensor:
        """(1, 12, C): the class token after every layer, before the last norm."""
        with torch.inference_mode():
            last, _ = self.model.run_layers(self.model.embed(self.images), (14, 14))
        return torch.stack([self.entering[i][:, 0] for i in range(1, DEPTH)] + [last[:, 0]], dim=1)

    def kept(self, layer: int) -> Tensor:
        """(1, K) ascending: image tokens that are there after a layer."""
        return (self.trace.layers[layer].assignment[0] >= 0).nonzero()[:, 0][None]

    def order(self, layer: int) -> Tensor:
        """(1, K): the same in the order in which the layer has them."""
        assignment, left = self.trace.layers[layer].assignment, self.trace.layers[layer].num_tokens
        return assignment.masked_fill(assignment < 0, NUM_TOKENS).argsort(dim=1)[:, :left]


@cache
def run(case: str, precision: str) -> Run:
    return Run(case, precision)


@pytest.fixture(scope="module", autouse=True)
def forget_runs() -> Iterator[None]:
    yield
    run.cache_clear()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("case", CASES)
def test_logits_and_features_are_the_official_ones(case: str, precision: str) -> None:
    made = run(case, precision)
    made.check("logits", made.logits)
    with torch.inference_mode():
        features = made.model.forward_head(made.model.forward_features(made.images), pre_logits=True)
    made.check("features", features)
    if "cls_after_block" in made.golden:
        made.check("cls_after_block", made.class_tokens())


@pytest.mark.parametrize("case", CASES)
def test_parameters_and_multiply_adds_are_the_official_ones(case: str) -> None:
    made = run(case, "float32")
    assert sum(parameter.numel() for parameter in made.model.parameters()) == made.info["params"]
    official = made.info["fvcore_flops_eval_mode_batch1"]
    macs = stvit.count_macs(made.model, (3, 224, 224))
    if case.startswith("dynamicvit"):
        assert macs == official
    # ATC's distances are computed outside of the official network, and class-token rows are computed apart here
    assert abs(macs - official) <= 0.0015 * official


def dynamicvit_cases() -> list[str]:
    return [case for case in CASES if case.startswith("dynamicvit")]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("case", dynamicvit_cases())
def test_dynamicvit_scores_and_keeps_the_same_tokens(case: str, precision: str) -> None:
    made = run(case, precision)
    before = torch.arange(NUM_TOKENS)[None]
    for stage, layer in enumerate((3, 6, 9)):
        by_place = before[0].argsort()
        made.check(f"score_l{layer}", made.scores[stage][:, by_place])
        made.check(f"kept_l{layer}", made.kept(layer))
        if precision == "float64":
            made.check(f"order_l{layer}", made.order(layer))
        before = made.order(layer)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("dynamicswin")])
def test_dynamicswin_scores_and_chooses_the_same_tokens(case: str, precision: str) -> None:
    made = run(case, precision)
    assert list(made.model.layers[2].slow_counts(NUM_TOKENS)) == made.info["slow_counts"]
    for decision, block in enumerate((2, 4, 6)):
        made.check(f"score_b{block}", made.scores[decision])
        made.check(f"slow_b{block}", made.kept(block))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("evo_vit")])
def test_evo_vit_sends_the_same_tokens_on(case: str, precision: str) -> None:
    made = run(case, precision)
    for layer in (4, 8):
        made.check(f"kept_l{layer}", made.kept(layer))
    with torch.inference_mode():
        tokens = made.model.forward_features(made.images)
    made.check("mean_before_norm", tokens[:, 1:].mean(dim=1))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("avit")])
def test_avit_halts_the_same_tokens_and_dropping_them_changes_nothing(case: str, precision: str) -> None:
    made = run(case, precision)
    with torch.inference_mode():
        halting = made.model.halting(made.images)
        made.check("logits", made.model(made.images))  # halted tokens dropped, not masked
    made.check("halting_score", halting.scores)
    made.check("alive_entering_block", halting.alive)
    made.check("depth", halting.depths)
    made.check("rho", halting.depths + halting.remainders)


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("avit")])
def test_avit_computes_what_its_alive_tokens_need(case: str) -> None:
    made = run(case, "float32")
    with (
        torch.inference_mode(),
        FlopCounterMode(display=False) as counter,
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
    ):
        made.model(made.images)
    expected = made.info["macs_if_halted_tokens_were_dropped_per_image"][0]
    assert counter.get_total_flops() // 2 == expected


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("atc")])
def test_atc_makes_the_same_clusters(case: str, precision: str) -> None:
    made = run(case, precision)
    for layer in (3, 6, 9):
        clusters = by_first_appearance(made.trace.layers[layer].assignment[0])
        made.check(f"cluster_l{layer}", clusters[None])
        made.check(f"size_l{layer}", clusters.bincount()[None].to(made.golden[f"size_l{layer}"].dtype))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("diffrate")])
def test_diffrate_prunes_and_merges_the_same_tokens(case: str, precision: str) -> None:
    made = run(case, precision)
    groups = torch.stack([by_first_appearance(layer.assignment[0]) for layer in made.trace.layers])
    made.check("group_after_block", groups[None])


def by_first_appearance(assignment: Tensor) -> Tensor:
    """(N,) numbers of any kind -> numbers in the order of first appearance; -1 stays."""
    numbers: dict[int, int] = {}
    return torch.tensor([-1 if v < 0 else numbers.setdefault(v, len(numbers)) for v in assignment.tolist()])


@pytest.mark.parametrize("case", sorted({case.split("/")[0] for case in CASES}))
def test_a_batch_gives_what_single_pictures_give(case: str) -> None:
    made = run(next(known for known in CASES if known.startswith(case) and "gate10" not in known), "float32")
    images = structured_images(batch=3, seed=5)
    with torch.inference_mode():
        together = made.model(images)
        alone = torch.cat([made.model(image[None]) for image in images])
    torch.testing.assert_close(together, alone, atol=2e-4, rtol=1e-4)
