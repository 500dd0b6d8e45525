"""Graphs of the models that came along: those that earlier starts have kept are read as the server starts.

``python -m demo.kept_graphs`` reads them as the server does, and says what answers each model then, and how long it
took: weights, graph and all.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from contextlib import suppress
from typing import get_args

import numpy as np

from demo.model_specs import build_registry
from demo.predictors import Predictors, predictors_of_process
from demo.registry import ModelSpec, Registry, Task
from demo.video import sampling_of
from stvit.errors import UserError
from stvit.predict.detector import published_scale
from stvit.predict.engines.making import go_on, in_background, making


def read_in_background(predictors: Predictors, registry: Registry) -> None:
    """Load the models and read their graphs in a thread, those that the page opens on first."""
    if predictors.engine != "eager":
        in_background("kept graphs", _read_all, predictors, in_order(registry))


def in_order(registry: Registry) -> list[ModelSpec]:
    """List the models that came along: what the tabs begin with and what that is compared with, then the others."""
    first = [spec for task in get_args(Task) if (spec := registry.first_bundled(task))]
    pairs = [one for spec in first for one in (spec, registry.counterpart(spec)) if one]
    return list(dict.fromkeys([*pairs, *(spec for spec in registry if spec.bundled)]))


def read(predictors: Predictors, spec: ModelSpec) -> str:
    """Load a model and read what is kept for the inputs that its examples make; returns the engine that answers then.
    What is not kept is made after the first request, as ever."""
    loaded, side = predictors.model_cache.get(spec), spec.input_size
    if spec.task == "classify":
        return predictors.classifier(loaded).engine.recall((1, 3, side, side), "attention")
    if spec.task == "video":
        sampling = sampling_of(spec)
        clips = predictors.clip_classifier(loaded, sampling).engine
        return clips.recall((1, 3, sampling.length, side, side), "last")
    square = np.zeros((side, side, 3), np.uint8)
    if spec.task == "detect":
        detector = predictors.detector(loaded)
        return detector.recall(tuple(detector.prepare(square, published_scale(side)).images.shape), "all")
    segmenter = predictors.segmenter(loaded)
    return segmenter.engine.recall(tuple(loaded.network.prepare(square, segmenter.scale).shape), "all")


def _read_all(predictors: Predictors, specs: list[ModelSpec], each: bool = False) -> None:
    """Read them and say it in one line; with ``each``, in a line for every model before."""
    began, answered = time.perf_counter(), Counter[str]()
    for spec in specs:
        with making, suppress(UserError):  # told when the model is asked for
            go_on()
            engine = read(predictors, spec)
            answered[engine] += 1
            if each:
                print(f"{spec.name}: {engine} after {time.perf_counter() - began:.2f} s", flush=True)
    engines = ", ".join(f"{name} ({count})" for name, count in answered.items())
    seconds = time.perf_counter() - began
    print(f"* Kept graphs were read in {seconds:.1f} s; the models that came along run on {engines}.", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Read all in this process."""
    parser = argparse.ArgumentParser(
        prog="python -m demo.kept_graphs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args(arguments)
    _read_all(predictors_of_process(), in_order(build_registry()), each=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
