"""What the published models have in common: a spec of each, and the tables of the papers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from demo.registry import Method, ModelSpec, Task
from stvit.pretrained.records import record

PAPER_TABLES = Path(__file__).resolve().parents[2] / "assets" / "paper_tables.json"
SIZE_LETTERS = {"tiny": "T", "small": "S", "base": "B"}
SIZES = tuple(SIZE_LETTERS)
NOT_RETRAINED = "DeiT's weights, not retrained"
FIGURES = {"v100_images_per_s": "throughput"}  # names of a record's figures that are others on the page


@cache
def paper_tables() -> dict[str, Any]:
    """Read the tables of the papers from ``assets/paper_tables.json``."""
    return json.loads(PAPER_TABLES.read_text(encoding="utf-8"))


def published_spec(
    task: Task,
    method: Method,
    size: str,
    setting: str,
    model: str,
    options: Mapping[str, Any] | None = None,
    *,
    suffix: str = "",
    weights: str | None = None,
    published: Mapping[str, float] | None = None,
    **more: Any,
) -> ModelSpec:
    """Describe a published model.

    Args:
        suffix: ends its label.
        weights: names its record.
        published: figures; by default those of the record.
    """
    options, known = options or {}, record(weights) if weights else None
    if published is None:
        published = {FIGURES.get(name, name): value for name, value in known.published.items()} if known else {}
    return ModelSpec(
        name=model + (":" + ",".join(f"{name}={value}" for name, value in options.items()) if options else ""),
        label=f"{method.name}-{SIZE_LETTERS[size]}{suffix}",
        task=task,
        method=method,
        size=size,
        setting=setting,
        model=model,
        options=options,
        record=known,
        published=published,
        **more,
    )


def deit_name(size: str) -> str:
    """Return the registered name of a DeiT, whose weights other methods run on too."""
    return f"deit_{size}_patch16_224"
