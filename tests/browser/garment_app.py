"""The app with stand-ins for the bundled models, which asks the Hub anew for every visitor:
``python -m tests.browser.garment_app``."""

from __future__ import annotations

import tempfile
from pathlib import Path

import app
from tests.bundled_stand_ins import write_stand_ins
from weights import BUNDLED_MODELS

if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="bundled-") as folder:
        BUNDLED_MODELS.folder = write_stand_ins(Path(folder))
        import demo.page.published_weights  # has the bundled models read

        demo.page.published_weights.FRESH_S = 0.0
        app.main()
