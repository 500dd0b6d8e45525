"""Top-1 and top-5 accuracy of a classifier on a folder for each class, or on WebDataset shards."""

from __future__ import annotations

import argparse
import io
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info
from torchvision.datasets.folder import find_classes

from stvit.errors import UserError
from stvit.predict.engines import Engine
from stvit.predict.media import picture_suffixes
from stvit.predict.preprocess import Preprocessing
from stvit.shell import from_zero, positive
from stvit.training.datasets.classification import find_pictures
from stvit.training.datasets.data import open_picture

from .data import SHOWN, EvaluationError
from .results import Id
from .run import EvaluatedModel

TOP = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument("--images", type=Path, metavar="DIR", help="a folder with a folder of pictures for each class")
    data.add_argument("--shards", type=Path, nargs="+", metavar="FILE", help="WebDataset shards, .tar")
    parser.add_argument("--suite", choices=["paper"], help="every classifier of the catalogue instead of one model")
    parser.add_argument("--batch-size", type=positive, default=32, metavar="N")
    parser.add_argument(
        "--workers", type=from_zero, default=2, metavar="N", help="processes that read pictures (default: 2)"
    )


class ClassifyBenchmark:
    """A classifier on pictures with a class each.

    Args:
        model: its record or card says how pictures are prepared.
        options: ``images`` or ``shards``, ``batch_size``, ``workers``, ``limit``.

    Raises:
        EvaluationError: there are no pictures, or their classes are not the model's.
    """

    noun = "images"

    def __init__(self, model: EvaluatedModel, options: argparse.Namespace) -> None:
        self.model, self.options = model, options
        if options.images:
            samples, self.class_names = labelled_folder(options.images, model)
        else:
            samples, self.class_names = labelled_shards(options.shards, model.network.num_classes), model.class_names
        self.labels: dict[Id, int] = dict(samples[: options.limit])
        self.ids = list(self.labels)
        self.engine = Engine(model.network, model.engine, wait=True)
        self.origin = {**model.origin, "data": [str(one) for one in options.shards or [options.images]]}

    def results(self, todo: Sequence[Id]) -> Iterator[tuple[Id, Any]]:
        """The best five classes, best first."""
        device = next(self.model.network.parameters()).device
        how = Preprocessing.of(self.model.network.pretrained_cfg)
        if self.options.images:
            pictures: Dataset = FilePictures(self.options.images, todo, how)
        else:
            pictures = ShardPictures(self.options.shards, set(todo), how)
        loader = DataLoader(pictures, self.options.batch_size, num_workers=self.options.workers, collate_fn=list)
        for samples in loader:
            readable = [(name, picture) for name, picture in samples if isinstance(picture, Tensor)]
            yield from ((name, problem) for name, problem in samples if not isinstance(problem, Tensor))
            if readable:
                logits = self.engine(torch.cat([picture for _, picture in readable]).to(device)).outputs.float()
                best = logits.topk(min(TOP, self.model.network.num_classes)).indices
                yield from zip([name for name, _ in readable], best.tolist(), strict=True)

    def metrics(self, finished: Mapping[Id, list[int]]) -> dict[str, Any]:
        """See :func:`accuracy`."""
        return accuracy(self.labels, finished, self.class_names)

    def table(self, metrics: Mapping[str, Any]) -> str:
        return f"{self.model.name}: top-1 {metrics['top1']:.2f} %, top-5 {metrics['top5']:.2f} %"


def accuracy(
    labels: Mapping[Id, int], finished: Mapping[Id, Sequence[int]], class_names: Sequence[str] | None
) -> dict[str, Any]:
    """``top1``, ``top5`` and, class by class, ``top1_by_class``, percent.

    Args:
        labels: class of each sample.
        finished: the best five classes of the samples that count, best first.
        class_names: what the classes are called; their numbers by default.
    """
    by_class: dict[str, list[bool]] = defaultdict(list)
    for sample, best in finished.items():
        label = labels[sample]
        by_class[class_names[label] if class_names else str(label)].append(best[0] == label)
    in_top = [labels[sample] in best for sample, best in finished.items()]
    return {
        "top1": percent([hit for hits in by_class.values() for hit in hits]),
        "top5": percent(in_top),
        "top1_by_class": {name: percent(hits) for name, hits in sorted(by_class.items())},
    }


def percent(hits: Sequence[bool]) -> float:
    return 100 * sum(hits) / len(hits)


def labelled_folder(folder: Path, model: EvaluatedModel) -> tuple[list[tuple[str, int]], tuple[str, ...]]:
    """The pictures of a folder, by their path in it, with the model's number for their class; and the classes' names.

    Class folders are those of torchvision's ``ImageFolder``. They are matched by name with a model whose classes are
    known, else by their alphabetical order.

    Raises:
        EvaluationError: there are no class folders or pictures, or the classes are not the model's.
    """
    if not folder.is_dir():
        raise EvaluationError(f"There is no folder {folder}.", "Check --images.")
    try:
        found = find_classes(folder)[0]
    except FileNotFoundError as error:
        raise EvaluationError(f"{folder} holds no folders of classes.", "Name the folder above them.") from error
    names = model.class_names
    if names is None:
        if len(found) != model.network.num_classes:
            raise EvaluationError(
                f"{folder} has {len(found)} classes, {model.name} has {model.network.num_classes}.",
                "Choose the folder that the model was trained for, or --option num_classes=N with --checkpoint.",
            )
        names = tuple(found)
    elif unknown := [name for name in found if name not in names]:
        raise EvaluationError(
            f"{folder} has {len(unknown)} of {len(found)} classes that {model.name} does not know: "
            f"{', '.join(unknown[:SHOWN])}.",
            f"It knows {', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''}.",
        )
    pictures = find_pictures(folder, {name: names.index(name) for name in found}, every_class=False)
    if not pictures:
        raise EvaluationError(f"{folder} holds no pictures.", "Check --images.")
    return [(str(Path(path).relative_to(folder)), label) for path, label in pictures], tuple(names)


def labelled_shards(shards: Sequence[Path], num_classes: int) -> list[tuple[str, int]]:
    """The samples of WebDataset shards, ``shard/key``, with their classes.

    Raises:
        EvaluationError: a shard cannot be read, or a class is not one of the model's.
    """
    samples, wrong = [], []
    for shard in shards:
        for name, files in read_shard(shard, {"cls"}):
            text = files["cls"].decode(errors="replace").strip() if "cls" in files else "none"
            if text.isdecimal() and int(text) < num_classes:
                samples.append((name, int(text)))
            else:
                wrong.append(f"{name} is of class {text[:20]!r}")
    if wrong:
        raise EvaluationError(
            f"{len(wrong)} samples have no class from 0 to {num_classes - 1}: {'; '.join(wrong[:SHOWN])}.",
            "Choose the shards that the model was trained for.",
        )
    if not samples:
        raise EvaluationError("The shards hold no samples.", "Check --shards.")
    if repeated := [name for name, times in Counter(name for name, _ in samples).items() if times > 1]:
        raise EvaluationError(
            f"{len(repeated)} samples occur several times, the first is {repeated[0]}.",
            "Name each shard once; shards in several folders need different names.",
        )
    return samples


def read_shard(shard: Path, kinds: Set[str]) -> Iterator[tuple[str, dict[str, bytes]]]:
    """The samples of a shard: ``shard/key``, and the content of its files of some kinds.

    Raises:
        EvaluationError: it is no tar file, or is cut off.
    """
    key, files = None, {}
    try:
        with tarfile.open(shard) as members:
            for member in members:
                if not member.isfile():
                    continue
                folder, _, base = member.name.rpartition("/")
                stem, _, kind = base.partition(".")
                if (folder, stem) != key:
                    if key is not None:
                        yield f"{shard.name}/{'/'.join(filter(None, key))}", files
                    key, files = (folder, stem), {}
                if kind.lower() in kinds:
                    files[kind.lower()] = members.extractfile(member).read()
    except (tarfile.TarError, OSError, EOFError) as error:
        reason = str(error).partition("\n")[0]  # tarfile lists all compressions that it tried
        raise EvaluationError(f"{shard} cannot be read ({reason}).", "Copy or download it again.") from error
    if key is not None:
        yield f"{shard.name}/{'/'.join(filter(None, key))}", files


def prepare(file: Path | IO[bytes], name: str, how: Preprocessing) -> Tensor | UserError:
    """The model's input (1, 3, H, W) made of a picture, or what is wrong with the picture."""
    try:
        pixels = np.array(open_picture(file, name))
    except UserError as error:
        return error
    return how.normalise(how.resize(pixels))[None]


class FilePictures(Dataset):
    """(name, model input or problem) of picture files, by their path in a folder."""

    def __init__(self, folder: Path, names: Sequence[str], how: Preprocessing) -> None:
        self.folder, self.names, self.how = folder, names, how

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[str, Tensor | UserError]:
        name = self.names[index]
        return name, prepare(self.folder / name, name, self.how)


class ShardPictures(IterableDataset):
    """(name, model input or problem) of the wanted samples of shards; every worker reads shards of its own."""

    def __init__(self, shards: Sequence[Path], wanted: Set[str], how: Preprocessing) -> None:
        self.shards, self.wanted, self.how = shards, wanted, how
        self.kinds = [suffix.removeprefix(".") for suffix in sorted(picture_suffixes())]

    def __iter__(self) -> Iterator[tuple[str, Tensor | UserError]]:
        worker = get_worker_info()
        for shard in self.shards[worker.id :: worker.num_workers] if worker else self.shards:
            for name, files in read_shard(shard, set(self.kinds)):
                if name in self.wanted:
                    content = next((files[kind] for kind in self.kinds if kind in files), b"")
                    yield name, prepare(io.BytesIO(content), name, self.how)
