"""The app with stand-ins for the bundled models, and for OpenVINO: ``python -m tests.browser.garment_app``."""

from __future__ import annotations

import tempfile
from pathlib import Path

import app
from demo.model_specs import build_registry
from stvit.predict.engines import engine
from stvit.pretrained.model_cards import BundledModels
from tests.bundled_stand_ins import write_stand_ins
from tests.stvit.predict.engines.direct import Direct

if __name__ == "__main__":
    engine.BACKENDS["openvino"] = Direct
    with tempfile.TemporaryDirectory(prefix="bundled-") as folder:
        app.main(build_registry(BundledModels(write_stand_ins(Path(folder)))))
