"""Serve the page: the models on this machine, and Gradio's server."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from demo.kept_graphs import read_in_background
from demo.model_folders import with_folders
from demo.model_specs import build_registry
from demo.page import document, layout
from demo.page.first_models import beginning
from demo.predictors import predictors_of_process
from demo.registry import Registry
from demo.runtime import Runtime
from demo.service.ready import Readiness, first_pair
from demo.space.lent_models import default_models, on_zero_gpu

DEFAULT_PORT = 7860
MAX_UPLOAD = "50mb"


def local_runtime(registry: Registry | None = None, model_folders: Sequence[Path] = ()) -> Runtime:
    """Run the models in this process; on a Space, those that the tabs begin with are loaded. Graphs that are kept of
    models that came along are being read.

    Args:
        registry: the models on offer; by default the published ones and those that came along.
        model_folders: more models, see ``demo.model_folders``.

    Raises:
        UserError: one of the folders holds no model for the page.
    """
    registry = with_folders(registry or build_registry(), model_folders)
    predictors = predictors_of_process()
    read_in_background(predictors, registry)
    registry = beginning(registry)
    if on_zero_gpu() or os.environ.get("SPACE_ID"):  # their files came when the Space was built
        for spec in default_models(registry):
            predictors.model_cache.get(spec)
    return Runtime(predictors, registry)


def serve(runtime: Runtime) -> None:
    """Block while the page is served."""
    page = layout.build(runtime)
    readiness = Readiness(runtime.predictors.model_cache, first_pair(runtime.registry))
    page.launch(
        server_name=os.environ.get("GRADIO_SERVER_NAME", "0.0.0.0" if os.environ.get("SPACE_ID") else "127.0.0.1"),
        server_port=int(os.environ.get("GRADIO_SERVER_PORT") or os.environ.get("PORT") or DEFAULT_PORT),
        theme=layout.theme(),
        head=layout.head(),
        footer_links=["api"],
        max_file_size=MAX_UPLOAD,
        show_error=False,
        enable_monitoring=False,
        run_history=False,
        ssr_mode=False,
        share=False,
        favicon_path=str(document.FAVICON),
        app_kwargs={
            "routes": [*document.routes(), *page.routes(), readiness.route()],
            "middleware": page.middleware(document.middleware()),
            "lifespan": page.lifespan,
        },
        max_threads=80,  # those of the API wait together, in batches
    )
