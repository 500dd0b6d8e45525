"""Pictures in, answers out: ``python -m stvit.predict PICTURE... --task classify|detect|segment``

Pictures are files, folders and patterns. The answers, one text or one line of JSON for each picture, go to standard
output; everything else goes to standard error. Weights are the published ones, or a file's; without any
(``--random-weights``) nothing is predicted, but ``--overlay`` shows the token regions. A model that was trained with
this project is named by its card, ``--record NAME.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.models import is_model
from tqdm import tqdm

from stvit.detection.detections import SHOWN_SCORE
from stvit.errors import UserError, needs_extra
from stvit.pretrained.model_cards import ModelCard, ModelCardError, read_card
from stvit.shell import positive, unknown_model

from .classifier import Classifier
from .detector import Detector
from .device import compute_in_one_place, keep_freed_memory
from .load import PRECISIONS, Source, add_ema_arguments, add_engine_argument, classes_of, load_network, test_scale
from .media import FORMATS, MediaError, SourceImage, picture_suffixes, read_image
from .results import Classification, DetectionResult, SegmentationResult
from .segmenter import Segmenter

MODELS = {
    "classify": "stvit_r_swin_small_224",
    "detect": "stvit_r_swin_small_cascade_mask_rcnn",
    "segment": "stvit_r_swin_small_upernet",
}
JPEG_QUALITY = 90
MANY = 50  # pictures, from which on a graph is worth being made beside them
Result = Classification | DetectionResult | SegmentationResult


class BadOutput(UserError):
    """The overlays cannot be written where they are wanted."""


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    if options.device == "cpu":
        compute_in_one_place()
    try:
        pictures, missing = find_pictures(options.pictures)
        for name in missing:
            print(f"{name}: {_why_missing(name)}", file=sys.stderr)
        if not pictures:
            return 1
        options.engine = options.engine or ("auto" if len(pictures) >= MANY else "eager")
        overlays = overlay_paths(options.overlay, pictures) if options.overlay else [None] * len(pictures)
        failed = len(missing) + report(options, build_predictor(options), pictures, overlays)
        if failed:
            print(f"{failed} of {len(pictures) + len(missing)} passed over.", file=sys.stderr)
        return 1 if failed else 0
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except BrokenPipeError:  # nobody reads on, as in ``... | head``
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options, checked before anything is loaded, with ``source``: the model."""
    parser = argparse.ArgumentParser(
        prog="python -m stvit.predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("pictures", nargs="+", metavar="PICTURE", help="file, folder, or pattern such as 'photos/**/*.jpg'")
    add("--task", choices=MODELS, help="(default: that of the model, or classify)")
    which, weights = parser.add_mutually_exclusive_group(), parser.add_mutually_exclusive_group()
    which.add_argument("--model", metavar="NAME", help="a registered model (default: STViT-R-Swin-S for the task)")
    which.add_argument("--record", type=_card, metavar="FILE", help="a trained model by its card, a .json")
    weights.add_argument("--checkpoint", type=Path, metavar="FILE", help="its weights (default: the published ones)")
    weights.add_argument("--pretrained", action="store_true", help="the published weights, or the card's (default)")
    weights.add_argument("--random-weights", action="store_true", help="no weights, so no predictions")
    add_ema_arguments(parser)
    add(
        "--overlay",
        type=Path,
        metavar="OUT",
        help="draw on the picture, a JPEG or PNG; of several, or without suffix, a folder",
    )
    add("--json", action="store_true", help="one line of JSON for each picture on standard output")
    add("--scale", type=int, nargs=2, metavar=("LONG", "SHORT"), help="bounds of a detector's or segmenter's input")
    add("--proposals", type=positive, metavar="N", help="regions that a detector's heads look at (default: its own)")
    add("--least-score", type=float, default=SHOWN_SCORE, help="of the objects that are told (%(default)s)")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    add("--precision", choices=PRECISIONS, help="(default: the device's fastest)")
    add_engine_argument(parser, f"eager, and auto for {MANY} pictures and more")
    options = parser.parse_args(arguments)
    name = options.model or (options.record.model if options.record else MODELS[options.task or "classify"])
    if not is_model(name):
        parser.error(unknown_model(name))
    options.source = Source(name, options.checkpoint, options.record, options.use_ema)
    if problem := next(_problems(options), None):
        parser.error(problem)
    return options


def _card(path: str) -> ModelCard:
    try:
        return read_card(path)
    except ModelCardError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _problems(options: argparse.Namespace) -> Iterator[str]:
    source = options.source
    if source.card and source.card.task != source.kind:
        yield f"{source.name} is for {source.kind}, but its card says {source.card.task}: correct the card"
    if source.kind == "video":
        yield f"{source.name} is a clip model: run it with python -m stvit.video"
    if options.task not in (None, source.kind):
        yield f"{source.name} is no model for --task {options.task}: its --task is {source.kind}"
    if options.use_ema is not None and not source.checkpoint:
        yield "--use-ema and --no-ema choose among the weights of a file: name it with --checkpoint"
    if options.scale and (source.kind == "classify" or min(options.scale) < 1):
        yield "--scale takes two numbers from 1 on, for a detector or a segmenter"
    if options.proposals and source.kind != "detect":
        yield "--proposals is for a detector"
    if not 0 <= options.least_score <= 1:
        yield f"--least-score lies in [0, 1], not {options.least_score}"
    if options.device == "cuda" and not torch.cuda.is_available():
        yield "no CUDA device is available: add --device cpu"


def find_pictures(names: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The files that names, folders and patterns stand for, each once, and the names that stand for none."""
    found: dict[Path, None] = {}
    missing, suffixes = [], picture_suffixes(FORMATS)
    for name in names:
        path = Path(name)
        if path.is_dir():
            matches = [entry for entry in sorted(path.iterdir()) if entry.suffix.lower() in suffixes]
        else:
            matches = [path] if path.is_file() else [Path(match) for match in sorted(glob(name, recursive=True))]
            matches = [match for match in matches if match.is_file()]
        found |= dict.fromkeys(matches)
        if not matches:
            missing.append(name)
    return list(found), missing


def _why_missing(name: str) -> str:
    if Path(name).is_dir():
        return f"the folder holds no pictures; folders in it are not searched, but by the pattern '{name}/**/*.jpg'."
    return "there is no picture of this name. Check the path, or quote the pattern."


def overlay_paths(out: Path, pictures: Sequence[Path]) -> list[Path]:
    """Where the drawn pictures go: ``out`` itself for a single picture, if it has a suffix; else files of different
    names in it.

    Raises:
        BadOutput: nothing can be written there, or it would replace a picture that is read.
    """
    folder = out if len(pictures) > 1 or out.is_dir() or not out.suffix else out.parent
    if folder is not out and out.suffix.lower() not in (".jpg", ".jpeg", ".png"):
        raise BadOutput(f"{out} is no name of a JPEG or PNG file.", "Let it end in .jpg or .png, or name a folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadOutput(f"The folder {folder} cannot be made ({error.strerror}).", "Name another.") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise BadOutput(f"Nothing can be written into {folder}.", "Change its permissions, or name another folder.")
    paths = [out] if folder is not out else _names_in(folder, pictures)
    read = {picture.resolve() for picture in pictures}
    if clash := next((path for path in paths if path.resolve() in read), None):
        raise BadOutput(f"The overlay {clash} would replace a picture that is read.", "Name another folder or file.")
    return paths


def _names_in(folder: Path, pictures: Sequence[Path]) -> list[Path]:
    """``STEM.jpg`` for each picture, with a number where several have the same."""
    taken: set[str] = set()
    paths = []
    for picture in pictures:
        name, number = picture.stem, 2
        while name.lower() in taken:
            name, number = f"{picture.stem}-{number}", number + 1
        taken.add(name.lower())
        paths.append(folder / f"{name}.jpg")
    return paths


class Predictor:
    """One model on pictures, with the words and the drawing that suit its task."""

    def __init__(self, options: argparse.Namespace) -> None:
        source = options.source
        precision = PRECISIONS[options.precision] if options.precision else None
        network = load_network(source, torch.device(options.device), precision, random=options.random_weights)
        self.kind, self.label = source.kind, source.label
        self._predicts, self._least_score = not options.random_weights, options.least_score
        drawn_regions = options.overlay and (self.kind == "classify" or not self._predicts)
        self._regions = "last" if drawn_regions else "none"
        classes = classes_of(source, network)
        engine = {"engine": options.engine, "wait": options.engine != "auto"}
        if self.kind == "classify":
            scope = source.scope if self._predicts else None
            self._predictor: Classifier | Detector | Segmenter = Classifier(
                network, classes=classes, scope=scope, **engine
            )
        elif self.kind == "detect":
            self._predictor = Detector(network, classes=classes, proposals=options.proposals, **engine)
            self._scale = tuple(options.scale or test_scale(source))
        else:
            scale = tuple(options.scale or test_scale(source))
            self._predictor = Segmenter(network, classes=classes, scale=scale, **engine)

    def __call__(self, pixels: np.ndarray) -> Result:
        """Predict on a picture (H, W, 3) uint8 RGB."""
        if self.kind == "detect":
            of_objects = {"least_score": self._least_score, "objects": self._predicts}
            return self._predictor(pixels, scale=self._scale, regions=self._regions, **of_objects)
        return self._predictor(pixels, regions=self._regions)

    def values(self, result: Result) -> dict[str, Any]:
        """The answer as plain JSON values; ``None`` instead of predictions without weights."""
        if isinstance(result, Classification):
            named = [{"label": entry.label, "probability": round(entry.probability, 5)} for entry in result.predictions]
            return {"predictions": named if self._predicts else None, "in_scope": result.in_scope}
        if isinstance(result, DetectionResult):
            return {"objects": None if result.found is None else _objects(result)}
        areas = [{"label": area.name, "share": round(area.share, 5)} for area in result.areas()]
        return {"classes": areas if self._predicts else None}

    def words(self, values: dict[str, Any]) -> str:
        """The answer as lines of text."""
        entries, in_scope = next(iter(values.values())), values.get("in_scope", True)
        if entries is None:
            return "  no weights, so no predictions"
        if not entries:
            return f"  no objects with a score above {self._least_score:g}"
        refusal = [] if in_scope else ["  not one of the classes that this model knows; its guesses all the same:"]
        return "\n".join([*refusal, *map(_line, entries)])

    def draw(self, pixels: np.ndarray, result: Result) -> np.ndarray:
        """The picture with the objects, the classes, or the token regions of the layer that is shown."""
        from stvit.draw.canvas import rgb_canvas
        from stvit.draw.classes import draw_classes
        from stvit.draw.objects import draw_objects, object_colours, object_names
        from stvit.draw.regions import draw_regions, grid_box, region_colours

        canvas = rgb_canvas(pixels.copy())
        if isinstance(result, DetectionResult) and result.found is not None:
            found = result.found
            draw_objects(canvas, found, object_colours(found.labels.numpy()), object_names(found, result.classes))
        elif isinstance(result, SegmentationResult) and self._predicts:
            draw_classes(canvas, result.labels, result.classes)
        elif result.regions:
            regions = result.regions[-1]
            fates = {"fate": regions.fate, "fused": regions.kind == "fused"}
            draw_regions(canvas, regions.grouped(), region_colours(regions), grid_box(canvas, result.geometry), **fates)
        return canvas[0].values


def build_predictor(options: argparse.Namespace) -> Predictor:
    """The model on its device; whatever draws is there, if anything is to be drawn."""
    if options.overlay:
        with needs_extra("video"):
            import stvit.draw.canvas  # noqa: F401
    return Predictor(options)


def _objects(result: DetectionResult) -> list[dict[str, Any]]:
    found = result.found
    boxes = found.boxes.tolist()
    return [
        {
            "label": result.classes[label],
            "score": round(score, 5),
            "box_xyxy": [round(side, 2) for side in box],
        }
        for label, score, box in zip(found.labels.tolist(), found.scores.tolist(), boxes, strict=True)
    ]


def _line(entry: dict[str, Any]) -> str:
    part = next(entry[key] for key in ("probability", "score", "share") if key in entry)
    box = " ".join(f"{side:.0f}" for side in entry.get("box_xyxy", ()))
    return f"  {100 * part:5.1f} %  {entry['label']}{f'  ({box})' if box else ''}"


def report(
    options: argparse.Namespace,
    predict: Predictor,
    pictures: Sequence[Path],
    overlays: Sequence[Path | None],
) -> int:
    """Predict on all pictures and print the answers; returns how many were passed over.

    Raises:
        BadOutput: an overlay cannot be written.
    """
    failed, answered = 0, Counter[str]()
    steps = tqdm(total=len(pictures), unit="picture", file=sys.stderr, disable=len(pictures) < 2, leave=False)
    with steps:
        for path, overlay in zip(pictures, overlays, strict=True):
            try:
                source = read_image(path)
            except (MediaError, OSError) as error:
                tqdm.write(f"{path}: {error}", file=sys.stderr)
                failed += 1
            else:
                answered[_answer(options, predict, path, source, overlay)] += 1
            steps.update()
    if options.engine != "eager":
        print("Answered by " + ", ".join(f"{name} ({n})" for name, n in answered.items()) + ".", file=sys.stderr)
    return failed


def _answer(
    options: argparse.Namespace, predict: Predictor, path: Path, source: SourceImage, overlay: Path | None
) -> str:
    """Returns the engine that answered."""
    result = predict(source.pixels)
    values = predict.values(result)
    if overlay:
        write_picture(overlay, predict.draw(source.pixels, result))
    if options.json:
        size = {"size_hw": list(source.pixels.shape[:2]), "note": source.note, "engine": result.engine}
        text = json.dumps({"picture": str(path), "model": predict.label, **size, **values}, ensure_ascii=False)
    else:
        text = f"{path}\n{predict.words(values)}"
    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()
    return result.engine


def write_picture(path: Path, pixels: np.ndarray) -> None:
    """Write a picture (H, W, 3) uint8 RGB whole or not at all.

    Raises:
        BadOutput: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        kind = "PNG" if path.suffix.lower() == ".png" else "JPEG"
        Image.fromarray(pixels).save(partial, kind, quality=JPEG_QUALITY)
        os.replace(partial, path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        problem = f"The overlay {path} cannot be written ({error.strerror or error})."
        raise BadOutput(problem, "See that there is room on the disk, or name another folder.") from error


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
