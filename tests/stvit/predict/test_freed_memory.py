"""Keeping freed memory, in processes of their own: the setting is for good."""

import subprocess
import sys

import pytest

COUNT_FAULTS = """
import resource, sys
import torch
from stvit.predict.device import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range(3):
    torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the setting is glibc's")
def test_kept_memory_is_used_again_without_fresh_pages():
    def faults(how: str) -> int:
        command = [sys.executable, "-c", COUNT_FAULTS, how]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert faults("keep") < 0.1 * faults("default")


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    from stvit.predict.device import keep_freed_memory

    assert keep_freed_memory() is False
