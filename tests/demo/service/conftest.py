from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
import torch

from demo.model_specs import build_registry
from demo.page import document, layout
from demo.predictors import Predictors
from demo.runtime import Runtime
from demo.service.page import Page
from tests.narrow_models import CLASSIFIERS, CLIP_MODELS, DETECTORS, narrowed


@dataclass(frozen=True)
class Service:
    """A page that is served by this process, and a client of it."""

    page: Page
    url: str
    http: httpx.Client


@pytest.fixture(scope="package")
def service() -> Iterator[Service]:
    """The page with narrow models, served as app.py serves it; without the Hub, so without weights."""
    registry = narrowed(build_registry({}), CLASSIFIERS, DETECTORS, CLIP_MODELS)
    page = layout.build(Runtime(Predictors(torch.device("cpu")), registry))
    kwargs = {
        "routes": [*document.routes(), *page.routes()],
        "middleware": [*page.middleware(), *document.middleware()],
        "lifespan": page.lifespan,
    }
    quiet = {"quiet": True, "run_history": False, "share": False, "ssr_mode": False}
    _, url, _ = page.launch(prevent_thread_lock=True, max_file_size="50mb", app_kwargs=kwargs, **quiet)
    with httpx.Client(base_url=url, timeout=60) as http:
        yield Service(page, url, http)
    page.close()
