from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from gradio_client import Client

import demo.benchmark
from demo.registry import Registry
from demo.service.page import Page
from tests.demo.conftest import served


@dataclass(frozen=True)
class Served:
    """A page that is served by this process, and a client of it."""

    page: Page
    client: Client


@pytest.fixture(scope="package")
def served_offline(garments: Registry) -> Iterator[Served]:
    """The page as it is without the Hub: the models at hand are stand-ins for the bundled ones."""
    with pytest.MonkeyPatch.context() as patch:
        for limits in ("benchmark.SHORT", "benchmark.LATENCY", "benchmark.THROUGHPUT", "dense_benchmark.DENSE"):
            patch.setattr(f"demo.{limits}", demo.benchmark.Limits(1e-6, 1e-6))
        patch.setattr(demo.benchmark, "REPORT_EVERY_S", 1e-6)
        with served(Registry(garments, hub=False)) as (page, url):
            yield Served(page, Client(url, verbose=False))


@pytest.fixture
def offline(served_offline: Served) -> Client:
    """A client of that page."""
    return served_offline.client
