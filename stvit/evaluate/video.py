"""Top-1 and top-5 accuracy of a clip classifier on Kinetics, or on a list of videos of your own."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from stvit.errors import UserError
from stvit.predict.clips import ClipClassifier, Sampling, clip_indices, make_views
from stvit.pretrained.model_cards import numbered_classes
from stvit.training.datasets.clips import VideoFile, read_list

from .classify import TOP, accuracy
from .data import EvaluationError
from .results import Id
from .run import EvaluatedModel

VIEWS_AT_ONCE = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--list", type=Path, required=True, metavar="FILE", help="a line 'relative/path.mp4 7' for each video")
    add("--clips", type=Path, required=True, metavar="DIR", help="the folder that the paths start from")
    add("--views", type=views, default=(4, 3), metavar="CLIPSxCROPS", help="of each video (default: 4x3, as published)")


def views(text: str) -> tuple[int, int]:
    """``4x3``: clips of a video, crops of each."""
    clips, times, crops = text.partition("x")
    if not times or not clips.isdecimal() or not crops.isdecimal() or min(int(clips), int(crops)) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of clips and one of crops, as 4x3")
    return int(clips), int(crops)


class VideoBenchmark:
    """A clip classifier on videos with a class each.

    Args:
        model: its card says the length, interval and size of its clips; else they are as published.
        options: ``list``, ``clips``, ``views``, ``limit``.

    Raises:
        EvaluationError, RecipeError: the list is wrong, or videos are missing.
    """

    noun = "videos"

    def __init__(self, model: EvaluatedModel, options: argparse.Namespace) -> None:
        self.model, self.options, card = model, options, model.card
        videos = read_list(options.list, options.clips, model.network.num_classes)[: options.limit]
        self.paths = {path.relative_to(options.clips).as_posix(): path for path, _ in videos}
        if len(self.paths) < len(videos):
            raise EvaluationError(f"{options.list} names {len(videos) - len(self.paths)} videos twice.", "Correct it.")
        self.ids = list(self.paths)
        self.labels = dict(zip(self.ids, (label for _, label in videos), strict=True))
        self.sampling = Sampling(card.frames, card.stride, card.input_size) if card else Sampling()
        names = model.class_names or numbered_classes(model.network.num_classes)
        how = {"sampling": self.sampling, "engine": model.engine, "wait": True}
        self.classifier = ClipClassifier(model.network, classes=names, **how)
        self.engine = self.classifier.engine
        self.origin = {**model.origin, "list": str(options.list), "views": list(options.views)}
        self.origin |= {"sampling": asdict(self.sampling)}

    def results(self, todo: Sequence[Id]) -> Iterator[tuple[Id, Any]]:
        """The best five classes, best first, of the mean probabilities of a video's views."""
        (clips, crops), how = self.options.views, self.sampling
        for name in todo:
            try:
                video = VideoFile(self.paths[name])
                frames, places = video.read(clip_indices(video.num_frames, clips, how.length, how.interval))
            except UserError as error:
                yield name, EvaluationError(f"{name}: {error.problem}", error.next_step)
                continue
            views = make_views(frames, places, crops, how.size)
            found = self.classifier.classify_views(views, VIEWS_AT_ONCE).scores
            yield name, torch.from_numpy(found).topk(min(TOP, len(found))).indices.tolist()

    def metrics(self, finished: Mapping[Id, list[int]]) -> dict[str, Any]:
        """See :func:`stvit.evaluate.classify.accuracy`."""
        return accuracy(self.labels, finished, self.model.class_names)

    def table(self, metrics: Mapping[str, Any]) -> str:
        clips, crops = self.options.views
        figures = f"top-1 {metrics['top1']:.2f} %, top-5 {metrics['top5']:.2f} %"
        return f"{self.model.name}, {clips}x{crops} views: {figures}"
