"""Let functions borrow a GPU of Hugging Face's ZeroGPU for as long as their job takes.

What a call asks for has to be left of the visitor's quota (2 minutes a day without an account), and short jobs come
first, so the seconds follow the job. They are estimates: no GPU of ZeroGPU has been measured.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from demo.benchmark import LATENCY, SHORT, THROUGHPUT
from demo.dense_benchmark import DENSE
from demo.errors import Told, telling, untold
from demo.registry import ModelSpec
from demo.space.lent_models import on_zero_gpu
from demo.video import ACTION, CLASSIFY, CLUSTERS, DETECT, ClipJob
from stvit.video.probe import probe

Function = TypeVar("Function", bound=Callable[..., Any])

PICTURE_S = 5
BEGIN_S = 5  # of a long job: placing models, first passes, counting
FRAME_MS = {CLASSIFY: 15, CLUSTERS: 25, DETECT: 80, ACTION: 15}  # with decoding, drawing and encoding
UNKNOWN_FRAMES = 600  # of a clip whose header says nothing
MOST_S = 115  # less than what a visitor without account has in a day


def picture_seconds(*arguments: Any) -> int:
    """Estimate the seconds of one picture or one frame of a camera."""
    return PICTURE_S


def clip_seconds(path: str | Path, folder: str | Path, job: ClipJob) -> int:
    """Estimate the seconds of a clip by its frames.

    Raises:
        VideoError: no clip, or not within the limits.
    """
    frames = probe(path).frames or UNKNOWN_FRAMES
    return min(BEGIN_S + math.ceil(frames * FRAME_MS[job.task] * len(job.models) / 1e3), MOST_S)


def comparison_seconds(
    path: str, model: ModelSpec, baseline: ModelSpec, batch_size: int | None, engine: str | None = None
) -> int:
    """Bound the seconds of a comparison of two classifiers."""
    limits = (SHORT,) if batch_size is None else (LATENCY, THROUGHPUT)
    return BEGIN_S + math.ceil(sum(limit.in_doubt_s for limit in limits))


def own_comparison_seconds(model: ModelSpec, baseline: ModelSpec, batch_size: int, engine: str | None = None) -> int:
    """Bound the seconds of a comparison of networks that are made for it."""
    return BEGIN_S + comparison_seconds("", model, baseline, None if batch_size == 1 else batch_size)


def dense_comparison_seconds(*arguments: Any) -> int:
    """Bound the seconds of a comparison of two detectors' backbones or of two segmenters."""
    return BEGIN_S + math.ceil(DENSE.in_doubt_s)


def borrowing(function: Function, seconds: Callable[..., int] = picture_seconds) -> Function:
    """Return the function; on ZeroGPU, one that borrows a GPU for each call.

    Args:
        function: or generator function; its arguments and results can be pickled.
        seconds: of the GPU's time that a call asks for, by its arguments.

    Raises (when called):
        UserError: as the function does.
        gr.Error: no GPU could be lent.
    """
    if not on_zero_gpu():
        return function
    import spaces

    # of errors that are raised in the process with the GPU, only the name of their class comes through
    lent = spaces.GPU(duration=seconds)(telling(function))
    if inspect.isgeneratorfunction(function):

        @wraps(function)
        def generate(*arguments: Any) -> Iterator[Any]:
            told = None
            for value in lent(*arguments):
                if isinstance(value, Told):
                    told = value  # the call goes on to its end, so that the GPU is given back
                else:
                    yield value
            untold(told)

        return generate

    @wraps(function)
    def call(*arguments: Any) -> Any:
        return untold(lent(*arguments))

    return call
