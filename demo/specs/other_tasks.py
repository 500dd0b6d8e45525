"""The published models that do not classify pictures: detectors, and models for clips."""

from __future__ import annotations

from collections.abc import Iterator

from demo.registry import ModelSpec
from demo.specs.methods import STVIT_R_SWIN, STVIT_VIDEO_SWIN, SWIN, VIDEO_SWIN
from demo.specs.published import paper_tables, published_spec

NO_FULL_TOKEN_DETECTOR = "This page knows of no public weights for the full-token Swin detector."
NO_SEMANTIC_CLIP_MODEL = "No weights of STViT on Video Swin were ever published."
NO_FULL_TOKEN_CLIP_MODEL = (
    "Its authors publish its weights on GitHub, and torchvision on a server of its own: no official repository on the "
    "Hugging Face Hub is known, the only place that this page takes any from."
)


def detectors() -> Iterator[ModelSpec]:
    """Describe STViT-R's, and the full-token detectors that they are measured against."""
    tables = paper_tables()["table5_coco"]
    for size in ("small", "base"):
        model, setting = f"stvit_r_swin_{size}_cascade_mask_rcnn", "9 for each 7×7 window"
        about = "9 semantic tokens for each 7×7 window of stage 3"
        published = tables[f"stvit_r_swin_{size}"]
        yield published_spec(
            "detect", STVIT_R_SWIN, size, setting, model, about=about, weights=model, published=published
        )
    for size in ("small", "base"):
        yield published_spec(
            "detect",
            SWIN,
            size,
            "all",
            f"swin_{size}_cascade_mask_rcnn",
            about="all image tokens in stage 3",
            no_weights=NO_FULL_TOKEN_DETECTOR,
            published=tables[f"swin_{size}"],
            offered=False,
        )


def clip_models() -> Iterator[ModelSpec]:
    """Describe models for clips, with and without semantic tokens."""
    table = paper_tables()["table6_video"]
    semantic, full = "36 semantic tokens in stage 3, frame by frame", "all 196 tokens of each token frame in stage 3"
    for method, setting, row, about, no_weights in (
        (STVIT_VIDEO_SWIN, "36 a frame", "stvit_swin", semantic, NO_SEMANTIC_CLIP_MODEL),
        (VIDEO_SWIN, "all", "swin", full, NO_FULL_TOKEN_CLIP_MODEL),
    ):
        for size in ("tiny", "small"):
            yield published_spec(
                "video",
                method,
                size,
                setting,
                f"{'' if method.full_tokens else 'stvit_'}video_swin_{size}",
                about=f"{about}; Kinetics-400, windows of 32 frames",
                no_weights=no_weights,
                published={key: table[f"{row}_{size}"][key] for key in ("top1", "gmacs")},
            )
