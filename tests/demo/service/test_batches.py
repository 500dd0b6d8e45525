from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from demo.service.batches import MAX_BATCH_ON_CPU, USUAL_PIXELS, Batches
from stvit.predict.device import Compute
from tests.stvit.predict.test_turns import until

REQUESTS = 20
USUAL = (224, 224)
UNHURRIED_S = 3600.0


@pytest.fixture
def compute(monkeypatch: pytest.MonkeyPatch) -> Compute:
    """Where batches may take long, so that a machine that is busy makes no other ones."""
    monkeypatch.setattr("demo.service.batches.MAX_BATCH_S", UNHURRIED_S)
    return Compute(torch.device("cpu"))


def doubled(sizes: list[int]):
    def work(items: Sequence[int]) -> list[int]:
        sizes.append(len(items))
        return [2 * item for item in items]

    return work


def run_while_held(
    compute: Compute, batches: Batches, models: Sequence[str], work, input_hw: tuple[int, int] = USUAL
) -> list:
    """Results, or errors, of requests that all came while the device was held."""
    with ThreadPoolExecutor(len(models)) as pool:
        with compute._free:
            futures = [pool.submit(batches.run, model, input_hw, number, work) for number, model in enumerate(models)]
            until(lambda: sum(map(len, batches._lines.values())) == len(models))
        return [future.exception(30) or future.result() for future in futures]


def test_requests_that_wait_together_run_together_and_each_gets_its_own(compute: Compute) -> None:
    sizes: list[int] = []
    batches = Batches(compute)
    results = run_while_held(compute, batches, ["a"] * REQUESTS, doubled(sizes))
    assert results == [2 * number for number in range(REQUESTS)]
    assert sizes == [MAX_BATCH_ON_CPU, MAX_BATCH_ON_CPU, REQUESTS - 2 * MAX_BATCH_ON_CPU]
    assert not batches._lines


def test_models_are_not_mixed(compute: Compute) -> None:
    sizes: list[int] = []
    assert run_while_held(compute, Batches(compute), ["a", "b", "a"], doubled(sizes)) == [0, 2, 4]
    assert sorted(sizes) == [1, 2]


def test_a_request_alone_begins_at_once(compute: Compute) -> None:
    sizes: list[int] = []
    assert Batches(compute).run("a", USUAL, 3, doubled(sizes)) == 6 and sizes == [1]


def test_an_error_is_that_of_one_request_alone(compute: Compute) -> None:
    def work(items: Sequence[int]) -> list[int]:
        if 2 in items:
            raise ValueError("two")
        return list(items)

    results = run_while_held(compute, Batches(compute), ["a"] * 4, work)
    assert [str(result) for result in results] == ["0", "1", "two", "3"]


def test_batches_become_smaller_where_memory_is_short(compute: Compute) -> None:
    sizes: list[int] = []

    def work(items: Sequence[int]) -> list[int]:
        sizes.append(len(items))
        if len(items) > 2:
            raise MemoryError
        return list(items)

    batches = Batches(compute)
    assert run_while_held(compute, batches, ["a"] * 4, work) == [0, 1, 2, 3]
    assert run_while_held(compute, batches, ["a"] * 4, work) == [0, 1, 2, 3]
    assert sizes == [4, 1, 1, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("item_s", "input_hw", "room"),
    [
        (0.0, USUAL, 8),
        (UNHURRIED_S / 5.5, USUAL, 5),
        (10 * UNHURRIED_S, USUAL, 2),
        (10 * UNHURRIED_S, (320, 480), 1),
    ],
)
def test_batches_of_slow_models_are_smaller(
    compute: Compute, item_s: float, input_hw: tuple[int, int], room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    batches = Batches(compute)
    monkeypatch.setattr(compute, "lanes", 2)
    monkeypatch.setattr(batches, "_pixel_s", {"a": item_s / USUAL_PIXELS})
    run_while_held(compute, batches, ["a"] * 8, doubled(sizes), input_hw)
    assert sizes[0] == room


@pytest.mark.parametrize(("input_hw", "room"), [((224, 112), 8), ((320, 533), 2), ((800, 1333), 1)])
def test_batches_are_bounded_by_their_pixels(compute: Compute, input_hw: tuple[int, int], room: int) -> None:
    sizes: list[int] = []
    run_while_held(compute, Batches(compute), ["a"] * 8, doubled(sizes), input_hw)
    assert sizes == [room] * (8 // room)


def test_inputs_of_different_sizes_are_not_mixed(compute: Compute) -> None:
    sizes: list[int] = []
    batches = Batches(compute)
    with ThreadPoolExecutor(3) as pool:
        with compute._free:
            asked = [pool.submit(batches.run, "a", (64, width), width, doubled(sizes)) for width in (32, 64, 32)]
            until(lambda: sum(map(len, batches._lines.values())) == 3)
        assert [one.result(30) for one in asked] == [64, 128, 64]
    assert sorted(sizes) == [1, 2]


def test_many_threads_lose_nothing(compute: Compute) -> None:
    batches, go = Batches(compute), threading.Event()

    def ask(number: int) -> int:
        go.wait()
        return batches.run(number % 3, USUAL, number, doubled([]))

    with ThreadPoolExecutor(16) as pool:
        futures = [pool.submit(ask, number) for number in range(300)]
        go.set()
        assert [future.result(60) for future in futures] == [2 * number for number in range(300)]
