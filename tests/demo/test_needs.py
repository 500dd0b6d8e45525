"""What the page needs to start."""

import subprocess
import sys

WITHOUT_TRAINING = "import sys; sys.modules['accelerate'] = None; import demo.server"


def test_the_page_starts_without_the_libraries_of_training() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_TRAINING], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
