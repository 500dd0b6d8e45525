"""Bounds of connections, which requests are read from; read in uvicorn 0.54 and h11 0.16."""

from __future__ import annotations

import asyncio

import orjson
from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S = 30.0  # from the first byte of a request, or the connection, to the end of its headers
KEPT_IDLE_S = 75  # longer than clients and proxies keep connections: whoever closes first may cross a request
LATE = f"The request did not come within {HEAD_S:.0f} s. Send it again."


class BoundedConnection(H11Protocol):
    """A connection on which requests have to come in time. Their heads have 16 kB at most, by h11; httptools, which
    uvicorn prefers where it is installed, has no limit."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._said_anything = False
        self._late: asyncio.TimerHandle | None = None
        self._watch()

    def data_received(self, data: bytes) -> None:
        self._said_anything = True
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_watching()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Let the time run while no request is being answered; a connection that says nothing between two requests has
        uvicorn's own time."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_watching()
        elif self._late is None:
            self._late = self.loop.call_later(HEAD_S, self._close_late)

    def _stop_watching(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _close_late(self) -> None:
        if self.transport.is_closing():
            return
        if self._said_anything and self.cycle is None:
            body = orjson.dumps({"error": LATE, "detail": LATE})
            head = f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
            self.transport.write(f"HTTP/1.1 408 Request Timeout\r\n{head}".encode() + body)
        self.transport.close()


def bound(server: Config) -> None:
    """Let a server, which may be running, give its connections these bounds."""
    server.http_protocol_class = BoundedConnection
    server.timeout_keep_alive = KEPT_IDLE_S
