"""The models that the page offers: an object that is made once and handed to what needs it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from stvit.errors import UserError
from stvit.pretrained.model_cards import BundledCard, ModelCard
from stvit.pretrained.records import ModelRecord
from stvit.pretrained.records import record as record_of

Task = Literal["classify", "detect", "segment", "video"]

NARROW, FOLDER = "narrow", "folder"
SIZE_NAMES = {
    "tiny": "Tiny",
    "small": "Small",
    "base": "Base",
    NARROW: "Narrow, garments",
    FOLDER: "From a folder of this server",
}


class UnknownModel(UserError, ValueError):
    """A name that the page does not offer, or a model without a counterpart."""


@dataclass(frozen=True)
class Method:
    """A way to use fewer tokens, applied to a network; or the network with all its tokens.

    Attributes:
        name: what people call it, with the network, e.g. ``"EViT-DeiT"``.
        network: the full-token network, e.g. ``"DeiT"``.
        setting: label of the list that chooses among its models of one size.
    """

    name: str
    network: str
    setting: str = "Tokens"

    @property
    def full_tokens(self) -> bool:
        """Whether it keeps all image tokens."""
        return self.name == self.network


@dataclass(frozen=True)
class ModelSpec:
    """One model of the page.

    Attributes:
        name: stable key, the registered name and the options, e.g. ``"evit_deit_small_patch16_224:keep_rate=0.7"``; of
            a bundled model, the name of its card; of one in a folder, the folder's name.
        label: what people call the model.
        about: one line for the page and the API.
        task: what it does.
        method: how it treats its tokens.
        size: key of ``SIZE_NAMES``.
        setting: its entry in the list of settings.
        model: registered name.
        options: arguments of the model.
        record: its published weights; ``None`` where there are none.
        bundled: the card of a model that this project trained and ships.
        folder: the card of a model in a folder that was named when the server started, see ``demo.model_folders``.
        twin: name of its counterpart, where that follows from no method and size.
        no_weights: why there are no weights, one sentence.
        published: the papers' figures, some of ``top1`` (%), ``gmacs``, ``throughput`` (images/s, V100, batch 128),
            ``box_ap`` and ``mask_ap`` (%, COCO), ``backbone_gmacs`` (at 800x1333).
        offered: whether it can be chosen; the others serve as counterparts alone.
    """

    name: str
    label: str
    about: str
    task: Task
    method: Method
    size: str
    setting: str
    model: str
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    record: ModelRecord | None = field(default=None, hash=False)
    bundled: BundledCard | None = field(default=None, hash=False)
    folder: ModelCard | None = field(default=None, hash=False)
    twin: str = ""
    no_weights: str = ""
    published: Mapping[str, float] = field(default_factory=dict, hash=False)
    offered: bool = True

    @property
    def has_weights(self) -> bool:
        """Whether there are weights for it, here or on the Hub."""
        return not self.no_weights and (self.record is not None or self.card is not None)

    @property
    def card(self) -> ModelCard | None:
        """The card of a trained model that is here, of this project or in a folder."""
        return self.bundled or self.folder

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of its classes; ``None`` stands for those of ImageNet, COCO or Kinetics-400, by its task."""
        return self.card.classes if self.card else None

    @property
    def input_size(self) -> int:
        """Side of a classifier's input, pixels."""
        return self.card.input_size if self.card else record_of(self.model).input_size[-1]

    @property
    def crop_pct(self) -> float:
        """Share of a picture's shorter side that a classifier sees."""
        return (self.card or record_of(self.model)).crop_pct


class Registry:
    """Specs by name, task and place in the lists of the page.

    Attributes:
        hub: whether published weights are within reach, so that published models come first.

    Args:
        specs: in the order in which they are listed; their names differ.
    """

    def __init__(self, specs: Iterable[ModelSpec], hub: bool = True) -> None:
        self._specs = {spec.name: spec for spec in specs}
        self.hub = hub

    def __iter__(self) -> Iterator[ModelSpec]:
        return iter(self._specs.values())

    def of_task(self, task: Task) -> tuple[ModelSpec, ...]:
        """List the models offered for a task."""
        return tuple(spec for spec in self if spec.task == task and spec.offered)

    def find(self, name: object, task: Task | None = None) -> ModelSpec:
        """Find the spec of this name.

        Args:
            task: what it has to do; by default, any model of any task will do, offered or not.

        Raises:
            UnknownModel: there is none.
        """
        spec = self._specs.get(name) if isinstance(name, str) else None
        if spec is not None and (task is None or (spec.task == task and spec.offered)):
            return spec
        known = ", ".join(spec.name for spec in (self if task is None else self.of_task(task)))
        raise UnknownModel(f"{str(name)[:60]!r} is not offered here.", f"Choose one of: {known}.")

    def first(self, task: Task) -> ModelSpec:
        """Choose the model that a tab begins with: the first on offer; of clip models the first with weights; without
        the Hub a bundled one."""
        offered = self.of_task(task)
        bundled = None if self.hub else self.first_bundled(task)
        if bundled is not None:
            return bundled
        if task == "video":
            return next((spec for spec in offered if spec.has_weights), offered[0])
        return offered[0]

    def is_out_of_reach(self, spec: ModelSpec) -> bool:
        """Whether the weights of a model are on the Hub, and that was not within reach."""
        return not self.hub and spec.bundled is None and spec.record is not None

    def first_bundled(self, task: Task) -> ModelSpec | None:
        """Choose the bundled model to begin with where the Hub is out of reach, preferably one with fewer tokens and a
        counterpart; ``None`` where nothing is bundled."""
        bundled = [spec for spec in self.of_task(task) if spec.bundled]
        paired = (spec for spec in bundled if not spec.method.full_tokens and self.counterpart(spec))
        return next(paired, next(iter(bundled), None))

    def counterpart(self, spec: ModelSpec) -> ModelSpec | None:
        """Find what a model is compared with: the full-token network that it is made from, in its size; of a full-token
        one, the first of its network and size that uses fewer tokens. ``None`` where there is none.

        Bundled models are compared with bundled ones, published with published ones.
        """
        if spec.twin:
            return self._specs.get(spec.twin)
        alike = (
            other
            for other in self
            if (other.task, other.size, other.method.network) == (spec.task, spec.size, spec.method.network)
            and (other.bundled is None) == (spec.bundled is None)
            and other.method.full_tokens != spec.method.full_tokens
        )
        return next(alike, None)

    def pair(self, spec: ModelSpec) -> tuple[ModelSpec, ModelSpec]:
        """Return a model and its counterpart.

        Raises:
            UnknownModel: it has none.
        """
        counterpart = self.counterpart(spec)
        if counterpart is None:
            raise UnknownModel(f"There is nothing to compare {spec.label} with.", "Choose another model.")
        return spec, counterpart

    def methods(self) -> tuple[Method, ...]:
        """List the methods of the classifiers on offer."""
        return tuple(dict.fromkeys(spec.method for spec in self.of_task("classify")))

    def method(self, name: object) -> Method:
        """Find the method of this name.

        Raises:
            UnknownModel: there is none.
        """
        methods = self.methods()
        for method in methods:
            if method.name == name:
                return method
        known = ", ".join(method.name for method in methods)
        raise UnknownModel(f"There is no method {str(name)[:60]!r}.", f"Choose one of: {known}.")

    def sizes(self, method: Method) -> tuple[str, ...]:
        """List the sizes of a method's classifiers: published ones first, small before large."""
        offered = {spec.size for spec in self.of_task("classify") if spec.method == method}
        return tuple(size for size in SIZE_NAMES if size in offered)

    def settings(self, method: Method, size: str) -> tuple[ModelSpec, ...]:
        """List the classifiers of one method and size; the first is the default."""
        return tuple(spec for spec in self.of_task("classify") if (spec.method, spec.size) == (method, size))
