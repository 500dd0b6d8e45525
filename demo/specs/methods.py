"""The methods that the page offers, and which registered models are of which."""

from __future__ import annotations

from demo.registry import Method

STVIT_R_SWIN = Method("STViT-R-Swin", "Swin")
STVIT_SWIN = Method("STViT-Swin", "Swin", "Tokens per window")
STVIT_DEIT = Method("STViT-DeiT", "DeiT", "Semantic tokens")
EVIT_DEIT = Method("EViT-DeiT", "DeiT", "Keep rate")
TOME_DEIT = Method("ToMe-DeiT", "DeiT", "Merged per layer")
DYNAMICVIT_DEIT = Method("DynamicViT-DeiT", "DeiT", "Keep rate")
EVO_VIT_DEIT = Method("Evo-ViT-DeiT", "DeiT", "Slow tokens")
AVIT_DEIT = Method("A-ViT-DeiT", "DeiT", "Gate")
ATC_DEIT = Method("ATC-DeiT", "DeiT", "Keep rate")
DIFFRATE_DEIT = Method("DiffRate-DeiT", "DeiT", "Multiply-adds")
TOKENLEARNER_DEIT = Method("TokenLearner-DeiT", "DeiT", "Learned tokens")
DYNAMICSWIN = Method("DynamicSwin", "Swin", "Keep rate")
STVIT_LVVIT = Method("STViT-LV-ViT", "LV-ViT", "Semantic tokens")
EVIT_LVVIT = Method("EViT-LV-ViT", "LV-ViT", "Keep rate")
SWIN, DEIT, LVVIT = (Method(name, name) for name in ("Swin", "DeiT", "LV-ViT"))
STVIT_VIDEO_SWIN, VIDEO_SWIN = Method("STViT-Video-Swin", "Video-Swin"), Method("Video-Swin", "Video-Swin")

METHOD_OF = {  # start of the registered name: method, in the order of the lists
    "stvit_r_swin": STVIT_R_SWIN,
    "stvit_swin": STVIT_SWIN,
    "stvit_deit": STVIT_DEIT,
    "evit_deit": EVIT_DEIT,
    "tome_deit": TOME_DEIT,
    "dynamicvit_deit": DYNAMICVIT_DEIT,
    "evo_vit_deit": EVO_VIT_DEIT,
    "avit": AVIT_DEIT,
    "atc_deit": ATC_DEIT,
    "diffrate_deit": DIFFRATE_DEIT,
    "tokenlearner_deit": TOKENLEARNER_DEIT,
    "dynamicswin": DYNAMICSWIN,
    "stvit_lvvit": STVIT_LVVIT,
    "evit_lvvit": EVIT_LVVIT,
    "swin": SWIN,
    "deit": DEIT,
    "lvvit": LVVIT,
    "stvit_video_swin": STVIT_VIDEO_SWIN,
    "video_swin": VIDEO_SWIN,
}


def method_of(model: str) -> Method | None:
    """Find the method of a registered model; ``None`` of families that the page has none for."""
    matching = [start for start in METHOD_OF if model.startswith(f"{start}_")]
    return METHOD_OF[max(matching, key=len)] if matching else None
