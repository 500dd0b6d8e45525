"""The Camera tab: its components and what happens when they are used."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr
from gradio.components import Component

from demo.camera import TASKS
from demo.charts.bars import notice
from demo.page.about import about as about_models
from demo.page.gradio_private import ModelList, current_page
from demo.predictors import SHORT_SIDES
from demo.runtime import AT_ONCE, LOADING_QUEUE, Runtime
from demo.space.lent_models import on_zero_gpu
from demo.tabs.camera.handlers import CameraHandlers
from demo.tabs.parts import by_name, models_panel, notices, on_change, read_aloud
from demo.tabs.pickers import ModelPicker, connect_picker, detector_pickers, model_picker
from demo.tabs.video.tab import SIZE_ON_CPU
from demo.views.camera_view import camera_view

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
    detector: ModelList
    short_side: gr.Dropdown
    model_column: gr.Column
    detector_column: gr.Column
    about: gr.HTML
    notice: gr.HTML
    view: gr.HTML


def build(runtime: Runtime, engine: Component) -> None:
    """Lay the tab out and connect it; call inside a ``gr.Tab``. ``engine`` holds the name of what runs all."""
    handlers = CameraHandlers(runtime)
    parts = _lay_out(runtime, handlers)
    chosen = [parts.task, parts.model.setting, parts.detector, parts.short_side]
    opening = {"api_visibility": "private", "show_progress": "hidden", **LOADING_QUEUE}
    shown, columns = [parts.notice, parts.view], [parts.model_column, parts.detector_column]
    connect_picker(runtime.registry, parts.model)
    on_change([parts.task], by_name(parts, handlers.arrange), parts.task, columns, **AT_ONCE)
    parts.view.open_camera(by_name(parts, handlers.open), [*chosen, engine], shown, **opening)
    on_change([*chosen, engine], by_name(parts, handlers.change), [*chosen, engine], shown, **opening)
    parts.view.close_camera(handlers.close, None, None, **AT_ONCE)
    current_page().unload(handlers.close)
    introduced = [parts.about, parts.short_side]
    on_change(chosen[:3], by_name(parts, handlers.introduce), chosen, introduced, **AT_ONCE)


def _lay_out(runtime: Runtime, handlers: CameraHandlers) -> Parts:
    registry = runtime.registry
    size = SHORT_SIDES[0] if runtime.predictors.device.type == "cuda" else SIZE_ON_CPU
    with gr.Row(elem_classes="workspace"):
        with gr.Column(elem_classes="inputs"), models_panel():
            task = gr.Radio(list(TASKS), value=TASKS[0], label="Task", elem_id="camera-task")
            with gr.Column() as model_column:
                model = model_picker(registry, "Model", registry.first("classify"), "camera-model")
            with gr.Column(visible=False) as detector_column:
                detector, short_side = detector_pickers(registry, size, "camera-")
            about = notices("camera-about", about_models([registry.first("classify")]))
            gr.HTML(PRIVACY, apply_default_css=False)
        with gr.Column(elem_classes="results"):
            if on_zero_gpu():
                notices(words=ZERO_GPU_NOTE)
            told = read_aloud("camera-notice")
            view = camera_view(handlers.answer)
    return Parts(task, model, detector, short_side, model_column, detector_column, about, told, view)
