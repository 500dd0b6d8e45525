"""The demo: ``python app.py``, or what a Hugging Face Space runs.

Environment: ``GRADIO_SERVER_PORT`` or ``PORT`` (default 7860), ``GRADIO_SERVER_NAME`` (default 127.0.0.1, on Spaces
0.0.0.0), ``HF_HOME`` and ``HF_ENDPOINT`` for the weights, ``STVIT_ENGINE`` for what runs the models (default ``auto``).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from demo.service.folder import as_a_server

if TYPE_CHECKING:
    from demo.registry import Registry


def main(registry: Registry | None = None, model_folders: Sequence[Path] = ()) -> None:
    """Serve the page until interrupted; uploads and results go with it.

    Args:
        registry: the models on offer; by default the published ones and those that came along.
        model_folders: that ``stvit.training`` or ``stvit.sparsify`` wrote; their models are on offer too.
    """
    with as_a_server():
        serve(registry, model_folders)


def serve(registry: Registry | None, model_folders: Sequence[Path]) -> None:
    """Build the page and block while it is served."""
    if os.environ.get("SPACES_ZERO_GPU"):
        import spaces  # noqa: F401 - patches torch, so it has to come before it

    from demo import server
    from stvit.errors import UserError

    try:
        runtime = server.local_runtime(registry, model_folders)
    except UserError as error:
        sys.exit(f"app.py: {error}")
    server.serve(runtime)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python app.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model-folder",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="a folder that stvit.training or stvit.sparsify wrote, whose classifier Classify offers too; repeatable",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(model_folders=parse().model_folder)
