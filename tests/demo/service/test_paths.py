"""Where files lie on the server is told to nobody."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse

from demo.page.gradio_private import upload_folder
from demo.service import paths
from demo.service.paths import PublicPaths, server_path
from tests.demo.service.conftest import Service

ROOT = str(Path(__file__).parents[3])


def uploaded(service: Service, photo: Path) -> str:
    (path,) = service.http.post("/gradio_api/upload", files={"files": photo.open("rb")}).json()
    return path


def picked(service: Service, path: str) -> dict:
    """What the page answers to its own script that has uploaded a file."""
    function = next(function for function in service.page.fns.values() if function.name == "path_sent")
    message = {"data": [], "fn_index": function._id, "event_data": {"path": path}, "session_hash": "picked"}
    return service.http.post("/gradio_api/run/predict", json=message).json()


def test_an_upload_is_known_by_a_path_that_does_not_say_where_it_lies(service: Service, photo: Path) -> None:
    path = uploaded(service, photo)
    assert not path.startswith("/") and path.endswith("/photo.png")
    assert Path(server_path(path)).read_bytes() == photo.read_bytes()
    assert service.http.get(f"/gradio_api/file={path}").content == photo.read_bytes()
    (file,) = picked(service, path)["data"]
    assert file["path"] == path and file["url"].endswith(f"/gradio_api/file={path}")


@pytest.mark.parametrize("path", ["/etc/hostname", "../../etc/hostname", "a/../../x.png", ""])
def test_paths_that_are_no_uploads_lead_nowhere(service: Service, path: str) -> None:
    answer = picked(service, path)
    assert "error" in answer and str(upload_folder()) not in str(answer)
    told = service.http.get(f"/gradio_api/file={path}")
    assert told.status_code in (403, 404) and str(upload_folder()) not in told.text


def test_what_is_not_found_is_named_as_it_was_asked_for(service: Service) -> None:
    told = service.http.get("/gradio_api/file=nothing.png")
    assert told.status_code == 403 and told.json()["detail"] == "File not allowed: nothing.png."


@pytest.mark.parametrize("compressed", ["identity", "gzip"])
@pytest.mark.parametrize("address", ["/", "/config", "/gradio_api/info"])
def test_no_answer_says_where_the_server_has_its_files(service: Service, address: str, compressed: str) -> None:
    text = service.http.get(address, headers={"accept-encoding": compressed}).text
    assert len(text) > 1000 and str(upload_folder()) not in text and ROOT not in text


def answered(response: Response) -> tuple[dict[str, str], list[bytes]]:
    """Headers and pieces of a response behind the middleware."""
    sent = []

    async def send(message: dict) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "asgi": {"spec_version": "2.4"}}
    asyncio.run(PublicPaths(response)(scope, None, send))
    return dict(sent[0]["headers"]), [message["body"] for message in sent[1:]]


def test_answers_keep_their_length_and_files_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "where the uploads are"
    monkeypatch.setattr(paths, "upload_folder", lambda: folder)
    place = f"{folder}/a.png"
    headers, (body,) = answered(JSONResponse([place]))
    assert body == b'["a.png"]' and int(headers[b"content-length"]) == len(body)
    events = StreamingResponse(iter([f"data: {place}\n\n"] * 2), media_type="text/event-stream")
    assert answered(events)[1][:2] == [b"data: a.png\n\n"] * 2
    picture = place.encode() * 9
    assert answered(Response(picture, media_type="image/png"))[1] == [picture]
    (tmp_path / "large.json").write_bytes(picture * 5000)
    headers, pieces = answered(FileResponse(tmp_path / "large.json"))
    assert len(pieces) > 1 and sum(map(len, pieces)) == int(headers[b"content-length"])
