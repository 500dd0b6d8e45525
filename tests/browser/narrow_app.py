"""The app with narrow detectors, which run in a second: ``python -m tests.browser.narrow_app``."""

from __future__ import annotations

import app
from tests.narrow_detector import make_narrow

if __name__ == "__main__":
    make_narrow()
    app.main()
