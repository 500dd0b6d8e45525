"""A stand-in for the package ``spaces`` that holds a program to ZeroGPU's rules on a machine without a GPU.

As in ``spaces`` 0.51: each call runs in a process that is forked for it; arguments and results are pickled; of errors
other than ``gr.Error`` the name of the class alone comes back; outside of such a process only the main thread may place
tensors on "cuda". Here that device is the CPU under another name.
"""

from __future__ import annotations

import inspect
import multiprocessing
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from multiprocessing.context import ForkProcess
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import gradio as gr
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

FORK = multiprocessing.get_context("fork")
NO_CUDA = "CUDA was used outside of a function with @spaces.GPU, and not by the main thread before the launch."


class StandIn(ModuleType):
    """What ``import spaces`` gives.

    Attributes:
        requested_s: of every call so far, the seconds that it asked for.
    """

    def __init__(self) -> None:
        super().__init__("spaces")
        self.requested_s: list[float] = []

    def GPU(self, task: Callable[..., Any] | None = None, *, duration: Any = 60) -> Any:
        """Decorate a function, as ``spaces.GPU`` does."""
        if task is None:
            return lambda function: self.GPU(function, duration=duration)

        def results(arguments: tuple[Any, ...], named: dict[str, Any]) -> Iterator[Any]:
            self.requested_s.append(duration(*arguments, **named) if callable(duration) else duration)
            yield from _lend(task, arguments, named)

        if inspect.isgeneratorfunction(task):

            @wraps(task)
            def generate(*arguments: Any, **named: Any) -> Iterator[Any]:
                yield from results(arguments, named)

            return generate

        @wraps(task)
        def call(*arguments: Any, **named: Any) -> Any:
            (result,) = results(arguments, named)
            return result

        return call


class _CpuForCuda(TorchFunctionMode):
    def __torch_function__(
        self, function: Callable[..., Any], types: Any, arguments: Any = (), named: dict[str, Any] | None = None
    ) -> Any:
        arguments, named = arguments, named or {}
        if function is not torch.device:
            arguments, named = tree_map_only((torch.device, str), _on_cpu, (arguments, named))
        return function(*arguments, **named)


def _on_cpu(device: torch.device | str) -> torch.device | str:
    return torch.device("cpu") if str(device).partition(":")[0] == "cuda" else device


@contextmanager
def zero_gpu() -> Iterator[StandIn]:
    """Let this process be on ZeroGPU, as far as a program can tell; this thread may place tensors on "cuda"."""
    if torch.cuda.is_initialized():
        raise RuntimeError("CUDA was initialised before `spaces` was imported.")

    def refuse(*arguments: Any) -> None:
        raise RuntimeError(NO_CUDA)

    stand_in = StandIn()
    properties = SimpleNamespace(name="ZeroGPU", major=9, minor=0, total_memory=70 * 1024**3, multi_processor_count=60)
    seen = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "synchronize": lambda *arguments: None,
        "empty_cache": lambda: None,
        "get_device_capability": lambda *arguments: (9, 0),
        "get_device_properties": lambda *arguments: properties,
        "get_device_name": lambda *arguments: properties.name,
        "_lazy_init": refuse,
    }
    environment = {"SPACES_ZERO_GPU": "true"}
    with (
        patch.multiple(torch.cuda, **seen),
        _module("spaces", stand_in),
        patch.dict("os.environ", environment),
        _CpuForCuda(),
    ):
        yield stand_in


@contextmanager
def _module(name: str, module: ModuleType) -> Iterator[None]:
    """Import a module by this name. ``patch.dict`` would empty ``sys.modules`` for a moment, in which the imports of
    other threads break, and forget what was imported meanwhile."""
    before = sys.modules.get(name)
    sys.modules[name] = module
    try:
        yield
    finally:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before


def _lend(task: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Iterator[Any]:
    """Run a task in a process of its own; what it returned, or all that it yielded.

    Raises:
        gr.Error: it raised one, or another error, of which only the class is told, or its process ended.
        Exception: the arguments cannot be pickled.
    """
    asked, answers = FORK.SimpleQueue(), FORK.SimpleQueue()
    process = FORK.Process(target=_serve, args=(task, asked, answers), daemon=True)
    process.start()
    threading.Thread(target=_tell_end, args=(process, answers), daemon=True).start()
    try:
        asked.put((arguments, named))
        while True:
            kind, value = answers.get()
            if kind == "result":
                yield value
            elif kind == "end":
                return
            else:
                raise value
    finally:
        process.terminate()


def _tell_end(process: ForkProcess, answers: Any) -> None:
    process.join()
    answers.put(("error", gr.Error("GPU task aborted", print_exception=False)))


def _serve(task: Callable[..., Any], asked: Any, answers: Any) -> None:
    arguments, named = asked.get()
    worker = threading.Thread(target=_run, args=(task, arguments, named, answers))
    worker.start()  # OpenMP's threads of a process that was forked are gone, those of a new thread are its own
    worker.join()
    threading.Event().wait()  # tensors among the results are fetched from this process


def _run(task: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any], answers: Any) -> None:
    try:
        with _CpuForCuda():
            results = task(*arguments, **named)
            for result in results if inspect.isgenerator(results) else (results,):
                answers.put(("result", result))
        answers.put(("end", None))
    except gr.Error as error:
        answers.put(("error", error))
    except Exception as error:
        traceback.print_exc()
        answers.put(("error", gr.Error(type(error).__name__, print_exception=False)))
