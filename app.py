"""The demo: ``python app.py``, or what a Hugging Face Space runs.

Environment: ``GRADIO_SERVER_PORT`` or ``PORT`` (default 7860), ``GRADIO_SERVER_NAME`` (default 127.0.0.1, on Spaces
0.0.0.0), ``HF_HOME`` and ``HF_ENDPOINT`` for the weights, ``STVIT_ENGINE`` for what runs the models (default ``auto``).
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from demo.service.folder import own_folder
from demo.service.threads import sleep_while_waiting

if TYPE_CHECKING:
    from demo.registry import Registry

DEFAULT_PORT = 7860
MAX_UPLOAD = "50mb"


def main(registry: Registry | None = None) -> None:
    """Serve the page until interrupted; uploads and results go with it.

    Args:
        registry: the models on offer; by default the published ones and those that came along.
    """
    sleep_while_waiting()
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "1")
    os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(2**31))  # else pandas runs after every call
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with own_folder() as folder:
        os.environ.setdefault("GRADIO_TEMP_DIR", str(folder))
        serve(registry)


def serve(registry: Registry | None) -> None:
    """Build the page and block while it is served."""
    if os.environ.get("SPACES_ZERO_GPU"):
        import spaces  # noqa: F401 - patches torch, so it has to come before it

    from demo.model_specs import build_registry
    from demo.page import document, layout
    from demo.page.first_models import beginning
    from demo.predictors import Predictors
    from demo.runtime import Runtime, on_zero_gpu
    from stvit.predict.device import compute_in_one_place, keep_freed_memory

    keep_freed_memory()
    predictors = Predictors(engine="eager" if on_zero_gpu() else os.environ.get("STVIT_ENGINE") or "auto")
    if predictors.device.type == "cpu":
        compute_in_one_place()
    page = layout.build(Runtime(predictors, beginning(registry or build_registry())))
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
            "routes": [*document.routes(), *page.routes()],
            "middleware": [*page.middleware(), *document.middleware()],
            "lifespan": page.lifespan,
        },
        max_threads=80,  # those of the API wait together, in batches
    )


if __name__ == "__main__":
    main()
