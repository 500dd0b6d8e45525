"""Clients that are slow, silent, or never done with the head of a request."""

from __future__ import annotations

import inspect
import json
import socket
from contextlib import suppress
from urllib.parse import urlsplit

import httpx
import pytest

from demo.service import connections, http
from demo.service.connections import KEPT_IDLE_S, BoundedConnection
from tests.demo.service.conftest import Service

SOON_S = 0.3
ENDS_S = 60.0
HEAD = b"POST /gradio_api/call/models HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
UPLOAD = HEAD.replace(b"call/models", b"upload").replace(b"application/json", b"multipart/form-data; boundary=x")


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((connections, "HEAD_S"), (http, "BODY_S"), (http, "FORM_S")):
        monkeypatch.setattr(module, name, SOON_S)


def connected(service: Service) -> socket.socket:
    address = urlsplit(service.url)
    return socket.create_connection((address.hostname, address.port), ENDS_S)


def to_the_end(client: socket.socket) -> bytes:
    """All that comes until the server closes the connection."""
    answer = b""
    with suppress(ConnectionResetError):  # closed while we were sending
        while part := client.recv(65536):
            answer += part
    return answer


def answered(service: Service, sent: bytes) -> bytes:
    with connected(service) as client:
        client.sendall(sent)
        return to_the_end(client)


@pytest.mark.parametrize("sent", [b"G", b"GET / HTTP/1.1\r\nHost: localhost\r\n", HEAD + b"X-Slow: "])
def test_a_head_that_does_not_end_is_told(service: Service, sent: bytes) -> None:
    head, _, body = answered(service, sent).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ") and "Send it again" in json.loads(body)["error"]


def test_whoever_says_nothing_is_left(service: Service) -> None:
    assert answered(service, b"") == b""


def test_a_second_request_that_does_not_end_is_left_too(service: Service) -> None:
    with connected(service) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = client.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200 ")
        while not answer.endswith(b'{"status":"ok"}'):
            answer += client.recv(65536)
        client.sendall(b"GET /health")
        assert to_the_end(client) == b""


def test_a_head_has_a_limit(service: Service) -> None:
    assert answered(service, HEAD + b"X-More: %b\r\n" % (b"a" * 16_400)).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(("head", "status"), [(HEAD, b"408"), (UPLOAD, b"400")])
def test_a_body_that_does_not_end_is_told(
    service: Service, head: bytes, status: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with connected(service) as client:
        client.sendall(head + b"Content-Length: 99\r\n\r\n--x\r\n")
        answer = b""
        while b"did not come whole" not in answer:
            part = client.recv(65536)
            assert part, answer
            answer += part
    assert answer.startswith(b"HTTP/1.1 %b " % status)
    assert "Traceback" not in capfd.readouterr().err


def test_idle_connections_are_kept_longer_than_clients_keep_them(service: Service) -> None:
    """Whoever closes first may cross a request that is on its way: clients found connections reset."""
    config = service.page.server.config
    assert config.http_protocol_class is BoundedConnection and config.timeout_keep_alive == KEPT_IDLE_S
    assert 2 * inspect.signature(httpx.Limits).parameters["keepalive_expiry"].default < KEPT_IDLE_S
