"""What axe-core finds on every tab, in light and in dark."""

from __future__ import annotations

from importlib.resources import files

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import App

AXE = (files("axe_playwright_python") / "axe.min.js").read_text()
TABS = ("Classify", "Detect", "Segment", "Video", "Camera", "Benchmarks")
RUN = """async () => (await axe.run(document, { resultTypes: ["violations"] })).violations
    .filter(({ impact }) => ["serious", "critical"].includes(impact))
    .map(({ id, nodes }) => [id, nodes.map(({ html, failureSummary }) => [html.slice(0, 160), failureSummary])])"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_tab_has_a_serious_or_critical_finding(browser: Browser, offline_garments: App, scheme: str) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.goto(offline_garments.url)
    expect(page.locator("#tabs button[role=tab][aria-selected=true]")).to_have_text("Classify")
    expect(page.locator("#model-method input")).to_be_visible()
    page.evaluate(AXE)
    found = {}
    for tab in TABS:
        page.get_by_role("tab", name=tab, exact=True).click()
        expect(page.locator("#tabs button[role=tab][aria-selected=true]")).to_have_text(tab)
        page.wait_for_timeout(800)  # until its parts are there and colours have changed
        if findings := page.evaluate(RUN):
            found[tab] = findings
    context.close()
    assert not found
