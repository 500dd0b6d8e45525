"""What files are called that leave the page."""

from __future__ import annotations

from dataclasses import replace

import pytest

from demo.file_names import file_stem
from tests.demo.conftest import OFFERED


@pytest.mark.parametrize(
    ("names", "what", "expected"),
    [
        (["stvit_deit_small_patch16_224:num_semantic_tokens=16"], "classify", "stvit-deit-small-16-tokens-classify"),
        (["tome_deit_tiny_patch16_224:r=8"], "classify tokens", "tome-deit-tiny-r-8-classify-tokens"),
        (
            ["stvit_r_swin_small_224", "swin_small_patch4_window7_224"],
            "Classify frames",
            "stvit-r-swin-small-beside-swin-small-classify-frames",
        ),
    ],
)
def test_a_name_tells_models_and_what_is_in_the_file(names: list[str], what: str, expected: str) -> None:
    assert file_stem([OFFERED.find(name) for name in names], what) == expected


def test_no_label_makes_a_name_too_long_or_unsafe_and_all_models_differ() -> None:
    spec = replace(OFFERED.find("deit_small_patch16_224"), label="DeiT, ../\\ \0" + "\u00e9x" * 200)
    stem = file_stem([spec, spec], "classify")
    assert (
        len(stem) <= 100 and stem.endswith("-classify") and set(stem) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-")
    )
    assert ".." not in stem
    classifiers = OFFERED.of_task("classify")
    assert len({file_stem([spec], "classify") for spec in classifiers}) == len(classifiers)
