"""Makes the example clip from an example photograph: ``PYTHONPATH=. python assets/clips/make_clips.py``

A slow pan over ``assets/examples/castle.jpg`` while the camera moves closer; the licence is the photograph's.
"""

from __future__ import annotations

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
    with Image.open(PHOTO) as image:
        photo = np.array(image.convert("RGB"))
    writer = ClipWriter(CLIP, SIZE_HW, ClipInfo(PHOTO, "", "", SIZE_HW, 0, FPS, None, None, 0.0, ""), Matrix.BT709)
    for index in range(FRAMES):
        writer.write(Picture.from_rgb(view(photo, index / (FRAMES - 1))), index / FPS)
    writer.finish()
    print(f"{CLIP}: {CLIP.stat().st_size / 1000:.0f} KB")


def view(photo: np.ndarray, part: float) -> np.ndarray:
    """What the camera sees after a part of its way, from the whole height on the left to a half of it on the right."""
    height, width = photo.shape[:2]
    eased = 0.5 - 0.5 * np.cos(np.pi * part)
    cut_h = min(height, width * SIZE_HW[0] / SIZE_HW[1]) * (1 - 0.4 * eased)
    cut_w = cut_h * SIZE_HW[1] / SIZE_HW[0]
    left, top = (width - cut_w) * eased, (height - cut_h) * 0.5
    corners = np.float32([[left, top], [left + cut_w, top], [left, top + cut_h]])
    target = np.float32([[0, 0], [SIZE_HW[1], 0], [0, SIZE_HW[0]]])
    return cv2.warpAffine(photo, cv2.getAffineTransform(corners, target), SIZE_HW[::-1], flags=cv2.INTER_AREA)


if __name__ == "__main__":
    main()
