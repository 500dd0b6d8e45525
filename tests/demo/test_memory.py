from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import weakref
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from PIL import Image

from demo.errors import user_errors
from demo.model_cache import NO_ROOM, OutOfMemory, first_that_fits, is_out_of_memory
from stvit.errors import UserError
from tests.stvit.video.clips import make_clip


@pytest.mark.slow
def test_a_lack_of_memory_is_told_as_such_the_cache_gives_way_and_smaller_sizes_are_tried(tmp_path: Path) -> None:
    Image.new("RGB", (5000, 4000)).save(tmp_path / "large.png")
    clip = make_clip(tmp_path / "large.mp4", size_hw=(1080, 1920), frames=4)
    command = [sys.executable, "-m", "tests.demo.short_of_memory", str(tmp_path / "large.png"), str(clip)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    told = json.loads(done.stdout)
    assert "not enough memory here to decode the picture" in told["picture"]
    assert "not enough memory here to decode the clip" in told["clip"]
    assert told["kept at first"] and told["side"] in (320, 480, 640) and not told["kept after detecting"]
    assert told["model"] == NO_ROOM and not told["kept after loading"]
    assert told["afterwards"] == ["deit_small_patch16_224", 4]


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
        RuntimeError("unable to mmap 88 bytes from file </a>: Cannot allocate memory (12)"),
        RuntimeError("could not create a primitive"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        MemoryError(),
        ImportError("av/subtitles/stream.abi3.so: failed to map segment from shared object"),
    ],
)
def test_what_the_allocators_say_is_understood(error: Exception) -> None:
    assert is_out_of_memory(error)
    with pytest.raises(UserError, match="not enough memory"), user_errors():
        raise error


@pytest.mark.parametrize(
    "error",
    [ValueError("not enough memory"), RuntimeError("shapes differ"), KeyError("x"), ImportError("No module named x")],
)
def test_other_errors_are_no_lack_of_memory(error: Exception) -> None:
    assert not is_out_of_memory(error)
