"""What axe-core finds on every tab, in light and in dark; how controls are called; what is read aloud."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import App

AXE = (files("axe_playwright_python") / "axe.min.js").read_text()
TABS = ("Classify", "Detect", "Segment", "Video", "Camera", "Benchmarks")
RUN = """async () => (await axe.run(document, { resultTypes: ["violations"] })).violations
    .filter(({ impact }) => ["serious", "critical"].includes(impact))
    .map(({ id, nodes }) => [id, nodes.map(({ html, failureSummary }) => [html.slice(0, 160), failureSummary])])"""
SHARED_NAMES = """() => {
    for (const details of document.querySelectorAll("details")) details.open = true;
    const kinds = "button, input, select, textarea, summary, a[href], [role=button], [role=tab], [role=combobox]";
    const named = new Map();
    axe.setup(document.body);
    for (const control of document.querySelectorAll(kinds)) {
        if (!control.checkVisibility({ visibilityProperty: true }) || control.closest("[aria-hidden=true]")) continue;
        const name = axe.commons.text.accessibleText(control).trim();
        named.set(name, [...(named.get(name) ?? []), control.outerHTML.slice(0, 160)]);
    }
    axe.teardown();
    return [named.size, [...named].filter(([name, controls]) => controls.length > 1 || !name)];
}"""
EXAMPLES = {
    "Classify": ("#examples", "#clusters"),
    "Detect": ("#detect-examples", "#detections"),
    "Segment": ("#segment-examples", "#segmentation"),
}
READ_ALOUD = {
    "Classify": ("#notice", "#predictions", "#story"),
    "Detect": ("#detect-notice", "#detect-answers"),
    "Segment": ("#segment-notice", "#segment-answers"),
    "Video": ("#video-notice", "#video-headline"),
    "Camera": ("#camera-notice", ".lc-state"),
    "Benchmarks": ("#tradeoff", "#own-about"),
}
LIVE = "PLACE[aria-live=polite], PLACE [aria-live=polite]"


def bring_your_own(page: Page) -> None:
    """An architecture is found by a part of its name, described, measured beside its sparsified copy; what cannot be
    done is said, and no list of names is in the document."""
    assert "test_vit3" not in page.request.get(page.url).text()
    about, measured, compare = (page.locator(f"#{name}") for name in ("own-about", "networks", "compare-networks"))
    name, tokens = (page.locator(f"#own-{part} input") for part in ("architecture", "tokens"))
    expect(about).to_contain_text("22 million parameters, 4.61 G multiply-adds for 224 × 224 pixels")
    for part, found, words in (
        ("r26_s32_224", "vit_small_r26_s32_224", "convolutional hybrid's work is done before its first layer"),
        ("test_vit3", "test_vit3", "By the rule they come after 3 of its 9 layers"),
    ):
        name.click()
        name.press("Control+A")
        name.press_sequentially(part)
        page.get_by_role("option", name=found, exact=True).click()
        expect(about).to_contain_text(words)
    expect(page.locator("#own-position input")).to_have_value("3")
    tokens.fill("5")
    compare.click()
    expect(measured.get_by_role("alert")).to_contain_text("5 is no square number")
    tokens.fill("4")
    compare.click()
    expect(measured.locator(".race[data-done=true]")).to_contain_text("One image at a time")
    expect(measured.locator(".measure").first).to_contain_text("4 tokens after 3 layers")
    expect(measured.locator(".tile dd").last).to_have_text(re.compile(r"\d\.\d\d×"))
    expect(compare).to_be_enabled()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_tab_has_a_serious_finding_two_controls_of_one_name_or_silent_answers(
    browser: Browser, offline_garments: App, scheme: str
) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.goto(offline_garments.url)
    expect(page.locator("#tabs button[role=tab][aria-selected=true]")).to_have_text("Classify")
    expect(page.locator("#model-method input")).to_be_visible()
    page.evaluate(AXE)
    found, shared, silent = {}, {}, []
    for tab in TABS:
        page.get_by_role("tab", name=tab, exact=True).click()
        expect(page.locator("#tabs button[role=tab][aria-selected=true]")).to_have_text(tab)
        if tab == "Benchmarks" and scheme == "light":
            bring_your_own(page)
        page.wait_for_timeout(800)  # until its parts are there and colours have changed
        if findings := page.evaluate(RUN):
            found[tab] = findings
        if scheme == "dark":  # neither names nor what is read aloud depend on it
            continue
        if tab in EXAMPLES:
            examples, picture = EXAMPLES[tab]
            page.locator(f"{examples} button").first.click()
            expect(page.locator(f"{picture} .cv.filled")).to_be_visible()
        controls, twice = page.evaluate(SHARED_NAMES)
        assert controls > 5, f"hardly any controls on {tab}"
        if twice:
            shared[tab] = twice
        silent += [place for place in READ_ALOUD[tab] if not page.locator(LIVE.replace("PLACE", place)).count()]
    context.close()
    assert not found and not shared and not silent, (found, shared, silent)
