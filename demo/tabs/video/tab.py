"""The Video tab: its components and what happens when they are used."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from demo.page.about import about as about_models
from demo.page.gradio_private import FileUpload, ModelList, current_page
from demo.predictors import SHORT_SIDES
from demo.registry import ModelSpec
from demo.runtime import AT_ONCE, LOADING_QUEUE, VIDEO_QUEUE, Runtime
from demo.tabs.parts import by_name, notices, on_change
from demo.tabs.pickers import ModelPicker, connect_pair, detector_pickers, model_list, model_picker
from demo.tabs.video.handlers import EMPTY, VideoHandlers, ended
from demo.video import CLUSTERS, TASKS

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
    detector: ModelList
    short_side: gr.Dropdown
    clip_model: ModelList
    model_column: gr.Column
    baseline_column: gr.Column
    detector_column: gr.Column
    clip_model_column: gr.Column
    about: gr.HTML
    run: gr.Button
    cancel: gr.Button
    notice: gr.HTML
    live: gr.HTML
    video: gr.Video
    stages: gr.HTML
    download_clip: gr.DownloadButton
    download_records: gr.DownloadButton


def build(runtime: Runtime) -> None:
    """Lay the tab out and connect it; call inside a ``gr.Tab``."""
    handlers = VideoHandlers(runtime)
    first = runtime.registry.pair(runtime.registry.first("classify"))
    parts = _lay_out(runtime, first, handlers)
    settings = [parts.model.setting, parts.baseline.setting, parts.detector, parts.short_side]
    chosen = [parts.task, *settings, parts.side_by_side, parts.clip_model]
    _connect_run(parts, handlers, [parts.clip, *chosen])
    connect_pair(runtime.registry, parts.model, parts.baseline)
    arranging = [parts.task, parts.side_by_side]
    columns = [parts.model_column, parts.baseline_column, parts.detector_column, parts.clip_model_column]
    on_change(arranging, by_name(parts, handlers.arrange), arranging, columns, **AT_ONCE)
    introduced = [parts.about, parts.garments, parts.short_side]
    causes = [part for part in chosen if part is not parts.short_side]
    on_change(causes, by_name(parts, handlers.introduce), chosen, introduced, **AT_ONCE)
    parts.example.click(handlers.choose_example, None, parts.clip, **AT_ONCE)


def _lay_out(runtime: Runtime, first: tuple[ModelSpec, ModelSpec], handlers: VideoHandlers) -> Parts:
    registry = runtime.registry
    size = SHORT_SIDES[0] if runtime.predictors.device.type == "cuda" else SIZE_ON_CPU
    with gr.Row(elem_classes="workspace"):
        with gr.Column(elem_classes="inputs"):
            clip = FileUpload(label="Clip", file_types=FILE_TYPES, height=130, elem_id="clip")
            gr.HTML(LIMITS, apply_default_css=False)
            example = gr.Button("Take the example clip", size="sm", elem_id="example-clip")
            garments = handlers.gallery.component("garment-clips", clip, garments=first[0].bundled is not None)
            task = gr.Radio(list(TASKS), value=CLUSTERS, label="Task", elem_id="video-task")
            side_by_side = gr.Checkbox(
                False,
                label="Side by side with a baseline, each at its real pace",
                info="The pace of a detector is its backbone's: all that comes after is the same on both sides.",
            )
            with gr.Column() as model_column:
                model = model_picker(registry, "Model", first[0], "video-model")
            with gr.Column(visible=False) as baseline_column:
                baseline = model_picker(registry, "On the right", first[1], "video-baseline")
            with gr.Column(visible=False) as detector_column:
                detector, short_side = detector_pickers(registry, size, "video-")
            with gr.Column(visible=False) as clip_model_column:
                words = "Clip model, on a sliding window of frames"
                clip_model = model_list(registry, "video", words, "video-clip-model")
            about = notices("video-about", about_models(first[:1]))
            with gr.Row():
                run = gr.Button("Process the clip", variant="primary", elem_id="process")
                cancel = gr.Button("Cancel", interactive=False, elem_id="cancel-clip", min_width=90)
        with gr.Column(elem_classes="results"):
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
        model_column=model_column,
        baseline_column=baseline_column,
        detector_column=detector_column,
        clip_model_column=clip_model_column,
        about=about,
        run=run,
        cancel=cancel,
        notice=notice,
        live=live,
        video=video,
        stages=stages,
        download_clip=download_clip,
        download_records=download_records,
    )


def _connect_run(parts: Parts, handlers: VideoHandlers, inputs: list[gr.components.Component]) -> None:
    quiet = {"api_visibility": "private", "show_progress": "hidden"}
    files = [parts.download_clip, parts.download_records]
    outputs = [parts.notice, parts.live, parts.video, parts.stages, *files]
    buttons = [parts.run, parts.cancel]
    started = parts.run.click(by_name(parts, handlers.start), None, buttons, **AT_ONCE)
    loaded = started.then(by_name(parts, handlers.load), inputs, parts.notice, **quiet, **LOADING_QUEUE)
    running = loaded.success(by_name(parts, handlers.process), inputs, outputs, **quiet, **VIDEO_QUEUE)
    parts.cancel.click(handlers.cancel, None, None, **AT_ONCE)
    for over in (running.then, running.failure, loaded.failure):
        over(by_name(parts, ended), None, buttons, **AT_ONCE)
    current_page().unload(handlers.forget)
