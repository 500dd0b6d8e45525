"""OpenVINO's runtime outlives the models that it compiled."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import faulthandler, gc, signal, subprocess, sys, threading
import torch
from stvit.export.formats import import_openvino, openvino_core

faulthandler.enable()  # signals are handled on a stack of their own
network = torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),))
kept = [openvino_core().compile_model(import_openvino().convert_model(network), "CPU")]
freeing = threading.Thread(target=lambda: (kept.clear(), gc.collect()))
freeing.start()
freeing.join()
signal.signal(signal.SIGCHLD, lambda *_: None)  # as PyTorch's data loaders do
subprocess.run([sys.executable, "-c", ""], check=True)
"""


def test_a_signal_after_a_graph_was_freed_by_another_thread_is_survived() -> None:
    assert subprocess.run([sys.executable, "-c", PROGRAM], timeout=120, check=False).returncode == 0
