from __future__ import annotations

import json
from pathlib import Path

import pytest

from demo.charts.published import leaders, measured, place_labels, published_points, section
from demo.specs.published import paper_tables
from tests.demo.conftest import OFFERED


@pytest.mark.parametrize("size", ["small", "base"])
def test_every_method_of_table_4_is_in_the_chart_and_in_the_table(size: str) -> None:
    page = section(OFFERED)
    points = {(p.label, p.gmacs, p.top1) for p in published_points(size)}
    for row in paper_tables()["table4_comparison"][f"deit_{size}"]:
        label = "STViT 16" if row["method"] == "STViT" else row["method"]
        assert (label, row["gmacs"], row["top1"]) in points
        assert page.count(f">{label}</") >= 2  # beside its point, and in the table
    assert "As published" in page and "Not measured here" in page


def test_deit_and_four_token_counts_of_stvit_are_there_for_every_size() -> None:
    for size in ("tiny", "small", "base"):
        kinds = [p.kind for p in published_points(size)]
        assert (kinds.count("full"), kinds.count("stvit")) == (1, 4)


@pytest.mark.parametrize("points", [[(100.0, 100.0)], [(100.0, 100.0), (104.0, 101.0), (101.0, 96.0)], [(370.0, 20.0)]])
def test_labels_stay_inside_and_apart(points: list[tuple[float, float]]) -> None:
    places = place_labels(["EViT"] * len(points), points)
    assert all(40 <= x <= 380 - 4 * 5.9 and 0 < y < 260 for x, y in places)
    assert all(abs(a[0] - b[0]) >= 4 * 5.9 or abs(a[1] - b[1]) >= 12 for i, a in enumerate(places) for b in places[:i])


def test_a_label_that_stands_apart_is_joined_to_its_point() -> None:
    points = [(100.0, 100.0)] * 3
    places = [(108.0, 104.0), (104.0, 80.0), (90.0, 91.0)]
    drawn = leaders(["EViT"] * 3, points, places)
    assert drawn == '<line class="leader" x1="100.0" y1="100.0" x2="104.0" y2="82.0"/>'


def test_without_a_measurement_the_page_says_how_to_make_one(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "other.json").write_text('{"device": "x", "costs": {}}')
    for folder in (tmp_path, tmp_path / "missing"):
        assert "python -m stvit.measure --suite paper --output" in measured(folder, OFFERED)


def test_measurements_are_shown_with_the_device_and_how_many_multiply_adds_fewer(tmp_path: Path) -> None:
    ratio = {"measured": [1.9, 2.05, 2.1], "allowed_by_macs": 2.41, "quotient": 0.85}
    group = {"device": "<b>CPU", "precision": "bfloat16", "batch_size": 32}
    group["speed_up_over_full_tokens"] = {"STViT, 16 tokens": ratio}
    (tmp_path / "machine.json").write_text(json.dumps({"deit_small": group}))
    shown = measured(tmp_path, OFFERED)
    for words in ("DeiT-S: &lt;b&gt;CPU, bfloat16, eager PyTorch, batch 32", "STViT, 16 tokens", "2.05×", "2.41×"):
        assert words in shown


def test_a_model_measured_against_a_baseline_is_shown_by_both_names(tmp_path: Path) -> None:
    ratio = {"measured": [1.1, 1.16, 1.2], "allowed_by_macs": 1.55, "quotient": 0.75}
    content = {"device": "a CPU", "precision": "bfloat16", "batch_size": 16, "costs": {"stvit_r_swin_small_224": {}}}
    content["speed_up_of_the_first_against"] = {
        "swin_small_patch4_window7_224": {"latency": ratio, "throughput": ratio}
    }
    (tmp_path / "pair.json").write_text(json.dumps(content))
    shown = measured(tmp_path, OFFERED)
    for words in ("STViT-R-Swin-S over Swin-S", "one image at a time", "batches of 16", "1.16×"):
        assert words in shown
    assert "backbone" not in shown
    content |= {"costs": {"stvit_r_swin_small_cascade_mask_rcnn": {}}, "input_shape": [3, 800, 1333]}
    (tmp_path / "pair.json").write_text(json.dumps(content))
    assert "Detector backbone at 800 × 1333, STViT-R-Swin-S over Swin-S" in measured(tmp_path, OFFERED)
