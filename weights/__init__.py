"""The models that this project trained and ships, and ``python -m weights`` for all weights."""

from pathlib import Path

from stvit.pretrained.model_cards import BundledModels

BUNDLED_MODELS = BundledModels(Path(__file__).parent / "bundled")
