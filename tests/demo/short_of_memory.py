"""What the page's parts say under a real limit of memory; a program, as the limit is one of its process."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from demo.errors import user_errors
from demo.model_specs import build_registry
from demo.predictors import Predictors
from stvit.errors import UserError
from stvit.predict.media import read_image
from stvit.video.decode import ClipReader
from stvit.video.probe import probe
from tests.narrow_models import CLASSIFIERS, DETECTOR, DETECTORS, narrowed

MIB = 2**20
HARD = resource.getrlimit(resource.RLIMIT_AS)[1]


def with_room(mib: int, work: Callable[[], object]) -> object:
    """What work returns, or says, where the process may grow by so much."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + mib * MIB, HARD))
    try:
        with user_errors():
            return work()
    except UserError as error:
        return str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (HARD, HARD))


def main(picture: str, clip: str) -> None:
    torch.set_num_threads(1)
    registry = narrowed(build_registry({}), CLASSIFIERS, DETECTORS)
    small, detector = registry.first("classify"), registry.find(DETECTOR, "detect")
    large = registry.find("deit_small_patch16_224", "classify")
    predictors = Predictors(torch.device("cpu"), torch.float32)
    cache = predictors.model_cache
    pixels = np.random.default_rng(0).integers(0, 255, (800, 1200, 3), np.uint8)

    def frames() -> int:
        return sum(1 for _ in ClipReader(probe(clip), 640))

    def kept() -> bool:
        return small.name in cache._models

    predictors.detect(pixels, detector, 320)
    cache.get(small)
    told = {
        "picture": with_room(20, lambda: read_image(picture)),
        "clip": with_room(8, frames),
        "kept at first": kept(),
    }
    told["side"] = with_room(20, lambda: predictors.detect(pixels, detector, 800).short_side)
    told["kept after detecting"] = kept()
    cache.get(small)
    told["model"] = with_room(30, lambda: cache.get(large).weights)
    told["kept after loading"] = kept()
    told["afterwards"] = [with_room(4000, lambda: cache.get(large).spec.name), with_room(4000, frames)]
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
