"""Engines answer as eager does, at once, whatever becomes of their graphs."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from unittest import mock
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from stvit.errors import UserError
from stvit.export.graph import InferenceGraph
from stvit.predict.engines import ENGINES, Engine
from stvit.predict.engines import engine as engine_module
from stvit.predict.engines.backends import AheadOfTime, Compiled, CudaGraphs, FileBackend, OpenVINO, captures
from stvit.predict.engines.cache import DRAFT, MANIFEST, GraphCache
from stvit.predict.engines.fingerprint import fingerprint
from stvit.pretrained.resolve import sha256_of
from tests.stvit.export.small_models import SMALL, build, images_for

SHAPE = (1, 3, 8, 8)


class Halves(nn.Module):
    """A network that takes no time."""

    def __init__(self, weight: float = 0.5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([weight]))
        self.offset = 1.0

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)) * self.weight + self.offset


class Stub(FileBackend):
    """Makes a file in no time, and counts how often."""

    name = "openvino"
    made = 0

    def write(self, graph: InferenceGraph, shape: tuple[int, ...], folder: Path) -> None:
        type(self).made += 1
        (folder / "model.txt").write_text("graph")

    def read(self, folder: Path, dtype: torch.dtype, shape: tuple[int, ...]):
        assert (folder / "model.txt").read_text() == "graph"
        return lambda images: (images.mean((2, 3)) * 0.5 + 1.0,)


@pytest.fixture
def cache(tmp_path: Path) -> GraphCache:
    return GraphCache(tmp_path)


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> type[Stub]:
    monkeypatch.setitem(engine_module.BACKENDS, "openvino", Stub)
    monkeypatch.setattr(engine_module, "CANDIDATES", {"cpu": ("openvino",)})
    monkeypatch.setattr(Stub, "made", 0)
    return Stub


def test_half_precision_is_as_near_to_fp32_as_eager_is(cache: GraphCache) -> None:
    exact = build("stvit_deit")
    images = images_for("stvit_deit", 2)
    network = build("stvit_deit").bfloat16()
    answer = Engine(network, "openvino", cache=cache, wait=True)(images)
    with torch.inference_mode():
        wanted, own = exact(images), network(images.bfloat16()).float()
    assert answer.engine == "openvino" and answer.outputs.dtype == torch.float32
    assert (answer.outputs - wanted).abs().max() < 2 * (own - wanted).abs().max() + 1e-3


def test_eager_returns_the_assignments_of_the_trace() -> None:
    network, images = build("stvit_deit"), images_for("stvit_deit", 2)
    answer = Engine(network, "eager")(images, "all")
    logits, trace = network(images, return_trace=True)
    torch.testing.assert_close(answer.outputs, logits.detach())
    for own, layer in zip(answer.regions, trace.region_layers(), strict=True):
        assert own.attention is None and torch.equal(own.assignment, layer.clusters())


def test_where_tokens_halt_regions_are_of_all_parts_of_a_batch() -> None:
    network, images = build("avit"), images_for("avit", 4)
    own = Engine(network, "eager")
    with mock.patch.object(own.compute, "parts", lambda images: images.split(1)):
        answer = own(images, "all")
    counts = [one.layer.num_tokens for one in answer.regions]
    assert counts == [layer.num_tokens for layer in network(images, return_trace=True)[1].region_layers()]
    assert counts != [one.layer.num_tokens for one in own(images[:1], "all").regions]


def test_eager_answers_until_another_process_has_made_the_graph(cache: GraphCache) -> None:
    network, images = Halves(), torch.rand(SHAPE)
    own = Engine(network, "openvino", cache=cache)
    first = own(images)
    assert first.engine == "eager"
    own.settle()
    second = own(images)
    assert (second.engine, own.notes) == ("openvino", [])
    torch.testing.assert_close(second.outputs, first.outputs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", SMALL)
def test_every_network_can_be_handed_to_another_process(name: str) -> None:
    handed = io.BytesIO()
    torch.save(InferenceGraph(build(name)), handed)


def test_a_graph_is_made_once_for_all_batches_and_starts(cache: GraphCache, stub: type[Stub]) -> None:
    for _ in range(2):  # starts of a program
        own = Engine(Halves(), "openvino", cache=cache, wait=True)
        for batch in (1, 3):
            assert own(torch.rand(batch, *SHAPE[1:])).engine == "openvino"
    assert stub.made == 1
    Engine(Halves(0.25), "openvino", cache=cache, wait=True)(torch.rand(SHAPE))
    assert stub.made == 2


@pytest.mark.parametrize("damage", [b"", b"other", None])
def test_a_damaged_entry_is_made_again(damage: bytes | None, cache: GraphCache, stub: type[Stub]) -> None:
    Engine(Halves(), "openvino", cache=cache, wait=True)(torch.rand(SHAPE))
    (file,) = cache.folder.glob("*/model.txt")
    if damage is None:
        file.with_name(MANIFEST).write_text("[1]")
    else:
        file.write_bytes(damage)
    own = Engine(Halves(), "openvino", cache=cache, wait=True)
    assert own(torch.rand(SHAPE)).engine == "openvino" and stub.made == 2
    assert file.read_text() == "graph" and set(json.loads(file.with_name(MANIFEST).read_text())) == {"model.txt"}


def test_a_whole_entry_that_cannot_be_read_is_made_again(
    cache: GraphCache, stub: type[Stub], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Engine(Halves(), "openvino", cache=cache, wait=True)(torch.rand(SHAPE))
    monkeypatch.setattr(stub, "write", lambda self, graph, shape, folder: (folder / "model.txt").write_text("graph"))
    (entry,) = cache.folder.iterdir()
    (entry / "model.txt").write_text("other version")
    (entry / MANIFEST).write_text(json.dumps({"model.txt": sha256_of(entry / "model.txt")}))
    own = Engine(Halves(), "openvino", cache=cache, wait=True)
    assert own(torch.rand(SHAPE)).engine == "openvino" and (entry / "model.txt").read_text() == "graph"
    assert len(caplog.records) == 1 and "cannot be read" in caplog.text and "it is made again" in caplog.text


def test_an_entry_on_a_read_only_disk_is_used(
    cache: GraphCache, stub: type[Stub], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Engine(Halves(), "openvino", cache=cache, wait=True)(torch.rand(SHAPE))
    monkeypatch.setattr(os, "utime", fails_with(errno.EROFS))
    monkeypatch.setattr(Path, "mkdir", fails_with(errno.EROFS))
    own = Engine(Halves(), "openvino", cache=GraphCache(cache.folder.parent))
    assert own.recall(SHAPE) == "openvino" and stub.made == 1 and not caplog.records


def test_a_user_without_a_home_has_engines_all_the_same(
    stub: type[Stub], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("STVIT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert Engine(Halves(), "openvino", wait=True)(torch.rand(SHAPE)).engine == "openvino"
    assert len(caplog.records) == 1 and "made at every start" in caplog.text


def test_an_entry_that_another_process_was_faster_to_write_is_kept(cache: GraphCache) -> None:
    def other(folder: Path) -> None:
        (folder / "file").write_text("other's")

    def slower(folder: Path) -> None:
        with cache.written("key", other):
            (folder / "file").write_text("own")

    with cache.written("key", slower) as entry:
        assert entry == cache.folder / "key" and (entry / "file").read_text() == "other's"
    assert [path.name for path in cache.folder.iterdir()] == ["key"]


def test_graphs_of_other_devices_have_other_keys() -> None:
    own, keys = Engine(Halves()), set()
    for device in ("cpu", "cuda:0", "cuda:1"):
        own._device = torch.device(device)
        keys.add(own._key("aot", SHAPE, {}))
    assert len(keys) == 3


@pytest.mark.parametrize("text", ["", "[1]", '"an engine of old"'])
def test_a_choice_of_auto_that_is_none_is_made_again(text: str, cache: GraphCache, stub: type[Stub]) -> None:
    first = Engine(Halves(), "auto", cache=cache, wait=True)
    chosen = first(torch.rand(SHAPE)).engine
    (kept,) = cache.folder.glob(f"*/{engine_module.CHOICE}")
    kept.write_text(text)
    kept.with_name(MANIFEST).write_text(json.dumps({kept.name: sha256_of(kept)}))
    own = Engine(Halves(), "auto", cache=cache, wait=True)
    own(torch.rand(SHAPE))
    assert own.notes == [] and chosen in ENGINES and json.loads(kept.read_text()) in ("eager", "openvino")


def test_a_measurement_of_auto_that_fails_leaves_eager_and_one_line(
    cache: GraphCache, stub: type[Stub], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(engine_module, "median_times", fails)
    own = Engine(Halves(), "auto", cache=cache, wait=True)
    assert [own(torch.rand(SHAPE)).engine for _ in range(2)] == ["eager"] * 2
    assert len(own.notes) == 1 and "out of memory" in own.notes[0]


def test_a_folder_that_others_may_write_to_is_not_trusted(
    cache: GraphCache, stub: type[Stub], caplog: pytest.LogCaptureFixture
) -> None:
    Engine(Halves(), "openvino", cache=cache, wait=True)(torch.rand(SHAPE))
    cache.folder.chmod(0o777)
    for _ in range(2):
        assert Engine(Halves(), "openvino", cache=cache, wait=True)(torch.rand(SHAPE)).engine == "openvino"
    assert stub.made == 3
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "others may write" in caplog.text


def test_where_nothing_can_be_written_graphs_are_made_without_a_cache(
    tmp_path: Path, stub: type[Stub], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    cache = GraphCache(tmp_path / "file")
    for _ in range(2):
        assert Engine(Halves(), "openvino", cache=cache, wait=True)(torch.rand(SHAPE)).engine == "openvino"
    assert len(caplog.records) == 1 and "made at every start" in caplog.text


def fails_with(number: int) -> Callable[..., None]:
    def fails(*arguments: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    return fails


def test_a_disk_that_is_full_leaves_eager_and_one_line(
    cache: GraphCache, stub: type[Stub], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stub, "write", fails_with(errno.ENOSPC))
    own = Engine(Halves(), "openvino", cache=cache, wait=True)
    assert [own(torch.rand(SHAPE)).engine for _ in range(2)] == ["eager"] * 2
    assert len(own.notes) == 1 and own.notes[0].endswith("No space left on device")
    assert not list(cache.folder.iterdir())


@pytest.mark.parametrize(("call", "number"), [("rename", errno.ENOSPC), ("mkdir", errno.EROFS)])
def test_a_disk_that_takes_no_more_entries_leaves_the_graph_and_one_line(
    call: str,
    number: int,
    cache: GraphCache,
    stub: type[Stub],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(Path, call, fails_with(number))
    for _ in range(2):
        assert Engine(Halves(), "openvino", cache=cache, wait=True)(torch.rand(SHAPE)).engine == "openvino"
    assert len(caplog.records) == 1 and os.strerror(number) in caplog.text
    assert not cache.folder.exists() or not list(cache.folder.iterdir())


def test_graphs_of_another_version_are_made_again(
    cache: GraphCache, stub: type[Stub], monkeypatch: pytest.MonkeyPatch
) -> None:
    for made, version in enumerate(("2026.1", "2026.2"), start=1):
        monkeypatch.setattr(stub, "depends_on", lambda self, version=version: {"openvino": version})
        assert Engine(Halves(), "openvino", cache=cache, wait=True)(torch.rand(SHAPE)).engine == "openvino"
        assert stub.made == made
    before = fingerprint(Halves())
    monkeypatch.setattr(torch, "__version__", "2.99.0")
    assert fingerprint(Halves()) != before


def test_a_shape_that_cannot_be_captured_leaves_eager_for_that_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    class Captures(CudaGraphs):
        def refusal(self, device: torch.device) -> None:
            return None

        def runner(self, graph: InferenceGraph, shape: tuple[int, ...]):
            if shape[0] == 2:
                raise RuntimeError("operation not permitted when stream is capturing\nand a long trace")
            return graph

    monkeypatch.setitem(engine_module.BACKENDS, "cuda_graphs", Captures)
    own = Engine(Halves(), "cuda_graphs", wait=True)
    engines = [own(torch.rand(batch, *SHAPE[1:])).engine for batch in (1, 2, 2, 3)]
    assert engines == ["cuda_graphs", "eager", "eager", "cuda_graphs"]
    assert own.notes == [
        "cuda_graphs cannot run Halves for 2x3x8x8, eager does: operation not permitted when stream is capturing"
    ]


def test_all_graphs_of_a_gpu_share_its_memory_and_run_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    recording, pools = [], []

    class Recorded:
        def replay(self) -> None:
            assert recording[0].busy.locked()

    class Capture:
        def __init__(self, graph: Recorded, pool: object, **options: object) -> None:
            pools.append(pool)

        def __enter__(self) -> None:
            if len(pools) == 2:
                raise RuntimeError("operation not permitted when stream is capturing")

        def __exit__(self, *error: object) -> None:
            pass

    fakes = {"CUDAGraph": Recorded, "graph": Capture, "graph_pool_handle": object, "Stream": lambda device: Mock()}
    fakes |= {"stream": lambda stream: nullcontext(), "current_stream": lambda device: None}
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(CudaGraphs, "refusal", lambda self, device: None)
    captures.cache_clear()
    own = Engine(Halves(), "cuda_graphs", wait=True)
    for batch, engine in ((1, "cuda_graphs"), (2, "eager"), (3, "cuda_graphs"), (4, "cuda_graphs")):
        recording[:] = [captures(torch.device("cpu"))]
        assert own(torch.rand(batch, *SHAPE[1:])).engine == engine
    assert pools[0] is pools[1] is not pools[2] is pools[3]  # a pool that a capture failed in is not used again
    captures.cache_clear()


def test_the_cache_is_bounded_and_keeps_what_was_used_last(tmp_path: Path) -> None:
    cache = GraphCache(tmp_path, limit_bytes=2500)
    for i, key in enumerate("abc"):
        with cache.written(key, lambda folder: (folder / "file").write_bytes(bytes(1000))):
            pass
        os.utime(cache.folder / key / MANIFEST, (1000 + i, 1000 + i))
        if key == "b":
            assert cache.find("a")  # is now the one that was used last
    assert sorted(path.name for path in cache.folder.iterdir()) == ["a", "c"]


def test_drafts_of_processes_that_ended_are_removed(cache: GraphCache) -> None:
    cache.folder.mkdir(mode=0o700)
    left, current = cache.folder / ".draft-left", cache.folder / ".draft-current"
    for folder in (left, current):
        folder.mkdir()
    os.utime(left, (time.time() - 7200,) * 2)
    with cache.written("key", lambda folder: None):
        pass
    assert not left.exists() and current.exists()


def test_a_conversion_that_fails_leaves_eager_and_one_line(
    cache: GraphCache, stub: type[Stub], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: object) -> None:
        raise RuntimeError("no such operator\nand a long trace")

    monkeypatch.setattr(stub, "write", fails)
    own = Engine(Halves(), "openvino", cache=cache, wait=True)
    images = torch.rand(SHAPE)
    for _ in range(2):
        answer = own(images)
        assert answer.engine == "eager" and torch.equal(answer.outputs, Halves()(images).detach())
    (note,) = own.notes
    assert "no such operator" in note and "\n" not in note
    assert not list(cache.folder.iterdir())


def test_a_graph_that_fails_later_leaves_eager_and_one_line(
    cache: GraphCache, stub: type[Stub], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(images: Tensor) -> tuple[Tensor, ...]:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(stub, "read", lambda *arguments: fails)
    own = Engine(Halves(), "openvino", cache=cache, wait=True)
    assert [own(torch.rand(SHAPE)).engine for _ in range(3)] == ["eager"] * 3
    assert len(own.notes) == 1 and "out of memory" in own.notes[0]


def test_a_process_that_fails_is_told_in_its_last_line(cache: GraphCache) -> None:
    own = Engine(Halves(), "openvino", cache=cache)
    own._graph.network.register_forward_hook(_Stops())  # fails where it is traced
    assert own(torch.rand(SHAPE)).engine == "eager"
    own.settle()
    assert own(torch.rand(SHAPE)).engine == "eager"
    assert len(own.notes) == 1 and "not in that process" in own.notes[0]


class _Stops:
    def __init__(self) -> None:
        self.home = os.getpid()

    def __call__(self, *arguments: object) -> None:
        if os.getpid() != self.home:
            raise RuntimeError("not in that process")


ENDS = """
import sys, time
import torch
import stvit.predict.engines.engine as engine_module
from tests.stvit.predict.engines.test_engines import SHAPE, Halves

def read(self, folder, dtype, shape):
    time.sleep(0.5)  # in a library's code
    print("read", flush=True)

if sys.argv[1] == "in this process":
    engine_module.in_another_process = lambda backend: lambda *request: None
    engine_module.BACKENDS["openvino"].read = read
own = engine_module.Engine(Halves(), "openvino")
own(torch.rand(SHAPE))
time.sleep(0.2)
"""


@pytest.mark.parametrize(("where", "said"), [("in this process", "read\n"), ("in another process", "")])
def test_a_process_may_end_while_a_graph_is_made(where: str, said: str, tmp_path: Path) -> None:
    environment = os.environ | {"STVIT_CACHE": str(tmp_path)}
    run = [sys.executable, "-c", ENDS, where]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, said, "")
    assert not list(tmp_path.glob(f"{DRAFT}*"))


def test_images_that_the_network_refuses_are_refused_in_its_words(cache: GraphCache) -> None:
    own = Engine(build("stvit_deit"), "openvino", cache=cache)
    with pytest.raises(ValueError, match="made for 112x112"):
        own(torch.rand(1, 3, 96, 96))


def test_only_so_many_shapes_get_a_graph(cache: GraphCache, stub: type[Stub]) -> None:
    own = Engine(Halves(), "openvino", cache=cache, wait=True)
    engines = [own(torch.rand(1, 3, side, 8)).engine for side in range(1, engine_module.MOST_SHAPES + 3)]
    assert engines == ["openvino"] * engine_module.MOST_SHAPES + ["eager"] * 2


@pytest.mark.parametrize(("faster", "expected"), [(True, "openvino"), (False, "eager")])
def test_auto_takes_what_is_measured_to_be_fastest_and_remembers_it(
    faster: bool, expected: str, cache: GraphCache, stub: type[Stub], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = stub.read

    def slow_read(self: Stub, *arguments: object):
        run = read(self, *arguments)

        def run_slowly(images: Tensor) -> tuple[Tensor, ...]:
            time.sleep(0 if faster else 0.02)
            return run(images)

        return run_slowly

    class Slow(Halves):
        def forward(self, images: Tensor) -> Tensor:
            time.sleep(0.02 if faster else 0)
            return super().forward(images)

    monkeypatch.setattr(stub, "read", slow_read)
    own = Engine(Slow(), "auto", cache=cache, wait=True)
    assert own(torch.rand(SHAPE)).engine == own.serving(SHAPE) == expected
    monkeypatch.setattr(engine_module, "median_times", lambda *arguments: pytest.fail("measured again"))
    assert Engine(Slow(), "auto", cache=cache, wait=True)(torch.rand(SHAPE)).engine == expected


@pytest.mark.parametrize("name", ["openvino", "auto"])
def test_a_kept_graph_answers_the_first_batch(
    name: str, cache: GraphCache, stub: type[Stub], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Engine(Halves(), name, cache=cache).recall(SHAPE) == "eager" and stub.made == 0
    monkeypatch.setattr(engine_module, "median_times", lambda runners, *more: dict.fromkeys(runners, 1.0))
    Engine(Halves(), name, cache=cache, wait=True)(torch.rand(SHAPE))
    own = Engine(Halves(), name, cache=cache)
    assert own.recall(SHAPE) == "openvino" == own(torch.rand(SHAPE)).engine and stub.made == 1


def test_where_graphs_are_made_first_they_are_made_when_recalled(cache: GraphCache, stub: type[Stub]) -> None:
    assert Engine(Halves(), "openvino", cache=cache, wait=True).recall(SHAPE) == "openvino" and stub.made == 1


def test_no_engine_of_that_name() -> None:
    with pytest.raises(UserError, match="auto, eager, openvino, cuda_graphs, compiled, aot"):
        Engine(Halves(), "tensorrt")
    assert ENGINES[0] == "auto"


def test_an_engine_that_is_not_at_hand_leaves_eager_and_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    own = Engine(Halves(), "openvino")
    assert own(torch.rand(SHAPE)).engine == "eager"
    assert len(own.notes) == 1 and "pip install 'stvit-studio[fast]'" in own.notes[0]


def test_cuda_graphs_are_of_one_shape_and_refused_on_a_cpu() -> None:
    backend = CudaGraphs()
    assert backend.key((2, 3, 8, 8)) == (2, 3, 8, 8) and backend.refusal(torch.device("cuda")) is None
    own = Engine(Halves(), "cuda_graphs")
    assert own(torch.rand(SHAPE)).engine == "eager"
    assert own.notes == ["CUDA graphs need a CUDA device, and the model is on cpu."]


def test_shapes_that_share_a_graph() -> None:
    assert AheadOfTime().key((5, 3, 8, 8)) == AheadOfTime().key((1, 3, 8, 8)) == (3, 8, 8)
    assert OpenVINO().files_for((5, 3, 8, 8)) == OpenVINO().files_for((1, 3, 8, 8)) == (3, 8, 8)
    for one in (Compiled(), OpenVINO()):
        assert one.key((1, 3, 8, 8)) == (1, 3, 8, 8) != one.key((2, 3, 8, 8)) == one.key((9, 3, 8, 8))
    assert OpenVINO().refusal(torch.device("cuda", 0)) == "OpenVINO runs on CPUs, and the model is on cuda."


@pytest.mark.parametrize("name", ["compiled", "aot"])
def test_torch_compiler_is_refused_where_there_is_no_compiler(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CXX", "none")
    own = Engine(Halves(), name)
    assert own(torch.rand(SHAPE)).engine == "eager" and "install one" in own.notes[0]


def test_as_many_networks_are_compiled_as_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    class Sized(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.layer = nn.Linear(3, width)

        def forward(self, images: Tensor) -> Tensor:
            return self.layer(images.mean((2, 3)))

    compiled, real = CompileCounter(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda graph: real(graph, backend=compiled))
    for width in range(1, 11):
        Compiled().runner(InferenceGraph(Sized(width)), SHAPE)
        assert compiled.frame_count == width


@pytest.mark.slow
@pytest.mark.parametrize("name", ["compiled", "aot"])
def test_torch_compiler_answers_as_eager_does(name: str, cache: GraphCache) -> None:
    network = build("stvit_deit")
    own = Engine(network, name, regions="assignment", cache=cache, wait=True)
    for batch in (1, 3, 2):
        images = images_for("stvit_deit", batch)
        answer, expected = own(images, "all"), Engine(network, "eager")(images, "all")
        assert (answer.engine, own.notes) == (name, [])
        torch.testing.assert_close(answer.outputs, expected.outputs, atol=1e-4, rtol=1e-4)


def test_the_fingerprint_is_of_options_and_weights_and_the_same_in_every_process() -> None:
    assert fingerprint(Halves()) == fingerprint(Halves()) != fingerprint(Halves(0.25))
    changed = Halves()
    changed.offset = 2.0
    assert fingerprint(changed) != fingerprint(Halves())
    assert len({fingerprint(build("evit_deit")), fingerprint(build("tome_deit"))}) == 2
    program = (
        "from tests.stvit.export.small_models import build; from stvit.predict.engines.fingerprint import fingerprint; "
        "print(fingerprint(build('tome_deit')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == fingerprint(build("tome_deit"))
