"""The page's Blocks: whatever goes wrong in one of its functions reaches the caller as one sentence."""

from __future__ import annotations

import traceback
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from demo.service.calls import FAILED, CheckedCalls
from demo.service.closed import Closed, allowed_hosts

UNREADABLE = "One of the values sent cannot be used for what it is sent for. Send it as GET /gradio_api/info describes."


class Page(gr.Blocks):
    """Blocks whose errors always have words: a caller's mistake, without a stack trace in the log; a mistake of this
    program, with one."""

    async def preprocess_data(self, *arguments: Any, **named: Any) -> list[Any]:
        """Make the arguments of a function from what was sent.

        Raises:
            gr.Error: one of the values is not what the component takes.
        """
        try:
            return await super().preprocess_data(*arguments, **named)
        except gr.Error:
            raise
        except Exception as error:
            raise gr.Error(UNREADABLE, print_exception=False) from error

    async def process_api(self, *arguments: Any, **named: Any) -> dict[str, Any]:
        """Carry out a call.

        Raises:
            gr.Error: it failed.
        """
        try:
            return await super().process_api(*arguments, **named)
        except gr.Error:
            raise
        except Exception as error:
            traceback.print_exc()
            raise gr.Error(FAILED, print_exception=False) from error

    def middleware(self) -> list[Middleware]:
        """Return what stands before Gradio's routes, the first outermost."""
        return [Middleware(Closed, hosts=allowed_hosts()), Middleware(CheckedCalls, page=self)]
