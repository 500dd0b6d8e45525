"""The app with narrow models and none of its own, which run in a second: ``python -m tests.browser.narrow_app``."""

from __future__ import annotations

import app
from tests.browser.unbundled_app import NO_MODELS
from weights import BUNDLED_MODELS

if __name__ == "__main__":
    BUNDLED_MODELS.folder = NO_MODELS
    from tests import narrow_classifier, narrow_clip_model, narrow_detector  # they have the bundled models read

    narrow_detector.make_narrow()
    narrow_classifier.make_narrow()
    narrow_clip_model.make_narrow()
    app.main()
