"""Every FLOPs cell of the papers' tables, at the printed precision.

Counted as the papers counted: fvcore's rules on the model in training mode, see ``count_macs(as_published=True)``.
DeiT-T and -B have a class token in the layers with all image tokens, DeiT-S has none. EViT's last table is with fusion.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import timm
import torch

import stvit

TABLES = json.loads((Path(__file__).parents[3] / "assets" / "paper_tables.json").read_text())
CLASS_TOKEN = {"tiny": True, "small": False, "base": True}


class Cell(NamedTuple):
    """One printed figure and the model behind it."""

    label: str
    gmacs: float
    digits: int
    model: str
    options: dict[str, Any]


#: cells that cannot be met: what is counted instead, and why
NOT_MET = {
    "EViT, DeiT-small higher_resolution, 0.5 at 288": (
        4.0,
        "3.951 by fvcore; EViT's authors count with torchprofile, where LayerNorm costs 1 per element: 3.945",
    ),
    "Table 2, Swin-small": (8.8, "repeated from the Swin paper, rounded; the same network counts 8.77 by fvcore"),
    "Table 2, Swin-base": (15.5, "repeated from the Swin paper, rounded; the same network counts 15.47 by fvcore"),
}


def table1() -> list[Cell]:
    cells = []
    for size, figures in without_source("table1_stvit_deit").items():
        full_token = {} if CLASS_TOKEN[size] else {"class_token": False, "global_pool": "avg"}
        cells.append(Cell(f"Table 1, DeiT-{size}", figures["base"]["gmacs"], 2, f"deit_{size}_patch16_224", full_token))
        for row in figures["variants"]:
            options = {"num_semantic_tokens": row["tokens"], "class_token_in_base": CLASS_TOKEN[size]}
            label = f"Table 1, STViT-DeiT-{size}, {row['tokens']} tokens"
            cells.append(Cell(label, row["gmacs"], 2, f"stvit_deit_{size}_patch16_224", options))
    return cells


def table2() -> list[Cell]:
    kinds = {
        "moved_9": {"stgm_position": "moved"},
        4: {"semantic_window": 2},
        9: {"semantic_window": 3},
        16: {"semantic_window": 4},
    }
    cells = []
    for size, figures in without_source("table2_stvit_swin").items():
        full_token = f"swin_{size}_patch4_window7_224"
        cells.append(Cell(f"Table 2, Swin-{size}", figures["base"]["gmacs"], 1, full_token, {}))
        for row in figures["variants"]:
            label = f"Table 2, STViT-Swin-{size}, {row['tokens_per_window']}"
            options = kinds[row["tokens_per_window"]]
            cells.append(Cell(label, row["gmacs"], 2, f"stvit_swin_{size}_224", options))
    return cells


def table3() -> list[Cell]:
    return [
        Cell(f"Table 3, STViT-R-Swin-{size}", row["gmacs"], 2, f"stvit_r_swin_{size}_224", {})
        for size, row in without_source("table3_stvit_r").items()
    ]


def table8() -> list[Cell]:
    return [
        Cell(
            f"Table 8, {layers} layers",
            row["gmacs"],
            2,
            "stvit_deit_small_patch16_224",
            {"stgm_layers": int(layers)},
        )
        for layers, row in without_source("table8_stgm_depth").items()
    ]


def evit() -> list[Cell]:
    small, lvvit = TABLES["evit_deit_small"], TABLES["evit_lvvit_small"]
    cells = [
        Cell("EViT, DeiT-small", 4.6, 1, "deit_small_patch16_224", {}),
        Cell("EViT, LV-ViT-small", lvvit["base"]["gmacs"], 1, "lvvit_small_224", {}),
    ]
    for kind, fuse in (("without_fusion", False), ("with_fusion", True), ("higher_resolution", True)):
        for row in small[kind]:
            size = row.get("image_size", 224)
            options = {"keep_rate": row["keep_rate"], "fuse_inattentive": fuse, "img_size": size}
            label = f"EViT, DeiT-small {kind}, {row['keep_rate']} at {size}"
            cells.append(Cell(label, row["gmacs"], 1, "evit_deit_small_patch16_224", options))
    for row in lvvit["keep"]:
        options = {"keep_rate": row["keep_rate"]}
        cells.append(Cell(f"EViT, LV-ViT-small {row['keep_rate']}", row["gmacs"], 1, "evit_lvvit_small_224", options))
    return cells


def without_source(table: str) -> dict[str, Any]:
    return {key: value for key, value in TABLES[table].items() if key != "source"}


CELLS = [*table1(), *table2(), *table3(), *table8(), *evit()]


def printed(cell: Cell) -> float:
    """What the table would print for our model."""
    with torch.device("meta"):
        model = timm.create_model(cell.model, **cell.options)
    size = cell.options.get("img_size", 224)
    return round(stvit.count_macs(model, (3, size, size), as_published=True) / 1e9, cell.digits)


@pytest.mark.parametrize("cell", [pytest.param(c, id=c.label) for c in CELLS if c.label not in NOT_MET])
def test_flops_are_the_printed_ones(cell):
    assert printed(cell) == cell.gmacs


@pytest.mark.parametrize("cell", [pytest.param(c, id=c.label) for c in CELLS if c.label in NOT_MET])
def test_cells_that_cannot_be_met_are_the_listed_ones(cell):
    counted, _ = NOT_MET[cell.label]
    assert printed(cell) == counted != cell.gmacs


def test_no_cell_is_forgotten():
    assert len(CELLS) == 15 + 15 + 2 + 3 + (2 + 5 + 5 + 6 + 2)
    assert set(NOT_MET) <= {cell.label for cell in CELLS}


def test_tome_costs_what_its_paper_prints():
    """DeiT-S with r = 13: 2.7 G."""
    assert printed(Cell("ToMe", 2.7, 1, "tome_deit_small_patch16_224", {"r": 13})) == 2.7


@pytest.mark.parametrize(("tokens", "counted"), [(16, 7.28), (36, 8.41), (64, 10.01), (100, 12.09)])
def test_without_class_token_deit_base_costs_less_than_printed(tokens, counted):
    """What it costs as it is built by default."""
    assert printed(Cell("", 0, 2, "stvit_deit_base_patch16_224", {"num_semantic_tokens": tokens})) == counted


@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_projecting_each_token_once_costs_less_than_published(size):
    with torch.device("meta"):
        model = timm.create_model(f"stvit_swin_{size}_224")
    saved = 1 - stvit.count_macs(model) / stvit.count_macs(model, as_published=True)
    assert 0.005 < saved < 0.03
