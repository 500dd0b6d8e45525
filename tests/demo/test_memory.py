from __future__ import annotations

import weakref
from unittest.mock import Mock

import pytest
import torch

from demo.model_cache import OutOfMemory, first_that_fits, is_out_of_memory


def test_a_failed_attempt_is_given_back_before_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    emptied, held = Mock(), []
    monkeypatch.setattr(torch.cuda, "empty_cache", emptied)

    def run(size: int) -> str:
        assert not any(tensor() is not None for tensor in held)
        large = torch.zeros(size)
        held.append(weakref.ref(large))
        if size > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return "done"

    assert first_that_fits((4, 2, 1), run, torch.device("cuda")) == (1, "done")
    assert emptied.call_count == 2


def test_where_nothing_fits_the_smallest_size_is_named() -> None:
    with pytest.raises(OutOfMemory, match=r"even at the smallest size \(320\)"):
        first_that_fits((640, 320), Mock(side_effect=MemoryError), torch.device("cpu"))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("[enforce fail] . DefaultCPUAllocator: not enough memory: you tried to allocate 17 GB."),
        MemoryError(),
    ],
)
def test_what_the_allocators_say_is_understood(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", [ValueError("not enough memory"), RuntimeError("shapes differ"), KeyError("x")])
def test_other_errors_are_no_lack_of_memory(error: Exception) -> None:
    assert not is_out_of_memory(error)
