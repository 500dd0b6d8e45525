"""Other models than the first ones: pickers that follow each other, overlays and pictures that fit the method."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from tests.browser.conftest import ROOT, App, open_published

PHOTO = ROOT / "assets" / "examples" / "bison.jpg"


def named(option: str) -> re.Pattern[str]:
    """An entry of a list, whether it needs a Hub that is out of reach or not."""
    return re.compile(rf"^{re.escape(option)}( · needs the Hub)?$")


def choose(page: Page, side: str, list_name: str, option: str) -> None:
    """Pick an option of one of a side's three lists."""
    field = page.locator(f"#{side}-{list_name} input")
    field.click()
    page.get_by_role("option", name=named(option)).click()
    expect(field).to_have_value(named(option))
    expect(page.get_by_role("option")).to_have_count(0)  # the list fades; two of them would offer the same names


def replace_picture(page: Page) -> None:
    page.get_by_role("button", name="Remove image").click()
    expect(page.locator("#predictions ol")).to_have_count(0)
    page.set_input_files("#picture input[type=file]", PHOTO)


def test_evit_runs_on_deits_weights_and_its_tokens_can_be_followed_through_the_layers(page: Page, app: App) -> None:
    open_published(page, app)
    choose(page, "model", "method", "EViT-DeiT")
    expect(page.locator("#model-setting")).to_contain_text("Keep rate")
    choose(page, "model", "size", "Tiny")
    expect(page.locator("#breakdown")).to_contain_text("EViT-DeiT-T, keep 0.9")
    for part, value in (("method", "DeiT"), ("size", "Tiny")):
        expect(page.locator(f"#baseline-{part} input")).to_have_value(value)
    choose(page, "model", "setting", "0.5")
    expect(page.locator("#breakdown")).to_contain_text("196 → 99 → 51 → 27")
    replace_picture(page)
    expect(page.get_by_role("list", name="Predictions of EViT-DeiT-T, keep 0.5")).to_be_visible()
    expect(page.locator("#predictions")).to_contain_text("DeiT's weights, not retrained")
    expect(page.locator(".cv-unit-choice, .cv-layer-choice, .tv-legend").locator("visible=true")).to_have_count(0)

    stepper, readout = page.get_by_label("Layer", exact=True), page.locator(".cv-readout")
    expect(readout).to_contain_text("After layer 12, 27 of 196 tokens go on")
    seen = set()
    for layer, tokens in ((1, 196), (4, 99), (7, 51), (10, 27)):
        stepper.fill(str(layer))
        expect(readout).to_contain_text(f"After layer {layer}, {tokens} of 196 tokens go on")
        seen.add(page.locator(".cv-canvas").evaluate("canvas => canvas.toDataURL()"))
    assert len(seen) == 4
    expect(page.locator(".cv-kinds")).to_have_text(re.compile(r"\d+ kept\s*\d+ fused"))
    page.locator(".cv-canvas").focus()
    page.keyboard.press("ArrowRight")
    expect(readout).to_contain_text(re.compile(r"Image token \d+ · row \d, column \d.*(kept|fused with \d+ others)"))


def test_a_model_whose_weights_were_never_published_shows_its_structure_and_predicts_nothing(
    page: Page, app: App
) -> None:
    open_published(page, app)
    choose(page, "model", "method", "STViT-DeiT")
    choose(page, "baseline", "method", "DeiT")
    choose(page, "baseline", "size", "Tiny")
    choose(page, "model", "size", "Tiny")
    expect(page.locator("#model-setting input")).to_have_value("16")
    lanes = page.locator("#breakdown .lane")
    expect(lanes.nth(0)).to_contain_text("STViT-DeiT-T, 16 tokens")
    expect(lanes.nth(0).locator(".tokens")).to_have_text("Tokens: 196 → 16")
    expect(lanes.nth(1).locator(".tokens")).to_have_text("Tokens: 196")
    replace_picture(page)
    expect(page.locator(".notice")).to_contain_text(
        "No predictions from STViT-DeiT-T, 16 tokens: Its weights were never published."
    )
    expect(page.locator("#predictions ol")).to_have_count(1)
    expect(page.locator(".cv.filled")).to_be_visible()
    expect(page.locator(".cv-layers")).to_have_text("Grouping 1Grouping 2")
    expect(page.locator(".cv-unit-choice")).to_be_hidden()
    expect(page.locator(".cv-note")).to_contain_text("Random weights")


def test_tokens_that_wait_are_drawn_and_named_so(page: Page, app: App) -> None:
    open_published(page, app)
    choose(page, "model", "method", "Evo-ViT-DeiT")
    choose(page, "model", "size", "Tiny")
    expect(page.locator("#breakdown")).to_contain_text("196 → 98")
    replace_picture(page)
    why = page.locator(".notice").filter(has_text="No predictions from Evo-ViT-DeiT-T")
    expect(why).to_contain_text("share its weights on https://drive.google.com/file/")
    readout, kinds = page.locator(".cv-readout"), page.locator(".cv-kinds")
    expect(readout).to_contain_text("After layer 12, 98 of 196 tokens are processed")
    expect(kinds).to_have_text(re.compile(r"98 kept\s*98 wait for a later layer"))
    with_some_waiting = page.locator(".cv-canvas").evaluate("canvas => canvas.toDataURL()")
    page.get_by_label("Layer", exact=True).fill("1")
    expect(kinds).to_have_text("196 kept")
    assert page.locator(".cv-canvas").evaluate("canvas => canvas.toDataURL()") != with_some_waiting


def test_how_many_layers_each_token_lived_is_drawn_as_a_map_of_depth(page: Page, app: App) -> None:
    page.goto(app.url)
    choose(page, "model", "method", "A-ViT-DeiT")
    choose(page, "model", "size", "Tiny")
    page.set_input_files("#picture input[type=file]", PHOTO)
    expect(page.locator(".cv-readout")).to_contain_text(re.compile(r"a token lived [\d.]+ of 12 layers on average"))
    expect(page.locator(".tv-depth")).to_have_text("1 layer12 layers")
    page.get_by_label("Layer", exact=True).fill("3")
    expect(page.locator(".tv-depth")).to_have_text("1 layer3 layers")
    page.locator(".cv-canvas").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".cv-readout")).to_contain_text(re.compile("kept|halted after layer [12]"))
