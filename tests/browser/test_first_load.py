"""What loading the page costs: bytes on the wire, shifts of the layout, words to read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import NO_HUB, ROOT, App
from tests.browser.page_load import PageLoad, load, visible_words
from tests.browser.test_pickers import choose

KOALA = ROOT / "assets" / "examples" / "koala.jpg"


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


def test_nothing_moves_while_the_page_loads(first: tuple[Page, PageLoad]) -> None:
    page, cost = first
    assert cost.layout_shift < 0.05, page.evaluate("seen.shifts")


def test_the_first_screen_is_soon_read(first: tuple[Page, PageLoad]) -> None:
    page, cost = first
    assert cost.words <= 250, " ".join(visible_words(page))


def test_the_first_screen_tells_the_story_without_a_request_of_the_models(browser: Browser, offline: App) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "queue/join" in request.url else None)
    page.goto(offline.url)
    expect(page.locator("#story")).to_contain_text("16 tokens instead of 196: 2.5× less arithmetic")
    expect(page.locator("#squares figcaption")).to_have_text("196 squares for DeiT, narrow")
    expect(page.locator(".tv-count")).to_contain_text("196 → 16")
    expect(page.locator("#predictions ol")).to_have_count(2)
    expect(page.locator(".agreement")).to_have_text("Both say t-shirt.")
    for part in ("#story", ".squares", ".cv-canvas", "#predictions", "#breakdown .lanes", "#examples"):
        box = page.locator(part).first.bounding_box()
        assert box["y"] + box["height"] <= 900, part
    expect(page.locator(".offline")).to_have_text(re.compile("Offline: small garment models"))
    page.get_by_role("button", name="Close this note").click()
    expect(page.locator(".offline")).to_have_count(0)
    page.wait_for_timeout(500)
    assert not asked
    page.close()


def test_the_solved_example_can_be_kept_and_asked_of_other_models(page: Page, offline: App) -> None:
    page.goto(offline.url)
    with page.expect_download() as download:
        page.get_by_role("button", name="Result (JSON)").click()
    assert json.loads(Path(download.value.path()).read_text())["model"]["predictions"][0]["label"] == "t-shirt"
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as card").click()
    assert download.value.suggested_filename == "stvit-deit-narrow-16-tokens-classify-card.png"
    with Image.open(download.value.path()) as card:
        assert (card.format, card.size) == ("PNG", (1200, 630))
    choose(page, "model", "method", "EViT-DeiT")
    expect(page.locator("#story")).not_to_contain_text("16 tokens")
    expect(page.get_by_role("list", name=re.compile("Predictions of EViT-DeiT"))).to_be_visible()


def test_a_photograph_of_an_animal_is_not_called_a_garment(page: Page, offline: App) -> None:
    page.goto(offline.url)
    page.get_by_role("button", name="Remove image").click()
    expect(page.locator("#picture")).to_contain_text("Drop a picture of one garment (t-shirt, trouser,")
    page.set_input_files("#picture input[type=file]", KOALA)
    refused = page.locator("#predictions .refused")
    expect(refused).to_have_count(2)
    expect(refused.first).to_contain_text("Not one of the ten kinds of garments that this model knows.")
    guesses = refused.first.get_by_role("list")
    expect(guesses).to_be_hidden()
    refused.first.get_by_text("Its guesses all the same").click()
    expect(guesses).to_be_visible()


def test_on_a_phone_picture_answer_tokens_and_closed_models_come_in_this_order(browser: Browser, offline: App) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(f"{offline.url}/?tab=<i>home</i>&example=99")
    expect(page.locator(".cv.filled")).to_be_visible()
    ignored = page.locator("#ignored").get_by_role("alert")
    expect(ignored).to_have_text("Ignored in the address: no tab “<i>home</i>”, no example “99” (there are 1 to 10).")
    parts = ("#picture", "#predictions", ".squares", "#breakdown", ".models-toggle")
    tops = [page.locator(part).first.bounding_box()["y"] for part in parts]
    assert tops == sorted(tops)
    expect(page.locator("#model-method")).to_be_hidden()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()
