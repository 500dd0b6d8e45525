from __future__ import annotations

import pytest
import torch

import stvit
from demo.registry import UnknownModel
from demo.specs.methods import STVIT_VIDEO_SWIN, VIDEO_SWIN
from demo.video import ACTION, CLASSIFY, DETECT, NO_BASELINE, BadChoice, ClipJob, make_job, named_job, sampling_of
from stvit.predict.clips import Sampling
from tests.demo.conftest import OFFERED

MODEL, PEER = "stvit_video_swin_tiny", "video_swin_tiny"
PUBLISHED = [spec for spec in OFFERED.of_task("video") if not spec.bundled]


def test_the_four_kinetics_models_are_on_offer_and_say_why_they_have_no_weights() -> None:
    assert [spec.name for spec in PUBLISHED] == [
        "stvit_video_swin_tiny",
        "stvit_video_swin_small",
        "video_swin_tiny",
        "video_swin_small",
    ]
    assert list(OFFERED.of_task("video")[:4]) == PUBLISHED
    for spec in PUBLISHED:
        reason = (
            "were ever published"
            if spec.method == STVIT_VIDEO_SWIN
            else "no official repository on the Hugging Face Hub"
        )
        assert spec.record is None and reason in spec.no_weights
        with torch.device("meta"):
            assert stvit.create_model(spec.model).num_classes == 400


def test_figures_are_those_of_table_6() -> None:
    published = {spec.name: dict(spec.published) for spec in PUBLISHED}
    assert published["stvit_video_swin_small"] == {"top1": 80.3, "gmacs": 120.5}
    assert published["video_swin_tiny"] == {"top1": 78.8, "gmacs": 88}


def test_a_clip_model_is_shown_beside_the_one_of_its_size() -> None:
    assert OFFERED.counterpart(OFFERED.find(MODEL)).name == PEER
    assert OFFERED.counterpart(OFFERED.find(PEER)).name == MODEL
    assert {OFFERED.counterpart(spec).method for spec in PUBLISHED} == {STVIT_VIDEO_SWIN, VIDEO_SWIN}
    job = make_job(OFFERED, ACTION, None, None, None, None, True, MODEL)
    assert job == ClipJob(ACTION, OFFERED.find(MODEL), OFFERED.find(PEER), 0)
    assert make_job(OFFERED, ACTION, None, None, None, None, False, MODEL).baseline is None


def test_a_clip_model_is_no_classifier() -> None:
    with pytest.raises(UnknownModel):
        OFFERED.find(MODEL, "classify")
    with pytest.raises(UnknownModel):
        make_job(OFFERED, ACTION, None, None, None, None, False, "deit_tiny_patch16_224")


def test_published_models_look_at_the_papers_windows() -> None:
    assert sampling_of(OFFERED.find(MODEL)) == Sampling(32, 2, 224)


def test_a_job_by_name_takes_any_model_that_suits_its_task() -> None:
    detector = "stvit_r_swin_small_cascade_mask_rcnn"
    assert named_job(OFFERED, DETECT, detector, NO_BASELINE, 320) == ClipJob(DETECT, OFFERED.find(detector), None, 320)
    assert named_job(OFFERED, ACTION, MODEL, PEER, 320) == ClipJob(ACTION, OFFERED.find(MODEL), OFFERED.find(PEER), 0)
    assert named_job(OFFERED, CLASSIFY, "deit_tiny_patch16_224", "deit_small_patch16_224", 320).baseline
    with pytest.raises(UnknownModel):
        named_job(OFFERED, DETECT, MODEL, NO_BASELINE, 320)
    with pytest.raises(BadChoice, match="is shown beside video_swin_tiny alone"):
        named_job(OFFERED, ACTION, MODEL, "video_swin_small", 320)
