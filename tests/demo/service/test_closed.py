"""Who may speak to the server, on which routes, and with how much."""

from __future__ import annotations

import pytest

from demo.service import closed
from demo.service.closed import Closed, allowed_hosts
from tests.demo.service.conftest import Service

NAMES = allowed_hosts({"STVIT_ALLOWED_HOSTS": "Demo.example, b.example", "SPACE_HOST": "me-space.hf.space"})
FORM = {"files": ("a.png", b"no picture")}


@pytest.mark.parametrize(
    ("host", "welcome"),
    [
        ("localhost", True),
        ("LOCALHOST:7860", True),
        ("127.0.0.1:7860", True),
        ("[::1]:7860", True),
        ("demo.example", True),
        ("b.example:443", True),
        ("me-space.hf.space", True),
        ("", False),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("localhost@evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("evil.example:localhost", False),
        ("localhost:7860/../evil", False),
        ("a b", False),
    ],
)
def test_the_server_answers_under_its_own_names_and_addresses(host: str, welcome: bool) -> None:
    assert Closed(None, NAMES).is_welcome(host) is welcome


def test_every_name_can_be_allowed() -> None:
    assert Closed(None, allowed_hosts({"STVIT_ALLOWED_HOSTS": "*"})).is_welcome("any.example:80")


@pytest.mark.parametrize("name", ["host", "x-forwarded-host"])
def test_a_foreign_name_gets_a_sentence_and_no_page(service: Service, name: str) -> None:
    answer = service.http.get("/", headers={name: "evil.example"})
    assert answer.status_code == 421 and "STVIT_ALLOWED_HOSTS" in answer.json()["error"]


def test_no_header_of_a_proxy_changes_the_addresses_that_others_get(service: Service) -> None:
    told = service.http.get("/config", headers={"x-gradio-server": "http://evil.example"}).text
    assert "evil.example" not in told and service.url.rstrip("/") in told


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:3000"},
        {"origin": "http://127.0.0.1:1@evil.example"},
        {"sec-fetch-site": "cross-site"},
    ],
)
def test_a_page_of_another_site_cannot_upload_or_call(service: Service, headers: dict[str, str]) -> None:
    for send in (
        lambda: service.http.post("/gradio_api/upload", files=FORM, headers=headers),
        lambda: service.http.post("/gradio_api/call/models", json={"data": []}, headers=headers),
    ):
        answer = send()
        assert answer.status_code == 403 and "another site" in answer.json()["error"]


@pytest.mark.parametrize("headers", [{}, {"origin": "{url}"}, {"sec-fetch-site": "same-origin"}])
def test_the_page_itself_and_scripts_can(service: Service, headers: dict[str, str]) -> None:
    headers = {name: value.format(url=service.url.rstrip("/")) for name, value in headers.items()}
    assert service.http.post("/gradio_api/upload", files=FORM, headers=headers).status_code == 200


def test_browsers_are_told_what_they_may_do_with_answers(service: Service) -> None:
    for answer in (service.http.get("/"), service.http.get("/nothing"), service.http.get("/", headers={"host": "x"})):
        assert answer.headers["x-content-type-options"] == "nosniff"
        policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
        assert policy["frame-ancestors"].split() == [
            "'self'",
            "https://huggingface.co",
            "https://*.huggingface.co",
            "https://*.hf.space",
        ]
        assert policy["object-src"] == "'none'"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/gradio_api/process_recording"),
        ("GET", "/gradio_api/proxy=https://x.hf.space/"),
        ("GET", "/gradio_api/custom_component/a/client/b/c"),
        ("GET", "/gradio_api/dev/reload"),
        ("POST", "/gradio_api/stream/a"),
        ("POST", "/gradio_api/vibe-edit"),
        ("GET", "/gradio_api/file/http://example.org/a.png"),
        ("GET", "/gradio_api/file//etc/passwd"),
        ("GET", "/pwa_icon/100000"),
        ("GET", "/monitoring"),
        ("POST", "/login"),
    ],
)
def test_routes_that_the_page_does_not_use_are_closed(service: Service, method: str, path: str) -> None:
    answer = service.http.request(method, path)
    assert answer.status_code == 404 and answer.json()["error"] == "There is nothing at this address."


def test_a_prefix_leads_to_no_route_past_the_checks(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service.page.app, "root_path", "/stvit")
    answer = service.http.post("/stvit/gradio_api/run/predict", json={"data": [], "fn_index": 99999})
    assert answer.status_code == 404 and "no such function" in answer.json()["error"]
    assert service.http.post("/stvit/gradio_api/process_recording").status_code == 404


@pytest.mark.parametrize("path", ["/static/" + "a" * 300, "/static/a%00b", "/" + "a/" * 2500, "/gradio_api/file=%0a"])
def test_an_address_that_no_file_can_have_is_refused(
    service: Service, path: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert service.http.get(path).status_code in (400, 414)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("asked", "status", "content"),
    [
        ("bytes=4-5", 206, b"ic"),
        ("bytes=0-1,3-4", 200, b"no picture"),
        ("bytes=-2", 200, b"no picture"),
        ("bytes=0-0bytes=0-0", 200, b"no picture"),
        (f"bytes=0-{'9' * 400}", 200, b"no picture"),
        ("bytes=99-", 416, b""),
    ],
)
def test_ranges_of_a_file_are_one_or_none(
    service: Service, asked: str, status: int, content: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    (path,) = service.http.post("/gradio_api/upload", files=FORM).json()
    answer = service.http.get(f"/gradio_api/file={path}", headers={"range": asked})
    assert (answer.status_code, answer.content) == (status, content)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("announced", [True, False])
def test_an_upload_has_a_limit_in_all(
    service: Service, announced: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(closed, "MAX_FORM_BYTES", 1000)
    form = b"".join(
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="%d"\r\n\r\n%b\r\n' % (number, b"a" * 400)
        for number in range(3)
    )
    content = form + b"--x--\r\n" if announced else iter([form, b"--x--\r\n"])
    answer = service.http.post(
        "/gradio_api/upload", content=content, headers={"content-type": "multipart/form-data; boundary=x"}
    )
    assert answer.status_code == 413
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("query", ["", "?upload_id=a"])
def test_a_form_without_files_gets_a_sentence(service: Service, query: str, capfd: pytest.CaptureFixture[str]) -> None:
    answer = service.http.post(f"/gradio_api/upload{query}", data={"files": "text"}, files={"other": b"x"})
    assert answer.status_code == 400 and "no file" in answer.json()["error"]
    assert "Traceback" not in capfd.readouterr().err
