"""The published clip models of the Video tab, and what each is compared with."""

from __future__ import annotations

from collections.abc import Iterable

from demo.model_spec import ModelChoice, make_choice, paper_tables

SEMANTIC, FULL = "STViT-Video-Swin", "Video-Swin"
SIZES = ("tiny", "small")
NEVER_PUBLISHED = "No weights of STViT on Video Swin were ever published."
NOT_ON_THE_HUB = (
    "Its authors publish its weights on GitHub, and torchvision on a server of its own: no official repository on the "
    "Hugging Face Hub is known, the only place that this page takes any from."
)


def _published() -> Iterable[ModelChoice]:
    table = paper_tables()["table6_video"]
    for method, model, row, about, reason in (
        (SEMANTIC, "stvit_video_swin", "stvit_swin", "36 semantic tokens in stage 3, frame by frame", NEVER_PUBLISHED),
        (FULL, "video_swin", "swin", "all 196 tokens of each token frame in stage 3", NOT_ON_THE_HUB),
    ):
        for size in SIZES:
            figures = {key: table[f"{row}_{size}"][key] for key in ("top1", "gmacs")}
            yield make_choice(
                method,
                size,
                "36 a frame" if method == SEMANTIC else "all",
                f"{model}_{size}",
                {},
                about=f"{about}; Kinetics-400, windows of 32 frames",
                no_weights=reason,
                published=figures,
            )


PUBLISHED_CLIP_MODELS = tuple(_published())


def published_peer(choice: ModelChoice) -> ModelChoice | None:
    """The published clip model of the same size by the other method; ``None`` for others."""
    alike = (peer for peer in PUBLISHED_CLIP_MODELS if peer.size == choice.size and peer.method != choice.method)
    return next(alike, None)
