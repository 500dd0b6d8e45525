"""The chart of published accuracy against measured time, and what the documentation says of the methods."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import gradio as gr
import pytest

from demo.charts.tradeoff import ON_OTHER_NETWORKS, WHY, WITHOUT_CODE, chart, front, load_groups
from demo.tabs.benchmarks.tab import AGAINST, BenchmarkCharts

RESULTS = Path(__file__).resolve().parents[3] / "docs" / "results.md"


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([], []),
        ([(1.0, 80.0)], [0]),
        ([(2.0, 81.0), (1.0, 80.0), (3.0, 80.5)], [1, 0]),
        ([(1.0, 80.0), (1.0, 81.0)], [1]),
        ([(1.0, 80.0), (2.0, 80.0)], [0]),
    ],
)
def test_the_front_holds_what_nothing_beats_in_both(points: list[tuple[float, float]], expected: list[int]) -> None:
    assert front(points) == expected


def test_every_committed_measurement_of_the_table_is_on_offer_and_drawn() -> None:
    charts = BenchmarkCharts()
    machine = "AMD EPYC CPU, 2 threads, bfloat16, "
    assert charts.machines == [machine + "OpenVINO", machine + "eager PyTorch"]  # the faster one first
    assert {"DeiT-S", "DeiT-B", "Swin-S", "Swin-B"} <= {group.name for group in charts.groups}
    for group in charts.groups:
        for against in AGAINST:
            for batch in group.entries[0].ms:
                drawn = charts.draw(group.machine, group.name, against, batch)
                alone = drawn.count('<circle class="alone"')  # never on the front
                own = [entry.label for entry in group.entries if entry.top1 is not None]
                elsewhere = sum(label.startswith(ON_OTHER_NETWORKS) for label in own)
                assert drawn.count("<circle") - alone == len(own) - elsewhere
                assert alone - elsewhere == (
                    {"DeiT-S": 3, "DeiT-B": 2}.get(group.name, 0) if against.startswith("Multiply") else 0
                )
                assert (drawn.count("<polyline") == 1 and f"({group.source})" in drawn) or against.startswith(
                    "Multiply"
                )
                assert all(drawn.count(f">{entry.label}</th>") == 1 for entry in group.entries)
                assert all(name in drawn for name in WITHOUT_CODE)


def test_hovering_tells_numbers_and_where_they_come_from() -> None:
    group = next(group for group in load_groups() if group.name == "DeiT-S")
    drawn = chart(group, "time", 1)
    ms = next(entry.ms[1] for entry in group.entries if entry.label == "STViT, 16 tokens")
    words = "STViT, 16 tokens: 79.8 % top-1, published (16 semantic tokens)"
    assert f"{words}; {ms:.2f} ms for one picture, batch 1" in drawn
    assert "random weights: no token halts" in drawn
    assert "STViT, 16 tokens: 79.8 % top-1, published (16 semantic tokens); 1.91 multiply-adds, G" in chart(
        group, "multiply-adds", 1
    )


def test_measurements_in_folders_and_of_other_engines_are_found(tmp_path: Path) -> None:
    row = {"model": "DeiT", "engine": "cuda-graphs", "batch_size": 1, "load": 0, "macs": 2e9}
    rows = [row | {"latency": {"median_ms": 8.0}}, row | {"latency": {"median_ms": 64.0}, "batch_size": 32}]
    rows.append(row | {"latency": {"median_ms": 99.0}, "load": 2})
    group = {"device": "<i>GPU", "precision": "float16", "baseline": "DeiT", "rows": rows}
    group |= {"published": {"DeiT": {"top1": 79.8}}}
    (tmp_path / "gpu").mkdir()
    (tmp_path / "gpu" / "one.json").write_text(json.dumps({"deit_small": group, "deit_base": {"rows": []}}))
    (tmp_path / "broken.json").write_text("{")
    more = {**group, "rows": [*rows, {**rows[0], "model": "EViT"}, {**rows[1], "model": "EViT"}]}
    (tmp_path / "a.json").write_text(json.dumps({"deit_small": more}))
    (only,) = load_groups(tmp_path)
    assert only.source == "a.json"  # has more methods
    (tmp_path / "a.json").unlink()
    (found,) = load_groups(tmp_path)
    assert (found.machine, found.source) == ("<i>GPU, float16, cuda-graphs", "gpu/one.json")
    assert found.entries[0].ms == {1: 8.0, 32: 2.0}
    assert "&lt;i&gt;GPU" in chart(found, "time", 32) and "<i>GPU" not in chart(found, "time", 32)


def test_what_an_engine_could_not_run_is_said_and_the_rest_is_drawn(tmp_path: Path) -> None:
    row = {"engine": "compiled", "batch_size": 1, "load": 0, "macs": 2e9, "latency": {"median_ms": 8.0}}
    rows = [{**row, "model": "DeiT"}, {**row, "model": "DeiT", "batch_size": 4}, {**row, "model": "ATC"}]
    group = {"device": "CPU", "precision": "bfloat16", "baseline": "DeiT", "rows": rows}
    group |= {"published": {"DeiT": {"top1": 79.8}, "ATC": {"top1": 79.7}}}
    group["notes"] = ["ATC: compiled cannot run ATC for 4x3x8x8, eager does: <late>", "aot cannot run here"]
    (tmp_path / "a.json").write_text(json.dumps({"deit_small": group}))
    (found,) = load_groups(tmp_path)
    assert found.batches == [1, 4]
    assert chart(found, "time", 1).count("<circle") == 2
    drawn = chart(found, "time", 4)
    assert drawn.count("<circle") == 1 and "<td>8.0</td><td>not run</td>" in drawn
    assert "In the table alone, as no accuracy is on record or no time was measured: ATC." in drawn
    assert "eager does: &lt;late&gt;" in drawn and "aot cannot" not in drawn


def test_networks_and_batches_are_those_that_the_machine_measured() -> None:
    charts = BenchmarkCharts()
    first = charts.groups[0]
    alone = replace(first, machine="a phone", entries=tuple(replace(e, ms={1: e.ms[1]}) for e in first.entries))
    charts.groups = (*charts.groups, alone)
    others = [group for group in charts.groups if group.machine == first.machine]
    names, batches, drawn = charts.show(first.machine, others[-1].name, "Time, measured", first.batches[-1])
    assert names["choices"] == [group.name for group in others] and names["value"] == others[-1].name
    assert batches["value"] == first.batches[-1]
    names, batches, drawn = charts.show("a phone", others[-1].name, "Time, measured", first.batches[-1])
    assert (names["value"], batches["value"]) == (first.name, 1) and f"{first.name} and methods on it" in drawn
    with pytest.raises(gr.Error, match="was not measured"):
        charts.show("a watch", first.name, "Time, measured", 1)


def test_what_was_not_measured_is_refused() -> None:
    charts = BenchmarkCharts()
    for wish in (("a phone", "DeiT-S", "Time, measured", 1), (charts.machines[0], "DeiT-S", "Beauty", 1)):
        with pytest.raises(gr.Error, match="was not measured"):
            charts.draw(*wish)


def test_the_documentation_gives_the_same_reasons() -> None:
    text = RESULTS.read_text(encoding="utf-8")
    assert all(words in text for words in WHY.values())
