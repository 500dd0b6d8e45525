"""What is kept of visitors has bounds."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import gradio as gr
import pytest
from gradio.routes import file_upload_statuses
from PIL import Image

from demo import benchmark
from demo.page import gradio_private
from demo.page.gradio_private import files_of_page, forget_missing_files, forget_old_uploads
from demo.service import files, page, sessions
from demo.service.files import remove_old_files
from demo.service.folder import LOCK, own_folder
from demo.service.paths import server_path
from demo.service.sessions import MAX_SESSIONS, UNREAD_S, Readers, Sessions
from tests.demo.service.conftest import Service
from tests.stvit.predict.test_turns import until


def called(service: Service, **more: str) -> str:
    return service.http.post("/gradio_api/call/models", json={"data": [], **more}).json()["event_id"]


def result(service: Service, event: str) -> str:
    return service.http.get(f"/gradio_api/call/models/{event}").text


def test_calls_without_a_session_leave_nothing(service: Service) -> None:
    holder, queue = service.page.state_holder, service.page._queue
    assert isinstance(holder, Sessions) and holder.capacity == MAX_SESSIONS
    before = len(holder.session_data), len(queue.pending_messages_per_session)
    for _ in range(5):
        assert "event: complete" in result(service, called(service))
    until(lambda: (len(holder.session_data), len(queue.pending_messages_per_session)) == before)
    until(lambda: not queue.event_ids_to_events)


def test_a_result_is_there_once(service: Service) -> None:
    event = called(service)
    assert "event: complete" in result(service, event)
    assert service.http.get(f"/gradio_api/call/models/{event}").status_code == 404


def test_states_of_pages_that_were_closed_or_left_go(service: Service) -> None:
    holder = service.page.state_holder
    for name in ("open", "closed", "left"):
        result(service, called(service, session_hash=name))
        assert name in holder
    long_ago = datetime.now() - timedelta(seconds=sessions.CLOSED_S + 1)
    holder.session_data["closed"].is_closed = True
    holder.time_last_used.update(open=long_ago, closed=long_ago, left=datetime.now() - timedelta(days=1))
    holder.forget_old()
    assert [name in holder for name in ("open", "closed", "left")] == [True, False, False]


def test_a_call_that_nobody_reads_ends_and_says_so(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    lane = next(fn for fn in service.page.fns.values() if fn.api_name == "models").concurrency_id
    lanes = service.page._queue.event_queue_per_concurrency_id
    result(service, called(service))  # so that there is a queue
    until(lambda: not lanes[lane].current_concurrency)
    monkeypatch.setattr(lanes[lane], "current_concurrency", 1)  # as if one were running, so no other begins
    monkeypatch.setattr(sessions, "UNREAD_S", 0.5)
    event = called(service)
    until(lambda: not service.page._queue.event_ids_to_events)
    assert not lanes[lane].queue
    assert sessions.ENDED in result(service, event)


@pytest.mark.parametrize(("late_s", "ended"), [(0.0, ["a"]), (5.0, [])])
def test_whoever_waits_for_a_late_server_to_read_has_not_left(late_s: float, ended: list[str]) -> None:
    event = SimpleNamespace(_id="a", alive=True, session_hash="s", enqueue_time=time.monotonic() - UNREAD_S - 2)
    queue, cleaned = Mock(event_ids_to_events={"a": event}, pending_event_ids_session={}), []

    async def clean_events(event_id: str) -> None:
        cleaned.append(event_id)

    queue.clean_events = clean_events
    asyncio.run(Readers(queue).end_unread(late_s))
    assert cleaned == ended


def test_a_long_call_under_way_that_nobody_reads_ends(
    service: Service, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sessions.UNREAD_S + page.LOOK_EVERY_S <= 15
    queue, (path,) = service.page._queue, uploaded(service, photo)
    monkeypatch.setattr(sessions, "UNREAD_S", 1.0)
    monkeypatch.setattr(page, "LOOK_EVERY_S", 0.2)
    monkeypatch.setattr(benchmark, "LATENCY", benchmark.Limits(3600.0, 3600.0))  # it would go on for an hour
    values = [{"path": path}, "stvit_r_swin_small_224", "", 1, "eager"]
    service.http.post("/gradio_api/call/compare", json={"data": values})
    until(lambda: queue.event_ids_to_events)
    until(lambda: not queue.event_ids_to_events and not queue.blocks.app.iterators)
    assert not queue.event_queue_per_concurrency_id["comparison"].current_concurrency


def uploaded(service: Service, photo: Path) -> list[str]:
    return service.http.post("/gradio_api/upload", files={"files": photo.open("rb")}).json()


def test_results_that_nobody_came_for_go(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    event, queue = called(service), service.page._queue
    assert event in queue.pending_event_ids_session
    monkeypatch.setattr(sessions, "CLOSED_S", 0.1)
    until(lambda: event not in queue.pending_event_ids_session and event not in queue.pending_messages_per_session)


def test_freed_memory_goes_back_once_when_nobody_calls(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    returned: list[bool] = []
    for name, value in (("IDLE_S", 0.3), ("LOOK_EVERY_S", 0.1), ("return_freed_memory", lambda: returned.append(True))):
        monkeypatch.setattr(page, name, value)
    result(service, called(service))  # shorter than the time between two looks
    until(lambda: returned)
    time.sleep(0.6)
    assert len(returned) == 1
    result(service, called(service))
    until(lambda: len(returned) == 2)


def test_figures_are_prometheus_text_without_private_data(service: Service) -> None:
    result(service, called(service, session_hash="a-secret-session"))
    answer = service.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    lines = dict(line.rsplit(" ", 1) for line in answer.text.splitlines() if line[0] != "#")
    assert float(lines['stvit_calls_total{function="models",outcome="done"}']) >= 1
    assert float(lines["process_resident_memory_bytes"]) > 1e8
    assert {"stvit_sessions", "stvit_batch_size_count", 'stvit_call_seconds_count{function="models"}'} <= set(lines)
    assert "a-secret-session" not in answer.text and "127.0.0.1" not in answer.text


@pytest.fixture
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(files, "upload_folder", lambda: tmp_path)
    return tmp_path


def aged(path: Path, seconds: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (time.time() - seconds,) * 2)
    return path


def test_old_files_empty_folders_and_old_links_go(uploads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_LINKS", 2)
    kept = [aged(uploads / "a" / "new.png", 60), aged(uploads / LOCK, 10**6)]
    kept += [aged(uploads / "deep_links" / name / "state.json", 4 * 3600 + hour) for hour, name in enumerate("xy")]
    gone = [aged(uploads / "b" / "old.png", 3 * 3600), aged(uploads / "tmpabc", 3 * 3600)]
    gone.append(aged(uploads / "b" / LOCK, 3 * 3600))  # as a visitor may name a file
    gone += [aged(uploads / "deep_links" / name / "state.json", age) for name, age in (("z", 5 * 3600), ("old", 2e5))]
    empty = uploads / "c"
    empty.mkdir()
    os.utime(empty, (time.time() - 3600,) * 2)
    kept.append(aged(uploads / "d" / "example.jpg", 3 * 3600))
    remove_old_files({str(kept[-1])})
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in (*gone, empty))


def test_of_uploads_that_are_gone_nothing_is_remembered(
    service: Service, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradio_private, "MAX_WATCHED", 2)
    for number in range(5):
        sent = {"files": ("a.png", photo.read_bytes() + bytes([number]))}
        (path,) = service.http.post("/gradio_api/upload", params={"upload_id": f"n{number}"}, files=sent).json()
    listed, lasting = service.page.upload_file_set, server_path(path)
    until(lambda: all(map(os.path.exists, listed)))  # Gradio moves them when it has answered
    for gone in listed - {lasting}:
        os.remove(gone)
    forget_missing_files(service.page)
    assert listed == {lasting}
    forget_old_uploads()
    assert list(file_upload_statuses._signals) == ["n3", "n4"] == list(file_upload_statuses._statuses)


def test_the_picture_that_the_page_begins_with_stays(tmp_path: Path) -> None:
    old = aged(tmp_path / "example.png", 10**6)
    Image.new("RGB", (8, 8)).save(old)
    os.utime(old, (time.time() - 10**6,) * 2)
    with gr.Blocks() as page:
        gr.Image(str(old), type="filepath")
    (copy,) = files_of_page(page)
    remove_old_files(files_of_page(page))
    assert Path(copy).exists()
    Path(copy).unlink()


def test_folders_of_killed_servers_go_at_the_next_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    hold = "with own_folder() as folder: print(folder, flush=True); time.sleep(60)"
    program = f"import time; from demo.service.folder import own_folder\n{hold}"
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    other = subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE)
    theirs = Path(other.stdout.readline().decode().strip())
    with own_folder() as ours:
        assert ours.exists() and theirs.exists()
    assert not ours.exists()
    other.send_signal(signal.SIGKILL)
    other.wait(30)
    with own_folder():
        assert not theirs.exists()


def test_the_stream_of_a_browsers_messages_outlasts_its_calls(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "HELD_S", 0.1)
    number = next(number for number, fn in service.page.fns.items() if fn.api_name == "models")

    def call(session: str, user: str) -> str:
        sent = {"data": [], "fn_index": number, "session_hash": session}
        answer = service.http.post("/gradio_api/queue/join", json=sent, headers={"x-gradio-user": user})
        return answer.json()["event_id"]

    for user, calls in (("app", 2), ("api", 1)):  # a script's stream ends with its last call, as its client expects
        waiting, ended = {call(user, user)}, []
        with service.http.stream("GET", "/gradio_api/queue/data", params={"session_hash": user}) as stream:
            for line in filter(None, stream.iter_lines()):
                message = json.loads(line.removeprefix("data: "))
                if message["msg"] == "process_completed" and message["event_id"] in waiting:
                    ended.append(message["event_id"])
                    if len(ended) < calls:
                        time.sleep(0.5)  # the stream would have ended by now
                        waiting.add(call(user, user))
        assert message["msg"] == "close_stream" and set(ended) == waiting and len(ended) == calls
        until(lambda user=user: user not in service.page._queue.pending_messages_per_session)
