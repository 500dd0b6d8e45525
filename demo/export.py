"""Results in the forms in which they leave the program: JSON, COCO's format, and annotated pictures."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict, replace
from io import BytesIO
from typing import Any, Literal

import cv2
import numpy as np
import torch
from PIL import Image

from demo.answers import ClassifyAnswer, DetectAnswer, StageTimes
from demo.benchmark import BenchmarkEntry, BenchmarkState, Turns
from demo.predictors import ClassifyRun, DetectRun, SegmentRun
from stvit.class_names import COCO_CATEGORY_IDS, COCO_CLASSES
from stvit.detection import Detections
from stvit.detection.detections import mask_in_image
from stvit.draw.canvas import rgb_canvas
from stvit.draw.classes import draw_classes
from stvit.draw.objects import draw_objects, object_colours, object_names
from stvit.draw.regions import draw_attention, draw_regions, grid_box, region_colours
from stvit.evaluate.coco import encode_mask
from stvit.predict.preprocess import InputGeometry
from stvit.predict.regions import TokenRegions

DISPLAY_SIDE = 1280  # longest side of pictures that are shown or handed out; the token map itself has 14 x 14 cells
JPEG_QUALITY = 90
IMAGE_ID = 1  # of the one image in a COCO data set


def display_copy(run: ClassifyRun) -> tuple[np.ndarray, InputGeometry]:
    """Scale the source picture down to ``DISPLAY_SIDE`` on its long side; also return what the drawn model saw of
    it."""
    picture, _ = run.drawn
    pixels = for_display(picture.source.pixels)
    return pixels, replace(picture.prepared.geometry, source_hw=pixels.shape[:2])


def for_display(pixels: np.ndarray) -> np.ndarray:
    """Scale a picture (H, W, 3) down to ``DISPLAY_SIDE`` on its long side; return itself if it is not larger."""
    height, width = pixels.shape[:2]
    scale = DISPLAY_SIDE / max(height, width)
    if scale >= 1:
        return pixels
    copy_hw = max(1, round(height * scale)), max(1, round(width * scale))
    return cv2.resize(pixels, copy_hw[::-1], interpolation=cv2.INTER_AREA)


def jpeg_bytes(pixels: np.ndarray) -> bytes:
    """Encode (H, W, 3) uint8 RGB as JPEG."""
    done, encoded = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise ValueError(f"cannot encode a picture of shape {pixels.shape}")
    return encoded.tobytes()


def annotated_picture(
    pixels: np.ndarray, geometry: InputGeometry, regions: TokenRegions, token: int | None = None
) -> bytes:
    """Draw on a picture what one layer did, or where one of its semantic tokens looks; returns a JPEG."""
    return jpeg_bytes(annotated_pixels(pixels, geometry, regions, token))


def annotated_pixels(
    pixels: np.ndarray, geometry: InputGeometry, regions: TokenRegions, token: int | None = None
) -> np.ndarray:
    """Draw as :func:`annotated_picture` does on a copy of the pixels, (H, W, 3) uint8 RGB."""
    canvas = rgb_canvas(pixels.copy())
    box_xyxy = grid_box(canvas, geometry)
    if token is None:
        fates = {"fate": regions.fate, "fused": regions.kind == "fused"}
        draw_regions(canvas, regions.grouped(), region_colours(regions), box_xyxy, **fates)
    else:
        draw_attention(canvas, regions, token, box_xyxy)
    return canvas[0].values


def classes_picture(pixels: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> bytes:
    """Draw every class but background in its colour; returns a JPEG."""
    canvas = rgb_canvas(pixels.copy())
    draw_classes(canvas, labels, classes)
    return jpeg_bytes(canvas[0].values)


def objects_picture(pixels: np.ndarray, found: Detections, classes: Sequence[str]) -> bytes:
    """Draw every object's mask, box, name and score; returns a JPEG."""
    canvas = rgb_canvas(pixels.copy())
    draw_objects(canvas, found, object_colours(found.labels.numpy()), object_names(found, classes))
    return jpeg_bytes(canvas[0].values)


def classification_json(run: ClassifyRun, times: tuple[StageTimes, StageTimes]) -> dict[str, Any]:
    """Describe a whole request in plain JSON values; times in milliseconds, pixels as (height, width) or (row,
    column)."""
    source, geometry = run.picture.source, _geometry(run.picture.prepared.geometry)
    of_baseline = _geometry(run.baseline_picture.prepared.geometry)
    return {
        "image": {"size_hw": list(source.pixels.shape[:2]), "note": source.note, "geometry": geometry},
        "model": {**_classification(run.model, times[0]), "geometry": geometry},
        "baseline": {**_classification(run.baseline, times[1]), "geometry": of_baseline},
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }


def benchmark_json(state: BenchmarkState) -> dict[str, Any]:
    """Describe a comparison in plain JSON values; ``null`` where nothing is measured yet."""
    return {
        "stage": state.stage,
        "progress": round(state.progress, 3),
        "device": state.device,
        "batch_size": state.batch_size or 1,
        "model": _entry(state, "model"),
        "baseline": _entry(state, "baseline"),
        **_speed_up("batch_1", state.single),
        **_speed_up("batched", state.batched),
        "speedup_macs_allow": state.allowed_speedup,
    }


def _speed_up(name: str, turns: Turns | None) -> dict[str, Any]:
    ratios = turns and turns.speed_up
    return {
        f"speedup_{name}": ratios and ratios.median,
        f"speedup_{name}_quartiles": ratios and list(ratios),
        f"verdict_{name}": turns and turns.verdict,
        f"engine_{name}": turns and turns.engine,
    }


def detection_json(run: DetectRun) -> dict[str, Any]:
    """Describe a detection in plain JSON values: boxes XYXY in source pixels, masks as COCO's run lengths, times in ms.

    ``objects`` is ``null`` without weights.
    """
    result = run.result
    return {
        "image": {"size_hw": list(run.source.pixels.shape[:2]), "note": run.source.note},
        "detector": result.model,
        "weights": result.weights,
        "device": result.device,
        "engine": result.engine,
        "heads_engine": result.heads_engine,
        "input": {
            "asked_short_side": result.asked_short_side,
            "short_side": result.short_side,
            "network_hw": list(result.network_hw),
            "padded_hw": list(result.padded_hw),
            "proposals": result.proposals[0],
        },
        "objects": None if result.found is None else _objects(result),
        "times_ms": {**asdict(result.times), "total_ms": result.times.total_ms},
        "regions": [_regions(entry) for entry in result.regions],
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }


def segmentation_json(run: SegmentRun) -> dict[str, Any]:
    """Describe a segmentation in plain JSON values, but for the map of classes, see :func:`indexed_png`; times in ms.

    ``present`` are the classes in the picture, largest first; it is ``null`` without weights.
    """
    result = run.result
    return {
        "image": {"size_hw": list(run.source.pixels.shape[:2]), "note": run.source.note},
        "segmenter": result.model,
        "weights": result.weights,
        "device": result.device,
        "engine": result.engine,
        "input": {"network_hw": list(result.network_hw), "labelled_side": result.labelled_side},
        "classes": list(result.classes),
        "present": None if result.labels is None else [asdict(entry) for entry in result.areas()],
        "times_ms": {**asdict(result.times), "total_ms": result.times.total_ms},
        "regions": [_regions(entry) for entry in result.regions],
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }


def indexed_png(labels: np.ndarray, colours: np.ndarray) -> bytes:
    """Encode a map of classes (H, W) uint8 as PNG with a palette: pixel values are the classes, shown in their
    colours."""
    image = Image.fromarray(labels)
    image.putpalette(colours.tobytes())
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _objects(result: DetectAnswer) -> list[dict[str, Any]]:
    found, annotations = result.found, coco_json(result.found, classes=result.classes)["annotations"]
    return [
        {
            "name": result.classes[label],
            "category_id": annotation["category_id"],
            "score": annotation["score"],
            "box_xyxy": [round(side, 2) for side in box],
            "mask_area": annotation["area"],
            "segmentation": annotation["segmentation"],
        }
        for label, box, annotation in zip(found.labels.tolist(), found.boxes.tolist(), annotations, strict=True)
    ]


def _regions(regions: TokenRegions) -> dict[str, Any]:
    return {
        "unit": regions.unit,
        "layer": regions.layer,
        "semantic_grid_hw": list(regions.semantic_grid_hw),
        "image_grid_hw": list(regions.image_grid_hw),
        "assignment": regions.assignment.tolist(),
    }


def _entry(state: BenchmarkState, side: Literal["model", "baseline"]) -> dict[str, Any]:
    entry: BenchmarkEntry = getattr(state, side)
    latency, batch_latency = (turns and getattr(turns, side) for turns in (state.single, state.batched))
    return {
        "name": entry.spec.name,
        "parameters": entry.parameters,
        "macs": entry.macs,
        "macs_as_published": entry.macs_as_published,
        "latency": latency and asdict(latency),
        "batch_latency": batch_latency and asdict(batch_latency),
        "peak_memory_bytes": entry.peak_memory_bytes,
        "images_per_second": batch_latency and state.images_per_second(batch_latency),
    }


def _geometry(geometry: InputGeometry) -> dict[str, list[int]]:
    return {name: [int(value) for value in pair] for name, pair in asdict(geometry).items()}


def _classification(result: ClassifyAnswer, times: StageTimes) -> dict[str, Any]:
    return {
        "name": result.model,
        "predictions": [asdict(entry) for entry in result.predictions],
        "in_scope": result.in_scope,
        "scope_score": result.scope_score,
        "weights": result.weights,
        "device": result.device,
        "engine": result.engine,
        "times_ms": {**asdict(times), "total_ms": times.total_ms},
        "clusters": [_clusters(entry) for entry in result.regions if not entry.reduces],
        "reductions": [_reduction(entry) for entry in result.regions if entry.reduces],
    }


def _reduction(reduction: TokenRegions) -> dict[str, Any]:
    return {
        "layer": reduction.layer,
        "tokens": reduction.num_tokens,
        "image_grid_hw": list(reduction.image_grid_hw),
        "assignment": reduction.assignment.tolist(),
        "fate": reduction.fate,
    }


def _clusters(clusters: TokenRegions) -> dict[str, Any]:
    return {
        **_regions(clusters),
        "strongest_attention": [round(float(value), 5) for value in clusters.attention.max(axis=(1, 2))],
    }


def coco_json(found: Detections, file_name: str = "", classes: Sequence[str] = COCO_CLASSES) -> dict[str, Any]:
    """Describe the objects of one picture as a COCO data set of one image; ``annotations`` are COCO results as well.

    Args:
        found: the objects.
        file_name: of the picture.
        classes: names of the labels. COCO's own have the numbers that they have there, others count from 1.
    """
    height, width = found.image_hw
    present = sorted(set(found.labels.tolist()))
    ids = COCO_CATEGORY_IDS if classes is COCO_CLASSES else range(1, len(classes) + 1)
    return {
        "images": [{"id": IMAGE_ID, "width": width, "height": height, "file_name": file_name}],
        "categories": [{"id": ids[label], "name": classes[label]} for label in present],
        "annotations": [_annotation(found, number, ids) for number in range(len(found))],
    }


def _annotation(found: Detections, number: int, ids: Sequence[int]) -> dict[str, Any]:
    left, top, right, bottom = (round(value, 2) for value in found.boxes[number].tolist())
    mask, corner = mask_in_image(found.mask_probabilities[number], found.boxes[number], found.image_hw)
    return {
        "id": number + 1,
        "image_id": IMAGE_ID,
        "category_id": ids[int(found.labels[number])],
        "bbox": [left, top, round(right - left, 2), round(bottom - top, 2)],
        "score": round(float(found.scores[number]), 5),
        "area": int(mask.sum()),
        "iscrowd": 0,
        "segmentation": encode_mask(mask.numpy(), corner, found.image_hw),
    }
