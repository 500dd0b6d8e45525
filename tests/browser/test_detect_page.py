"""The Detect tab as a person meets it: the real app with narrow detectors, weights from a local Hub, a real browser."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect
from pycocotools.coco import COCO

from tests.browser.conftest import NARROW, ROOT, App, check_fit, click_when_seen, retry
from tests.hub_server import HubServer
from tests.published_weights import add_detector

PHOTO = ROOT / "assets" / "examples" / "castle.jpg"
CANVAS = "#detections .cv-canvas"
FILE_NAME = r"stvit-(r|video)-swin-(small|tiny)-(detect|token-regions|clip-action)[a-z-]*\.(jpg|png|json|mp4|jsonl)"


def open_tab(page: Page, url: str, photo: Path = PHOTO) -> Page:
    page.goto(url)
    page.get_by_role("tab", name="Detect").click()
    page.set_input_files("#detect-picture input[type=file]", photo)
    expect(page.locator("#detections .cv.filled")).to_be_visible()
    return page


@pytest.fixture
def shown(page: Page, narrow_app: App) -> Page:
    """The tab with results for one photo."""
    return open_tab(page, narrow_app.url)


def view(page: Page) -> Locator:
    """The interactive picture; the Classify tab has one with controls of the same names."""
    return page.locator("#detections")


def rows(page: Page) -> Locator:
    return page.get_by_role("list", name="Objects").get_by_role("button")


def picture_bytes(page: Page) -> str:
    return page.locator(CANVAS).evaluate("canvas => canvas.toDataURL()")


def readout(page: Page) -> Locator:
    return page.locator("#detections .cv-readout")


def downloaded(page: Page, button: str) -> bytes:
    with page.expect_download() as download:
        page.get_by_role("button", name=button).click()
    assert re.fullmatch(FILE_NAME, download.value.suggested_filename)
    return Path(download.value.path()).read_bytes()


def test_a_photo_gives_objects_with_names_and_scores_from_the_hubs_weights(shown: Page) -> None:
    texts = rows(shown).all_inner_texts()
    scores = [int(re.search(r"(\d+)(?:\.\d)? %", text)[1]) for text in texts]
    assert scores and scores == sorted(scores, reverse=True) and min(scores) >= 50
    expect(readout(shown)).to_contain_text(f"{len(texts)} object")
    expect(shown.locator("#detect-notice .notice")).to_have_count(0)


def test_confidence_and_classes_filter_in_the_browser_alone(shown: Page) -> None:
    requests: list[str] = []
    shown.on("request", lambda request: requests.append(request.url))
    before, few = picture_bytes(shown), rows(shown).count()
    view(shown).get_by_label("Confidence at least, percent").fill("20")
    assert rows(shown).count() > few
    more = picture_bytes(shown)
    assert more != before
    first = shown.locator(".dv-chips label:visible").first
    name, count = first.locator("span").inner_text(), int(first.locator("b").inner_text())
    total = rows(shown).count()
    first.locator("input").uncheck(force=True)
    assert rows(shown).count() == total - count
    expect(rows(shown).filter(has_text=name)).to_have_count(0)
    shown.get_by_role("button", name="No class").click()
    expect(rows(shown)).to_have_count(0)
    expect(readout(shown)).to_contain_text("switch classes on")
    shown.get_by_role("button", name="All classes").click()
    assert rows(shown).count() == total and picture_bytes(shown) == more
    view(shown).get_by_label("Confidence at least, percent").fill("99")
    expect(readout(shown)).to_contain_text("No object found of at least 99 %")
    assert not [url for url in requests if url.startswith("http")]


def test_masks_boxes_names_and_opacity_change_the_picture_at_once(shown: Page) -> None:
    seen = {picture_bytes(shown)}
    for change in (
        lambda: view(shown).get_by_label("Overlay opacity").fill("80"),
        lambda: view(shown).get_by_label("Names").uncheck(),
        lambda: view(shown).get_by_label("Boxes").uncheck(),
        lambda: view(shown).get_by_label("Masks").uncheck(),
    ):
        change()
        assert picture_bytes(shown) not in seen
        seen.add(picture_bytes(shown))


def test_arrow_keys_single_out_one_object_after_the_other_and_name_it(shown: Page) -> None:
    canvas, plain = shown.locator(CANVAS), picture_bytes(shown)
    names = [text.split("\n")[0].strip() for text in rows(shown).all_inner_texts()]
    canvas.focus()
    for number, name in enumerate(names[:3], start=1):
        canvas.press("ArrowRight")
        expect(readout(shown)).to_contain_text(re.compile(rf"{name} · \d+(\.\d)? % · object {number} of {len(names)}"))
        expect(readout(shown)).to_contain_text(re.compile(r"Box \d+, \d+ to \d+, \d+ \(\d+ × \d+ pixels\)"))
        expect(rows(shown).nth(number - 1)).to_have_attribute("aria-pressed", "true")
        assert picture_bytes(shown) != plain
    canvas.press("ArrowLeft")
    expect(rows(shown).nth(1)).to_have_attribute("aria-pressed", "true")
    canvas.press("Escape")
    assert picture_bytes(shown) == plain


def test_pointing_at_an_object_singles_it_out_where_its_box_is(shown: Page) -> None:
    coco = json.loads(downloaded(shown, "All objects (COCO JSON)"))
    image = coco["images"][0]
    number = min(range(rows(shown).count()), key=lambda i: coco["annotations"][i]["bbox"][2])
    x, y, width, height = coco["annotations"][number]["bbox"]
    canvas, plain = shown.locator(CANVAS), picture_bytes(shown)
    canvas.scroll_into_view_if_needed()
    frame = canvas.bounding_box()
    shown.mouse.move(
        frame["x"] + (x + width / 2) / image["width"] * frame["width"],
        frame["y"] + (y + height / 2) / image["height"] * frame["height"],
    )
    expect(readout(shown)).to_contain_text(re.compile(r"Mask [\d.]+ % of the picture"))
    assert picture_bytes(shown) != plain
    shown.mouse.move(0, 0)
    expect(readout(shown)).to_contain_text("Point at an object")
    rows(shown).nth(number).hover()
    box = f"{x:.0f}, {y:.0f} to {x + width:.0f}, {y + height:.0f}"
    expect(readout(shown)).to_contain_text(box)
    rows(shown).nth(0).focus()
    expect(readout(shown)).to_contain_text(f"object 1 of {rows(shown).count()}")


def test_semantic_tokens_are_drawn_and_named_over_the_whole_picture(shown: Page) -> None:
    objects = picture_bytes(shown)
    shown.get_by_role("radio", name="Semantic tokens").check(force=True)
    shown.locator("#detections").get_by_role("radio", name="Grouping 2").check(force=True)
    seen = {objects, picture_bytes(shown)}
    assert len(seen) == 2
    expect(view(shown).locator(".dv-layers label").nth(2)).to_have_attribute("title", re.compile("Recovery module"))
    expect(readout(shown)).to_contain_text(re.compile(r"\d+ of \d+ tokens stand for the \d+ image tokens"))
    for change in (
        lambda: shown.get_by_role("radio", name="Grouping 1").check(force=True),
        lambda: shown.get_by_role("radio", name="Recovery").check(force=True),
        lambda: view(shown).get_by_label("Region boundaries").uncheck(),
    ):
        change()
        assert picture_bytes(shown) not in seen
        seen.add(picture_bytes(shown))
    shown.locator(CANVAS).scroll_into_view_if_needed()
    frame = shown.locator(CANVAS).bounding_box()
    for u, v in ((0.02, 0.02), (0.98, 0.98), (0.5, 0.5)):
        shown.mouse.move(frame["x"] + u * frame["width"], frame["y"] + v * frame["height"])
        expect(readout(shown)).to_contain_text(re.compile(r"Token \d+ · row \d+, column \d+"))
        expect(readout(shown)).to_contain_text(re.compile(r"Stands for [1-9]\d* image token"))
    shown.mouse.move(0, 0)
    shown.locator(CANVAS).focus()
    shown.keyboard.press("ArrowDown")
    expect(readout(shown)).to_contain_text(re.compile(r"Token \d+ · row \d+, column \d+"))


def test_the_steps_of_the_detection_are_timed(shown: Page) -> None:
    row = shown.locator("#steps .measure")
    steps = ("decode", "prepare", "backbone + FPN", "proposals", "heads", "masks", "drawing")
    expect(row).to_have_text([re.compile(rf"^\s*{re.escape(step)}\s*[\d.]+ m?s\s*$") for step in steps])
    expect(shown.locator("#steps")).to_contain_text("480 × 720, filled up to 480 × 736")
    assert min(bar["height"] for bar in map(Locator.bounding_box, row.locator(".stage").all())) >= 10


def test_the_input_size_can_be_chosen(shown: Page) -> None:
    shown.locator("#short-side input").click()
    shown.get_by_role("option", name="320 × 533").click()
    expect(shown.locator("#steps")).to_contain_text("320 × 480, filled up to 320 × 480")


def test_results_can_be_downloaded(shown: Page, tmp_path: Path) -> None:
    (tmp_path / "coco.json").write_bytes(downloaded(shown, "All objects (COCO JSON)"))
    coco = COCO(str(tmp_path / "coco.json"))
    annotations = coco.loadAnns(coco.getAnnIds())
    assert len(annotations) > rows(shown).count()
    assert coco.annToMask(annotations[0]).shape == (600, 900)
    assert downloaded(shown, "Annotated picture").startswith(b"\xff\xd8")
    assert downloaded(shown, "Save this view (PNG)").startswith(b"\x89PNG")


def test_both_backbones_are_compared_and_the_missing_weights_are_said(shown: Page) -> None:
    expect(shown.locator("#backbones")).to_contain_text("no public weights")
    shown.get_by_role("button", name="Compare the backbones").click()
    expect(shown.locator("#backbones .race[data-done=true]")).to_be_visible(timeout=120_000)
    expect(shown.locator("#backbones .tile strong")).to_have_text(re.compile(r"\d\.\d\d×|no clear difference"))
    expect(shown.locator("#backbones .tile").first).to_contain_text("Fewer multiply-adds")
    titles = shown.locator("#backbones .chart h4").all_inner_texts()
    assert titles[:2] == ["Backbone + FPN time", "Backbone + FPN multiply-adds"]
    published = shown.locator("#backbones .published")
    expect(published).to_contain_text("not measured here")
    expect(published).to_contain_text(re.compile(r"51\.8[\s\S]*44\.7[\s\S]*134"))
    expect(shown.locator("#backbones")).to_contain_text("no public weights")


def test_cancel_stops_the_comparison(shown: Page) -> None:
    shown.get_by_role("button", name="Compare the backbones").click()
    click_when_seen(shown, "#cancel-backbones", "#backbones .race[data-done=false]")
    expect(shown.locator("#backbones .stage-line")).to_contain_text("Stopped: incomplete")
    expect(shown.get_by_role("button", name="Compare the backbones")).to_be_enabled()


def test_without_weights_nothing_is_detected_and_everything_else_is_shown(
    page: Page, start_app: Callable[..., App]
) -> None:
    with HubServer() as hub:
        hub.fault = "down"
        open_tab(page, start_app(hub.url, *NARROW).url)
        banner = page.get_by_role("alert").filter(has_text="No detections from STViT-R-Swin-S")
        expect(banner).to_have_text("No detections from STViT-R-Swin-S: The Hugging Face Hub cannot be reached.Retry")
        expect(page.locator("#detections .cv-note")).to_contain_text("Random weights")
        expect(page.get_by_role("radio", name="Semantic tokens")).to_be_checked()
        expect(page.locator("#steps")).to_contain_text("backbone + FPN")
        expect(page.get_by_role("button", name="All objects (COCO JSON)")).to_be_disabled()
        page.get_by_role("radio", name="Objects").check(force=True)
        expect(readout(page)).to_contain_text("No weights, so nothing is detected")
        expect(rows(page)).to_have_count(0)
        hub.fault = None
        add_detector(hub)
        retry(page)
        expect(rows(page).first).to_be_visible()
        expect(page.get_by_role("alert")).to_have_count(0)


def test_a_bad_file_gets_a_message(page: Page, narrow_app: App, tmp_path: Path) -> None:
    (tmp_path / "words.jpg").write_bytes(b"these are words")
    page.goto(narrow_app.url)
    page.get_by_role("tab", name="Detect").click()
    page.set_input_files("#detect-picture input[type=file]", tmp_path / "words.jpg")
    expect(page.get_by_role("alert")).to_contain_text("not an image")


def test_an_example_is_one_click_away(page: Page, narrow_app: App) -> None:
    page.goto(narrow_app.url)
    page.get_by_role("tab", name="Detect").click()
    page.locator("#detect-examples button").nth(2).click()
    expect(page.locator("#detections .cv.filled")).to_be_visible()


@pytest.mark.parametrize("width", [390, 1280])
def test_the_tab_fits_its_window_in_light_and_dark(browser: Browser, narrow_app: App, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme="light", has_touch=width < 500)
    page.set_default_timeout(60_000)
    open_tab(page, narrow_app.url)
    expect(rows(page).first).to_be_visible()
    check_fit(page, ".dv")
    if width < 500:
        page.get_by_role("radio", name="Semantic tokens").check(force=True)
        page.locator(CANVAS).tap()
        expect(readout(page)).to_contain_text("Token")
    page.close()


def test_every_control_has_a_name(shown: Page) -> None:
    nameless = shown.evaluate("""() => [...document.querySelectorAll("button, input, select, canvas, progress")]
        .filter((control) => control.checkVisibility() && control.type !== "file")
        .filter((control) => !(control.getAttribute("aria-label") || control.innerText || control.title
            || [...(control.labels || [])].some((label) => label.innerText)))
        .map((control) => control.outerHTML.slice(0, 200))""")
    assert nameless == []
