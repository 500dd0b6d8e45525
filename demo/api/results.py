"""What the endpoints return, by name: the types that ``GET /gradio_api/info`` and the tools of MCP describe."""

from __future__ import annotations

from typing import Annotated, Any

import gradio as gr
from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict  # pydantic takes no other before Python 3.12

Grid = Annotated[list[list[int]], Field(description="of every image token, row by row: the number of its token, or -1")]
Milliseconds = Annotated[dict[str, float], Field(description="of every step, and of all (total_ms)")]
Weights = Annotated[str, Field(description="where they came from")]


class Image(TypedDict):
    size_hw: Annotated[list[int], Field(description="height and width, pixels")]
    note: Annotated[str, Field(description="what was done to read it; mostly empty")]


class ClassifiedImage(Image):
    geometry: Annotated[dict[str, list[int]], Field(description="how it became the model's input; (row, column)")]


class Prediction(TypedDict):
    index: int
    label: str
    probability: Annotated[float, Field(description="softmax, 0 to 1")]


class Regions(TypedDict):
    """Which image tokens every semantic token of a layer stands for."""

    unit: Annotated[int, Field(description="dumbbell unit, from 1; 0 where the network has none")]
    layer: str
    semantic_grid_hw: list[int]
    image_grid_hw: list[int]
    assignment: Grid


class Clusters(Regions):
    strongest_attention: Annotated[list[float], Field(description="of every semantic token")]


class Reduction(TypedDict):
    """What a layer left of the image tokens."""

    layer: str
    tokens: int
    image_grid_hw: list[int]
    assignment: Grid
    fate: Annotated[str, Field(description="of the image tokens of number -1")]


class Classified(TypedDict):
    name: str
    predictions: Annotated[list[Prediction], Field(description="best first")]
    in_scope: Annotated[bool, Field(description="false where the picture shows none of the classes")]
    scope_score: Annotated[float | None, Field(description="below 0 out of scope; null of models that cannot tell")]
    weights: Weights
    device: str
    engine: str
    times_ms: Milliseconds
    clusters: list[Clusters]
    reductions: list[Reduction]
    geometry: dict[str, list[int]]


class Classification(TypedDict):
    """Both models' answers."""

    image: ClassifiedImage
    model: Classified
    baseline: Classified
    versions: dict[str, str]


class DetectionInput(TypedDict):
    asked_short_side: int
    short_side: int
    network_hw: list[int]
    padded_hw: list[int]
    proposals: int


class Mask(TypedDict):
    """COCO's run lengths."""

    size: Annotated[list[int], Field(description="height and width")]
    counts: str


class FoundObject(TypedDict):
    name: str
    category_id: int
    score: float
    box_xyxy: Annotated[list[float], Field(description="pixels of the picture")]
    mask_area: int
    segmentation: Mask


class Detection(TypedDict):
    """The objects of a picture."""

    image: Image
    detector: str
    weights: Weights
    device: str
    engine: str
    heads_engine: Annotated[str, Field(description="that ran box and mask heads")]
    input: DetectionInput
    objects: list[FoundObject]
    times_ms: Milliseconds
    regions: list[Regions]
    versions: dict[str, str]


class SegmentationInput(TypedDict):
    network_hw: list[int]
    labelled_side: int


class PresentClass(TypedDict):
    label: int
    name: str
    pixels: int
    share: Annotated[float, Field(description="of all pixels, 0 to 1")]


class Segmentation(TypedDict):
    """The classes in a picture."""

    image: Image
    segmenter: str
    weights: Weights
    device: str
    engine: str
    input: SegmentationInput
    classes: Annotated[list[str], Field(description="names, in the order of the map's numbers")]
    present: Annotated[list[PresentClass], Field(description="largest first")]
    times_ms: Milliseconds
    regions: list[Regions]
    versions: dict[str, str]


class Latency(TypedDict):
    median_ms: float
    q1_ms: float
    q3_ms: float
    runs: int


class Measured(TypedDict):
    name: str
    parameters: int | None
    macs: Annotated[int | None, Field(description="multiply-adds of one picture")]
    macs_as_published: int | None
    latency: Latency | None
    batch_latency: Latency | None
    peak_memory_bytes: int | None
    images_per_second: float | None


Ratio = Annotated[float | None, Field(description="the baseline's time by the model's; null while not measured")]
Verdict = Annotated[str | None, Field(description="faster, slower or unclear")]


class Comparison(TypedDict):
    """Two models measured in turns; null where nothing is measured yet."""

    stage: Annotated[str, Field(description="Done at the end")]
    progress: Annotated[float, Field(description="0 to 1")]
    device: str
    batch_size: int
    model: Measured
    baseline: Measured
    speedup_batch_1: Ratio
    speedup_batch_1_quartiles: list[float] | None
    verdict_batch_1: Verdict
    engine_batch_1: str | None
    speedup_batched: Ratio
    speedup_batched_quartiles: list[float] | None
    verdict_batched: Verdict
    engine_batched: str | None
    speedup_macs_allow: Ratio


class Model(TypedDict):
    """A model on offer."""

    name: Annotated[str, Field(description="goes in where a model is asked for")]
    label: str
    about: str
    role: Annotated[str, Field(description="model, baseline, detector, segmenter or clip_model")]
    method: str
    size: str
    setting: str
    weights: Annotated[str | None, Field(description="where they come from; null where none were published")]
    no_weights: Annotated[str, Field(description="why there are none")]
    licence: str | None
    published: Annotated[dict[str, float], Field(description="figures of the papers")]
    measured: Annotated[dict[str, Any], Field(description="figures of this project, of models that it trained")]


class ClipProgress(TypedDict):
    """How far a clip is."""

    done: bool
    progress: Annotated[float | None, Field(description="0 to 1; null where the clip's length is not known")]
    frames: int
    frames_expected: int | None
    frames_per_second: float
    engines: Annotated[list[str], Field(description="that ran the models so far")]
    model_frames_per_second: float
    eta_s: float | None
    stages_s: Annotated[dict[str, float], Field(description="seconds of work of every stage")]
    note: str
    clip: Annotated[dict[str, Any], Field(description="what a clip model says of the whole clip")]
    weights: Annotated[dict[str, str], Field(description="of every model, where they came from")]


class Result(gr.JSON):
    """A value of one of these types, see :func:`result`."""

    is_template = True  # to the browser, the JSON that it is
    kind: Any = Any

    def api_info_as_output(self) -> dict[str, Any]:
        """Describe the type as JSON Schema."""
        return TypeAdapter(self.kind).json_schema()


def result(kind: Any, label: str) -> Result:
    """Make what holds a value of a type, under a name; not seen on the page."""
    made = Result(label=label, visible=False)  # Gradio sends to the browser what the constructor is given
    made.kind = kind
    return made
