"""Made-up requests: along the description of the API (schemathesis), and along the protocol of Gradio's queue."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.generation import GenerationMode

from tests.demo.service.conftest import AS_JSON, Service

pytestmark = pytest.mark.slow
BOUNDED = settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],  # searching for a smaller example would wait again for a call that does not end
    suppress_health_check=list(HealthCheck),
)
ENDS_S = 30.0
PATHS = [
    "/gradio_api/upload",
    *(
        f"/gradio_api/call/v2/{name}"
        for name in (
            "models",
            "classify",
            "annotate",
            "compare",
            "detect",
            "compare_backbones",
            "compare_architecture",
            "video",
        )
    ),
]


def values(of: st.SearchStrategy) -> st.SearchStrategy:
    """Lists and objects of some values, objects that look like files among them."""
    keys = st.sampled_from(("path", "url", "meta", "a"))
    return st.recursive(of, lambda part: st.lists(part, max_size=4) | st.dictionaries(keys, part), max_leaves=8)


JSON = values(st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(-1e9, 1e9) | st.text(max_size=20))
ANY = values(JSON | st.floats() | st.just("\ud800\0"))


@pytest.fixture(autouse=True)
def quiet(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """No stack trace is logged."""
    yield
    assert "Traceback" not in capfd.readouterr().err


@pytest.fixture(scope="module")
def described(service: Service) -> dict[str, Any]:
    return service.http.get("/gradio_api/openapi.json").json()


def read_to_end(service: Service, path: str) -> str:
    """Read a stream of messages; its heartbeats, one every 15 s, do not extend the time it may take."""
    begun, messages = time.monotonic(), ""
    with service.http.stream("GET", f"/gradio_api/{path}", timeout=ENDS_S) as stream:
        for part in stream.iter_text():
            messages += part
            assert time.monotonic() - begun < ENDS_S, f"{path} did not end within {ENDS_S:.0f} s: {messages}"
    return messages.strip()


def check_end(service: Service, status: int, text: str, name: str = "models") -> None:
    """A call is refused with words, or taken and ends with a result or words."""
    assert text and status < 500, text
    if status < 400 and "event_id" in text:
        end = read_to_end(service, f"call/{name}/{json.loads(text)['event_id']}")
        event, data = end.splitlines()[-2:]
        assert event == "event: complete" or json.loads(data.removeprefix("data: "))["error"], end


def test_the_description_names_what_is_fuzzed(described: dict[str, Any]) -> None:
    assert {path for path, methods in described["paths"].items() if "post" in methods} == set(PATHS)


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize("path", PATHS)
def test_requests_along_the_description(
    service: Service, described: dict[str, Any], path: str, mode: GenerationMode
) -> None:
    schema = schemathesis.openapi.from_dict(described)

    @BOUNDED
    @given(case=schema[path]["POST"].as_strategy(generation_mode=mode))
    def each(case: schemathesis.Case) -> None:
        answer = case.call(base_url=service.url.rstrip("/"), timeout=ENDS_S)
        check_end(service, answer.status_code, answer.text, path.rpartition("/")[2])

    each()


ROUTES = (
    "queue/join",
    "run/predict",
    "api/models",
    "call/annotate",
    "call/v2/detect",
    "cancel",
    "component_server",
    "reset",
)
MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        "data": st.lists(ANY, max_size=6) | ANY,
        "fn_index": st.integers(-1, 200) | ANY,
        "session_hash": st.sampled_from(("fuzz", "", "a/b")) | ANY,
        "event_id": ANY,
        "trigger_id": st.integers(-1, 200) | ANY,
        "event_data": ANY,
        "batched": ANY,
        "simple_format": ANY,
        "component_id": st.integers(-1, 200) | ANY,
        "fn_name": st.sampled_from(("camera_frame", "__class__", "launch")) | ANY,
    },
)


@pytest.mark.parametrize("route", ROUTES)
def test_messages_along_the_queues_protocol(service: Service, route: str) -> None:
    @settings(BOUNDED, max_examples=30)
    @given(message=MESSAGES)
    def each(message: dict[str, Any]) -> None:
        answer = service.http.post(f"/gradio_api/{route}", content=json.dumps(message).encode(), headers=AS_JSON)
        check_end(service, answer.status_code, answer.text)

    each()


@BOUNDED
@given(body=st.binary(max_size=200))
def test_bytes_that_are_nothing(service: Service, body: bytes) -> None:
    for route in ROUTES:
        answer = service.http.post(f"/gradio_api/{route}", content=body, headers=AS_JSON)
        check_end(service, answer.status_code, answer.text)


def test_values_of_the_right_number_to_every_function_of_the_page(service: Service) -> None:
    functions = [function for function in service.page.fns.values() if function.fn is not None]
    carried_out = []

    @settings(BOUNDED, max_examples=150)
    @given(data=st.data())
    def each(data: st.DataObject) -> None:
        function = data.draw(st.sampled_from(functions))
        message = {
            "fn_index": function._id,
            "session_hash": "fuzz",
            "data": [data.draw(JSON) for _ in function.inputs],
            "event_data": data.draw(JSON),
        }
        route = "queue/join" if function.queue else "run/predict"
        answer = service.http.post(f"/gradio_api/{route}", content=json.dumps(message).encode(), headers=AS_JSON)
        assert answer.status_code < 500, (function, message, answer.text)
        if answer.status_code == 200:
            carried_out.append(function)
        if answer.status_code == 200 and function.queue:
            messages = read_to_end(service, "queue/data?session_hash=fuzz").split("\n\n")
            end = [json.loads(line[6:]) for line in messages if '"process_completed"' in line][-1]
            assert end["success"] or end["output"]["error"], (function, message, end)

    each()
    assert len(carried_out) > 15, "most values are refused before any function sees them"
