"""What scripts send: calls that cannot be carried out get one sentence and 4xx, and leave no trace in the log."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import ValidationError

from demo.page.gradio_private import upload_folder
from demo.service import calls
from demo.service.calls import MAX_JSON_BYTES
from demo.service.page import FAILED, UNREADABLE
from tests.demo.service.conftest import AS_JSON, Service

MODEL = "stvit_r_swin_small_224"
SERVER_CALL = {"data": 0, "component_id": 1, "fn_name": "camera_frame", "session_hash": "a"}
FOLDER = {"path": "of uploads"}
ANNOTATE = "/gradio_api/call/annotate"
CALL = b'{"data": []}'
GZIP = {**AS_JSON, "content-encoding": "gzip"}
FORM_TYPE = "multipart/form-data; boundary="
FORM = {"content-type": f"{FORM_TYPE}x"}
FILE = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nabc\r\n'


def annotated(unit: bytes) -> bytes:
    return b'{"data": [null, "a", %b, "STGM 1", 0, "auto"]}' % unit


@pytest.fixture
def quiet(capfd: pytest.CaptureFixture[str]) -> Any:
    """No stack trace is logged."""
    yield
    assert "Traceback" not in capfd.readouterr().err


def refused(service: Service, path: str, status: int, words: str, **request: Any) -> None:
    answer = service.http.post(path, **request)
    assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([MODEL, 1, None, 0], "layer: send a text"),
        ([MODEL, 1, ["STGM 1"], 0], "layer: send a text"),
        ([MODEL, 1, "x" * 20_000, 0], "layer: send a text"),
        ([MODEL, None, "STGM 1", 0], "unit: send a number"),
        ([MODEL, True, "STGM 1", 0], "unit: send a number"),
        ([MODEL, 1e300, "STGM 1", 0], "unit: send a number"),
        ([MODEL, "1", "STGM 1", {}], "unit: send a number of a sensible size; token: send a number"),
        ([None, 1, "STGM 1", 0], "model: send a text"),
        ([[MODEL], 1, "STGM 1", 0], "model: send a text"),
        ([MODEL, 1, "STGM 1"], "`data` has 5 values; this function takes 6"),
        ([MODEL, 1, "STGM 1", 0, 0], "`data` has 7 values; this function takes 6"),
    ],
)
def test_values_that_no_parameter_takes(service: Service, values: list, words: str, quiet: None) -> None:
    refused(service, ANNOTATE, 422, words, json={"data": [None, *values, "auto"]})


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("photo.png", "image: upload the file"),
        (7, "image: upload the file"),
        ({"path": 7}, "is a text"),
        ({"path": "/etc/passwd\0"}, "no file can have that path"),
        ({"path": "/" + "a" * 300}, "no file can have that path"),
        ({"path": "/a" * 3000}, "no file can have that path"),
        ({"path": "https://example.org/a.png"}, "fetches nothing"),
        ({"path": "file:///etc/passwd"}, "fetches nothing"),
        (FOLDER, "is a folder"),
    ],
)
def test_what_is_no_uploaded_file(service: Service, image: object, words: str, quiet: None) -> None:
    message = {"data": [{"path": str(upload_folder())} if image == FOLDER else image, MODEL, 1, "a", 0, "auto"]}
    refused(service, ANNOTATE, 422, words, json=message)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "no JSON"),
        (b"{", 400, "no JSON"),
        (b'{"data": [NaN]}', 400, "no JSON"),
        (b'{"data": [-Infinity]}', 400, "no JSON"),
        (b'{"data": [1e999]}', 400, "infinity"),
        (b'{"data": ["\\ud800"]}', 400, "surrogate"),
        (b'{"data": ["\xff"]}', 400, "UTF-8"),
        (b"[" * 5000, 400, "depth"),
        (b'{"data": [' + b"[" * 100 + b"]" * 100 + b"]}", 422, "levels deep"),
        (b"[]", 422, "no JSON object"),
        (b"{}", 422, "`data`: Field required"),
        (b'{"data": 5}', 422, "`data`: Input should be a valid list"),
        (b'{"data": [], "session_hash": "../../a"}', 422, "`session_hash`"),
        (b'{"data": [], "batched": true}', 422, "`batched`"),
        (b" " * (MAX_JSON_BYTES + 1), 413, "2 MB"),
    ],
)
def test_bodies_that_are_no_calls(service: Service, body: bytes, status: int, words: str, quiet: None) -> None:
    refused(service, ANNOTATE, status, words, content=body, headers=AS_JSON)


@pytest.mark.parametrize(
    ("path", "status", "words", "request_"),
    [
        ("call/models", 415, "Send JSON", {"content": CALL}),
        ("call/v2/models", 415, "Send JSON", {"content": b"{}", "headers": {"content-type": "text/plain"}}),
        ("queue/join", 415, "Send JSON", {"data": {"data": "[]"}}),
        ("component_server", 415, "Send JSON", {"files": {"data": b"x"}}),
        ("mcp/", 415, "Send JSON", {"content": b"{}"}),
        ("call/models", 415, "Content-Encoding", {"content": gzip.compress(CALL), "headers": GZIP}),
        ("mcp/", 415, "Content-Encoding", {"content": gzip.compress(b"{}"), "headers": GZIP}),
        ("mcp/", 400, "no JSON", {"content": b"[" * 5000, "headers": AS_JSON}),
        ("mcp/", 400, "no JSON", {"content": b"\xff", "headers": AS_JSON}),
        ("mcp/", 422, "levels deep", {"content": b'{"a":' * 99 + b"1" + b"}" * 99, "headers": AS_JSON}),
        ("call/models", 422, "`data` has 1 values", {"content": b'{"data": [], "data": [1]}', "headers": AS_JSON}),
        (
            "call/models",
            422,
            "levels deep",
            {"content": b'{"data": ' + b"[" * 33 + b"]" * 33 + b"}", "headers": AS_JSON},
        ),
        ("call/annotate", 422, "unit: send a number", {"content": annotated(b"9" * 300), "headers": AS_JSON}),
        ("call/annotate", 400, "no JSON", {"content": annotated(b"9" * 5000), "headers": AS_JSON}),
        (
            "queue/join",
            422,
            "`fn_index`",
            {"content": b'{"data": [], "fn_index": %b}' % (b"9" * 30), "headers": AS_JSON},
        ),
        ("upload", 400, "no file", {"content": b"--x--\r\n", "headers": FORM}),
        ("upload", 400, "no file", {"content": FILE[:60], "headers": FORM}),
        ("upload", 400, "no file", {"content": FILE.replace(b"files", b"other") + b"--x--\r\n", "headers": FORM}),
        ("upload", 400, "cannot be read", {"content": FILE, "headers": {"content-type": f"{FORM_TYPE}{'x' * 300}"}}),
    ],
)
def test_bodies_of_another_kind(
    service: Service, path: str, status: int, words: str, request_: dict[str, Any], quiet: None
) -> None:
    refused(service, f"/gradio_api/{path}", status, words, **request_)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", "/gradio_api/call/models", 405),
        ("OPTIONS", "/gradio_api/upload", 405),
        ("HEAD", "/gradio_api/queue/data?session_hash=abc", 405),
        ("PUT", "/gradio_api/queue/data?session_hash=abc", 405),
        ("GET", "/?page=other", 404),
        ("GET", "/?%ff=%fe&&==&colour=1", 200),
        ("GET", "/config?deep_link=../../a%00", 200),
        ("POST", "/gradio_api/call/models?colour=%ff", 200),
    ],
)
def test_methods_and_query_parameters_that_no_route_has(
    service: Service, method: str, path: str, status: int, quiet: None
) -> None:
    assert service.http.request(method, path, content=CALL, headers=AS_JSON).status_code == status


def test_a_body_without_a_length_has_the_same_limit(service: Service, quiet: None) -> None:
    refused(service, ANNOTATE, 413, "2 MB", content=iter([b" " * 10**6] * 3))


@pytest.mark.parametrize(
    ("path", "message", "status", "words"),
    [
        ("call/nothing", {"data": []}, 404, "no such function"),
        ("call/v2/nothing", {}, 404, "no such function"),
        ("call/v2/annotate", {"image": None, "colour": 1}, 422, "annotate takes: image, model, unit, layer, token"),
        ("run/nothing", {"data": []}, 404, "no such function"),
        ("run/predict", {"data": [], "fn_index": 99999}, 404, "no such function"),
        ("queue/join", {"data": [], "fn_index": -1, "session_hash": "a"}, 404, "no such function"),
        ("queue/join", {"data": [], "session_hash": "a"}, 404, "no such function"),
        ("queue/join", {"data": [], "fn_index": "x", "session_hash": "a"}, 422, "`fn_index`"),
        ("component_server", {"data": 0, "component_id": 99999, "fn_name": "a", "session_hash": "a"}, 404, "component"),
        (
            "component_server",
            {"data": 0, "component_id": 1, "fn_name": "unrender", "session_hash": "a"},
            404,
            "function",
        ),
        ("component_server", {"data": 0}, 422, "`session_hash`"),
        ("cancel", {"session_hash": "a"}, 422, "`fn_index`"),
    ],
)
def test_messages_to_what_is_not_there(
    service: Service, path: str, message: dict, status: int, words: str, quiet: None
) -> None:
    refused(service, f"/gradio_api/{path}", status, words, json=message)


def test_the_queue_cannot_be_gone_round(service: Service, quiet: None) -> None:
    for route in ("run", "api"):
        answer = service.http.post(f"/gradio_api/{route}/models", json={"data": []})
        assert answer.status_code == 404 and "queue" in answer.json()["detail"]


def test_what_goes_past_the_queue_is_counted_and_its_errors_are_the_callers(
    service: Service, quiet: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = next(function for function in service.page.fns.values() if function.name == "chosen")
    message = {"data": [], "fn_index": chosen._id, "event_data": {"index": 10**6}}
    refused(service, "/gradio_api/run/predict", 400, "no such example", json=message)
    monkeypatch.setattr(calls, "MAX_DIRECT", 0)
    refused(service, "/gradio_api/run/predict", 429, "busy", json=message)


@pytest.mark.parametrize("name", ["card_file", "picture_file", "json_file", "coco_file"])
def test_a_result_that_was_forgotten_cannot_be_saved(service: Service, name: str, quiet: None) -> None:
    save = next(function for function in service.page.fns.values() if function.name == name)
    message = {"data": [None] * len(save.inputs), "fn_index": save._id, "session_hash": "forgotten"}
    refused(service, "/gradio_api/run/predict", 400, "no result to save", json=message)


def test_results_and_messages_of_nobody(service: Service, quiet: None) -> None:
    answer = service.http.get("/gradio_api/call/classify/abc")
    assert answer.status_code == 404 and "no such call" in answer.json()["error"]
    assert '"session_not_found":true' in service.http.get("/gradio_api/queue/data?session_hash=abc").text


def told(service: Service, name: str, data: list) -> str:
    """What the queue says about a call at its end."""
    event = service.http.post(f"/gradio_api/call/{name}", json={"data": data}).json()["event_id"]
    return service.http.get(f"/gradio_api/call/{name}/{event}").text


def test_whatever_else_a_component_cannot_read_has_words(service: Service, quiet: None) -> None:
    assert UNREADABLE in told(service, "annotate", [{"url": 5}, MODEL, 1, "STGM 1", 0, "auto"])


def test_a_failure_of_the_page_has_words_too_and_is_logged(
    service: Service, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(self: object) -> None:
        raise ZeroDivisionError("a secret of the server")

    function = next(function for function in service.page.fns.values() if function.api_name == "models")
    monkeypatch.setattr(function, "fn", lambda: fail(None))
    answer = told(service, "models", [])
    assert FAILED in answer and "secret" not in answer
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_gradios_own_client_is_told_what_is_wrong(service: Service, photo: Path) -> None:
    client = Client(service.url, verbose=False)
    with pytest.raises(ValidationError, match="layer: send a text"):
        client.predict(handle_file(photo), MODEL, 1, None, 0, api_name="/annotate")
