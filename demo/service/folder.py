"""The folder of a running server, for files of its visitors. Nothing here imports Gradio: it reads its name early."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from demo.service.threads import sleep_while_waiting

PREFIX, LOCK = "stvit-", "in-use"


@contextmanager
def as_a_server() -> Iterator[None]:
    """Let this process be a server of the page until it is interrupted or terminated: set what Gradio and PyTorch read
    when they are imported; uploads and results go at the end."""
    sleep_while_waiting()
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "1")
    os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(2**31))  # else pandas runs after every call
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with own_folder() as folder:
        os.environ.setdefault("GRADIO_TEMP_DIR", str(folder))
        yield


@contextmanager
def own_folder() -> Iterator[Path]:
    """Make a temporary folder that goes at the end; folders of processes that were killed go first."""
    _sweep(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as name:
        unlocked = Path(name) / f"{LOCK}.new"
        with unlocked.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # released by the system when the process ends, however it does
            unlocked.rename(Path(name) / LOCK)  # only now others see it
            yield Path(name)


def _sweep(parent: Path) -> None:
    for path in parent.glob(f"{PREFIX}*/{LOCK}"):
        with suppress(OSError), path.open("a") as lock:  # OSError: in use, or not ours
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path.parent, ignore_errors=True)
