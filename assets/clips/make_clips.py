"""Makes the example clip from an example photograph: ``PYTHONPATH=. python assets/clips/make_clips.py``; with a name,
``--size`` and ``--frames`` another one of the same kind, to measure with.

A slow pan over ``assets/examples/castle.jpg`` while the camera moves closer; the licence is the photograph's.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from stvit.video.encode import ClipWriter
from stvit.video.picture import Matrix, Picture
from stvit.video.types import ClipInfo

HERE = Path(__file__).resolve().parent
PHOTO = HERE.parent / "examples" / "castle.jpg"
CLIP = HERE / "castle.mp4"
SIZE_HW, FPS, FRAMES = (160, 284), 12, 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path, nargs="?", default=CLIP, metavar="OUT")
    parser.add_argument("--size", type=int, nargs=2, default=SIZE_HW, metavar=("HEIGHT", "WIDTH"), help="even numbers")
    parser.add_argument("--frames", type=int, default=FRAMES, help="(default: %(default)s)")
    options = parser.parse_args()
    size_hw, frames = tuple(options.size), options.frames
    with Image.open(PHOTO) as image:
        photo = np.array(image.convert("RGB"))
    info = ClipInfo(PHOTO, "", "", size_hw, 0, FPS, None, None, 0.0, "")
    writer = ClipWriter(options.clip, size_hw, info, Matrix.BT709)
    for index in range(frames):
        writer.write(Picture.from_rgb(view(photo, index / max(1, frames - 1), size_hw)), index / FPS)
    writer.finish()
    print(f"{options.clip}: {options.clip.stat().st_size / 1000:.0f} KB")


def view(photo: np.ndarray, part: float, size_hw: tuple[int, int]) -> np.ndarray:
    """What the camera sees after a part of its way, from the whole height on the left to a half of it on the right."""
    height, width = photo.shape[:2]
    eased = 0.5 - 0.5 * np.cos(np.pi * part)
    cut_h = min(height, width * size_hw[0] / size_hw[1]) * (1 - 0.4 * eased)
    cut_w = cut_h * size_hw[1] / size_hw[0]
    left, top = (width - cut_w) * eased, (height - cut_h) * 0.5
    corners = np.float32([[left, top], [left + cut_w, top], [left, top + cut_h]])
    target = np.float32([[0, 0], [size_hw[1], 0], [0, size_hw[0]]])
    return cv2.warpAffine(photo, cv2.getAffineTransform(corners, target), size_hw[::-1], flags=cv2.INTER_AREA)


if __name__ == "__main__":
    main()
