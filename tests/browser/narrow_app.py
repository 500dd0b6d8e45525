"""The app with narrow models, which run in a second: ``python -m tests.browser.narrow_app``."""

from __future__ import annotations

import app
from tests import narrow_classifier, narrow_detector

if __name__ == "__main__":
    narrow_detector.make_narrow()
    narrow_classifier.make_narrow()
    app.main()
