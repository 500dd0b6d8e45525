"""The Video tab: its components and what happens when they are used."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr
from gradio.components import Component

from demo.page.about import about as about_models
from demo.page.gradio_private import FileUpload, ModelList, current_page
from demo.predictors import SHORT_SIDES
from demo.registry import ModelSpec
from demo.runtime import AT_ONCE, LOADING_QUEUE, VIDEO_QUEUE, Runtime
from demo.tabs.parts import by_name, models_panel, notices, on_change, read_aloud, scroll_to_results, take_files
from demo.tabs.pickers import ModelPicker, connect_pair, detector_pickers, model_list, model_picker
from demo.tabs.video.handlers import EMPTY, VideoHandlers
from demo.video import CLASSIFY, TASKS

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
    preview: gr.HTML
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
    headline: gr.HTML
    live: gr.HTML
    video: gr.Video
    stages: gr.HTML
    download_clip: gr.DownloadButton
    download_records: gr.DownloadButton


def build(runtime: Runtime, engine: Component) -> None:
    """Lay the tab out and connect it; call inside a ``gr.Tab``. ``engine`` holds the name of what runs all."""
    handlers = VideoHandlers(runtime)
    first = runtime.registry.pair(runtime.registry.first("classify"))
    parts = _lay_out(runtime, first, handlers)
    settings = [parts.model.setting, parts.baseline.setting, parts.detector, parts.short_side]
    chosen = [parts.task, *settings, parts.side_by_side, parts.clip_model]
    _connect_run(parts, handlers, [parts.clip, *chosen, engine])
    connect_pair(runtime.registry, parts.model, parts.baseline)
    arranging = [parts.task, parts.side_by_side]
    columns = [parts.model_column, parts.baseline_column, parts.detector_column, parts.clip_model_column]
    on_change(arranging, by_name(parts, handlers.arrange), arranging, columns, **AT_ONCE)
    parts.task.change(by_name(parts, handlers.suit), parts.task, parts.side_by_side, **AT_ONCE)
    introduced = [parts.about, parts.garments, parts.example, parts.short_side]
    causes = [part for part in chosen if part is not parts.short_side]
    on_change(causes, by_name(parts, handlers.introduce), chosen, introduced, **AT_ONCE)
    parts.example.click(handlers.choose_example, None, parts.clip, **AT_ONCE)


def _lay_out(runtime: Runtime, first: tuple[ModelSpec, ModelSpec], handlers: VideoHandlers) -> Parts:
    registry = runtime.registry
    size = SHORT_SIDES[0] if runtime.predictors.device.type == "cuda" else SIZE_ON_CPU
    with gr.Row(elem_classes="workspace"):
        with gr.Column(elem_classes="inputs"):
            clip = FileUpload(label="Clip", file_types=FILE_TYPES, height=130, elem_id="clip")
            take_files(clip, ",".join(("video/*", *FILE_TYPES[1:])))
            preview = gr.HTML("", elem_id="sent-clip", elem_classes="vv-preview", apply_default_css=False)
            with gr.Row(elem_classes="vv-actions"):
                run = gr.Button("Process the clip", variant="primary", interactive=False, elem_id="process")
                cancel = gr.Button("Cancel", interactive=False, elem_id="cancel-clip", min_width=90)
            notice = read_aloud("video-notice", retries="process")
            bundled = first[0].bundled is not None
            garments = handlers.gallery.component("garment-clips", clip, garments=bundled)
            example = gr.Button("Take the example clip", size="sm", elem_id="example-clip", visible=not bundled)
            gr.HTML(LIMITS, apply_default_css=False)
            with models_panel():
                task = gr.Radio(list(TASKS), value=CLASSIFY, label="Task", elem_id="video-task")
                side_by_side = gr.Checkbox(
                    True,
                    label="Side by side with a baseline, each at its real pace",
                    info="The pace of a detector is its backbone's: all that comes after is the same on both sides.",
                )
                with gr.Column() as model_column:
                    model = model_picker(registry, "Model", first[0], "video-model")
                with gr.Column() as baseline_column:
                    baseline = model_picker(registry, "Raced against", first[1], "video-baseline")
                with gr.Column(visible=False) as detector_column:
                    detector, short_side = detector_pickers(registry, size, "video-")
                with gr.Column(visible=False) as clip_model_column:
                    words = "Clip model, on a sliding window of frames"
                    clip_model = model_list(registry, "video", words, "video-clip-model")
                about = notices("video-about", about_models(first))
        with gr.Column(elem_classes="results"):
            headline = read_aloud("video-headline", elem_classes="vv-preview")
            live = gr.HTML(EMPTY, elem_id="video-live", elem_classes="vv-preview", apply_default_css=False)
            video = gr.Video(
                label="New clip",
                show_label=False,
                interactive=False,
                visible=False,
                elem_id="new-clip",
                height=480,
                buttons=[],
            )
            with gr.Row(elem_classes="downloads"):
                download_clip = gr.DownloadButton("New clip (MP4)", size="sm", interactive=False)
                download_records = gr.DownloadButton("Every frame (JSON lines)", size="sm", interactive=False)
            stages = notices("video-stages")
    return Parts(
        clip=clip,
        preview=preview,
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
        headline=headline,
        live=live,
        video=video,
        stages=stages,
        download_clip=download_clip,
        download_records=download_records,
    )


def _connect_run(parts: Parts, handlers: VideoHandlers, inputs: list[gr.components.Component]) -> None:
    quiet = {"api_visibility": "private", "show_progress": "hidden"}
    files = [parts.download_clip, parts.download_records]
    outputs = [parts.notice, parts.headline, parts.live, parts.video, parts.stages, *files]
    buttons = [parts.run, parts.cancel]
    dropped_or_pressed = [parts.clip.change, parts.run.click]
    start, latest = by_name(parts, handlers.start), {"trigger_mode": "always_last"}  # a newer run ends the one before
    started = gr.on(dropped_or_pressed, start, parts.clip, [*buttons, parts.preview], **latest, **AT_ONCE)
    started.then(None, parts.clip, None, js=scroll_to_results(parts.live), api_visibility="private")
    load, process, ended = (by_name(parts, step) for step in (handlers.load, handlers.process, handlers.ended))
    loaded = started.then(load, inputs, parts.notice, **quiet, **latest, **LOADING_QUEUE)
    running = loaded.success(process, inputs, outputs, **quiet, **latest, **VIDEO_QUEUE)
    parts.cancel.click(handlers.cancel, None, None, **AT_ONCE)
    for over in (running.then, running.failure, loaded.failure):
        over(ended, parts.clip, buttons, **AT_ONCE)
    current_page().unload(handlers.cancel)
