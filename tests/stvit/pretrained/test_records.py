from __future__ import annotations

import pytest
import timm
import torch

from stvit.detection.preprocess import prepare
from weights import CATALOGUE

STVIT_R = ["stvit_r_swin_small_224", "stvit_r_swin_base_224"]
DETECTORS = ["stvit_r_swin_small_cascade_mask_rcnn", "stvit_r_swin_base_cascade_mask_rcnn"]
BASELINES = sorted(CATALOGUE.keys() - set(STVIT_R + DETECTORS))


def test_the_catalogue_holds_the_published_models_and_the_classifiers_baselines() -> None:
    swin = [f"swin_{size}_patch4_window7_224" for size in ("tiny", "small", "base")]
    deit = [f"deit_{size}_patch16_224" for size in ("tiny", "small", "base")]
    assert sorted(CATALOGUE) == sorted(STVIT_R + DETECTORS + swin + deit)


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_record_names_a_model_that_can_be_built(name: str) -> None:
    record = CATALOGUE[name]
    assert record.name == name
    assert timm.is_model(record.model)
    assert record.published["box_ap" if record.task == "detection" else "top1"] > 50


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


@pytest.mark.parametrize("name", STVIT_R + DETECTORS)
def test_the_models_own_configuration_names_the_same_file(name: str) -> None:
    cfg = timm.get_pretrained_cfg(name)
    assert (cfg.hf_hub_id, cfg.hf_hub_filename) == (CATALOGUE[name].repo, CATALOGUE[name].filename)


@pytest.mark.parametrize("name", DETECTORS)
def test_detectors_are_prepared_for_as_they_prepare_themselves(name: str) -> None:
    record, image = CATALOGUE[name], torch.zeros(90, 200, 3, dtype=torch.uint8)
    prepared = prepare(image, record.preprocessing.scale)
    assert all(side % record.preprocessing.divisor == 0 for side in prepared.images.shape[2:])
    black = -torch.tensor(record.preprocessing.mean) / torch.tensor(record.preprocessing.std)
    torch.testing.assert_close(prepared.images[0, :, 0, 0], black)


def test_baselines_were_trained_on_the_same_images() -> None:
    assert all("22k" not in record.repo for record in CATALOGUE.values())
