"""The published detectors of the Detect tab, and the full-token networks that they are measured against."""

from __future__ import annotations

from demo.model_spec import ModelChoice, make_choice, paper_tables

SIZES = ("small", "base")
HEADS = "cascade_mask_rcnn"
NO_WEIGHTS = "This page knows of no public weights for the full-token Swin detector."


def _detector(size: str) -> ModelChoice:
    model = f"stvit_r_swin_{size}_{HEADS}"
    return make_choice(
        "STViT-R-Swin",
        size,
        "9 for each 7×7 window",
        model,
        {},
        about="9 semantic tokens for each 7×7 window of stage 3",
        weights=model,
        published=paper_tables()["table5_coco"][f"stvit_r_swin_{size}"],
    )


def _full_token_detector(size: str) -> ModelChoice:
    return make_choice(
        "Swin",
        size,
        "all",
        f"swin_{size}_{HEADS}",
        {},
        about="all image tokens in stage 3",
        no_weights=NO_WEIGHTS,
        published=paper_tables()["table5_coco"][f"swin_{size}"],
    )


DETECTORS = tuple(map(_detector, SIZES))
FULL_TOKEN_DETECTORS = tuple(map(_full_token_detector, SIZES))
