from __future__ import annotations

import pytest

from stvit.pretrained.records import ModelRecord


@pytest.fixture
def record() -> ModelRecord:
    return ModelRecord(architecture="toy", hf_hub_id="someone/toy", hf_hub_filename="toy.safetensors", license="CC0")
