"""What all tests of training need."""

from collections.abc import Iterator

import pytest
from accelerate.state import AcceleratorState


@pytest.fixture(autouse=True)
def fresh_accelerator() -> Iterator[None]:
    """Runs in one process share what accelerate keeps; the next test starts without it."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
