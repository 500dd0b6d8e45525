"""Made-up detections and a stand-in detector for the tests of the Detect tab."""

from __future__ import annotations

import numpy as np
import torch

from stvit.detection import Detections


def made_up(number: int, image_hw: tuple[int, int], seed: int = 0) -> Detections:
    """Round objects of all sizes and many classes at random places."""
    generator = np.random.default_rng(seed)
    H, W = image_hw
    size = np.exp(generator.uniform(np.log(min(H, W) / 40), np.log(min(H, W) / 2), (number, 2)))
    corner = generator.uniform(0, 0.95, (number, 2)) * (W, H)
    boxes = np.concatenate([corner, np.minimum(corner + size, (W, H))], axis=1)
    rows, columns = np.mgrid[0:28, 0:28]
    disc = 1 / (1 + np.exp(np.hypot(rows - 13.5, columns - 13.5) - 12))
    return Detections(
        boxes=torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
        scores=torch.tensor(generator.uniform(0.06, 1, number), dtype=torch.float32).sort(descending=True).values,
        labels=torch.tensor(generator.integers(0, 80, number)),
        mask_probabilities=torch.tensor(np.tile(disc, (number, 1, 1)), dtype=torch.float32),
        image_hw=image_hw,
    )
