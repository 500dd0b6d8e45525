"""What loading the page costs: bytes on the wire, shifts of the layout, words to read."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.conftest import NO_HUB, App
from tests.browser.page_load import PageLoad, load


@pytest.fixture(scope="module")
def offline(start_shared: Callable[..., App]) -> App:
    """The app as it is handed out, with its own small models and no Hub."""
    return start_shared(NO_HUB)


@pytest.fixture(scope="module")
def first(browser: Browser, offline: App) -> Iterator[tuple[Page, PageLoad]]:
    page, cost = load(browser, offline.url)
    yield page, cost
    page.context.close()


def test_the_document_is_small_on_the_wire_and_so_is_all_that_comes_with_it(first: tuple[Page, PageLoad]) -> None:
    _, cost = first
    assert cost.html_bytes < 150_000, cost.bytes_by_kind
    assert cost.total_bytes < 1_000_000, cost.bytes_by_kind
