from __future__ import annotations

import pytest
import torch

import stvit
from demo.registry import CLIP_MODELS, UnknownModel, clip_peer, find, find_any
from demo.video import ACTION, CLASSIFY, DETECT, NO_BASELINE, BadChoice, ClipJob, make_job, named_job, sampling_of
from demo.video_models import FULL, PUBLISHED_CLIP_MODELS, SEMANTIC
from stvit.video.clip_classifier import Sampling

MODEL, PEER = "stvit_video_swin_tiny", "video_swin_tiny"


def test_the_four_kinetics_models_are_on_offer_and_say_why_they_have_no_weights() -> None:
    assert [choice.name for choice in PUBLISHED_CLIP_MODELS] == [
        "stvit_video_swin_tiny",
        "stvit_video_swin_small",
        "video_swin_tiny",
        "video_swin_small",
    ]
    assert CLIP_MODELS[:4] == PUBLISHED_CLIP_MODELS
    for choice in PUBLISHED_CLIP_MODELS:
        reason = (
            "were ever published" if choice.method == SEMANTIC else "no official repository on the Hugging Face Hub"
        )
        assert choice.weights is None and reason in choice.no_weights
        with torch.device("meta"):
            assert stvit.create_model(choice.model).num_classes == 400


def test_figures_are_those_of_table_6() -> None:
    published = {choice.name: dict(choice.published) for choice in PUBLISHED_CLIP_MODELS}
    assert published["stvit_video_swin_small"] == {"top1": 80.3, "gmacs": 120.5}
    assert published["video_swin_tiny"] == {"top1": 78.8, "gmacs": 88}


def test_a_clip_model_is_shown_beside_the_one_of_its_size() -> None:
    assert clip_peer(find_any(MODEL)).name == PEER and clip_peer(find_any(PEER)).name == MODEL
    assert {choice.method for choice in map(clip_peer, PUBLISHED_CLIP_MODELS)} == {SEMANTIC, FULL}
    job = make_job(ACTION, None, None, None, None, True, MODEL)
    assert job == ClipJob(ACTION, MODEL, PEER, 0)
    assert make_job(ACTION, None, None, None, None, False, MODEL).baseline is None


def test_a_clip_model_is_no_classifier() -> None:
    with pytest.raises(UnknownModel):
        find(MODEL)
    with pytest.raises(UnknownModel):
        make_job(ACTION, None, None, None, None, False, "deit_tiny_patch16_224")


def test_published_models_look_at_the_papers_windows() -> None:
    assert sampling_of(find_any(MODEL)) == Sampling(32, 2, 224)


def test_a_job_by_name_takes_any_model_that_suits_its_task() -> None:
    detector = "stvit_r_swin_small_cascade_mask_rcnn"
    assert named_job(DETECT, detector, NO_BASELINE, 320) == ClipJob(DETECT, detector, None, 320)
    assert named_job(ACTION, MODEL, PEER, 320) == ClipJob(ACTION, MODEL, PEER, 0)
    assert named_job(CLASSIFY, "deit_tiny_patch16_224", "deit_small_patch16_224", 320).baseline
    with pytest.raises(UnknownModel):
        named_job(DETECT, MODEL, NO_BASELINE, 320)
    with pytest.raises(BadChoice, match="is shown beside video_swin_tiny alone"):
        named_job(ACTION, MODEL, "video_swin_small", 320)
