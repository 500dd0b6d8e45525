"""Where models compute: the threads that it happens in, and what may happen at once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread, current_thread

import pytest
import torch

from stvit.predict import device as device_module
from stvit.predict.device import Compute, available_cores, best_precision, cpu_quota, device_name


@pytest.fixture
def compute() -> Compute:
    return Compute(torch.device("cpu"))


@pytest.fixture(params=["cpu", "cuda"])
def any_compute(request: pytest.FixtureRequest) -> Compute:
    """Also of a GPU, which need not be there as long as no work uses it."""
    return Compute(torch.device(request.param))


def in_thread(work: Callable[[], object]) -> object:
    results: list[object] = []
    thread = Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join(60)
    return results[0]


def test_work_of_all_threads_happens_in_one(compute: Compute) -> None:
    names = {compute.run(lambda: current_thread().name), in_thread(lambda: compute.run(lambda: current_thread().name))}
    assert len(names) == 1 and current_thread().name not in names


def test_all_of_a_cpu_share_its_threads(compute: Compute) -> None:
    other = Compute(torch.device("cpu"))
    assert compute.run(current_thread) is other.run(current_thread)


def test_a_gpu_is_used_from_the_thread_that_asks() -> None:
    gpu = Compute(torch.device("cuda"))
    assert gpu.run(current_thread) is current_thread()
    assert gpu.lanes == 1 and len(gpu.parts(torch.zeros(8, 3))) == 1


def test_one_caller_at_a_time(any_compute: Compute) -> None:
    under_way, go_on, order = Event(), Event(), []

    def first() -> None:
        under_way.set()
        assert go_on.wait(60)
        order.append("first")

    threads = [Thread(target=any_compute.run, args=(first,))]
    threads[0].start()
    assert under_way.wait(60)
    threads.append(Thread(target=any_compute.run, args=(order.append, "second")))
    threads[1].start()
    threads[1].join(0.2)
    assert order == []
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert order == ["first", "second"]


def test_gradients_are_off_in_it_and_as_they_were_outside(any_compute: Compute) -> None:
    two = (torch.zeros(1),) * 2
    inside = any_compute.run(lambda: any_compute.each(lambda part: torch.is_inference_mode_enabled(), two))
    assert inside == [True, True] and any_compute.run(torch.is_inference_mode_enabled)
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


def test_what_fails_in_it_fails_outside_and_the_device_is_free_again(any_compute: Compute) -> None:
    def fail(part: object = None) -> None:
        raise MemoryError("no room")

    for work in (fail, lambda: any_compute.each(fail, (torch.zeros(1),) * 2)):
        with pytest.raises(MemoryError, match="no room"):
            any_compute.run(work)
    thread = Thread(target=any_compute.run, args=(len, "free"))
    thread.start()
    thread.join(60)
    assert not thread.is_alive()


def test_work_within_work_begins_at_once(any_compute: Compute) -> None:
    other = Compute(torch.device("cpu"))
    assert any_compute.run(lambda: any_compute.run(lambda: other.run(len, "inner"))) == 5


@pytest.mark.parametrize(("images", "number"), [(1, 1), (2, 1), (3, 3), (4, 3), (8, 3)])
def test_parts_are_the_batch_in_its_order(compute: Compute, images: int, number: int) -> None:
    compute.lanes = 3
    batch = torch.arange(images * 3).view(images, 3)
    parts = compute.parts(batch)
    assert len(parts) == number
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert torch.equal(torch.cat(compute.run(lambda: compute.each(lambda part: part + 0, parts))), batch)


PROGRAM = """
import threading, time, torch
from concurrent.futures import ThreadPoolExecutor
from stvit.predict.device import Compute, _cores, compute_in_one_place

def elsewhere():
    with ThreadPoolExecutor(1) as other:
        return other.submit(torch.get_num_threads).result()

def together(part):
    meeting.wait(60)  # both at once, or never
    return torch.get_num_threads()

torch.set_num_threads(3)
with ThreadPoolExecutor(6) as callers:
    assert len(set(callers.map(lambda _: _cores(), range(6)))) == 1
compute, meeting = Compute(torch.device("cpu")), threading.Barrier(2)
inside = lambda: (torch.get_num_threads(), compute.each(together, (torch.zeros(1),) * 2))
print(torch.get_num_threads(), elsewhere(), compute.run(inside), compute.lanes)
compute_in_one_place()
print(torch.get_num_threads(), elsewhere(), compute.run(inside), compute.lanes)

ended = []
def fail_or_end(part):
    meeting.wait(60)
    if part.item() == 0:
        raise MemoryError("no room")
    time.sleep(0.5)
    ended.append(part)

try:
    compute.run(compute.each, fail_or_end, torch.arange(2).split(1))
except MemoryError:
    print("failed when", len(ended), "had ended")
"""


@pytest.mark.slow
def test_threads_share_their_work_out_as_they_should() -> None:
    """In a process of its own: how many threads PyTorch uses is the whole process's business."""
    answer = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    library, program, failure = answer.stdout.splitlines()
    assert library == "3 3 (3, [1, 1]) 3"  # nothing changes for others
    assert program == "1 1 (3, [1, 1]) 3"
    assert failure == "failed when 1 had ended"


def test_precision_on_the_cpu_follows_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stvit.predict.device.cpu_flags", lambda: frozenset({"avx2"}))
    assert best_precision(torch.device("cpu")) == torch.float32
    monkeypatch.setattr("stvit.predict.device.cpu_flags", lambda: frozenset({"avx2", "amx_bf16"}))
    assert best_precision(torch.device("cpu")) == torch.bfloat16


def test_one_thread_is_not_plural() -> None:
    cpu = torch.device("cpu")
    assert device_name(cpu, 1).endswith("CPU, 1 thread") and device_name(cpu, 2).endswith("CPU, 2 threads")


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_a_container_keeps_no_more_cores_busy_than_it_pays_for(
    files: dict[str, str], cores: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(device_module, "CONTROL_GROUP", tmp_path)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(16)), raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    assert (cpu_quota(), available_cores(), device_module._threads()) == (cores, cores or 16, cores or 16)
