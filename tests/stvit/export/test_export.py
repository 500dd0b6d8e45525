"""Exported files: what they return, what they carry, and what happens where a model cannot be exported."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image
from torch import nn

import stvit
from stvit.errors import UserError
from stvit.export import export as export_module
from stvit.export import formats, int8
from stvit.export.__main__ import main, summary
from stvit.export.export import ExportError, ExportReport, put_in_place
from stvit.export.formats import FORMATS
from stvit.export.graph import InferenceGraph, example_images, first_line
from stvit.export.int8 import LEAST_PICTURES, calibration_images
from stvit.predict.device import cpu_has_bfloat16_units
from tests.stvit.export.small_models import FRAMES, FULL_TOKEN, SMALL, build

DOCS = Path(__file__).resolve().parents[3] / "docs" / "deployment.md"
SUFFIX = {"pt2": ".pt2", "onnx": ".onnx", "openvino": ".xml", "aot": ".pt2"}
QUICK = {"deit": "pt2", "evit_lvvit": "pt2", "evit_deit": "onnx", "stvit_deit": "openvino"}
SLOW = {  # every family goes into every format; the engines' tests trace and convert each of them
    "avit": "pt2",
    "lvvit": "onnx",
    "stvit_r_swin": "onnx",
    "atc_deit": "onnx",
    "dense_backbone": "pt2",
    "stvit_video_swin": "pt2",
}
EVERY = [pytest.param(format, name) for name, format in QUICK.items()]
EVERY += [pytest.param(format, name, marks=pytest.mark.slow) for name, format in SLOW.items()]


def export(name: str, path: Path, **options: object) -> ExportReport:
    """The small model of that name, whose weights are random."""
    return stvit.export(build(name), path, input_size=SMALL[name][1], frames=FRAMES, **options)


@pytest.mark.parametrize(("format", "name"), EVERY)
def test_a_file_is_eager_for_any_batch(format: str, name: str, tmp_path: Path) -> None:
    model, size = build(name), SMALL[name][1]
    path = tmp_path / f"model{SUFFIX[format]}"
    report = export(name, path, regions=name not in FULL_TOKEN)
    assert report.format == format and {one.stem for one in tmp_path.iterdir()} == {"model"}
    assert (report.agreement is None) == (name in FULL_TOKEN)

    shape = (3, FRAMES, *size) if "video" in name else (3, *size)
    images = example_images(shape, 5)[2:]  # others than the check has seen
    got = FORMATS[format].run(path)(images)
    with torch.inference_mode():
        if isinstance(model, stvit.detection.detector.CascadeMaskRCNN):
            wanted = model.extract_features(images)
        else:
            wanted = model(images)
        wanted = [wanted] if isinstance(wanted, torch.Tensor) else list(wanted)
    for own, eager in zip(got, wanted, strict=False):
        torch.testing.assert_close(own, eager, atol=1e-4, rtol=1e-4)
    assert len(got) == len(wanted) + len(report.regions)


def test_regions_are_the_clusters_of_the_trace(tmp_path: Path) -> None:
    model = build("stvit_deit")
    report = export("stvit_deit", tmp_path / "model.pt2", regions=True)
    images = example_images((3, 112, 112), 1)
    _, *regions = torch.export.load(report.path).module()(images)
    layers = model(images, return_trace=True)[1].region_layers()
    assert [layer.name for layer in report.regions] == [layer.name for layer in layers]
    for own, layer in zip(regions, layers, strict=True):
        assert own.dtype == torch.int64 and torch.equal(own, layer.clusters())
        assert own.max() < report.regions[0].num_tokens


@pytest.mark.parametrize("precision", [pytest.param("fp16", marks=pytest.mark.slow), "bf16"])
def test_half_precision_takes_and_returns_float32(precision: str, tmp_path: Path) -> None:
    path = tmp_path / "model.xml"
    report = export("stvit_deit", path, precision=precision)
    assert report.difference < 0.05
    (logits,) = FORMATS["openvino"].run(path)(example_images((3, 112, 112), 1))
    assert logits.dtype == torch.float32 and path.with_suffix(".bin").stat().st_size < 2**20


def test_a_batch_of_one_size_is_said_in_the_file(tmp_path: Path) -> None:
    report = export("deit", tmp_path / "model.xml", batch=3)
    model = formats.openvino_core().read_model(report.path)
    assert model.inputs[0].shape == [3, 3, 224, 224]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one model in three formats and a picture."""
    folder = tmp_path_factory.mktemp("exported")
    for suffix in (".onnx", ".xml", ".pt2"):
        export("deit", folder / f"model{suffix}")
    pixels = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "picture.jpg")
    return folder


@pytest.mark.parametrize("number", range(3))
def test_the_examples_in_the_docs_run_without_the_project(
    number: int, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = re.findall(r"^```python\n(.*?)^```$", DOCS.read_text(), re.MULTILINE | re.DOTALL)[number]
    assert "stvit." not in code.replace("stvit.json", "")
    monkeypatch.chdir(exported)
    names: dict[str, object] = {}
    exec(code, names)
    logits = np.asarray(names["logits"])
    assert logits.shape == (1, 1000) and len(names["about"]["classes"]) == 1000
    image = (names["colours"] - names["about"]["preprocessing"]["mean"]) / names["about"]["preprocessing"]["std"]
    with torch.inference_mode():
        eager = build("deit")(torch.tensor(image.transpose(2, 0, 1)[None], dtype=torch.float32))
    in_bf16 = "openvino" in code  # by default, where the processor multiplies it itself
    np.testing.assert_allclose(logits, eager.numpy(), atol=0.02 if in_bf16 else 1e-4)


def test_a_file_that_differs_from_eager_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.pt2"
    path.write_bytes(b"what was there before")
    wrong = formats.Format(".pt2", formats.write_pt2, lambda path: lambda images: (torch.zeros(len(images), 1000),))
    monkeypatch.setitem(FORMATS, "pt2", wrong)
    with pytest.raises(ExportError, match="differs from eager"):
        export("deit", path)
    assert [one.name for one in tmp_path.iterdir()] == ["model.pt2"]
    assert path.read_bytes() == b"what was there before"


class DependsOnValues(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.sum((1, 2, 3)) * self.weight if images.mean() > 0 else images.sum((2, 3))


@pytest.mark.parametrize(
    ("make", "options", "said"),
    [
        (lambda: build("deit"), {"format": "tflite"}, "no format"),
        (lambda: build("deit"), {"format": "onnx"}, "must end in .onnx"),
        (lambda: build("deit"), {"precision": "fp8"}, "no precision"),
        (lambda: build("deit"), {"precision": "int8"}, "OpenVINO"),
        (lambda: build("deit"), {"batch": 0}, "batch=0"),
        (lambda: build("deit"), {"input_size": (0, 224)}, "0x224"),
        (lambda: build("deit"), {"input_size": (96, 96)}, "does not take images"),
        (lambda: build("deit"), {"regions": True}, "no layers whose tokens stand for image regions"),
        (DependsOnValues, {}, "cannot be traced"),
    ],
)
def test_what_cannot_be_exported_is_said_in_one_line(make: object, options: dict, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said) as caught:
        stvit.export(make(), tmp_path / "model.pt2", **options)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "said"), [("file/model.xml", "file is no folder"), ("model.xml", "it is a folder")])
def test_a_place_for_no_file_is_said_before_anything_is_done(
    name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "model.bin").mkdir()  # which belongs to model.xml
    monkeypatch.setattr(export_module, "example_images", lambda *_: pytest.fail("went on"))
    with pytest.raises(ExportError, match=said):
        export("deit", tmp_path / name)


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match="cannot be written"):
        put_in_place(tmp_path / "file" / "model.pt2", (), lambda path: None)


def test_only_what_the_file_itself_meets_is_said_to_be_unwritable(tmp_path: Path) -> None:
    def fails(number: int, draft: Path) -> None:
        raise OSError(number, os.strerror(number), "other")

    with pytest.raises(ExportError, match=r"model.pt2 cannot be made: .*No such file or directory: 'other'"):
        put_in_place(tmp_path / "model.pt2", (), partial(fails, errno.ENOENT))
    with pytest.raises(ExportError, match=r"model.pt2 cannot be written: No space left on device"):
        put_in_place(tmp_path / "model.pt2", (), partial(fails, errno.ENOSPC))
    assert not list(tmp_path.iterdir())


def test_the_callers_model_stays_as_it_was(tmp_path: Path) -> None:
    model = build("deit").train()
    pointers = [one.data_ptr() for one in model.parameters()]
    stvit.export(model, tmp_path / "model.pt2", input_size=SMALL["deit"][1], precision="bf16")
    assert all(module.training for module in model.modules())
    assert [one.data_ptr() for one in model.parameters()] == pointers
    assert {one.dtype for one in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("package", ["openvino", "onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_with_what_installs_it(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    suffix = ".xml" if package == "openvino" else ".onnx"
    with pytest.raises(UserError, match=rf"{package} is not installed.*pip install 'stvit-studio\[\w+\]'"):
        export("deit", tmp_path / f"model{suffix}")
    assert not list(tmp_path.iterdir())


def test_int8_needs_pictures_and_nncf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.xml"
    with pytest.raises(UserError, match="--calibrate FOLDER"):
        export("deit", path, precision="int8")
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(UserError, match=r"nncf is not installed.*\[int8\]"):
        export("deit", path, precision="int8", calibrate=tmp_path)


def test_int8_is_reported_beside_fp32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transformer = SimpleNamespace(TRANSFORMER="transformer")
    nncf = SimpleNamespace(quantize=lambda model, *_, **__: model.clone(), Dataset=list, ModelType=transformer)
    monkeypatch.setitem(sys.modules, "nncf", nncf)
    monkeypatch.setattr(int8, "ROUNDS", 3)
    for number in range(LEAST_PICTURES):
        Image.new("RGB", (32, 32), (30 * number, 0, 0)).save(tmp_path / f"{number}.png")
    report = export("stvit_deit", tmp_path / "model.xml", precision="int8", calibrate=tmp_path)
    gain = report.int8
    assert (gain.pictures, gain.same_class) == (LEAST_PICTURES, 1.0) and gain.over_fp32.median > 0
    assert (gain.over_bf16 is not None) == cpu_has_bfloat16_units()
    assert "on 8 pictures one by one: best class that of fp32 in 100.0%, " in summary(report)


def test_calibration_opens_only_the_formats_of_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *arguments: pytest.fail("started Ghostscript"))
    for number in range(LEAST_PICTURES):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(tmp_path / f"{number}.png")
        Image.new("RGB", (32, 32)).save(tmp_path / f"{number}.eps", "EPS")
        Image.new("RGB", (32, 32)).save(tmp_path / f"named-{number}.jpg", "EPS")
    colours = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    images = calibration_images(tmp_path, (32, 32), colours)
    assert {image.shape for image in images} == {(1, 3, 32, 32)}
    assert [round(255 * image[0, 0, 0, 0]) for image in images] == list(range(LEAST_PICTURES))


def test_an_error_of_openvino_is_told_without_its_sources(tmp_path: Path) -> None:
    with pytest.raises(Exception) as raised:
        formats.openvino_core().import_model(b"no graph", "CPU", {})
    assert str(raised.value).startswith("Exception from ")
    assert first_line(raised.value) and "Exception from" not in first_line(raised.value)


def test_maps_are_normalised_as_rows_for_openvino_with_the_same_result() -> None:
    norm, images = nn.LayerNorm(3), example_images((3, 8, 6), 5)
    nn.init.normal_(norm.weight)
    network = nn.Sequential(nn.Conv2d(3, 3, 1), Channels((0, 2, 3, 1)), norm, Channels((0, 3, 1, 2)))
    program = formats.Traced(InferenceGraph(network), images, True, ["logits"], {}).program()
    formats.normalise_rows(program)
    (found,) = program.graph.find_nodes(op="call_function", target=torch.ops.aten.layer_norm.default)
    assert found.args[0].target == torch.ops.aten.flatten.using_ints
    for batch in (5, 1):
        torch.testing.assert_close(program.module()(images[:batch])[0], network(images[:batch]).detach())


class Channels(nn.Module):
    def __init__(self, order: tuple[int, ...]) -> None:
        super().__init__()
        self.order = order

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps.permute(self.order)


def test_tokens_that_are_tied_alike_count_as_the_same() -> None:
    network, images = build("stvit_deit"), example_images((3, 112, 112))
    graph = InferenceGraph(network, "assignment")
    with torch.inference_mode():
        layers = network(images, return_trace=True)[1].region_layers()
        owners = [layer.clusters() for layer in layers]
        least = [layer.semantic_to_image().argmin(dim=1) for layer in layers]
        assert graph.agreement(images, owners, 0.0) == [1.0, 1.0]
        assert max(graph.agreement(images, least, 1e-3)) < 0.05 and graph.agreement(images, least, 1.0) == [1.0, 1.0]


def test_the_network_may_be_used_while_its_graph_is_traced() -> None:
    model = build("stvit_deit")
    graph = InferenceGraph(model)
    assert graph.network is not model
    for own, one in zip(graph.parameters(), model.parameters(), strict=True):
        assert own is not one and own.data_ptr() == one.data_ptr()


@pytest.mark.slow
def test_an_ahead_of_time_package_is_eager(tmp_path: Path) -> None:
    report = export("stvit_deit", tmp_path / "model.pt2", format="aot", regions=True)
    package = torch._inductor.aoti_load_package(str(report.path))
    about = json.loads(package.get_metadata()["stvit"])
    assert about["outputs"] == ["logits", "regions_0", "regions_1"]


def test_the_command_exports_and_says_what(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "model.pt2"
    assert main(["deit_tiny_patch16_224", str(path), "--random-weights"]) == 0
    assert f"{path}: pt2, fp32" in capsys.readouterr().out and path.is_file()
    assert main(["deit_tiny_patch16_224", str(path.with_suffix(".xml")), "--random-weights", "--regions"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_stopping_the_command_is_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("stvit.export.__main__.export_model", stop)
    assert main(["deit_tiny_patch16_224", str(tmp_path / "model.pt2"), "--random-weights"]) == 130
    assert capsys.readouterr().err == "\nStopped; nothing was written.\n"


@pytest.mark.parametrize(
    "arguments", [["deit_tiny_patch16_224", "model.pt2"], ["card.json", "model.pt2", "--pretrained"]]
)
def test_the_command_asks_for_weights(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
