"""Load a running page with scripts and visitors: ``python -m demo.loadtest --clients 100 --minutes 10``.

Scripts classify pictures one after the other. Beside them, visitors press the page's own button every second or so,
with its first models. Every answer to a script is compared with the one that the same picture got before, alone.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Sequence
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from demo.loadtest.clients import CLIP, TRIES_ALONE, LoadTest
from demo.loadtest.figures import SETTLED_S
from demo.loadtest.page import PATIENCE_S, NoAnswer, RemotePage
from demo.page.examples import load_examples

MODEL, BASELINE = "stvit_r_swin_small_224", "swin_small_patch4_window7_224"


async def load(
    url: str,
    clients: int,
    seconds: float,
    pictures: Sequence[Path],
    pair: tuple[str, str],
    *,
    mixed: bool = False,
    whole: bool = False,
    clip: Path = CLIP,
) -> LoadTest:
    """Load a page and print the figures; returns the test.

    Args:
        mixed: see :meth:`LoadTest.run`.
        whole: measure the models alone before and after the load, and how true the waits are that are told.

    Raises:
        NoAnswer, httpx.HTTPError: the page does not even answer a single client.
    """
    async with httpx.AsyncClient(
        base_url=url, timeout=PATIENCE_S, limits=httpx.Limits(max_connections=None, max_keepalive_connections=clients)
    ) as http:
        test = LoadTest(RemotePage(http), pictures, pair, clip, partial(print, flush=True))
        await test.upload()
        if whole or mixed:
            before = await test.measure_alone()
        await test.learn(TRIES_ALONE if whole else 1)
        took = await test.run(clients, seconds, mixed=mixed)
        if whole:
            await test.overfill()
            test.figures.alone = [before, await test.measure_alone()]
        if seconds >= SETTLED_S:
            await test.rest()
        print(test.figures.report(took), flush=True)
    return test


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m demo.loadtest", description=__doc__.partition("\n")[0])
    here = f"http://127.0.0.1:{os.environ.get('PORT', 7860)}"
    parser.add_argument("--url", default=here, help="of a page on this machine")
    parser.add_argument("--clients", type=int, default=100, help="scripts at the same time")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--mixed", action="store_true", help="all kinds of calls, to see what memory does in an hour")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--baseline", default=BASELINE)
    chosen = parser.parse_args(arguments)
    host = urlsplit(chosen.url).hostname or ""
    if host != "localhost" and not (host[:1].isdecimal() and ip_address(host).is_loopback):
        parser.error("load only a page on this machine")
    pictures = [example.path for example in load_examples()]
    pair = (chosen.model, chosen.baseline)
    load_for = partial(load, chosen.url, chosen.clients, chosen.minutes * 60, pictures, pair)
    try:
        asyncio.run(load_for(mixed=chosen.mixed, whole=not chosen.mixed))
    except (NoAnswer, httpx.HTTPError) as error:
        parser.exit(1, f"The page at {chosen.url} gives no answer: {str(error)[:300] or type(error).__name__}\n")


if __name__ == "__main__":
    main()
