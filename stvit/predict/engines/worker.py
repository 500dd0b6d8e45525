"""``python -m stvit.predict.engines.worker BACKEND FOLDER``: make a graph's files for the process that waits for them.

The graph comes pickled through standard input, from that process and nowhere else.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path

import torch

from stvit.export.graph import first_line

from .backends import BACKENDS, FileBackend


def main() -> int:
    name, folder = sys.argv[1:]
    with contextlib.suppress(AttributeError, OSError):
        os.nice(10)  # answers come first
    graph, shape = torch.load(io.BytesIO(sys.stdin.buffer.read()), weights_only=False)
    backend = BACKENDS[name]()
    assert isinstance(backend, FileBackend)
    try:
        backend.write(graph, shape, Path(folder))
    except Exception as error:  # one line for the other process
        print(first_line(error), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
