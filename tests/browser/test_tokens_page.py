"""Tokens as a person reads them: crops and regions that light each other up, the merging played."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.conftest import App, comes_to_rest
from tests.browser.test_pickers import choose

CANVAS, CROPS, LIT = "#clusters .cv-canvas", "#clusters .tv-crop", "#clusters .tv-crop.active"


@pytest.fixture
def tokens(page: Page, offline_garments: App) -> Page:
    """The page with the 16 tokens of one garment."""
    return show_tokens(page, offline_garments, "STViT-DeiT")


def show_tokens(page: Page, app: App, method: str) -> Page:
    page.goto(app.url)
    expect(page.locator("#model-size input")).to_have_value("Narrow, garments")
    expect(page.locator("#picture")).to_be_visible()  # and with it all of the tab
    panel = page.get_by_role("button", name="Models and settings")
    if panel.is_visible():  # on a phone
        panel.click()
    choose(page, "model", "method", method)
    page.locator("#examples button").first.click()
    comes_to_rest(page)  # the page shows a solved example from the start
    expect(page.locator("#clusters .cv.filled")).to_be_visible()
    page.locator(CANVAS).scroll_into_view_if_needed()
    return page


def drawn(page: Page) -> str:
    return page.locator(CANVAS).evaluate("canvas => canvas.toDataURL()")


def token_of(crop: Locator) -> int:
    return int(crop.get_attribute("data-token"))


def test_a_crop_and_its_region_light_each_other_up(tokens: Page) -> None:
    crops, readout = tokens.locator(CROPS), tokens.locator("#clusters .cv-readout")
    expect(crops.first).to_be_visible()
    squares = [int(text) for text in crops.all_inner_texts()]
    assert squares == sorted(squares, reverse=True) and sum(squares) == 196 and squares[-1] > 0
    expect(readout).to_contain_text(f"{len(squares)} of 16 tokens")
    expect(tokens.locator(LIT)).to_have_count(0)
    of_all = drawn(tokens)
    crops.nth(1).hover()
    expect(readout).to_contain_text(f"Token {token_of(crops.nth(1)) + 1} ")
    expect(tokens.locator(LIT)).to_have_attribute("aria-label", re.compile(f": {squares[1]} squares? of 196"))
    assert drawn(tokens) != of_all
    box = tokens.locator(CANVAS).bounding_box()
    tokens.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(readout).to_contain_text(f"Token {token_of(tokens.locator(LIT)) + 1} ")
    tokens.mouse.move(0, 0)
    expect(tokens.locator(LIT)).to_have_count(0)
    assert drawn(tokens) == of_all
    for words in ("outline: squares this token speaks for", "glow: where it looks"):
        expect(tokens.locator("#clusters").get_by_text(words)).to_be_visible()


def test_crops_are_one_tab_stop_and_arrow_keys_walk_over_them(tokens: Page) -> None:
    crops, readout = tokens.locator(CROPS), tokens.locator("#clusters .cv-readout")
    if tokens.locator(".tv-idle").is_visible():  # as many as the weights of the stand-in leave idle
        tokens.locator(".tv-idle").click()
    expect(crops).to_have_count(16)
    assert tokens.locator(f"{CROPS}[tabindex='0']").count() == 1
    crops.first.focus()
    tops = [crop.bounding_box()["y"] for crop in crops.all()]
    row = tops.count(tops[0])
    assert 1 < row < 15
    for key, at in (("ArrowRight", 1), ("ArrowDown", 1 + row), ("End", 15), ("ArrowUp", 15 - row), ("Home", 0)):
        tokens.keyboard.press(key)
        expect(crops.nth(at)).to_be_focused()
        expect(readout).to_contain_text(f"Token {token_of(crops.nth(at)) + 1} ")
        assert crops.nth(at).evaluate("crop => getComputedStyle(crop).outlineStyle") == "solid"
    tokens.keyboard.press("Enter")
    expect(crops.first).to_have_attribute("aria-pressed", "true")
    tokens.keyboard.press("Escape")
    expect(tokens.locator(f"{CROPS}[aria-pressed='true']")).to_have_count(0)


def test_a_pinned_token_outlives_a_visit_to_another_tab(tokens: Page) -> None:
    tokens.locator(CROPS).nth(1).click()
    tokens.mouse.move(0, 0)
    pinned = drawn(tokens)
    tokens.get_by_role("tab", name="Detect").click()
    expect(tokens.locator("#detector")).to_be_visible()
    tokens.wait_for_timeout(300)  # for the observer of sizes
    tokens.get_by_role("tab", name="Classify").click()
    tokens.wait_for_function("pinned => document.querySelector('#clusters canvas').toDataURL() === pinned", arg=pinned)


def test_edges_are_smooth_or_those_of_the_squares_and_agree_in_the_middle_of_squares(tokens: Page) -> None:
    smooth, readout = drawn(tokens), tokens.locator("#clusters .cv-readout b")

    def named() -> list[str]:
        tokens.locator(CANVAS).scroll_into_view_if_needed()  # a choice below scrolls the page
        names, box = [], tokens.locator(CANVAS).bounding_box()
        for row, column in ((0, 0), (2, 11), (5, 5), (8, 3), (10, 7), (13, 13)):
            tokens.mouse.move(
                box["x"] + (column + 0.5) * box["width"] / 14, box["y"] + (row + 0.5) * box["height"] / 14
            )
            names.append(readout.first.inner_text())
        tokens.mouse.move(0, 0)
        return names

    in_smooth = named()
    tokens.get_by_role("radio", name="Squares").check(force=True)
    assert drawn(tokens) != smooth
    same = sum(first == second for first, second in zip(named(), in_smooth, strict=True))
    assert same >= 5 and len(set(in_smooth)) > 2  # untrained tokens may nearly tie
    tokens.get_by_role("radio", name="Smooth").check(force=True)
    assert drawn(tokens) == smooth


def test_a_stage_that_was_chosen_stays_for_the_next_picture(tokens: Page) -> None:
    for number, stage in enumerate(("Grouping 1", "Grouping 2"), start=1):
        tokens.get_by_role("radio", name=stage).check(force=True)
        before = drawn(tokens)
        tokens.locator("#examples button").nth(number).click()
        expect(tokens.locator("#predictions ol")).to_have_count(2)
        tokens.wait_for_function(
            "before => document.querySelector('#clusters .cv-canvas').toDataURL() !== before", arg=before
        )
        expect(tokens.get_by_role("radio", name=stage)).to_be_checked()


def test_the_merging_plays_from_squares_to_tokens(tokens: Page) -> None:
    expect(tokens.get_by_role("button", name="196 → 16: play how squares become tokens")).to_be_visible()
    button = tokens.locator(".tv-play")
    count = tokens.locator(".tv-count")
    expect(count).to_have_text("196 → 16")
    tokens.get_by_role("radio", name="Grouping 1").check(force=True)
    rest = drawn(tokens)
    tokens.evaluate("""() => {
        const count = document.querySelector(".tv-count");
        window.counted = [];
        new MutationObserver(() => window.counted.push(count.textContent)).observe(count, { childList: true });
    }""")
    for _ in range(3):  # cores that are taken leave time for few steps of a play
        tokens.evaluate("window.counted = []")
        button.click()
        expect(count).to_have_text("196 → 16", timeout=30_000)
        counted = [int(text) for text in tokens.evaluate("window.counted") if text.isdigit()]
        assert counted[0] == 196 and counted[-1] == 16 and counted == sorted(counted, reverse=True)
        if len(set(counted)) > 4:
            break
        tokens.get_by_role("radio", name="Grouping 1").check(force=True)
    assert len(set(counted)) > 4
    expect(tokens.get_by_role("radio", name="Grouping 2")).to_be_checked()
    tokens.get_by_role("radio", name="Grouping 1").check(force=True)
    button.click()
    expect(count).to_have_text("196")
    tokens.keyboard.press("Space")  # stops it, with the stage that is reached
    expect(count).to_have_text("196 → 16")
    assert drawn(tokens) == rest


def test_on_a_phone_crops_are_tapped_and_who_wants_no_motion_sees_stills(
    browser: Browser, offline_garments: App
) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844}, has_touch=True, reduced_motion="reduce")
    show_tokens(page, offline_garments, "STViT-DeiT")
    crop = page.locator(CROPS).nth(1)
    crop.tap()
    expect(crop).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#clusters .cv-readout")).to_contain_text(f"Token {token_of(crop) + 1} ")
    page.evaluate("""() => {
        const count = document.querySelector(".tv-count");
        window.counted = new Set();
        new MutationObserver(() => window.counted.add(count.textContent)).observe(count, { childList: true });
    }""")
    page.locator(".tv-play").click()
    expect(page.locator(".tv-count")).to_have_text("196 → 16", timeout=30_000)
    assert set(page.evaluate("[...window.counted]")) == {"196", "16", "196 → 16"}
    page.close()


def test_joined_tokens_have_crops_and_their_fate_is_in_the_legend(page: Page, offline_garments: App) -> None:
    show_tokens(page, offline_garments, "EViT-DeiT")
    expect(page.locator("#clusters h3")).to_have_text("What was joined")
    sizes = [int(text) for text in page.locator(CROPS).all_inner_texts()]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] > 1
    expect(page.locator(".cv-kinds")).to_contain_text(f"{sum(sizes)} fused")
    expect(page.locator(".tv-legend, .tv-edge-choice").locator("visible=true")).to_have_count(0)
    page.locator(CROPS).first.hover()
    expect(page.locator("#clusters .cv-readout")).to_contain_text(f"fused with {sizes[0] - 1} others")
