"""What loading the page costs a visitor, in a real browser: ``python -m tests.browser.page_load URL``."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from playwright.sync_api import Browser, Page, Request, sync_playwright

# Watches from before the first byte; an element of each selector has to be there for the page to be interactive.
REST_MS = 3000
WATCH = """
window.seen = { shift: 0, paint: 0, interactive: 0, busy_until: 0, shifts: [] };
new PerformanceObserver((list) => list.getEntries().forEach((entry) => {
  if (entry.hadRecentInput) return;
  seen.shift += entry.value;
  const moved = entry.sources.map(({ node }) => node?.id || node?.className || node?.nodeName);
  seen.shifts.push([entry.value, entry.startTime, ...moved]);
})).observe({ type: "layout-shift", buffered: true });
new PerformanceObserver((list) => list.getEntries().forEach((entry) => {
  if (entry.name === "first-contentful-paint") seen.paint = entry.startTime;
})).observe({ type: "paint", buffered: true });
new PerformanceObserver((list) => list.getEntries().forEach((entry) => {
  seen.busy_until = Math.max(seen.busy_until, entry.startTime + entry.duration);
})).observe({ type: "longtask", buffered: true });
const needed = ["#picture input[type=file]", "#tabs button[role=tab]", "#run"];
new MutationObserver(() => {
  if (!seen.interactive && needed.every((selector) => document.querySelector(selector)))
    seen.interactive = performance.now();
}).observe(document, { childList: true, subtree: true });
"""

VISIBLE_TEXT = """() => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), seen = [];
  while (texts.nextNode()) {
    const holder = texts.currentNode.parentElement, clipped = holder.getBoundingClientRect().width < 2;
    if (!clipped && holder.checkVisibility({ visibilityProperty: true, opacityProperty: true }))
      seen.push(texts.currentNode.data);
  }
  return seen.join(" ");
}"""


@dataclass(frozen=True)
class PageLoad:
    """One visit with an empty cache.

    Attributes:
        html_bytes: of the document on the wire, compressed as it was.
        total_bytes: of everything that was loaded, on the wire.
        bytes_by_kind: the same by kind of resource, as the browser names it.
        html: the document as the server sent it.
        first_paint_ms: from the start of navigation to the first text or picture.
        interactive_ms: to the moment at which the controls are there.
        layout_shift: cumulative, without what the visitor caused.
        words: that are visible, in all.
    """

    html_bytes: int
    total_bytes: int
    bytes_by_kind: dict[str, int]
    html: str
    first_paint_ms: float
    interactive_ms: float
    layout_shift: float
    words: int


def load(browser: Browser, url: str, width: int = 1280, height: int = 900) -> tuple[Page, PageLoad]:
    """Open a page with an empty cache and wait until it rests; returns the page, still open, and what it cost."""
    page = browser.new_context(viewport={"width": width, "height": height}).new_page()
    page.add_init_script(WATCH)
    finished: list[Request] = []
    page.on("requestfinished", lambda request: finished.append(request))
    response = page.goto(url, wait_until="commit")
    page.wait_for_selector("#picture input[type=file]", state="attached")
    page.wait_for_timeout(REST_MS)
    seen = page.evaluate("seen")
    kinds: dict[str, int] = {}
    for request in finished:
        sizes = request.sizes()
        size = sizes["responseBodySize"] + sizes["responseHeadersSize"]
        kinds[request.resource_type] = kinds.get(request.resource_type, 0) + size
    return page, PageLoad(
        html_bytes=kinds["document"],
        total_bytes=sum(kinds.values()),
        bytes_by_kind=kinds,
        html=response.text(),
        first_paint_ms=seen["paint"],
        interactive_ms=max(seen["interactive"], seen["paint"]),
        layout_shift=seen["shift"],
        words=len(visible_words(page)),
    )


def visible_words(page: Page) -> list[str]:
    """Return the words that a visitor sees, wherever he scrolls; those of closed details and lists do not count."""
    text = page.evaluate(VISIBLE_TEXT)
    return [word for word in text.split() if any(character.isalpha() for character in word)]


def main() -> None:
    """Load the address given by the shell and print what it cost."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page, cost = load(browser, sys.argv[1])
        print({name: value for name, value in vars(cost).items() if name != "html"})
        print(page.evaluate("[seen.busy_until, JSON.stringify(seen.shifts)]"))
        browser.close()


if __name__ == "__main__":
    main()
