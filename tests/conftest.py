"""What all tests need."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Narrow models gain nothing from threads, and where other work runs beside them, threads wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True, scope="session")
def own_uploads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the page keeps of visitors lies in a folder of these tests, where nothing else puts anything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
        yield
