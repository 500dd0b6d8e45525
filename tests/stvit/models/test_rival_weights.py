"""Where the weights of the methods beside STViT come from, and the containers that their authors save."""

from __future__ import annotations

import argparse
import io
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import stvit
from stvit.checkpoint import CheckpointError, load_checkpoint
from stvit.pretrained.hub import WeightsUnavailable
from stvit.pretrained.records import record
from tests.hub_server import HubServer
from tests.stvit.models.families import narrow

ROOT = Path(__file__).resolve().parents[3]
FILE_IDS = {
    "dynamicvit_deit_small_patch16_224": "1H5kHHagdqo4emk9CgjfA7DA62XJr8Yc1",
    "dynamicvit_deit_base_patch16_224": "1J9PCPiOSHmzRiWw370GDYJPEZ8r4uU3M",
    "dynamicswin_tiny_224": "1BFlCvXedgttyj8n9smcNphE7NLOy99ig",
    "dynamicswin_small_224": "1gveNkt5aCzjb5CX_DaGq_XJRvvxruxmy",
    "dynamicswin_base_224": "1sJctKZxdIH0zHwTekWmmCns_1AOeFzeN",
    "evo_vit_deit_tiny_patch16_224": "1AL4uHGHvCoFXkrtHRgf4XmurgRs5-qab",
    "evo_vit_deit_small_patch16_224": "1AiD1J-z9klr72-zczkJzX1HHVlxO7iin",
    "evo_vit_deit_base_patch16_224": "15EmMKb4L5IjHqnMYQHVNYZGRRGdByTsz",
    "avit_tiny_patch16_224": "1Fk_PzkEVs21Fv2ofCkmRL-CQRiGmPmxV",
}
PAGES = {name: f"https://drive.google.com/file/d/{one}/view" for name, one in FILE_IDS.items()}
TABLE_4_NAMES = {
    "DynamicViT": "dynamicvit_deit_{}_patch16_224",
    "Evo-ViT": "evo_vit_deit_{}_patch16_224",
    "A-ViT*": "avit_{}_patch16_224",
    "TokenLearner*": "tokenlearner_deit_{}_patch16_224",
    "STViT": "stvit_deit_{}_patch16_224",
}


@pytest.mark.parametrize("name", PAGES)
def test_pretrained_says_where_a_person_fetches_the_file(name: str) -> None:
    assert (record(name).weights_page, record(name).repo) == (PAGES[name], None)
    with pytest.raises(WeightsUnavailable, match=f"share them on {re.escape(PAGES[name])}.*checkpoint=") as caught:
        stvit.create_model(name, pretrained=True)
    assert caught.value.reason == "by hand"


def test_a_file_that_does_not_fit_is_told_with_the_page_of_the_right_one(tmp_path: Path) -> None:
    save_file(narrow("dynamicvit_deit").state_dict(), tmp_path / "other.safetensors")
    with torch.device("meta"):
        for name in ("dynamicvit_deit_small_patch16_224", "atc_deit_tiny_patch16_224"):
            page = re.escape(record(name).source_url)
            with pytest.raises(CheckpointError, match=rf"does not fit .*of another shape.*weights are on {page}\."):
                stvit.create_model(name, checkpoint=tmp_path / "other.safetensors")
        with pytest.raises(CheckpointError, match=r"Choose the checkpoint that was made for this model\.$"):
            stvit.create_model("tokenlearner_deit_small_patch16_224", checkpoint=tmp_path / "other.safetensors")


def test_a_distilled_checkpoint_is_refused_by_the_names_of_what_is_distilled(tmp_path: Path) -> None:
    model = narrow("atc_deit")
    state = model.state_dict()
    distilled = {"dist_token": state["cls_token"].clone(), "head_dist.weight": state["head.weight"].clone()}
    distilled["pos_embed"] = torch.cat([state["pos_embed"][:, :1], state["pos_embed"]], dim=1)
    save_file(state | distilled, tmp_path / "distilled.safetensors")
    with pytest.raises(CheckpointError, match=r"unknown to the model \(2\): dist_token, head_dist\.weight; of another"):
        load_checkpoint(model, tmp_path / "distilled.safetensors")


def test_trained_atc_comes_from_the_hub_by_its_keep_rate(hub: HubServer) -> None:
    for size in ("tiny", "small", "base"):
        found = record(f"atc_deit_{size}_patch16_224")
        assert (found.repo, found.tag) == (f"joakimbh/atc_{size}-im1k-average", "average_07_in1k")
        assert found.filename == f"atc_{size}-im1k-07-average.pth" and len(found.sha256) == 64
        assert record(f"atc_deit_{size}_patch16_224.average_09_in1k").filename == f"atc_{size}-im1k-09-average.pth"
    name = "atc_deit_tiny_patch16_224.average_025_in1k"  # its digest is the one of the first download
    torch.manual_seed(0)
    state = stvit.create_model("deit_tiny_patch16_224").state_dict()
    averaged = {key: tensor + 1 for key, tensor in state.items()}
    content = io.BytesIO()
    rest = {"ema_best": False, "epoch": 29, "args": argparse.Namespace(linkage="average")}
    torch.save({"model": state, "model_ema": averaged, **rest}, content)
    hub.add_file(record(name).repo, record(name).filename, content.getvalue())
    model = stvit.create_model(name, pretrained=True, keep_rate=0.25)
    assert model.keep_rate == 0.25 and all(torch.equal(state[key], one) for key, one in model.state_dict().items())


def test_diffrate_runs_deits_own_weights() -> None:
    for size in ("small", "base"):
        name = f"diffrate_deit_{size}_patch16_224"
        assert record(name).repo == record(f"deit_{size}_patch16_224").repo


@pytest.mark.parametrize("size", ["small", "base"])
def test_published_figures_are_those_of_table_4(size: str) -> None:
    tables = json.loads((ROOT / "assets" / "paper_tables.json").read_text(encoding="utf-8"))
    rows = [row for row in tables["table4_comparison"][f"deit_{size}"] if row["method"] in TABLE_4_NAMES]
    assert len(rows) >= 4
    for row in rows:
        published = record(TABLE_4_NAMES[row["method"]].format(size)).published
        assert (published["top1"], published["gmacs"]) == (row["top1"], row["gmacs"])


def official_names(family: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A narrow model's tensors under the names that the authors give them."""
    named = {}
    for name, tensor in state.items():
        if family == "dynamicswin":
            name = re.sub(r"layers\.(\d)\.downsample", lambda found: f"layers.{int(found[1]) - 1}.downsample", name)
            named[name.replace("head.fc.", "head.")] = tensor
        elif family == "evo_vit_deit" and (found := re.match(r"blocks\.(\d+)\.(attn\.\w+|norm1)\.(\w+)", name)):
            layer, part, last = found.groups()
            if part == "attn.qkv":
                queries_and_keys, values = tensor.tensor_split([2 * len(tensor) // 3])
                named |= {f"qks.{layer}.qk.{last}": queries_and_keys, f"vs.{layer}.v.{last}": values}
            else:
                named[f"{'norms' if part == 'norm1' else 'projs'}.{layer}.{last}"] = tensor
        else:
            named[name.replace("fc_norm.", "norm.") if family == "evo_vit_deit" else name] = tensor
    if family == "evo_vit_deit":  # training's second head, which inference leaves out
        named |= {"norm_cls.weight": torch.ones(24), "head_cls.bias": torch.zeros(7)}
    return named


FAMILIES = ["dynamicvit_deit", "dynamicswin", "evo_vit_deit", "avit", "atc_deit"]


def forget(model: nn.Module) -> nn.Module:
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_an_official_container_loads_by_its_own_names(family: str, tmp_path: Path) -> None:
    state, path = narrow(family).state_dict(), tmp_path / "model.pth"
    named = official_names(family, state)
    assert family not in ("dynamicswin", "evo_vit_deit") or named.keys() != state.keys()
    rest = {"optimizer": {"state": {}}, "epoch": 29, "scaler": {}, "args": argparse.Namespace(lr=1e-3)}
    torch.save({"model": named, **rest}, path)
    loaded = forget(narrow(family))
    load_checkpoint(loaded, path)
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())


@pytest.mark.parametrize("ema_best", [True, False])
def test_atc_says_which_of_its_weights_are_the_better_ones(ema_best: bool, tmp_path: Path) -> None:
    state, path = narrow("atc_deit").state_dict(), tmp_path / "model.pth"
    averaged = {name: tensor + 1 for name, tensor in state.items()}
    torch.save({"model": state, "model_ema": averaged, "ema_best": ema_best, "args": argparse.Namespace()}, path)
    model = narrow("atc_deit")
    load_checkpoint(model, path)
    expected = averaged if ema_best else state
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    load_checkpoint(model, path, use_ema=not ema_best)
    expected = state if ema_best else averaged
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
