"""How PyTorch's threads wait for each other. Nothing here imports PyTorch: OpenMP reads its settings as it loads."""

from __future__ import annotations

import os
from collections.abc import MutableMapping


def sleep_while_waiting(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let OpenMP's threads sleep where they wait for each other, unless the environment chooses; called by programs
    that share their cores, before they load PyTorch.

    By default they spin, for the time slice of whatever runs on the other core. On 2 cores of an EPYC that others kept
    busy, eager STViT-R-Swin-S took 7.0 s and 1040 ms of processor time for a picture; with shorter spinning
    (``GOMP_SPINCOUNT`` 30000, 10000, 3000) 730, 360 and 190 ms; asleep 0.25 s and 72 ms. Where nothing else runs,
    sleeping costs eager half as much again for single pictures (20 and 30 ms), and OpenVINO nothing.
    """
    environment.setdefault("OMP_WAIT_POLICY", "passive")
