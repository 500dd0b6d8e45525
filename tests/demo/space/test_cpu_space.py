"""The settings of a Space without a GPU, which are the default ones: two cores that others share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stvit.measure.processes import busy_cores
from stvit.pretrained.model_cards import BundledModels

PATIENCE_S = 60
PROGRAM = """
import json, os, sys
os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:2]))
import app

def serve(registry, model_folders):
    from demo.model_specs import build_registry
    from demo.registry import Registry
    from demo.server import local_runtime
    from demo.space.lent_models import default_models
    from stvit.pretrained.model_cards import BundledModels
    from pathlib import Path

    runtime = local_runtime(build_registry(BundledModels(Path(sys.argv[1]))))
    ready = [runtime.predictors.model_cache.is_ready(spec) for spec in default_models(runtime.registry)]
    answer = runtime.classify_one(sys.argv[2], runtime.registry.first("classify"))[1]
    told = {"ready": ready, "device": answer.device, "label": answer.predictions[0].label}
    told |= {"engine": runtime.predictors.engine, "threads": runtime.predictors.compute.lanes}
    print(json.dumps({**told, "waiting": os.environ["OMP_WAIT_POLICY"]}))

app.serve = serve
app.main()
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to cores")
def test_models_are_loaded_and_a_picture_is_answered_on_two_cores_beside_a_busy_neighbour(
    stand_ins: BundledModels, photo: Path
) -> None:
    unset = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "STVIT_ENGINE")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment |= {"SPACE_ID": "someone/studio", "HF_HUB_OFFLINE": "1"}
    run = [sys.executable, "-c", PROGRAM, stand_ins.folder, photo]
    with busy_cores(1):
        done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    cores = min(len(os.sched_getaffinity(0)), 2)
    assert all(told["ready"]) and told["label"]
    assert (told["engine"], told["waiting"], told["threads"]) == ("auto", "passive", cores)
    assert f"{cores} thread" in told["device"]
