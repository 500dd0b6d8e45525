"""The endpoints as tools of the Model Context Protocol, at ``/gradio_api/mcp``; read in Gradio 6.31.0.

A call goes the way of every other: over HTTP to the page's own address, with the caller's headers, into the queue.
"""

from __future__ import annotations

import asyncio
import binascii
from base64 import b64decode
from typing import Any
from urllib.parse import unquote, urlsplit

import orjson
from anyio import CancelScope
from anyio.to_thread import run_sync
from gradio.mcp import GradioMCPServer
from gradio_client.client import Job
from gradio_client.utils import handle_file, is_file_obj_with_meta
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from demo.page.gradio_private import inside_uploads, kept_file
from demo.service.paths import FILES, server_path

HOW_TO_SEND = (
    " A picture or clip goes in as a data URL (`data:image/jpeg;base64,...`), up to 1.4 MB; a larger one is first sent "
    f"to POST /gradio_api/upload (field `files`), which answers with its path: give this server's {FILES}PATH."
)


class Tools(GradioMCPServer):
    """Gradio's tools of a page: those of its public endpoints.

    Beyond Gradio's, a call that waits holds no thread, one whose caller has gone leaves the queue, and results are
    JSON. No file is taken but what was sent: Gradio would upload whatever path of the server an address names.
    """

    def convert_strings_to_filedata(self, value: Any, filedata_positions: list[list[str | int]]) -> Any:
        """Make files of the arguments that are files.

        Raises:
            ValueError: one of them is neither sent along nor uploaded before, or an argument is no plain value.
            gr.Error: a path outside of the folder of uploads.
        """
        if any(isinstance(given, (dict, list)) for given in value.values()):
            raise ValueError("All arguments are plain values.")
        files = {position[0] for position in filedata_positions}
        return {name: _file(name, str(given)) if name in files else given for name, given in value.items()}

    async def _execute_tool_without_progress(self, job: Job) -> list[Any]:
        try:
            result = await asyncio.wrap_future(job.future)
        except asyncio.CancelledError:
            with CancelScope(shield=True):
                await run_sync(job.cancel)
            raise
        return list(result) if isinstance(result, tuple) else [result]

    async def _execute_tool_with_progress(self, job: Job, progress_token: str | int) -> list[Any]:
        return await self._execute_tool_without_progress(job)

    def postprocess_output_data(self, data: Any, root_url: str) -> list[Any]:
        """Make content of results: pictures as such, other files by their addresses, all else as JSON."""
        plain = [
            {**value, "path": server_path(value["path"])}  # Gradio reads the picture
            if is_file_obj_with_meta(value)
            else orjson.dumps(value).decode()
            for value in data
        ]
        return super().postprocess_output_data(plain, root_url)

    def launch_mcp_on_sse(self, app: Starlette, subpath: str, root_path: str) -> None:
        """Mount the transport over HTTP, and the description of the tools; the older one, whose connections stay
        open, is left out."""
        self.root_path = root_path
        routes = [Route("/schema", self.get_complete_schema), Mount("/", self.handle_streamable_http)]
        app.mount(subpath, Starlette(routes=routes))

    @property
    def _file_data_tool_description(self) -> str:
        return HOW_TO_SEND


def _file(name: str, given: str) -> dict[str, Any]:
    kind, _, content = given.partition(",")
    if kind.startswith("data:") and kind.endswith(";base64"):
        try:
            return handle_file(kept_file(name, b64decode(content, validate=True)))
        except binascii.Error:
            raise ValueError(f"`{name}` is no data URL: what follows `base64,` cannot be decoded.") from None
    path = urlsplit(given).path
    if not path.startswith(FILES):
        raise ValueError(f"`{name}` is neither a data URL nor a file that was sent here.{HOW_TO_SEND}")
    return handle_file(inside_uploads(server_path(unquote(path.removeprefix(FILES)))))
