"""The Camera tab: its components and what happens when they are used."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr
from gradio.context import Context

from demo.camera import TASKS
from demo.charts.bars import notice
from demo.page.first_models import FirstModels
from demo.registry import Registry
from demo.runtime import AT_ONCE, LOADING_QUEUE, Runtime, on_zero_gpu
from demo.tabs.camera.handlers import Answer, CameraHandlers
from demo.tabs.inputs import ModelPicker, connect_picker, model_picker
from demo.tabs.model_list import RosterList
from demo.tabs.parts import notices, on_change
from demo.tabs.video.tab import detector_pickers
from demo.views.token_view import HERE, script

PRIVACY = (
    '<p class="fine">Frames go to the machine that serves this page, are answered, and are kept nowhere. While one is '
    "under way, the camera's other frames are dropped, so that the picture never lags behind by more than one answer. "
    "Stop, or leave this tab, and no frame is sent.</p>"
)
ZERO_GPU_NOTE = notice(
    "Here every frame borrows a GPU of its own.",
    "warning",
    "So frames come slowly, and each counts towards your GPU quota. Run this page on your own machine to see the full "
    "rate.",
)


@dataclass(frozen=True)
class Parts:
    """The components that events connect."""

    task: gr.Radio
    model: ModelPicker
    detector: RosterList
    short_side: gr.Dropdown
    pickers: tuple[gr.Column, gr.Column]
    about: gr.HTML
    fallback: gr.HTML
    notice: gr.HTML
    view: gr.HTML

    @property
    def pick(self) -> list[gr.components.Component]:
        """All that is chosen."""
        return [self.task, self.model.setting, self.detector, self.short_side]


def build(runtime: Runtime) -> None:
    """Lay the tab out and connect it; call inside a ``gr.Tab``."""
    handlers = CameraHandlers(runtime)
    parts = _lay_out(runtime.engine.device.type == "cuda", runtime.registry, handlers)
    _connect(parts, handlers, FirstModels(runtime.registry, [runtime.registry.first("classify")]))


def _lay_out(on_gpu: bool, registry: Registry, handlers: CameraHandlers) -> Parts:
    with gr.Row(elem_classes="workspace"):
        with gr.Column(elem_classes="inputs"):
            task = gr.Radio(list(TASKS), value=TASKS[0], label="Task", elem_id="camera-task")
            with gr.Column() as of_model:
                model = model_picker(registry, "Model", registry.first("classify"), "camera-model")
            with gr.Column(visible=False) as of_detector:
                detector, short_side = detector_pickers(registry, on_gpu, "camera")
            about = notices("camera-about")
            gr.HTML(PRIVACY, apply_default_css=False)
        with gr.Column(elem_classes="results"):
            if on_zero_gpu():
                notices(words=ZERO_GPU_NOTE)
            fallback = notices("camera-fallback")
            told = notices("camera-notice")
            view = _camera_view(handlers)
    return Parts(task, model, detector, short_side, (of_model, of_detector), about, fallback, told, view)


def _camera_view(handlers: CameraHandlers) -> gr.HTML:
    def camera_frame(sent: dict) -> Answer:
        return handlers.answer(sent)

    return gr.HTML(
        html_template=(HERE / "camera_view.html").read_text(encoding="utf-8"),
        css_template=(HERE / "camera_view.css").read_text(encoding="utf-8"),
        js_on_load=script("view_parts.js", "camera_view.js"),
        server_functions=[camera_frame],
        apply_default_css=False,
        elem_id="camera",
    )


def _connect(parts: Parts, handlers: CameraHandlers, first: FirstModels) -> None:
    opening = {"api_visibility": "private", "show_progress": "hidden", **LOADING_QUEUE}
    shown = [parts.notice, parts.view]
    connect_picker(handlers.registry, parts.model)
    on_change([parts.task], handlers.arrange, parts.task, list(parts.pickers), **AT_ONCE)
    parts.view.open_camera(handlers.open, parts.pick, shown, **opening)
    on_change(parts.pick, handlers.change, parts.pick, shown, **opening)
    parts.view.close_camera(handlers.close, None, None, **AT_ONCE)
    Context.root_block.unload(handlers.close)
    introduced = [parts.task, parts.model.setting, parts.detector]
    on_change(introduced, handlers.introduce, parts.pick, [parts.about, parts.short_side], **AT_ONCE)
    begun, lists = [parts.model.setting, parts.detector], [*parts.model.lists, parts.detector]
    Context.root_block.load(first.begin, begun, [parts.fallback, *lists], **AT_ONCE)
