from __future__ import annotations

import subprocess
import sys

from demo.service.threads import sleep_while_waiting

PROGRAM = """
import os, sys, app
app.serve = lambda registry, model_folders: print(os.environ["OMP_WAIT_POLICY"], "torch" in sys.modules)
app.main()
"""


def test_the_page_chooses_before_pytorch_is_loaded() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["passive", "False"], done.stderr


def test_a_choice_of_the_environment_stays() -> None:
    environment = {"OMP_WAIT_POLICY": "active"}
    sleep_while_waiting(environment)
    assert environment == {"OMP_WAIT_POLICY": "active"}
