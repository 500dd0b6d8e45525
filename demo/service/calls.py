"""Calls of the page's functions by HTTP: read once, with limits, and checked before Gradio sees them."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from inspect import signature
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
import orjson
from gradio.block_function import BlockFunction
from gradio.components import Component, Dropdown, Number, Radio, Textbox
from gradio.data_classes import CancelBody, ComponentServerJSONBody, PredictBody, ResetBody
from gradio.server_messages import UnexpectedErrorMessage
from gradio_client.utils import construct_args
from pydantic import BaseModel, ValidationError
from starlette.datastructures import QueryParams
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from demo.page.gradio_private import upload_folder
from demo.service import metrics
from demo.service.closed import MAX_NAME, MAX_PATH, UPLOAD
from demo.service.http import Refused, check_json, containers, header, read_body, replayed
from demo.service.paths import server_path, with_server_paths
from demo.service.queues import check_room

MAX_JSON_BYTES = 2 * 10**6  # a camera's frame, the largest message of the page, has 1.4 MB
MAX_NUMBER = 10**9
MAX_TEXT = 10_000
SESSION = re.compile(r"[\w.-]{1,64}", re.ASCII)
ROUTE = re.compile(r"/gradio_api/(call/v2|call|run|api|queue/join|cancel|reset|component_server)(?:/([^/]+))?/?")
RESULT = re.compile(r"/gradio_api/call/(?:v2/)?[^/]+/([^/]+)")
PAST_THE_QUEUE = ("run", "api", "component_server")
MAX_DIRECT = 32  # of those; Gradio has 40 threads
TOOLS = re.compile(r"/gradio_api/mcp(/http)?/?")
MAX_TOOL_CALLS = 16  # that wait for their results at once; each is one of the queue's calls beside
MESSAGES = "/gradio_api/queue/data"
BROWSER = (b"x-gradio-user", b"app")  # header of the page's own calls
GONE = UnexpectedErrorMessage(message="The server does not know this session.", session_not_found=True, success=False)
SESSION_GONE = Response(f"data: {GONE.model_dump_json()}\n\n", media_type="text/event-stream")
FAILED = "The server failed on this request; its log says where. Try again, or with another input."
NO_FUNCTION = Refused(404, "The page has no such function. GET /gradio_api/info lists those that scripts may call.")

Body = TypeVar("Body", bound=BaseModel)


class CheckedCalls:
    """Middleware that answers calls that cannot be carried out with one sentence and a status of 4xx.

    Args:
        app: what it stands before.
        page: whose functions are called.
    """

    def __init__(self, app: ASGIApp, page: gr.Blocks) -> None:
        self.app, self.page = app, page
        self._direct = 0  # calls under way that no queue counts
        self._tool_calls = 0
        self._parameters: dict[str, list[dict[str, Any]]] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] != UPLOAD:
                body = await read_body(scope, receive, MAX_JSON_BYTES)
                if route := ROUTE.fullmatch(scope["path"]):
                    check_json(scope)
                    self.check(route[1], route[2], body)
                    if route[1] == "queue/join" and BROWSER in scope["headers"]:
                        self.page.readers.hold(orjson.loads(body)["session_hash"])
                    return await self._carried_out(route[1], scope, replayed(with_server_paths(body), receive), send)
                receive = replayed(body, receive)
                if TOOLS.fullmatch(scope["path"]):
                    check_json(scope)
                    _parsed(body)
                    return await self._called_tool(scope, receive, send)
            elif scope["type"] == "http" and (result := RESULT.fullmatch(scope["path"])):
                return await self._read(self.check_event(result[1]), scope, receive, send)
            elif scope["type"] == "http" and scope["method"] == "GET" and scope["path"] == MESSAGES:
                session = QueryParams(scope["query_string"]).get("session_hash", "")
                if session not in self.page._queue.pending_messages_per_session:
                    return await SESSION_GONE(scope, receive, send)
                return await self._read(session, scope, receive, send)
            elif scope["type"] == "http" and TOOLS.fullmatch(scope["path"]):
                check_no_stream(scope)
        except Refused as refused:
            metrics.REFUSED.labels(refused.status).inc()
            return await refused.answer()(scope, receive, send)
        await self.app(scope, receive, send)

    async def _carried_out(self, route: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a call pass; those that no queue counts are counted here."""
        if route not in PAST_THE_QUEUE:
            return await self.app(scope, receive, send)
        if self._direct >= MAX_DIRECT:
            raise Refused(429, "The server is busy. Try again in a second.", headers={"Retry-After": "1"})
        self._direct += 1
        try:
            await self.app(scope, receive, _blaming(send))
        finally:
            self._direct -= 1

    async def _called_tool(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a message of MCP pass; it ends with its answer."""
        if self._tool_calls >= MAX_TOOL_CALLS:
            raise Refused(429, "Too many calls of tools are waiting. Try again.", headers={"Retry-After": "1"})
        self._tool_calls += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self._tool_calls -= 1

    async def _read(self, session: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the messages of a session be read; what is kept of a call without one goes with its result."""
        self.page.readers.begin(session)
        try:
            await self.app(scope, receive, send)
        finally:
            self.page.readers.end(session)

    def check(self, route: str, name: str | None, body: bytes) -> None:
        """Check a message to one of Gradio's routes.

        Args:
            route: its first parts, e.g. ``"queue/join"``.
            name: of a function, where the route has one.

        Raises:
            Refused: Gradio could not carry it out.
        """
        message = _parsed(body)
        if route in ("cancel", "reset"):
            _valid(CancelBody if route == "cancel" else ResetBody, message)
        elif route == "component_server":
            self._check_server_function(_valid(ComponentServerJSONBody, message))
        elif route == "call/v2":
            function = self._public(name)
            self._check_values(function, self._positional(function, message))
            check_room(self.page._queue, self.page.pace, function)
        else:
            call = _valid(PredictBody, message)
            _check_session(call.session_hash)
            if call.batched:
                raise Refused(422, "`batched` is the queue's own mark: leave it out.")
            function = self._public(name) if route == "call" else self._called(name, call.fn_index)
            if not function.cancels:
                self._check_values(function, call.data)
            if route not in PAST_THE_QUEUE:
                check_room(self.page._queue, self.page.pace, function)

    def check_event(self, event_id: str) -> str:
        """Check the number of a call whose result is asked for; returns its session.

        Raises:
            Refused: it is unknown, or its result was fetched.
        """
        for session, ids in self.page._queue.pending_event_ids_session.items():
            if event_id in ids:
                return session
        raise Refused(404, "There is no such call, or its result was fetched before.")

    def _check_server_function(self, call: ComponentServerJSONBody) -> None:
        _check_session(call.session_hash)
        function = getattr(self.page.blocks.get(call.component_id), call.fn_name, None)
        if not getattr(function, "_is_server_fn", False):
            raise Refused(404, "The page has no such component, or it has no such function.")

    def _public(self, name: str | None) -> BlockFunction:
        for function in self.page.fns.values():
            if function.api_name == name and function.api_visibility != "private":
                return function
        raise NO_FUNCTION

    def _called(self, name: str | None, number: int | None) -> BlockFunction:
        if number is None and name is not None:
            return self._public(name)
        if number not in self.page.fns:
            raise NO_FUNCTION
        return self.page.fns[number]

    def _positional(self, function: BlockFunction, named: dict[str, Any]) -> list[Any]:
        if self._parameters is None:
            described = self.page.get_api_info()["named_endpoints"]
            self._parameters = {name: endpoint["parameters"] for name, endpoint in described.items()}
        parameters = self._parameters[f"/{function.api_name}"]
        try:
            return construct_args(parameters, (), named)
        except TypeError as error:
            names = ", ".join(parameter["parameter_name"] for parameter in parameters)
            words = str(error).partition(". Please")[0]
            raise Refused(422, f"{words}. {function.api_name} takes: {names}.") from None

    @staticmethod
    def _check_values(function: BlockFunction, values: list[Any]) -> None:
        sent = [component for component in function.inputs if not component.skip_api]
        if len(values) not in (len(sent), len(function.inputs)):
            raise Refused(422, f"`data` has {len(values)} values; this function takes {len(sent)}.")
        components = sent if len(values) == len(sent) else function.inputs
        public = function.api_visibility != "private"
        names = list(signature(function.fn).parameters) if public else []
        problems = [
            (name or component.label or "data", problem)
            for name, component, value in zip_longest(names, components, values)
            for problem in _problems(component, value, public)
        ]
        if problems:
            words = "; ".join(f"{name}: {problem}" for name, problem in problems)
            raise Refused(422, f"{words}.", [_told(name, problem) for name, problem in problems])


def check_no_stream(scope: Scope) -> None:
    """Check that nobody asks for a stream of what the server says by itself: it says nothing, and streams stay open.

    Raises:
        Refused: somebody does.
    """
    if "text/event-stream" in (header(scope, b"accept") or ""):
        raise Refused(405, "This server answers calls alone: send them with POST.", headers={"Allow": "POST"})


def _blaming(send: Send) -> Send:
    """Turn the 500 that Gradio answers to every error of a function into 400, unless the page itself failed."""
    held: list[Message] = []

    async def blaming(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == 500:
            held.append(message)
            return
        if held:
            start = held.pop()
            await send(start if FAILED.encode() in message["body"] else {**start, "status": 400})
        await send(message)

    return blaming


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        message = orjson.loads(body)  # strict: no NaN, no infinities, no halves of surrogate pairs
    except orjson.JSONDecodeError as error:
        raise Refused(400, f"The body is no JSON: {error}.") from None
    if not isinstance(message, dict):
        raise Refused(422, "The body is no JSON object.")
    deque(containers(message), maxlen=0)
    return message


def _valid(model: type[Body], message: dict[str, Any]) -> Body:
    try:
        return model.model_validate(message)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise Refused(422, f"`{'.'.join(map(str, first['loc']))}`: {first['msg']}.") from None


def _check_session(session: str | None) -> None:
    if session is not None and not SESSION.fullmatch(session):
        raise Refused(422, "`session_hash` has up to 64 letters, digits, dots, dashes and underscores.")


def _told(name: str, problem: str) -> dict[str, Any]:
    """A problem as Gradio's page and clients read it."""
    return {"__type__": "validate", "is_valid": False, "parameter_name": name, "message": problem}


def _problems(component: Component, value: object, public: bool) -> Iterator[str]:
    """What is wrong with a value; of the page's own functions only what is wrong whatever the component."""
    files = (entry for entry in containers(value) if isinstance(entry, dict) and "path" in entry)
    yield from filter(None, map(_file_problem, files))
    if public and not component.skip_api:
        yield from filter(None, [_value_problem(component, value)])


def _value_problem(component: Component, value: object) -> str:
    if isinstance(component, Number):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return "" if number and abs(value) <= MAX_NUMBER else "send a number of a sensible size"
    if isinstance(component, Textbox):
        return (
            "" if isinstance(value, str) and len(value) <= MAX_TEXT else f"send a text of up to {MAX_TEXT} characters"
        )
    if isinstance(component, (Dropdown, Radio)):
        plain = isinstance(value, (str, int, float)) and not isinstance(value, bool)
        return "" if plain else "send one of the choices"
    if getattr(component, "data_model", None) and value is not None and not isinstance(value, dict):
        return "upload the file, and send an object with its `path`"
    return ""


def _file_problem(file: dict[str, Any]) -> str:
    path = file["path"]
    if not isinstance(path, str):
        return "the `path` of a file is a text"
    if "://" in path:
        return "upload the file itself: this server fetches nothing from other addresses"
    path = server_path(path)
    raw = path.encode()
    if b"\0" in raw or len(raw) > MAX_PATH or max(map(len, raw.split(b"/"))) > MAX_NAME:
        return "no file can have that path"
    inside = Path(path).resolve().is_relative_to(upload_folder().resolve())  # of others, nothing is told
    return "that path is a folder" if inside and Path(path).is_dir() else ""
