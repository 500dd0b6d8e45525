"""The Classify tab as a person meets it: the real app, weights from a local Hub, a real browser."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from demo.page.examples import load_examples
from stvit.pretrained.records import record
from tests.browser.conftest import NO_HUB, ROOT, App, check_fit, click_when_seen, open_published, retry
from tests.hub_server import HubServer
from tests.published_weights import BASELINE, MODEL, add_released_weights

PHOTO = ROOT / "assets" / "examples" / "bison.jpg"
UPLOAD = "#picture input[type=file]"
READOUT = ".cv-readout"


@pytest.fixture
def shown(page: Page, app: App) -> Page:
    """The page with results for one photo."""
    open_published(page, app)
    replace_picture(page, PHOTO)
    return page


def replace_picture(page: Page, path: Path) -> None:
    """Upload a picture in place of another, and wait until both models have answered."""
    page.get_by_role("button", name="Remove image").click()
    expect(page.locator("#predictions ol")).to_have_count(0)
    page.set_input_files(UPLOAD, path)
    expect(page.locator("#predictions ol")).to_have_count(2)
    expect(page.locator(".cv.filled")).to_be_visible()


def result_of(page: Page) -> dict[str, Any]:
    """The downloaded JSON of what the page shows."""
    with page.expect_download() as download:
        page.get_by_role("button", name="Result (JSON)").click()
    return json.loads(Path(download.value.path()).read_text())


def show_layer(page: Page, block: int, stage: str, edges: str = "Smooth") -> None:
    """Choose what the picture of tokens shows."""
    for name in (str(block), stage, edges):
        page.get_by_role("radio", name=name, exact=True).check(force=True)


def picture_bytes(page: Page) -> str:
    return page.locator(".cv-canvas").evaluate("canvas => canvas.toDataURL()")


def test_a_photo_gives_predictions_of_both_models_with_weights_from_the_hub(shown: Page, hub: HubServer) -> None:
    for label in ("STViT-R-Swin-S", "Swin-S"):
        rows = shown.get_by_role("list", name=f"Predictions of {label}", exact=True).get_by_role("listitem")
        expect(rows).to_have_count(5)
        assert all(re.fullmatch(r"\S.*\s+([<>] )?\d+\.\d %", text) for text in rows.all_inner_texts())
    expect(shown.locator(".agreement")).to_contain_text(re.compile("Both say|They differ"))
    expect(shown.locator(".notice")).to_have_count(0)
    for name in (MODEL, BASELINE):
        assert any(request.startswith(f"GET /{record(name).repo}/resolve/") for request in hub.requests)


def test_the_times_of_the_request_are_split_for_both_models(shown: Page) -> None:
    rows = shown.locator("#request .measure")
    expect(rows).to_have_count(2)
    for row in rows.all_inner_texts():
        assert all(stage in row for stage in ("decode", "preprocess", "model", "draw"))


def test_the_result_can_be_downloaded(shown: Page) -> None:
    result = result_of(shown)
    assert result["model"]["name"] == MODEL and len(result["baseline"]["predictions"]) == 5
    shown.get_by_text("Drawing", exact=True).click()
    for name, kind, file in (
        ("Tokens (JPEG)", b"\xff\xd8", r"stvit-r-swin-small-classify-tokens\.jpg"),
        ("Save this view (PNG)", b"\x89PNG", r"stvit-r-swin-small-classify-tokens-block-\d-grouping-\d\.png"),
    ):
        with shown.expect_download() as download:
            shown.get_by_role("button", name=name).click()
        assert Path(download.value.path()).read_bytes().startswith(kind)
        assert re.fullmatch(file, download.value.suggested_filename)


def test_unit_layer_opacity_and_boundaries_change_the_picture_at_once(shown: Page) -> None:
    show_layer(shown, 3, "Grouping 2")
    shown.get_by_text("Drawing", exact=True).click()
    shown.context.set_offline(True)  # the server is not asked
    seen = {picture_bytes(shown)}
    for change in (
        lambda: shown.get_by_role("radio", name="1", exact=True).check(force=True),
        lambda: shown.get_by_role("radio", name="Grouping 1").check(force=True),
        lambda: shown.get_by_role("radio", name="Recovery").check(force=True),
        lambda: shown.get_by_role("radio", name="Squares").check(force=True),
        lambda: shown.get_by_label("Overlay opacity").fill("20"),
        lambda: shown.get_by_label("Region boundaries").uncheck(),
    ):
        change()
        assert picture_bytes(shown) not in seen
        seen.add(picture_bytes(shown))
    expect(shown.locator(".cv-canvas")).to_have_attribute("aria-label", re.compile("block 1, Recovery"))


def test_pointing_at_a_region_shows_where_its_token_looks(shown: Page) -> None:
    before = picture_bytes(shown)
    box = shown.locator(".cv-canvas").bounding_box()
    shown.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(shown.locator(READOUT)).to_contain_text(re.compile(r"Token \d+ · row \d, column \d"))
    expect(shown.locator(READOUT)).to_contain_text(re.compile(r"Stands for [\d.]+ % of what the model sees"))
    expect(shown.locator(READOUT)).to_contain_text(re.compile(r"Strongest attention 0\.\d+"))
    assert picture_bytes(shown) != before
    shown.mouse.move(0, 0)
    expect(shown.locator(READOUT)).to_contain_text("stand for a region")
    assert picture_bytes(shown) == before


def test_regions_lie_exactly_where_the_model_looked(shown: Page) -> None:
    result = result_of(shown)
    show_layer(shown, 3, "Grouping 2", "Squares")
    geometry, clusters = result["image"]["geometry"], result["model"]["clusters"][7]
    assert (clusters["unit"], clusters["layer"]) == (3, "STGM 2")
    (height, width), resized, (top, left) = (geometry[key] for key in ("source_hw", "resized_hw", "crop_top_left"))
    canvas = shown.locator(".cv-canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    per_x, per_y = box["width"] / resized[1], box["height"] / resized[0]

    def point_at(input_x: float, input_y: float) -> None:
        shown.mouse.move(box["x"] + (left + input_x) * per_x, box["y"] + (top + input_y) * per_y)

    for row, column, dx, dy in ((0, 0, 1.5, 1.5), (0, 13, 14.5, 1.5), (13, 0, 1.5, 14.5), (6, 9, 1.5, 14.5)):
        point_at(16 * column + dx, 16 * row + dy)
        token = clusters["assignment"][row][column]
        expect(shown.locator(READOUT)).to_contain_text(f"Token {token + 1} ")
        point_at(-2, 8)
        expect(shown.locator(READOUT)).to_contain_text("stand for a region")
    assert [height, width] == result["image"]["size_hw"]


def test_arrow_keys_walk_over_the_tokens_and_the_choice_outlives_a_change_of_unit(shown: Page) -> None:
    show_layer(shown, 3, "Grouping 2")
    canvas, readout = shown.locator(".cv-canvas"), shown.locator(READOUT)
    canvas.focus()
    canvas.press("ArrowRight")
    expect(readout).to_contain_text("Token 22 · row 4, column 4")
    canvas.press("ArrowRight")
    expect(readout).to_contain_text("Token 23 · row 4, column 5")
    canvas.press("ArrowUp")
    expect(readout).to_contain_text("Token 17 · row 3, column 5")
    for _ in range(9):
        canvas.press("ArrowLeft")
    expect(readout).to_contain_text("Token 13 · row 3, column 1")
    before = picture_bytes(shown)
    shown.get_by_role("radio", name="2", exact=True).check(force=True)
    expect(readout).to_contain_text("Token 13")
    assert picture_bytes(shown) != before
    canvas.press("Escape")
    expect(readout).to_contain_text("stand for a region")


def test_an_example_is_one_click_away(page: Page, app: App) -> None:
    open_published(page, app)
    page.get_by_role("button", name="Remove image").click()
    expect(page.locator("#predictions ol")).to_have_count(0)
    page.locator("#examples button").nth(2).click()
    expect(page.locator("#predictions ol")).to_have_count(2)
    credits = page.locator("#examples button").evaluate_all("buttons => buttons.map((button) => button.title)")
    assert len(credits) >= 6 and all("CC0" in credit or "ublic" in credit for credit in credits)


def test_what_was_chosen_last_is_what_the_page_ends_with(shown: Page) -> None:
    page = shown
    with page.expect_request("**/queue/join*"):
        page.locator("#examples button").nth(0).click()
    page.locator("#examples button").nth(2).click()  # falls into the run of the first
    with Image.open(load_examples()[2].path) as image:
        last = [image.height, image.width]
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and result_of(page)["image"]["size_hw"] != last:
        page.wait_for_timeout(100)
    assert result_of(page)["image"]["size_hw"] == last


def test_a_comparison_fills_the_charts_while_it_runs_and_ends_with_a_verdict(shown: Page) -> None:
    shown.get_by_label("Batch size").click()
    shown.get_by_role("option", name="1", exact=True).click()
    shown.get_by_role("button", name="Run the comparison").click()
    expect(shown.locator(".race[data-done=false]")).to_be_visible()
    expect(shown.locator(".race[data-done=true]")).to_be_visible(timeout=120_000)
    expect(shown.locator(".tile strong").first).to_have_text(re.compile(r"\d\.\d\d×|no clear difference"))
    expect(shown.locator(".tile p").first).to_have_text(re.compile("faster|slower|takes as long as|busy"))
    expect(shown.locator(".tile").first).to_contain_text(re.compile(r"Fewer multiply-adds\s*1\.\d\d×"))
    shown.get_by_text("All figures").click()
    titles = shown.locator(".chart h4").all_inner_texts()
    measured, counted = ["Latency, batch 1", "Throughput, batch 1"], ["Multiply-adds", "Parameters"]
    assert titles == [*measured, *counted, "Peak memory, batch 1"]
    expect(shown.locator(".chart .measure .bar")).to_have_count(10)
    expect(shown.locator(".published summary")).to_contain_text("Published (paper, V100")
    expect(shown.get_by_role("button", name="Cancel")).to_be_disabled()


def test_cancel_stops_a_comparison_and_the_page_goes_on(shown: Page) -> None:
    shown.get_by_role("button", name="Run the comparison").click()
    click_when_seen(shown, "#cancel", "#race .race[data-done=false] .measure .whisker")
    expect(shown.locator(".stage-line")).to_contain_text("Stopped: incomplete", timeout=20_000)
    expect(shown.get_by_role("button", name="Run the comparison")).to_be_enabled()
    before = picture_bytes(shown)
    replace_picture(shown, ROOT / "assets" / "examples" / "koala.jpg")
    assert picture_bytes(shown) != before
    expect(shown.locator(".race[data-done=true] .tile")).to_have_count(1)  # a short one, by itself
    expect(shown.get_by_role("button", name="Cancel")).to_be_disabled()


def test_a_comparison_without_a_picture_says_what_is_missing(page: Page, app: App) -> None:
    page.goto(app.url)
    page.get_by_role("button", name="Remove image").click()
    page.get_by_role("button", name="Run the comparison").click()
    expect(page.get_by_text("Choose a picture first")).to_be_visible()
    expect(page.get_by_role("button", name="Run the comparison")).to_be_enabled()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("words.jpg", b"these are words", "not an image"),
        ("half.jpg", PHOTO.read_bytes()[: PHOTO.stat().st_size // 2], "damaged or ends too early"),
    ],
)
def test_a_bad_file_gets_a_message_and_leaves_nothing_behind(
    shown: Page, app: App, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    shown.get_by_role("button", name="Remove image").click()
    expect(shown.locator("#predictions ol")).to_have_count(0)
    shown.set_input_files(UPLOAD, tmp_path / name)
    expect(shown.get_by_role("alert").filter(has_text=message)).to_be_visible()
    expect(shown.locator("#predictions ol")).to_have_count(0)
    expect(shown.locator(".cv.filled")).to_have_count(0)
    expect(
        shown.locator("#clusters").locator(".cv-canvas, .cv-readout, .cv-side").locator("visible=true")
    ).to_have_count(0)
    assert {entry.name.split("-")[0] for entry in app.folder.iterdir()} <= {"stvit", "hub", "log.txt"}
    shown.locator("#examples button").first.click()
    expect(shown.locator("#predictions ol")).to_have_count(2)


def test_without_weights_the_page_says_so_and_shows_all_but_predictions(
    page: Page, start_app: Callable[[str], App]
) -> None:
    with HubServer() as hub:
        hub.fault = "down"
        page.goto(start_app(hub.url, "-m", "tests.browser.unbundled_app").url)
        page.set_input_files(UPLOAD, PHOTO)
        banner = page.get_by_role("alert").filter(has_text="No predictions from STViT-R-Swin-S and Swin-S")
        expect(banner).to_have_text(re.compile("The Hugging Face Hub cannot be reached[.]Retry$"))
        expect(page.locator(".cv.filled")).to_be_visible()
        expect(page.locator(".cv.untrained .cv-note")).to_contain_text("Random weights")
        expect(page.locator("#request .measure")).to_have_count(2)
        expect(page.locator("#predictions ol")).to_have_count(0)

        hub.fault = None  # the Hub is back, but does not know the files
        retry(page)
        expect(banner).to_contain_text("This server cannot get the weights")
        add_released_weights(hub)
        retry(page)
        expect(page.locator("#predictions ol")).to_have_count(2)
        expect(page.get_by_role("alert")).to_have_count(0)


def test_a_server_that_is_told_to_stop_leaves_no_file_behind(page: Page, start_app: Callable[[str], App]) -> None:
    app = start_app(NO_HUB)
    page.goto(app.url)
    page.get_by_role("button", name="Remove image").click()
    page.set_input_files(UPLOAD, PHOTO)
    expect(page.locator("#picture img")).to_be_visible()
    assert app.files()
    app.process.terminate()
    app.process.wait(30)
    assert not app.files()


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_its_window_in_light_and_dark(browser: Browser, app: App, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme="light", has_touch=width < 500)
    page.set_default_timeout(60_000)
    open_published(page, app)
    check_fit(page, ".card")
    if width < 500:
        page.locator(".cv-canvas").tap()
        expect(page.locator(READOUT)).to_contain_text("Token")
    page.close()


def test_every_control_has_a_name(shown: Page) -> None:
    nameless = shown.evaluate("""() => [...document.querySelectorAll("button, input, select, canvas, progress")]
        .filter((control) => control.checkVisibility() && control.type !== "file" && !control.ariaHidden)
        .filter((control) => !(control.getAttribute("aria-label") || control.innerText || control.title
            || [...(control.labels || [])].some((label) => label.innerText)))
        .map((control) => control.outerHTML.slice(0, 200))""")
    assert nameless == []
