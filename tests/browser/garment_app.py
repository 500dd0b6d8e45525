"""The app with stand-ins for the bundled models, which asks the Hub again for every visitor:
``python -m tests.browser.garment_app``."""

from __future__ import annotations

import tempfile
from pathlib import Path

import app
import demo.page.first_models
from demo.model_specs import build_registry
from stvit.pretrained.model_cards import BundledModels
from tests.bundled_stand_ins import write_stand_ins

if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="bundled-") as folder:
        demo.page.first_models.FRESH_S = 0.0
        app.main(build_registry(BundledModels(write_stand_ins(Path(folder)))))
