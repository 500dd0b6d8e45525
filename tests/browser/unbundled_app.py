"""The app of a copy that brought no models along: ``python -m tests.browser.unbundled_app``."""

from __future__ import annotations

from pathlib import Path

import app
from weights import BUNDLED_MODELS

NO_MODELS = Path(__file__).parent / "no-models"

if __name__ == "__main__":
    BUNDLED_MODELS.folder = NO_MODELS
    app.main()
