"""The Segment tab as a person meets it: stand-ins for the bundled segmenters, a real browser."""

from __future__ import annotations

import re
from base64 import b64encode
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, FileChooser, Locator, Page, expect

from stvit.draw.classes import label_colours
from tests.browser.conftest import ROOT, App, check_fit

SCENE = ROOT / "assets" / "examples" / "garments" / "scene_1.jpg"
PHOTO = ROOT / "assets" / "examples" / "castle.jpg"
CANVAS = "#segmentation .cv-canvas"


def open_tab(page: Page, app: App, picture: Path = SCENE) -> Page:
    page.goto(app.url)
    page.get_by_role("tab", name="Segment").click()
    page.set_input_files("#segment-picture input[type=file]", picture)
    expect(page.locator("#segmentation .cv.filled")).to_be_visible()
    return page


@pytest.fixture
def shown(page: Page, offline_garments: App) -> Page:
    """The tab with results for one scene."""
    return open_tab(page, offline_garments)


def entries(page: Page) -> Locator:
    return page.get_by_role("list", name="Classes").get_by_role("button")


def readout(page: Page) -> Locator:
    return page.locator("#segmentation .cv-readout")


def picture_bytes(page: Page) -> str:
    return page.locator(CANVAS).evaluate("canvas => canvas.toDataURL()")


def downloaded(page: Page, button: str) -> Image.Image:
    with page.expect_download() as download:
        page.locator("#segmentation, .downloads").get_by_role("button", name=button).locator("visible=true").click()
    assert re.fullmatch(r"(stvit-r-)?swin-narrow-segment-[a-z]+\.(png|jpg)", download.value.suggested_filename)
    return Image.open(BytesIO(Path(download.value.path()).read_bytes()))


def test_a_scene_gives_a_legend_of_its_classes_whose_shares_are_those_of_the_map(shown: Page) -> None:
    labels = np.array(downloaded(shown, "Map of classes (indexed PNG)"))
    assert labels.shape == (224, 224)
    texts = [text.split("\n") for text in entries(shown).all_inner_texts()]
    shares = [float(re.sub(r"[<% ]", "", text[-1])) for text in texts]
    counts = np.unique(labels, return_counts=True)[1] / labels.size
    assert len(texts) == (counts >= 0.01).sum() and shares == sorted(shares, reverse=True)
    folded = shown.locator("#segmentation .dv-rest")
    expect(folded).to_have_text([re.compile(rf"{(counts < 0.01).sum()} class")] if (counts < 0.01).any() else [])
    largest = np.bincount(labels.ravel()).max() / labels.size
    assert shares[0] == pytest.approx(100 * largest, abs=0.06)
    expect(shown.locator("#segment-knows")).to_contain_text("ten kinds of garments and background, and nothing else")
    expect(shown.locator("#segment-knows")).to_contain_text("released no weights for segmentation")
    expect(shown.locator("#segment-about details")).to_contain_text("61.5 % mIoU")


def test_pixels_have_the_colours_of_their_classes_at_full_opacity(shown: Page) -> None:
    labels = np.array(downloaded(shown, "Map of classes (indexed PNG)"))
    for name in ("Names", "Outlines"):
        shown.locator("#segmentation").get_by_label(name).uncheck()
    shown.locator("#segmentation").get_by_label("Overlay opacity").fill("100")
    drawn = np.array(downloaded(shown, "Save this view (PNG)").convert("RGB")).astype(int)
    assert drawn.shape == (224, 224, 3)
    garments = labels > 0
    np.testing.assert_array_equal(drawn[garments], label_colours(11)[labels][garments])


def test_both_files_have_the_size_of_the_picture(page: Page, offline_garments: App) -> None:
    open_tab(page, offline_garments, PHOTO)
    assert downloaded(page, "Annotated picture (JPEG)").size == (900, 600)
    assert downloaded(page, "Map of classes (indexed PNG)").size == (900, 600)
    frame = page.locator(CANVAS).bounding_box()
    assert frame["width"] / frame["height"] == pytest.approx(1.5, abs=0.01)


def test_a_class_is_singled_out_by_list_pointer_and_keys(shown: Page) -> None:
    plain, canvas = picture_bytes(shown), shown.locator(CANVAS)
    expect(readout(shown)).to_contain_text(re.compile(r"\d+ classes? beside background, on [\d.]+ % of the picture"))
    name = entries(shown).first.locator("span").inner_text()
    entries(shown).first.hover()
    expect(readout(shown)).to_contain_text(re.compile(rf"{name} · [\d.]+ % of the picture"))
    assert picture_bytes(shown) != plain
    shown.mouse.move(0, 0)
    assert picture_bytes(shown) == plain
    entries(shown).nth(1).click()
    expect(entries(shown).nth(1)).to_have_attribute("aria-pressed", "true")
    canvas.focus()
    canvas.press("ArrowUp")
    expect(entries(shown).first).to_have_attribute("aria-pressed", "true")
    canvas.press("Escape")
    labels = np.array(downloaded(shown, "Map of classes (indexed PNG)"))
    row, column = np.argwhere(labels == np.bincount(labels.ravel()).argmax())[0]
    canvas.scroll_into_view_if_needed()
    frame = canvas.bounding_box()
    shown.mouse.move(
        frame["x"] + (column + 0.5) / 224 * frame["width"], frame["y"] + (row + 0.5) / 224 * frame["height"]
    )
    expect(readout(shown)).to_contain_text(f"{name} ·")


def test_semantic_tokens_are_a_second_layer_of_the_model_that_has_them(shown: Page) -> None:
    classes = picture_bytes(shown)
    shown.get_by_role("radio", name="Semantic tokens").check(force=True)
    expect(readout(shown)).to_contain_text(re.compile(r"\d+ of 36 tokens stand for the 196 image tokens"))
    assert picture_bytes(shown) != classes
    shown.locator("#segmenter input").click()
    expect(shown.locator("#segment-answers header b")).to_have_text(["STViT-R-Swin, narrow", "Swin, narrow"])
    shown.get_by_role("option", name="Swin, narrow", exact=True).click()
    expect(shown.locator("#segment-about summary")).to_contain_text("About Swin, narrow")
    expect(shown.locator("#segment-steps")).to_contain_text("Swin, narrow")
    expect(shown.locator("#segmentation .dv-mode-choice")).to_be_hidden()
    expect(shown.locator("#segment-answers header b")).to_have_text(["Swin, narrow"])
    expect(shown.locator("#segmentation-twin canvas")).to_be_hidden()
    expect(entries(shown).first).to_be_visible()


def test_a_full_token_detector_has_no_second_layer_either(page: Page, offline_garments: App) -> None:
    page.goto(offline_garments.url)
    page.get_by_role("tab", name="Detect").click()
    page.locator("#detector input").click()
    page.get_by_role("option", name="Swin, narrow (10 garments)", exact=True).click()
    page.set_input_files("#detect-picture input[type=file]", SCENE)
    expect(page.locator("#detections .cv.filled")).to_be_visible()
    expect(page.locator("#detections .cv-readout")).to_contain_text("out of")
    expect(page.locator("#detections .dv-mode-choice")).to_be_hidden()


def test_the_steps_are_timed_and_both_segmenters_compared(shown: Page) -> None:
    steps = ("decode", "prepare", "backbone + head", "labels", "drawing")
    rows = [re.compile(rf"^\s*{re.escape(step)}\s*[\d.]+ m?s\s*$") for step in steps]
    expect(shown.locator("#segment-steps .measure")).to_have_text(rows)
    bars = shown.locator("#segment-steps .stage").all()
    colours = {bar.evaluate("bar => getComputedStyle(bar).backgroundColor") for bar in bars}
    assert len(colours) == len(steps) and "rgba(0, 0, 0, 0)" not in colours
    shown.get_by_role("button", name="Compare the segmenters").click()
    expect(shown.locator("#segmenters .race[data-done=true]")).to_be_visible(timeout=120_000)
    expect(shown.locator("#segmenters .tile strong")).to_have_text(re.compile(r"\d\.\d\d×|no clear difference"))
    expect(shown.locator("#segmenters")).to_contain_text("Swin, narrow")


def test_an_example_is_one_click_away_and_a_bad_file_gets_a_message(
    page: Page, offline_garments: App, tmp_path: Path
) -> None:
    page.goto(offline_garments.url)
    page.get_by_role("tab", name="Segment").click()
    expect(page.locator("#segment-examples h3")).to_have_text("Examples from the test split")
    page.locator("#segment-examples button").nth(1).click()
    expect(entries(page).first).to_be_visible()
    (tmp_path / "words.jpg").write_bytes(b"these are words")
    with page.expect_file_chooser() as asked:
        page.locator("#segment-picture").get_by_label("Upload file").click()
    asked.value.set_files(tmp_path / "words.jpg")
    expect(page.locator("#segment-notice")).to_contain_text("not an image")


SEND = """(element, [kind, base64, name]) => {
    const data = new DataTransfer(), content = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    data.items.add(new File([content], name, { type: "image/jpeg" }));
    const made = { bubbles: true, cancelable: true };
    element.dispatchEvent(kind === "drop" ? new DragEvent("drop", { ...made, dataTransfer: data })
        : new ClipboardEvent("paste", { ...made, clipboardData: data }));
}"""


def test_a_picture_is_replaced_by_the_icon_a_drop_or_a_paste_and_asked_for_once(shown: Page) -> None:
    photo, box = b64encode(PHOTO.read_bytes()).decode(), shown.locator("#segment-picture")
    choosers: list[FileChooser] = []
    shown.on("filechooser", lambda chooser: choosers.append(chooser))
    with shown.expect_file_chooser() as asked:
        box.get_by_label("Upload file").click()
    expect(box.locator(f"img[src$='/{SCENE.name}']")).to_be_visible()  # until another one is chosen
    asked.value.set_files(PHOTO)
    expect(box.locator(f"img[src$='/{PHOTO.name}']")).to_be_visible()
    box.locator("img").evaluate(SEND, ["drop", photo, "dropped.jpg"])
    expect(box.locator("img[src$='/dropped.jpg']")).to_be_visible()
    shown.locator("body").evaluate(SEND, ["paste", photo, "pasted.jpg"])
    expect(box.locator("img[src$='/pasted.jpg']")).to_be_visible()
    box.locator("img").evaluate(SEND, ["drop", photo, "again.jpg"])
    expect(box.locator("img[src$='/again.jpg']")).to_be_visible()
    assert len(choosers) == 1


@pytest.mark.parametrize("width", [390, 1280])
def test_the_tab_fits_its_window_in_light_and_dark(browser: Browser, offline_garments: App, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme="light")
    page.set_default_timeout(60_000)
    open_tab(page, offline_garments)
    expect(entries(page).first).to_be_visible()
    check_fit(page, "#segmentation .dv")
    page.close()


def test_on_a_phone_the_result_comes_into_view_above_closed_lists_of_models(
    browser: Browser, offline_garments: App
) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.set_default_timeout(60_000)
    page.goto(offline_garments.url)
    page.get_by_role("tab", name="Segment").click()
    tops = page.locator("#segment-examples button").evaluate_all("all => all.map(b => b.getBoundingClientRect().top)")
    assert len(tops) > 3 and len(set(tops)) == 1
    page.locator("#segment-examples button").first.click()
    expect(page.locator(CANVAS)).to_be_in_viewport(ratio=0.5)
    ours, twin = (page.locator(f"#{place} canvas").bounding_box() for place in ("segmentation", "segmentation-twin"))
    assert twin["y"] > ours["y"] + ours["height"] and twin["x"] == pytest.approx(ours["x"], abs=2)
    models = page.get_by_role("button", name="Models and settings").locator("visible=true")
    expect(models).to_have_attribute("aria-expanded", "false")
    expect(page.locator("#segmenter")).to_be_hidden()
    assert models.bounding_box()["y"] > page.locator(CANVAS).bounding_box()["y"]
    models.click()
    expect(page.locator("#segmenter")).to_be_visible()
    page.close()
