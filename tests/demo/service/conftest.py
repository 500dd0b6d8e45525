from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from demo.model_specs import build_registry
from demo.service.page import Page
from tests.demo.conftest import served
from tests.narrow_models import CLASSIFIERS, CLIP_MODELS, DETECTORS, narrowed

AS_JSON = {"content-type": "application/json"}


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
    with served(registry) as (page, url), httpx.Client(base_url=url, timeout=60) as http:
        yield Service(page, url, http)
