"""What the page says of this project's own models."""

from __future__ import annotations

from demo.page.about import about
from demo.specs.bundled import bundled_specs
from stvit.pretrained.model_cards import BundledModels
from tests.demo.conftest import OFFERED
from tests.narrow_models import DETECTOR


def test_a_card_tells_data_metrics_seed_and_command(stand_ins: BundledModels) -> None:
    (spec,) = bundled_specs([stand_ins["garments_deit"]])
    card = about([spec])
    for expected in (
        "About DeiT, narrow",
        "On the test split</dt><dd>91.2 % top-1 (1,000 samples)",
        "Nothing: random weights that stand in for trained ones.",
        "112 × 112 pixels",
        "garments_deit, seed 0",
        "6 epochs in the last of 2 runs, 330,000 samples seen in all, nothing",
        "python -m stvit.training classify --recipe garments_deit\npython -m weights.garments.bundle",
        "Apache-2.0",
    ):
        assert expected in card


def test_a_model_on_both_sides_has_one_card_and_published_ones_have_none(stand_ins: BundledModels) -> None:
    (spec,) = bundled_specs([stand_ins["garments_deit"]])
    assert about([spec, spec]).count("<details") == 1
    assert about([OFFERED.find("deit_tiny_patch16_224")]) == ""


def test_models_that_know_different_things_are_told_apart_however_many_they_are(stand_ins: BundledModels) -> None:
    names = ("garments_deit", "garments_clips_swin")
    specs = [
        *bundled_specs([stand_ins[name] for name in names]),
        OFFERED.find(DETECTOR),
        OFFERED.find("video_swin_tiny"),
    ]
    words = about(specs)
    assert "DeiT, narrow knows ten kinds of garments, Video-Swin, narrow knows eight motions of garments, " in words
    assert "knows the 80 classes of COCO, " in words and "knows the 400 actions of Kinetics: their" in words


def test_what_a_description_says_is_escaped(stand_ins: BundledModels) -> None:
    record = stand_ins["garments_deit"].model_copy(
        update={"data": "<script>1</script>", "command": ("<img>",), "classes": ("<b>",)}
    )
    (spec,) = bundled_specs([record])
    assert not any(tag in about([spec]) for tag in ("<script", "<img", "<b><", "<b></b>"))


def test_losses_are_no_metrics_for_visitors(stand_ins: BundledModels) -> None:
    record = stand_ins["garments_deit"].model_copy(update={"metrics": {"top1": 91.0, "cross_entropy": 0.3}})
    (spec,) = bundled_specs([record])
    assert "cross" not in about([spec])
