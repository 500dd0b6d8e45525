"""Frames as a camera gives them, for tests."""

from __future__ import annotations

import io
from base64 import b64encode

import numpy as np
from PIL import Image

from demo.camera import camera_job
from demo.video import CLUSTERS, ClipJob
from tests.demo.conftest import MODEL, OFFERED
from tests.narrow_models import CLASSIFIERS, DETECTOR, DETECTORS, narrowed

NARROW = narrowed(OFFERED, CLASSIFIERS, DETECTORS)


def job(task: str = CLUSTERS) -> ClipJob:
    return camera_job(NARROW, task, MODEL, DETECTOR, 320)


def scene(height: int = 96, width: int = 128, shift: int = 0) -> np.ndarray:
    """(H, W, 3) uint8 RGB: smooth colours, which wander."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 2 % 256, (columns + shift) * 2 % 256, (rows + columns) % 256], axis=-1).astype(np.uint8)


def encoded(pixels: np.ndarray, kind: str = "JPEG") -> str:
    """A frame as the browser sends it."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return b64encode(buffer.getvalue()).decode("ascii")
