"""The app of a copy that brought no models along: ``python -m tests.browser.unbundled_app``."""

from __future__ import annotations

import app
from demo.model_specs import build_registry

if __name__ == "__main__":
    app.main(build_registry({}))
