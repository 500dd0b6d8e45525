"""The demo: ``python app.py``, or what a Hugging Face Space runs.

Environment: ``GRADIO_SERVER_PORT`` or ``PORT`` (default 7860), ``GRADIO_SERVER_NAME`` (default 127.0.0.1, on Spaces
0.0.0.0), ``HF_HOME`` and ``HF_ENDPOINT`` for the weights, ``STVIT_ENGINE`` for what runs the models (default ``auto``).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from demo.service.folder import as_a_server

if TYPE_CHECKING:
    from demo.registry import Registry


def main(registry: Registry | None = None) -> None:
    """Serve the page until interrupted; uploads and results go with it.

    Args:
        registry: the models on offer; by default the published ones and those that came along.
    """
    with as_a_server():
        serve(registry)


def serve(registry: Registry | None) -> None:
    """Build the page and block while it is served."""
    if os.environ.get("SPACES_ZERO_GPU"):
        import spaces  # noqa: F401 - patches torch, so it has to come before it

    from demo import server

    server.serve(server.local_runtime(registry))


if __name__ == "__main__":
    main()
