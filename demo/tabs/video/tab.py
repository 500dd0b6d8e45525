"""The Video tab: its components and what happens when they are used."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr
from gradio.context import Context

from demo.engine import SHORT_SIDES
from demo.page.first_models import FirstModels
from demo.registry import ModelSpec, Registry
from demo.runtime import AT_ONCE, LOADING_QUEUE, VIDEO_QUEUE, Runtime
from demo.tabs.detect.handlers import detector_list
from demo.tabs.inputs import ModelPicker, model_picker, uploaded_path
from demo.tabs.model_list import RosterList
from demo.tabs.pairs import connect_pair
from demo.tabs.parts import notices, on_change
from demo.tabs.video.handlers import EMPTY, VideoHandlers
from demo.video import CLUSTERS, TASKS
from stvit.predict.detector import published_scale

SIZE_ON_CPU = 320
FILE_TYPES = ["video", ".gif", ".mkv", ".mov", ".webm", ".avi", ".ts", ".m4v"]
LIMITS = (
    '<p class="fine">Any common clip up to 3 minutes, 50 MB and 4K: MP4, MOV, WebM, MKV, AVI, GIF. '
    "Sound, frame rate and orientation are kept; sides above 1920 pixels, side by side above 960, are scaled down.</p>"
)


@dataclass(frozen=True)
class Parts:
    """The components that events connect."""

    clip: gr.File
    example: gr.Button
    garments: gr.HTML
    task: gr.Radio
    side_by_side: gr.Checkbox
    model: ModelPicker
    baseline: ModelPicker
    detector: RosterList
    short_side: gr.Dropdown
    clip_model: RosterList
    pickers: tuple[gr.Column, ...]
    about: gr.HTML
    run: gr.Button
    cancel: gr.Button
    fallback: gr.HTML
    notice: gr.HTML
    live: gr.HTML
    video: gr.Video
    stages: gr.HTML
    download_clip: gr.DownloadButton
    download_records: gr.DownloadButton

    @property
    def pick(self) -> list[gr.components.Component]:
        """The clip and all that is chosen."""
        chosen = [self.task, self.model.setting, self.baseline.setting, self.detector, self.short_side]
        return [self.clip, *chosen, self.side_by_side, self.clip_model]


def build(runtime: Runtime) -> None:
    """Lay the tab out and connect it; call inside a ``gr.Tab``."""
    handlers = VideoHandlers(runtime)
    registry = runtime.registry
    first = registry.pair(registry.first("classify"))
    parts = _lay_out(runtime.engine.device.type == "cuda", registry, first, handlers)
    _connect_run(parts, handlers)
    _connect_choice(parts, handlers, FirstModels(registry, first))


def _lay_out(on_gpu: bool, registry: Registry, first: tuple[ModelSpec, ModelSpec], handlers: VideoHandlers) -> Parts:
    with gr.Row(elem_classes="workspace"):
        with gr.Column(elem_classes="inputs"):
            clip = gr.File(label="Clip", file_types=FILE_TYPES, height=130, elem_id="clip")
            clip.preprocess = uploaded_path  # a message can leave out that it names a file
            gr.HTML(LIMITS, apply_default_css=False)
            example = gr.Button("Take the example clip", size="sm", elem_id="example-clip")
            garments = handlers.gallery.component("garment-clips", clip)
            task = gr.Radio(list(TASKS), value=CLUSTERS, label="Task", elem_id="video-task")
            side_by_side = gr.Checkbox(
                False,
                label="Side by side with a baseline, each at its real pace",
                info="The pace of a detector is its backbone's: all that comes after is the same on both sides.",
            )
            with gr.Column() as of_model:
                model = model_picker(registry, "Model", first[0], "video-model")
            with gr.Column(visible=False) as of_baseline:
                baseline = model_picker(registry, "On the right", first[1], "video-baseline")
            with gr.Column(visible=False) as of_detector:
                detector, short_side = detector_pickers(registry, on_gpu, "video")
            with gr.Column(visible=False) as of_clip_model:
                clip_model = RosterList(
                    [(spec.label, spec.name) for spec in registry.of_task("video")],
                    value=registry.first("video").name,
                    label="Clip model, on a sliding window of frames",
                    elem_id="video-clip-model",
                    filterable=False,
                )
            about = notices("video-about")
            with gr.Row():
                run = gr.Button("Process the clip", variant="primary", elem_id="process")
                cancel = gr.Button("Cancel", interactive=False, elem_id="cancel-clip", min_width=90)
        with gr.Column(elem_classes="results"):
            fallback = notices("video-fallback")
            notice = notices("video-notice")
            live = gr.HTML(EMPTY, elem_id="video-live", apply_default_css=False)
            video = gr.Video(label="New clip", interactive=False, elem_id="new-clip", height=480, buttons=[])
            with gr.Row(elem_classes="downloads"):
                download_clip = gr.DownloadButton("New clip (MP4)", size="sm", interactive=False)
                download_records = gr.DownloadButton("Every frame (JSON lines)", size="sm", interactive=False)
            stages = notices("video-stages")
    return Parts(
        clip=clip,
        example=example,
        garments=garments,
        task=task,
        side_by_side=side_by_side,
        model=model,
        baseline=baseline,
        detector=detector,
        short_side=short_side,
        clip_model=clip_model,
        pickers=(of_model, of_baseline, of_detector, of_clip_model),
        about=about,
        run=run,
        cancel=cancel,
        fallback=fallback,
        notice=notice,
        live=live,
        video=video,
        stages=stages,
        download_clip=download_clip,
        download_records=download_records,
    )


def detector_pickers(registry: Registry, on_gpu: bool, prefix: str) -> tuple[RosterList, gr.Dropdown]:
    """Lists of detectors and of their input sizes; ``prefix`` begins the names of both in the page."""
    detector = RosterList(
        detector_list(registry),
        value=registry.first("detect").name,
        label="Detector (Cascade Mask R-CNN)",
        elem_id=f"{prefix}-detector",
        filterable=False,
    )
    short_side = gr.Dropdown(
        [("{1} × {0}".format(*published_scale(side)), side) for side in SHORT_SIDES],
        value=SHORT_SIDES[0] if on_gpu else SIZE_ON_CPU,
        label="Input size: short and long side at most",
        elem_id=f"{prefix}-short-side",
        filterable=False,
    )
    return detector, short_side


def _connect_run(parts: Parts, handlers: VideoHandlers) -> None:
    quiet = {"api_visibility": "private", "show_progress": "hidden"}
    outputs = [
        parts.notice,
        parts.live,
        parts.video,
        parts.stages,
        parts.download_clip,
        parts.download_records,
    ]
    buttons = [parts.run, parts.cancel]
    started = parts.run.click(handlers.start, None, buttons, **AT_ONCE)
    loaded = started.then(handlers.load, parts.pick, parts.notice, **quiet, **LOADING_QUEUE)
    running = loaded.success(handlers.process, parts.pick, outputs, **quiet, **VIDEO_QUEUE)
    parts.cancel.click(handlers.cancel, None, None, **AT_ONCE)
    for over in (running.then, running.failure, loaded.failure):
        over(_ended, None, buttons, **AT_ONCE)
    Context.root_block.unload(handlers.forget)


def _ended() -> tuple[gr.Button, gr.Button]:
    return gr.Button(interactive=True), gr.Button(interactive=False)


def _connect_choice(parts: Parts, handlers: VideoHandlers, first: FirstModels) -> None:
    """What starts no run: pickers that follow each other and the task, words on the models, clips that fit them."""
    connect_pair(handlers.registry, parts.model, parts.baseline)
    choosing = [parts.task, parts.side_by_side]
    on_change(choosing, handlers.arrange, choosing, list(parts.pickers), **AT_ONCE)
    chosen, shown = parts.pick[1:], [parts.about, parts.garments, parts.short_side]
    told = [part for part in chosen if part is not parts.short_side]
    on_change(told, handlers.introduce, chosen, shown, **AT_ONCE)
    parts.example.click(handlers.choose_example, None, parts.clip, **AT_ONCE)
    begun = [parts.model.setting, parts.baseline.setting, parts.detector]
    lists = [*parts.model.lists, *parts.baseline.lists, parts.detector]
    Context.root_block.load(first.begin, begun, [parts.fallback, *lists], **AT_ONCE)
