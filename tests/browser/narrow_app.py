"""The app with narrow models and none of its own, which run in a second: ``python -m tests.browser.narrow_app``."""

from __future__ import annotations

import app
from demo.model_specs import build_registry
from tests.narrow_models import CLASSIFIERS, CLIP_MODELS, DETECTORS, narrowed

if __name__ == "__main__":
    app.main(narrowed(build_registry({}), CLASSIFIERS, DETECTORS, CLIP_MODELS))
