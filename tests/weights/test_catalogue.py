from __future__ import annotations

import pytest
import timm

import stvit  # noqa: F401 - registers its models with timm
from weights import CATALOGUE

STVIT_R = ["stvit_r_swin_small_224", "stvit_r_swin_base_224"]
BASELINES = sorted(CATALOGUE.keys() - set(STVIT_R))


def test_the_catalogue_holds_the_published_classifiers_and_their_baselines() -> None:
    swin = [f"swin_{size}_patch4_window7_224" for size in ("tiny", "small", "base")]
    deit = [f"deit_{size}_patch16_224" for size in ("tiny", "small", "base")]
    assert sorted(CATALOGUE) == sorted(STVIT_R + swin + deit)


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_record_names_a_model_that_can_be_built(name: str) -> None:
    record = CATALOGUE[name]
    assert record.name == name
    assert timm.is_model(record.model)
    assert record.published["top1"] > 70


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_agree_with_timm(name: str) -> None:
    record = CATALOGUE[name]
    tag = record.repo.partition(".")[2]
    cfg = timm.get_pretrained_cfg(f"{record.model}.{tag}")
    assert record.repo == cfg.hf_hub_id
    assert record.licence.lower() == cfg.license
    preprocessing = record.preprocessing
    assert (3, preprocessing.input_size, preprocessing.input_size) == cfg.input_size
    assert (preprocessing.crop_pct, preprocessing.interpolation) == (cfg.crop_pct, cfg.interpolation)
    assert (preprocessing.mean, preprocessing.std) == (cfg.mean, cfg.std)


@pytest.mark.parametrize("name", STVIT_R)
def test_the_models_own_configuration_names_the_same_file(name: str) -> None:
    cfg = timm.get_pretrained_cfg(name)
    assert (cfg.hf_hub_id, cfg.hf_hub_filename) == (CATALOGUE[name].repo, CATALOGUE[name].filename)


def test_baselines_were_trained_on_the_same_images() -> None:
    assert all("22k" not in record.repo for record in CATALOGUE.values())
