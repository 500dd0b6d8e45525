"""The page's Blocks as a service: errors with words, queues with room, state that does not grow."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import gradio as gr
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from demo.page.gradio_private import files_of_page, forget_missing_files, forget_old_uploads
from demo.service import metrics
from demo.service.calls import FAILED, CheckedCalls
from demo.service.closed import Closed, allowed_hosts
from demo.service.connections import bound
from demo.service.files import remove_old_files
from demo.service.pace import Pace
from demo.service.paths import PublicPaths
from demo.service.queues import RecentTime
from demo.service.sessions import MAX_SESSIONS, Readers, Sessions
from demo.service.tools import Tools
from stvit.predict.device import return_freed_memory

UNREADABLE = "One of the values sent cannot be used for what it is sent for. Send it as GET /gradio_api/info describes."
LOOK_EVERY_S, CLEAN_EVERY_S = 3.0, 60.0
TELL_EVERY_S = 1.0
IDLE_S = 20.0  # after which freed memory goes back to the system: under load, keeping it is faster


class Page(gr.Blocks):
    """Blocks whose errors always have words: a caller's mistake, without a stack trace in the log; a mistake of this
    program, with one.

    Attributes:
        readers: who reads the messages of which session.
        pace: how fast calls come to their ends.
    """

    readers: Readers
    pace: Pace

    def queue(self, *arguments: Any, **named: Any) -> Page:
        """Set the queue up, as ``gr.Blocks`` does; its estimates follow the latest calls, and are told once a second:
        Gradio would tell all who wait whenever a call begins."""
        super().queue(*arguments, status_update_rate=TELL_EVERY_S, **named)
        self._queue.process_time_per_fn = defaultdict(RecentTime)
        self.readers, self.pace = Readers(self._queue), Pace(self._queue)
        return self

    def launch(self, *arguments: Any, prevent_thread_lock: bool = False, **named: Any) -> Any:
        """Serve the page, as ``gr.Blocks`` does, to connections that have bounds."""
        launched = super().launch(*arguments, prevent_thread_lock=True, **named)
        bound(self.server.config)
        if not prevent_thread_lock:
            self.block_thread()
        return launched

    async def preprocess_data(self, *arguments: Any, **named: Any) -> list[Any]:
        """Make the arguments of a function from what was sent.

        Raises:
            gr.Error: one of the values is not what the component takes.
        """
        try:
            return await super().preprocess_data(*arguments, **named)
        except gr.Error as error:
            error.print_exception = False  # Gradio's own, e.g. of a choice that a list does not have
            raise
        except Exception as error:
            raise gr.Error(UNREADABLE, print_exception=False) from error

    async def process_api(self, block_fn: Any, *arguments: Any, **named: Any) -> dict[str, Any]:
        """Carry out a call.

        Raises:
            gr.Error: it failed.
        """
        function = str(block_fn.api_name or block_fn.name)
        outcome, start, over = "failed", time.perf_counter(), True
        try:
            result = await super().process_api(block_fn, *arguments, **named)
            outcome, over = "done", not result["is_generating"]
            return result
        except gr.Error:
            outcome = "told"
            raise
        except Exception as error:
            traceback.print_exc()
            raise gr.Error(FAILED, print_exception=False) from error
        finally:
            metrics.CALLS.labels(function, outcome).inc()
            metrics.CALL_SECONDS.labels(function).observe(time.perf_counter() - start)
            if over:
                self.pace.end(block_fn)

    def with_tools(self) -> Page:
        """Let the page have tools for MCP when it is launched, see ``demo.service.tools``."""
        self.mcp_server_obj, self.mcp_server = Tools(self), True
        return self

    def middleware(self, answers: Sequence[Middleware]) -> list[Middleware]:
        """List what stands before Gradio's routes, the first outermost.

        Args:
            answers: what answers go through beside, e.g. to be compressed.
        """
        checks = [Middleware(Closed, hosts=allowed_hosts()), Middleware(CheckedCalls, page=self)]
        return [*checks, *answers, Middleware(PublicPaths)]

    def routes(self) -> list[Route]:
        """List what the server answers beside Gradio's routes."""

        async def figures(request: Request) -> Response:
            return metrics.exposition(self)

        return [Route("/metrics", figures)]

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Keep the state of visitors within its bounds while the page is served; given to Gradio as the app's."""
        app.state_holder = Sessions(self._queue)
        app.state_holder.set_blocks(self)
        app.state_holder.capacity = MAX_SESSIONS
        upkeep = asyncio.create_task(self._keep_up())
        try:
            async with self.mcp_server_obj.lifespan(app):
                yield
        finally:
            upkeep.cancel()

    async def _keep_up(self) -> None:
        busy_at = cleaned_at = time.monotonic()
        freed, calls = False, 0
        while True:
            due = time.monotonic() + LOOK_EVERY_S
            await asyncio.sleep(LOOK_EVERY_S)
            now = time.monotonic()
            await self.readers.end_unread(late_s=now - due)
            self.readers.release_idle()
            if self._queue.event_ids_to_events or self._queue.events_recorded != calls:
                busy_at, freed, calls = now, False, self._queue.events_recorded
            if now - cleaned_at > CLEAN_EVERY_S:
                cleaned_at = now
                self.state_holder.forget_old()
                forget_old_uploads()
                await asyncio.to_thread(remove_old_files, files_of_page(self))
                await asyncio.to_thread(forget_missing_files, self)
            if not freed and now - busy_at > IDLE_S:
                freed = True
                await asyncio.to_thread(return_freed_memory)
