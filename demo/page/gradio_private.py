"""All that this page uses of Gradio beside its documented interface; read in Gradio 6.31.0."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gradio as gr
from brotli import MODE_TEXT
from gradio.brotli_middleware import BrotliResponder
from gradio.context import Context
from gradio.data_classes import FileData, ImageData
from gradio.processing_utils import save_bytes_to_cache
from gradio.route_utils import get_root_url
from gradio.routes import file_upload_statuses
from gradio.utils import get_upload_folder
from starlette.requests import Request
from starlette.types import ASGIApp

MAX_WATCHED = 100  # uploads whose progress can be asked for


class ModelList(gr.Dropdown):
    """A list whose value the handlers check against the registry.

    Gradio would check it against the choices of the moment. Where one list follows another, or a run had to wait its
    turn, those are no longer the choices that the value was taken from.
    """

    is_template = True  # to the browser, the dropdown that it is

    def preprocess(self, payload: str | None) -> str | None:
        """The value as the browser sent it."""
        return payload


class PictureUpload(gr.Image):
    """A picture whose path handlers get as it was uploaded: Gradio would open the file, beyond this page's limits and
    in its own words. Part of the class, as Gradio makes a component anew for a session that updates it."""

    is_template = True

    def preprocess(self, payload: ImageData | None) -> str | None:
        """Return the path; raises as ``uploaded_path``."""
        return uploaded_path(payload)


class FileUpload(gr.File):
    """A file whose path handlers get as it was uploaded, see ``PictureUpload``."""

    is_template = True

    def preprocess(self, payload: FileData | None) -> str | None:
        """Return the path; raises as ``uploaded_path``."""
        return uploaded_path(payload)


def uploaded_path(payload: ImageData | FileData | None) -> str | None:
    """Check the path of an uploaded file. Gradio checks paths only in messages that are marked as files, and a message
    can leave the mark out; so it is checked here.

    Raises:
        gr.Error: anything but a file in Gradio's upload folder.
    """
    return None if payload is None else inside_uploads(payload.path)


def path_sent(event: gr.EventData) -> str:
    """Return the path of a file that the page's own JavaScript uploaded; checked as by ``uploaded_path``."""
    return inside_uploads(sent_by_browser(event).get("path"))


def inside_uploads(path: object) -> str:
    """Return the path of a file in Gradio's upload folder; raises as ``uploaded_path``."""
    if not isinstance(path, str) or not path or not Path(path).resolve().is_relative_to(upload_folder().resolve()):
        raise gr.Error("Upload the picture or clip: send it as an uploaded file.", print_exception=False)
    return path


def upload_folder() -> Path:
    """Return Gradio's folder of uploads, which the page empties on schedule."""
    return Path(get_upload_folder())


def kept_file(name: str, content: bytes) -> str:
    """Write a file for a visitor to the folder of uploads; returns its path, which ends with ``name``."""
    return save_bytes_to_cache(content, name, get_upload_folder())


def files_of_page(page: gr.Blocks) -> set[str]:
    """Paths of the files that the page begins with, e.g. the picture of its example."""
    return set().union(*(getattr(block, "keep_in_cache", ()) for block in page.blocks.values()))


def forget_missing_files(page: gr.Blocks) -> None:
    """Drop the paths of files that are gone: every component lists those that passed it, and Gradio, when it removes a
    file, takes it off one list alone."""
    for listed in page.temp_file_sets:
        listed.difference_update([path for path in list(listed) if not os.path.exists(path)])


def forget_old_uploads() -> None:
    """Drop the progress of all uploads but the latest; called where the server's events are handled. Gradio keeps one
    entry for each of them for good."""
    for upload_id in list(file_upload_statuses._signals)[:-MAX_WATCHED]:
        file_upload_statuses.stop_tracking(upload_id)
        del file_upload_statuses._signals[upload_id]


def current_page() -> gr.Blocks:
    """Return the page under construction, for its ``load`` and ``unload`` events; call inside ``gr.Blocks``."""
    return Context.root_block


def current_tab() -> gr.Tab:
    """Return the tab under construction, for its ``select`` event; call right inside ``gr.Tab``."""
    return Context.block


def sent_by_browser(event: gr.EventData) -> dict[str, Any]:
    """Read what the page's own JavaScript sent with an event; empty where it is no object."""
    return event._data if isinstance(event._data, dict) else {}


def address_of(request: Request) -> str:
    """Return the public address of the page that a request is of, also behind a proxy; without a slash at its end."""
    return get_root_url(request, request.url.path, request.scope.get("root_path"))


def brotli_compressed(app: ASGIApp) -> ASGIApp:
    """Compress the answer to one request, whatever its address ends with; of a browser that reads Brotli."""
    return BrotliResponder(app, quality=5, mode=MODE_TEXT, lgwin=22, lgblock=0, minimum_size=400)
