"""What loading the page costs a visitor, in a real browser: ``python -m tests.browser.page_load URL [PICTURE]``.

Prints medians of several loads with an empty cache, and of the last one how long a picture's answer and the comparison
after it took. Times mean something on a machine that does nothing else.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from playwright.sync_api import Browser, Page, Request, sync_playwright

from demo.page.examples import GARMENTS

LOADS, PATIENCE_MS = 5, 60_000
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
  if (!seen.interactive && needed.every((selector) => document.querySelector(selector))
      && document.querySelector("#picture").checkVisibility({ visibilityProperty: true }))
    seen.interactive = performance.now();
}).observe(document, { childList: true, subtree: true });
"""

# Times from now on: to the answer, then to the end of the comparison that follows it. Gradio changes elements in place,
# so the comparison of the picture before is told from it by its state alone: it has to be under way in between.
TIME_ANSWER = """() => {
  const start = performance.now(), seen = {}, passed = () => performance.now() - start;
  window.answered = new Promise((done) => {
    const look = () => {
      const race = document.querySelector("#race .race")?.dataset.done;
      if (!seen.answer_ms && document.querySelector("#request .measure")) seen.answer_ms = passed();
      if (seen.answer_ms && race === "false") seen.begun = true;
      if (!seen.begun || race === "false") return requestAnimationFrame(look);
      done({ answer_ms: seen.answer_ms, comparison_ms: passed() - seen.answer_ms });
    };
    look();
  });
}"""

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
        busy_ms: to the end of the last task of more than 50 ms.
        layout_shift: cumulative, without what the visitor caused.
        words: that are visible, in all.
    """

    html_bytes: int
    total_bytes: int
    bytes_by_kind: dict[str, int]
    html: str
    first_paint_ms: float
    interactive_ms: float
    busy_ms: float
    layout_shift: float
    words: int


def load(browser: Browser, url: str, width: int = 1280, height: int = 900, slower: int = 1) -> tuple[Page, PageLoad]:
    """Open a page with an empty cache and wait until it rests; returns the page, still open, and what it cost.

    Args:
        slower: how many times slower than this one the visitor's computer is.
    """
    page = browser.new_context(viewport={"width": width, "height": height}).new_page()
    page.set_default_timeout(PATIENCE_MS)
    if slower > 1:
        page.context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": slower})
    page.add_init_script(WATCH)
    finished: list[Request] = []
    page.on("requestfinished", lambda request: finished.append(request))
    response = page.goto(url, wait_until="commit")
    page.wait_for_selector("#picture input[type=file]", state="attached")
    page.wait_for_selector("#picture")  # is seen when all of the tab is there
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
        busy_ms=seen["busy_until"],
        layout_shift=seen["shift"],
        words=len(visible_words(page)),
    )


def visible_words(page: Page) -> list[str]:
    """Return the words that a visitor sees, wherever he scrolls; those of closed details and lists do not count."""
    text = page.evaluate(VISIBLE_TEXT)
    return [word for word in text.split() if any(character.isalpha() for character in word)]


def answer_times(page: Page, picture: Path) -> dict[str, float]:
    """Send a picture in place of the one that is shown; returns what its answer took, and the comparison after it."""
    page.wait_for_selector("#race .race[data-done=true]")  # of the solved example
    page.get_by_role("button", name="Remove image").click()
    page.wait_for_selector("#predictions .placeholder")
    page.evaluate(TIME_ANSWER)
    page.set_input_files("#picture input[type=file]", picture)
    page.wait_for_function("() => window.answered.then(() => true)")
    return page.evaluate("answered")


def main() -> None:
    """Load the address given by the shell, and print what that and an answer cost."""
    url, picture = sys.argv[1], Path(sys.argv[2]) if sys.argv[2:] else GARMENTS / "bag.jpg"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        costs: list[PageLoad] = []
        for _ in range(LOADS):
            page, cost = load(browser, url)
            costs.append(cost)
            print("shift", round(cost.layout_shift, 4), page.evaluate("JSON.stringify(seen.shifts)"))
        for name, kind in PageLoad.__annotations__.items():
            if kind in ("int", "float"):
                values = [getattr(cost, name) for cost in costs]
                print(f"{name}: {median(values):,.4g} ({min(values):,.4g} to {max(values):,.4g})")
        print("bytes by kind:", cost.bytes_by_kind)
        print({name: round(value) for name, value in answer_times(page, picture).items()})
        browser.close()


if __name__ == "__main__":
    main()
