"""The Video tab as a person meets it: a clip goes up, the new one plays. Narrow models, no weights for classifiers."""

from __future__ import annotations

import io
import json
import re
from base64 import b64encode
from pathlib import Path

import av
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import App
from tests.browser.test_detect_page import downloaded
from tests.browser.test_segment_page import SEND
from tests.stvit.video.clips import make_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", 20, (96, 160), rotation=90, sound="aac")


def open_tab(page: Page, url: str, clip: Path | None = None) -> Page:
    page.goto(url)
    page.get_by_role("tab", name="Video").click()
    if clip:
        page.set_input_files("#clip input[type=file]", clip)
        expect(page.locator("#clip")).to_contain_text(clip.stem)
    return page


def chosen(page: Page, task: str, side_by_side: bool = False) -> None:
    """Choose before a clip runs."""
    page.get_by_label(task, exact=True).check()
    (page.get_by_label("Side by side").check if side_by_side else page.get_by_label("Side by side").uncheck)()
    expect(page.locator("#video-baseline-method")).to_be_visible(visible=side_by_side)


def send(page: Page, clip: Path) -> None:
    page.set_input_files("#clip input[type=file]", clip)


def shown_video(page: Page) -> dict:
    """What the browser says of the new clip once it plays."""
    expect(page.locator("#new-clip video")).to_be_visible()
    return page.locator("#new-clip video").evaluate("""async (video) => {
        video.muted = true;
        await new Promise((done) => video.readyState > 1 ? done() : video.addEventListener("loadeddata", done));
        video.currentTime = 0;
        await video.play();
        const next = () => new Promise((done) => video.addEventListener("timeupdate", done, { once: true }));
        while (video.currentTime <= 0.3) await next();
        return { time: video.currentTime, width: video.videoWidth, height: video.videoHeight, length: video.duration,
                 error: video.error && video.error.message };
    }""")


def test_a_rotated_clip_with_sound_goes_up_and_the_new_one_plays(page: Page, narrow_app: App, clip: Path) -> None:
    open_tab(page, narrow_app.url)
    chosen(page, "Token regions")
    send(page, clip)  # which begins the run
    expect(page.locator("#sent-clip video")).to_have_js_property("videoWidth", 96)
    played = shown_video(page)
    assert (played["width"], played["height"], played["error"]) == (96, 160, None)
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    assert played["time"] > 0.3 and played["length"] == pytest.approx(2.0, abs=0.15)
    expect(page.locator("#video-notice")).to_contain_text("No predictions from STViT-R-Swin-S")
    expect(page.locator("#video-stages")).to_contain_text("20 frames in")
    expect(page.locator("#video-stages")).to_contain_text("turned by 90")
    content = downloaded(page, "New clip (MP4)")
    with av.open(io.BytesIO(content)) as container:
        assert container.streams.audio and container.streams.video[0].frames == 20
    lines = downloaded(page, "Every frame (JSON lines)").decode().splitlines()
    assert [json.loads(line)["frame"] for line in lines] == list(range(20))
    expect(page.get_by_role("button", name="Process the clip")).to_be_enabled()


def test_frames_are_seen_while_the_clip_is_made_and_cancel_stops_it(
    page: Page, narrow_app: App, tmp_path: Path
) -> None:
    long = make_clip(tmp_path / "long.mp4", 1500, (240, 320), fps=30)
    open_tab(page, narrow_app.url, long)
    expect(page.locator("#video-live img")).to_be_visible()
    expect(page.locator("#video-live")).to_contain_text(re.compile(r"frame \d+ of about 1500.*left"))
    before = narrow_app.files()
    page.locator("#cancel-clip").click()
    expect(page.locator("#video-notice")).to_contain_text("Stopped")
    expect(page.get_by_role("button", name="Process the clip")).to_be_enabled()
    assert [path for path in before if "clip-" in str(path)]
    assert not [
        path for path in narrow_app.files() if path.parent.name.startswith("clip-") and "unfinished" in path.name
    ]


def test_classifiers_race_by_default_under_a_headline_and_another_clip_takes_the_place_of_the_first(
    page: Page, narrow_app: App, clip: Path, tmp_path: Path
) -> None:
    long = make_clip(tmp_path / "long.mp4", 1500, (240, 320), fps=30)
    open_tab(page, narrow_app.url, long)
    expect(page.locator("#video-live img")).to_be_visible()
    page.locator("#clip").evaluate(SEND, ["drop", b64encode(clip.read_bytes()).decode(), "second.mp4"])
    expect(page.locator("#video-headline")).to_contain_text(re.compile(r"STViT-R-Swin-S \d+ frames/s, Swin-S \d+: "))
    assert shown_video(page)["width"] == 192
    expect(page.locator("#video-stages")).to_contain_text("20 frames in")
    expect(page.locator("#clip")).to_contain_text("second")


def test_a_clip_goes_through_a_clip_model_and_the_page_says_why_nothing_is_predicted(
    page: Page, narrow_app: App, clip: Path
) -> None:
    open_tab(page, narrow_app.url)
    page.get_by_label("Clip action").check()
    expect(page.get_by_label("Side by side")).not_to_be_checked()
    send(page, clip)
    assert shown_video(page)["width"] == 96
    expect(page.locator("#video-notice")).to_contain_text("No weights of STViT on Video Swin were ever published")
    lines = downloaded(page, "Every frame (JSON lines)").decode().splitlines()
    assert [json.loads(line)["window"]["last_frame"] for line in lines] == [0, *[16] * 16, 19, 19, 19]


def test_the_pickers_follow_the_task(page: Page, narrow_app: App) -> None:
    open_tab(page, narrow_app.url)
    expect(page.locator("#video-model-method")).to_be_visible()
    page.get_by_label("Clip action").check()
    expect(page.locator("#video-clip-model")).to_be_visible()
    expect(page.locator("#video-model-method")).to_be_hidden()
    page.get_by_label("Detect objects").check()
    expect(page.locator("#video-detector")).to_be_visible()
    expect(page.locator("#video-model-method")).to_be_hidden()


def test_the_example_clip_is_one_click_away(page: Page, narrow_app: App) -> None:
    open_tab(page, narrow_app.url)
    page.get_by_role("button", name="Take the example clip").click()
    expect(page.locator("#clip")).to_contain_text("castle")


def test_a_bad_file_gets_a_message(page: Page, narrow_app: App, tmp_path: Path) -> None:
    (tmp_path / "words.mp4").write_text("these are words")
    open_tab(page, narrow_app.url, tmp_path / "words.mp4")
    told = page.locator("#video-notice").get_by_role("alert")
    expect(told).to_contain_text("holds text, not a clip")
    assert 0 < told.bounding_box()["y"] - page.locator("#process").bounding_box()["y"] < 120  # beneath the button
    page.get_by_role("tab", name="Detect").click()
    page.get_by_role("tab", name="Video").click()
    expect(told).to_be_visible()
    expect(page.get_by_role("button", name="Process the clip")).to_be_enabled()


def test_on_a_phone_the_tab_fits_and_the_clip_takes_no_more_room_than_it_needs(
    browser: Browser, narrow_app: App, tmp_path: Path
) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.set_default_timeout(60_000)
    open_tab(page, narrow_app.url, make_clip(tmp_path / "short.mp4", 4, (96, 160)))
    expect(page.locator("#new-clip video")).to_have_js_property("videoWidth", 320)
    expect(page.locator("#video-headline b")).to_be_in_viewport()
    expect(page.locator("#video-live")).to_be_hidden()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("#new-clip").bounding_box()["height"] < 300
    page.close()
