from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path

import pytest
import timm
import torch

import stvit
from stvit.detection.preprocess import MULTIPLE, prepare
from stvit.models.stvit_deit import SemanticTokenViT
from stvit.pretrained.records import ModelRecord, UnknownModel, catalogue, classifier_figures, record

STVIT_R = ["stvit_r_swin_small_224.in1k", "stvit_r_swin_base_224.in1k"]
DETECTORS = [f"stvit_r_swin_{size}_cascade_mask_rcnn.coco" for size in ("small", "base")]
BASELINES = sorted(catalogue().keys() - set(STVIT_R + DETECTORS))


def test_the_catalogue_holds_the_published_models_and_the_classifiers_baselines() -> None:
    swin = [f"swin_{size}_patch4_window7_224.ms_in1k" for size in ("tiny", "small", "base")]
    deit = [f"deit_{size}_patch16_224.fb_in1k" for size in ("tiny", "small", "base")]
    assert sorted(catalogue()) == sorted(STVIT_R + DETECTORS + swin + deit)


@pytest.mark.parametrize("name", catalogue())
def test_every_record_names_a_model_that_can_be_built(name: str) -> None:
    found = record(name)
    assert found.name == name
    assert timm.is_model(found.architecture)
    assert found.published["box_ap" if found.test_scale else "top1"] > 50


@pytest.mark.parametrize("name", catalogue())
def test_the_architecture_alone_stands_for_the_tag_that_is_compared(name: str) -> None:
    assert record(name.partition(".")[0]) == record(name)


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_are_timms_config_but_for_the_crop_of_the_published_accuracy(name: str) -> None:
    cfg, found = timm.get_pretrained_cfg(name), record(name)
    differing = {one.name for one in dataclasses.fields(cfg) if getattr(found, one.name) != getattr(cfg, one.name)}
    assert differing == {"crop_pct"}
    assert (found.repo, found.filename, found.revision) == (f"timm/{name}", "model.safetensors", "main")


@pytest.mark.parametrize("name", STVIT_R + DETECTORS)
def test_timm_knows_the_same_file(name: str) -> None:
    cfg = timm.get_pretrained_cfg(name)
    assert (cfg.hf_hub_id, cfg.hf_hub_filename) == (record(name).repo, record(name).filename)


@pytest.mark.parametrize("name", DETECTORS)
def test_detectors_are_prepared_for_as_they_prepare_themselves(name: str) -> None:
    found, image = record(name), torch.zeros(90, 200, 3, dtype=torch.uint8)
    prepared = prepare(image, found.test_scale)
    assert all(side % MULTIPLE == 0 for side in prepared.images.shape[2:])
    black = -torch.tensor(found.mean) / torch.tensor(found.std)
    torch.testing.assert_close(prepared.images[0, :, 0, 0], black)


def test_baselines_were_trained_on_the_same_images() -> None:
    assert all("22k" not in found.repo for found in catalogue().values())


def test_every_classifier_of_the_papers_is_shown_the_same_part_of_a_picture() -> None:
    ours = {name: timm.models.model_entrypoint(name).__module__ for name in timm.list_models()}
    pictures = [name for name, module in ours.items() if module.startswith("stvit.models") and "video" not in module]
    assert len(pictures) > 10
    assert {record(name).crop_pct for name in (*pictures, *catalogue())} == {224 / 256}


@pytest.mark.parametrize(
    "name", ["resnet50", "swin_base_patch4_window7_224.ms_in22k_ft_in1k", "stvit_deit_tiny_patch16_224"]
)
def test_every_registered_name_has_a_record(name: str) -> None:
    found, cfg = record(name), timm.get_pretrained_cfg(name)
    assert isinstance(found, ModelRecord) and (found.repo, found.crop_pct) == (cfg.hf_hub_id, cfg.crop_pct)


def test_a_name_that_timm_gave_up_stands_for_the_current_one() -> None:
    assert record("convnext_tiny_in22ft1k") == record("convnext_tiny.fb_in22k_ft_in1k")


@pytest.mark.parametrize("name", ["resnet5000", "swin_base_patch4_window7_224.nobody", ""])
def test_names_that_are_not_registered_are_refused(name: str) -> None:
    with pytest.raises(UnknownModel, match="is not registered"):
        record(name)
    with pytest.raises(RuntimeError):
        stvit.create_model(name)


def test_a_revision_is_pinned_as_timm_pins_it() -> None:
    pinned = ModelRecord(architecture="toy", hf_hub_id="someone/toy@v2")
    assert (pinned.repo, pinned.revision) == ("someone/toy", "v2")
    assert pinned.source_url == "https://huggingface.co/someone/toy"


def test_a_model_carries_its_record_and_timm_takes_it_back() -> None:
    with torch.device("meta"):
        for name in ("stvit_r_swin_small_224", "swin_tiny_patch4_window7_224"):
            model = stvit.create_model(name)
            assert model.pretrained_cfg["crop_pct"] == record(name).crop_pct
            assert timm.create_model(name, pretrained_cfg=model.pretrained_cfg).pretrained_cfg == model.pretrained_cfg
        model = stvit.create_model("deit_tiny_patch16_224", img_size=112)
        assert model.pretrained_cfg["input_size"] == (3, 112, 112)


TABLES = json.loads((Path(__file__).parents[3] / "assets" / "paper_tables.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_records_have_the_figures_of_the_papers_tables_for_the_models_defaults(size: str) -> None:
    deit, swin = record(f"stvit_deit_{size}_patch16_224"), record(f"stvit_swin_{size}_224")
    tables = TABLES["table1_stvit_deit"][size]["variants"], TABLES["table2_stvit_swin"][size]["variants"]
    rows = [next(row for row in tables[0] if row["tokens"] == 16)]
    rows.append(next(row for row in tables[1] if row["tokens_per_window"] == 9))
    for found, row in zip((deit, swin), rows, strict=True):
        assert found.published == classifier_figures(row["top1"], row["gmacs"], row["throughput"])
    tokens = inspect.signature(SemanticTokenViT).parameters["num_semantic_tokens"].default
    assert tokens == 16 and deit.published_note.startswith("16 semantic tokens")
    assert swin.pool_size == (6, 6) and swin.published_note.startswith("9 tokens a window")  # 2x2 windows of 3x3


def test_records_have_the_papers_figures_for_clips_segmenters_and_detectors() -> None:
    for name, row in TABLES["table6_video"].items():
        if name != "source":
            model = name.replace("swin", "video_swin")
            assert record(model).published == {"top1": row["top1"], "gmacs": row["gmacs"]}
    for name, row in TABLES["table14_ade20k"].items():
        if name != "source":
            assert record(f"{name}_upernet").published == {"miou": row["miou"], "backbone_gmacs": row["gmacs"]}
    for name, row in TABLES["table5_coco"].items():
        if name != "source":
            figures = record(f"{name}_cascade_mask_rcnn").published
            assert figures == {key: row[key] for key in ("box_ap", "mask_ap", "backbone_gmacs")}
