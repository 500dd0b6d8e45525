"""This project's own models as a person meets them: no Hub, stand-ins for the bundled models, a real browser."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, Page, expect

from stvit.draw.palette import class_colours
from tests.browser.conftest import App, check_fit, comes_to_rest
from tests.browser.test_pickers import choose, named


def test_without_a_hub_the_page_starts_with_garment_models_says_so_and_predicts(
    page: Page, offline_garments: App
) -> None:
    page.goto(offline_garments.url)
    expect(page.locator(".offline")).to_contain_text("Offline: small garment models")
    for side, method in (("model", "STViT-R-Swin"), ("baseline", "Swin")):
        expect(page.locator(f"#{side}-method input")).to_have_value(method)
        expect(page.locator(f"#{side}-size input")).to_have_value("Narrow, garments")
    expect(page.locator("#breakdown .lane").first).to_contain_text("STViT-R-Swin, narrow")
    expect(page.locator("#examples h3")).to_have_text("Examples from the test split")
    page.locator("#examples button").filter(has_text="Garment 10").click()
    rows = page.get_by_role("list", name="Predictions of STViT-R-Swin, narrow").get_by_role("listitem")
    expect(rows).to_have_count(5)
    expect(page.locator(".agreement")).to_contain_text(re.compile("Both say|They differ"))
    expect(page.locator("#predictions .mark")).to_have_text([re.compile("Right|Wrong: this example shows")] * 2)
    expect(page.locator(".cv.filled")).to_be_visible()


def test_what_the_models_run_on_is_chosen_once_for_the_page(page: Page, offline_garments: App) -> None:
    page.goto(offline_garments.url)
    engine, request, compared = (
        page.get_by_role("combobox", name="Runs on"),
        page.locator("#request"),
        page.locator("#race"),
    )
    expect(engine).to_have_value("eager PyTorch")  # as the server is set
    page.locator("#examples button").filter(has_text="Garment 10").click()
    expect(request).to_contain_text("Answered by eager PyTorch")
    engine.click()
    page.get_by_role("option", name="OpenVINO", exact=True).click()
    expect(compared).to_contain_text("One image at a time, OpenVINO")  # when both graphs are made
    page.locator("#run").click()
    expect(request).to_contain_text("Answered by OpenVINO")
    engine.click()
    page.get_by_role("option", name="eager PyTorch", exact=True).click()
    expect(request).to_contain_text("Answered by eager PyTorch")
    expect(compared).to_contain_text("One image at a time, eager PyTorch")
    page.set_viewport_size({"width": 390, "height": 844})
    check_fit(page, "#runs-on .wrap")


def test_every_garment_model_tells_where_it_comes_from(page: Page, offline_garments: App) -> None:
    page.goto(offline_garments.url)
    cards = page.locator("#about details")
    expect(cards).to_have_count(2)
    expect(cards.first.locator("summary")).to_contain_text("About ")
    cards.first.locator("summary").click()
    for text in ("91.2 % top-1", "On the test split", "1,000 samples", "seed 0", "python -m stvit.training classify"):
        expect(cards.first).to_contain_text(text)


def test_a_garment_model_brings_its_peer_to_the_other_side_and_what_is_chosen_then_stays(
    page: Page, online_garments: App
) -> None:
    page.goto(online_garments.url)
    expect(page.locator("#model-size input")).to_have_value("Small")
    choose(page, "model", "method", "STViT-DeiT")
    expect(page.locator("#breakdown .lane").first).to_contain_text("STViT-DeiT-S")  # its sizes are there
    choose(page, "model", "size", "Narrow, garments")
    expect(page.locator("#baseline-method input")).to_have_value("DeiT")
    expect(page.locator("#baseline-size input")).to_have_value("Narrow, garments")
    expect(page.locator("#breakdown .lane").nth(1)).to_contain_text("DeiT, narrow")
    expect(page.locator("#examples h3")).to_have_text("Examples from the test split")
    choose(page, "baseline", "size", "Tiny")
    expect(page.locator("#about .notice")).to_contain_text("DeiT-T knows the 1000 classes of ImageNet")
    expect(page.locator("#model-size input")).to_have_value("Narrow, garments")
    choose(page, "model", "size", "Tiny")
    expect(page.locator("#about .notice, #about details")).to_have_count(0)
    expect(page.locator("#examples h3")).to_have_text("Examples")


def test_after_quick_choices_the_page_comes_to_rest(page: Page, offline_garments: App) -> None:
    """Two handlers of one change that put each other off would go on asking for ever."""
    page.goto(offline_garments.url)
    expect(page.locator("#model-size input")).to_have_value("Narrow, garments")
    choose(page, "model", "method", "EViT-DeiT")
    expect(page.locator("#breakdown .lane").first).to_contain_text("EViT-DeiT, narrow")
    choose(page, "baseline", "method", "Swin")
    choose(page, "baseline", "size", "Base")
    expect(page.locator("#breakdown .lane").nth(1)).to_contain_text("Swin-B")
    page.locator("#model-method input").click()
    page.get_by_role("option", name="STViT-DeiT", exact=True).click()
    page.locator("#model-size input").click()
    page.get_by_role("option", name=named("Tiny")).click()
    expect(page.locator("#breakdown .lane").first).to_contain_text("STViT-DeiT-T")
    comes_to_rest(page)
    expect(page.locator("#breakdown .lane").first).to_contain_text("STViT-DeiT-T")


def test_with_the_hub_in_reach_the_published_models_come_first(page: Page, online_garments: App) -> None:
    page.goto(online_garments.url)
    comes_to_rest(page)
    expect(page.locator("#model-size input")).to_have_value("Small")
    expect(page.locator(".offline, #about details")).to_have_count(0)
    page.locator("#examples button").first.click()
    expect(page.get_by_role("list", name="Predictions of STViT-R-Swin-S", exact=True)).to_be_visible()


def test_two_garment_models_of_different_input_are_compared(page: Page, offline_garments: App) -> None:
    page.goto(offline_garments.url)
    choose(page, "model", "method", "STViT-DeiT")
    page.locator("#examples button").first.click()
    expect(page.locator("#predictions ol")).to_have_count(2)
    page.get_by_role("button", name="Run the comparison").click()
    expect(page.locator("#race .race[data-done=true]")).to_be_visible(timeout=120_000)
    expect(page.locator("#race")).to_contain_text("STViT-DeiT, narrow, 16 tokens")


def test_garments_are_detected_and_named(page: Page, offline_garments: App) -> None:
    page.goto(offline_garments.url)
    page.get_by_role("tab", name="Detect").click()
    expect(page.locator("#detector input")).to_have_value("STViT-R-Swin, narrow (10 garments)")
    expect(page.locator("#short-side")).to_be_hidden()
    expect(page.locator("#detect-about details")).to_contain_text("72.2 % box AP50")
    expect(page.locator("#detect-picture")).to_contain_text("Drop a picture of garments here")
    expect(page.locator("#detections .cv-side")).to_be_hidden()  # nothing to set yet
    page.locator("#detect-examples button").first.click()
    expect(page.locator("#detections .cv.filled")).to_be_visible()
    expect(page.locator("#steps")).to_contain_text("224 × 224")
    expect(page.locator("#detect-answers header b")).to_have_text(["STViT-R-Swin, narrow", "Swin, narrow"])
    expect(page.locator("#detect-answers .card")).to_contain_text([re.compile(r"Found \d of 4[\s\S]*[✓✗] trouser")] * 2)
    ours, twin = (page.locator(f"#{place} .cv-canvas").bounding_box() for place in ("detections", "detections-twin"))
    assert twin["x"] > ours["x"] + ours["width"] and twin["y"] == pytest.approx(ours["y"], abs=2)
    page.locator("#detections").get_by_label("Confidence at least").fill("99")  # which holds for both
    expect(page.locator("#detections-twin .cv-readout")).to_contain_text("of at least 99 %")
    page.locator("#detections").get_by_label("Confidence at least").fill("5")
    chips = page.locator("#detections .dv-chips label").all()
    shown = {chip.locator("span").inner_text(): chip.locator("i").get_attribute("style") for chip in chips}
    known = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
    own = {
        name: "background: rgb({}, {}, {});".format(*rgb) for name, rgb in zip(known, class_colours(10), strict=True)
    }
    assert shown and shown.items() <= own.items()  # as in every picture, and in Segment
    page.set_viewport_size({"width": 390, "height": 844})
    places = ("#detect-answers", "#detections .cv-picture", "#detections-twin .cv-picture", "#detections .cv-side")
    parts = ("#detect-picture", *places, "#detect-panel .models-toggle")
    tops = [page.locator(part).first.bounding_box()["y"] for part in parts]
    assert tops == sorted(tops) and page.evaluate("document.documentElement.scrollWidth") <= 390
    page.set_viewport_size({"width": 1280, "height": 900})
    page.get_by_role("button", name="Compare the backbones").click()
    expect(page.locator("#backbones .race[data-done=true]")).to_be_visible(timeout=120_000)
    expect(page.locator("#backbones")).to_contain_text("Swin, narrow")


def test_the_video_tab_starts_with_garment_models_and_a_clip_of_garments_goes_through(
    page: Page, offline_garments: App
) -> None:
    page.goto(offline_garments.url)
    page.get_by_role("tab", name="Video").click()
    expect(page.locator("#video-model-size input")).to_have_value("Narrow, garments")
    expect(page.locator("#video-about details").first).to_contain_text("91.2 % top-1")
    names = [box.get_attribute("aria-label") for box in page.get_by_role("combobox").all() if box.is_visible()]
    assert len(names) == len(set(names)) == 7 and {"Runs on", "Model: Method", "Raced against: Method"} <= set(names)
    expect(page.locator("#example-clip")).to_be_hidden()
    page.get_by_label("Clip action").check()
    expect(page.locator("#video-clip-model input")).to_have_value("STViT-Video-Swin, narrow")
    expect(page.locator("#video-about details").first).to_contain_text("88.2 % top-1")
    page.locator("#garment-clips button:has(img[src$='/right.jpg'])").click()
    expect(page.locator("#clip")).to_contain_text("right")
    expect(page.locator("#new-clip video")).to_be_visible()
    expect(page.locator("#video-stages")).to_contain_text("on the whole clip")
    expect(page.locator("#video-notice")).not_to_contain_text("No predictions")


def test_the_camera_tab_starts_with_garment_models(page: Page, offline_garments: App) -> None:
    page.goto(offline_garments.url)
    page.get_by_role("tab", name="Camera").click()
    expect(page.locator("#camera-model-size input")).to_have_value("Narrow, garments")
    page.get_by_label("Detect objects").check()
    expect(page.locator("#camera-detector input")).to_have_value("STViT-R-Swin, narrow (10 garments)")
    expect(page.locator("#camera-short-side")).to_be_hidden()
    expect(page.locator("#camera-about details")).to_contain_text("72.2 % box AP50")


@pytest.mark.parametrize("width", [390, 1280])
def test_notes_and_cards_fit_the_window(browser: Browser, offline_garments: App, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme="light")
    page.set_default_timeout(60_000)
    page.goto(offline_garments.url)
    page.locator("#about summary").first.click()
    expect(page.locator("#about pre").first).to_be_visible()
    check_fit(page, ".card")
    page.close()
