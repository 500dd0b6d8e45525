"""The Camera tab as a person meets it: Chromium's made-up camera, narrow models, no weights for classifiers."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.browser.conftest import CHROMIUM, CHROMIUM_FLAGS, App, check_fit

FRAME_URL = "**/component_server/**"
FAKE_CAMERA, ALLOWED, REFUSED = (
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--use-fake-ui-for-media-stream=deny",
)


def launched(browser: Browser, *flags: str) -> Browser:
    return browser.browser_type.launch(executable_path=CHROMIUM, args=[*CHROMIUM_FLAGS, *flags])


@pytest.fixture(scope="module")
def camera_browser(browser: Browser) -> Iterator[Browser]:
    """Chromium with a camera that shows a moving pattern, 640x480."""
    with_camera = launched(browser, FAKE_CAMERA, ALLOWED)
    yield with_camera
    with_camera.close()


def new_page(browser: Browser, width: int = 1280) -> Page:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme="light")
    page.set_default_timeout(60_000)
    return page


def open_tab(page: Page, app: App) -> Page:
    page.goto(app.url)
    page.get_by_role("tab", name="Camera").click()
    return page


@pytest.fixture
def page(camera_browser: Browser, narrow_app: App) -> Iterator[Page]:
    """The tab; the test fails on an uncaught error of the page's scripts."""
    page = new_page(camera_browser)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield open_tab(page, narrow_app)
    page.close()
    assert not errors, errors


def start(page: Page) -> Page:
    page.get_by_role("button", name="Start camera").click()
    return page


def shown_frames(page: Page) -> int:
    return int(page.locator(".lc-frames").inner_text())


def wait_for_frames(page: Page, number: int) -> None:
    page.wait_for_function("n => Number(document.querySelector('.lc-frames').textContent) >= n", arg=number)


def wait_for_camera(page: Page, frames: int) -> None:
    """Wait until the camera has given so many more frames."""
    given = "document.querySelector('.lc-video').getVideoPlaybackQuality().totalVideoFrames"
    page.wait_for_function(f"n => {given} >= n", arg=page.evaluate(given) + frames)


def wait_for_repaints(page: Page, number: int) -> None:
    """Wait until the browser has painted so many more times."""
    page.evaluate(
        "n => new Promise((done) => { const next = () => (n-- ? requestAnimationFrame(next) : done()); next(); })",
        number,
    )


def number_in(page: Page, selector: str) -> float:
    return float(re.search(r"[\d.]+", page.locator(selector).inner_text())[0])


def picture(page: Page) -> dict:
    """Size of the canvas, and how much its pixels differ."""
    return page.locator(".lc-canvas").evaluate("""canvas => {
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return { size: [canvas.width, canvas.height], colours: new Set(new Uint32Array(data.buffer)).size };
    }""")


def test_frames_are_answered_counted_and_timed(page: Page) -> None:
    start(page)
    wait_for_frames(page, 5)
    first = page.locator(".lc-canvas").evaluate("canvas => canvas.toDataURL()")
    wait_for_frames(page, shown_frames(page) + 5)
    assert picture(page)["size"] == [640, 480] and picture(page)["colours"] > 100
    assert page.locator(".lc-canvas").evaluate("canvas => canvas.toDataURL()") != first
    assert number_in(page, ".lc-rate") > 0
    assert number_in(page, ".lc-latency") > number_in(page, ".lc-server") > number_in(page, ".lc-model") > 0
    expect(page.locator(".lc-server")).to_contain_text("on the server in all, eager PyTorch")
    expect(page.locator(".lc-full")).to_have_text(re.compile(r"\d+ % of [\d.]+ (m|b)illion with all tokens kept"))
    expect(page.locator("#camera-notice")).to_contain_text("No predictions from STViT-R-Swin-S")


def test_one_frame_is_in_flight_and_a_slow_server_costs_frames_that_nobody_waits_for(page: Page) -> None:
    held: list[Route] = []  # frames on their way to a server that is slow
    slow = [True]
    page.route(FRAME_URL, lambda route: held.append(route) if slow else route.continue_())
    start(page)
    for _ in range(4):
        while not held:
            page.wait_for_timeout(20)
        wait_for_camera(page, 4)
        (route,) = held  # however many frames the camera gives meanwhile
        held.clear()
        route.continue_()
    slow.clear()
    for route in held:
        route.continue_()
    wait_for_frames(page, 5)  # the page tells its counts every now and then
    assert number_in(page, ".lc-dropped") >= 4 * 3


def test_stop_turns_the_camera_off(page: Page) -> None:
    start(page)
    wait_for_frames(page, 2)
    page.evaluate("window.track = document.querySelector('.lc-video').srcObject.getTracks()[0]")
    assert page.evaluate("track.readyState") == "live"
    page.get_by_role("button", name="Stop").click()
    assert page.evaluate("track.readyState") == "ended"
    assert page.locator(".lc-video").evaluate("video => video.srcObject") is None
    expect(page.locator(".lc-state")).to_have_text("The camera is off.")
    expect(page.locator(".lc-stopped")).to_have_text("Stopped: this is the last frame")
    expect(page.locator(".lc-stopped")).to_be_visible()
    before = shown_frames(page)
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    wait_for_repaints(page, 40)
    assert shown_frames(page) == before and not [url for url in requests if "component_server" in url]
    page.evaluate("document.querySelector('.lc-frames').textContent = '900'")  # as after a long run
    start(page)
    page.wait_for_function("Number(document.querySelector('.lc-frames').textContent) < 900")
    expect(page.locator(".lc-stopped")).to_be_hidden()
    wait_for_frames(page, 2)


def test_another_task_is_taken_up_while_the_camera_runs(page: Page) -> None:
    start(page)
    wait_for_frames(page, 2)
    page.get_by_label("Detect objects").check()
    expect(page.locator("#camera-detector")).to_be_visible()
    expect(page.locator(".lc-full")).to_contain_text("in the backbone")
    wait_for_frames(page, shown_frames(page) + 2)


def test_frames_pause_while_another_tab_of_the_page_is_open(page: Page) -> None:
    start(page)
    wait_for_frames(page, 2)
    page.get_by_role("tab", name="Detect").click()
    wait_for_camera(page, 20)
    before = page.locator(".lc-frames").text_content()
    wait_for_camera(page, 20)
    assert page.locator(".lc-frames").text_content() == before
    page.get_by_role("tab", name="Camera").click()
    wait_for_frames(page, int(before) + 2)


def test_an_unplugged_camera_is_told(page: Page) -> None:
    start(page)
    wait_for_frames(page, 1)
    page.evaluate("document.querySelector('.lc-video').srcObject.getTracks()[0].dispatchEvent(new Event('ended'))")
    expect(page.locator("#camera").get_by_role("alert")).to_contain_text("was unplugged")
    expect(page.get_by_role("button", name="Start camera")).to_be_enabled()


def test_a_server_that_fails_is_told(page: Page) -> None:
    start(page)
    wait_for_frames(page, 1)
    page.route(FRAME_URL, lambda route: route.fulfill(status=500, body="{}"))
    expect(page.locator("#camera").get_by_role("alert")).to_contain_text("The server does not answer")


def test_a_server_that_never_begins_is_told(page: Page) -> None:
    page.evaluate("""() => {
        const wait = window.setTimeout;
        window.setTimeout = (work, ms, ...more) => wait(work, ms >= 30000 ? 1000 : ms, ...more);
    }""")
    page.route("**/queue/join*", lambda route: route.fulfill(status=503, json={"detail": "Queue is full!"}))
    start(page)
    expect(page.locator("#camera").get_by_role("alert")).to_contain_text("has not begun within 30 seconds")
    expect(page.get_by_role("button", name="Start camera")).to_be_enabled()


@pytest.mark.parametrize(
    ("flags", "words"),
    [((FAKE_CAMERA, REFUSED), "does not let this page use the camera"), ((ALLOWED,), "No camera was found")],
)
def test_a_camera_that_is_denied_or_absent_is_told(
    browser: Browser, narrow_app: App, flags: tuple[str, ...], words: str
) -> None:
    other = launched(browser, *flags)
    page = open_tab(new_page(other), narrow_app)
    start(page)
    expect(page.locator("#camera").get_by_role("alert")).to_contain_text(words)
    expect(page.locator("#camera").get_by_role("alert")).to_contain_text("then press Start camera")
    expect(page.get_by_role("button", name="Start camera")).to_be_enabled()
    assert shown_frames(page) == 0
    other.close()


def test_an_insecure_page_is_told_where_to_go(camera_browser: Browser, narrow_app: App) -> None:
    page = new_page(camera_browser)
    page.add_init_script("Object.defineProperty(navigator, 'mediaDevices', { value: undefined })")
    start(open_tab(page, narrow_app))
    expect(page.locator("#camera").get_by_role("alert")).to_contain_text("Open this page by https://")
    page.close()


@pytest.mark.parametrize("width", [390, 1280])
def test_the_tab_fits_its_window_in_light_and_dark(camera_browser: Browser, narrow_app: App, width: int) -> None:
    page = start(open_tab(new_page(camera_browser, width), narrow_app))
    wait_for_frames(page, 2)
    figures = page.locator(".lc-figures").bounding_box()
    assert figures["y"] + figures["height"] < page.viewport_size["height"]
    check_fit(page, ".lc")
    page.close()
