"""The real models, narrow, in the pipeline's clothes, and the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import stvit
from stvit.draw.canvas import rgb_canvas
from stvit.predict.classifier import Classifier
from stvit.predict.detector import Detector
from stvit.predict.device import Compute
from stvit.predict.preprocess import Preprocessing
from stvit.predict.regions import CLEAR, DROPPED
from stvit.video.__main__ import main
from stvit.video.annotate import OUT_OF_SCOPE, Annotator
from stvit.video.frame_models import FrameClassifier, FrameDetector
from stvit.video.pipeline import process
from stvit.video.tasks import AnnotateTask, SideBySideTask
from stvit.video.types import FrameResult
from tests.narrow_models import DETECTOR, NARROW_DETECTOR
from tests.stvit.models.families import narrow
from tests.stvit.predict.test_scope import CLASSES, WIDTH, row
from tests.stvit.video.clips import Seer, frames_of, make_clip, scene


def network(name: str, **options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return stvit.create_model(name, **options)


def classifier(
    network: torch.nn.Module, label: str, *, compute: Compute | None = None, input_size: int = 224, **more: object
) -> FrameClassifier:
    return FrameClassifier(Classifier(network, preprocessing=Preprocessing(input_size), compute=compute), label, **more)


def detector(network: torch.nn.Module, label: str, **more: object) -> FrameDetector:
    return FrameDetector(Detector(network), label, **more)


@pytest.fixture(scope="module")
def semantic() -> torch.nn.Module:
    return network("stvit_deit_tiny_patch16_224", num_semantic_tokens=16)


def results(model: FrameClassifier | FrameDetector, frames: int, size_hw: tuple[int, int] = (120, 200)) -> list:
    model.begin(size_hw)
    return model.infer([model.prepare(scene(index, size_hw)) for index in range(frames)])


@pytest.mark.parametrize(
    ("left", "right"),
    [("avit", "dynamicvit_deit"), ("atc_deit", "evo_vit_deit"), ("tokenlearner_deit", "diffrate_deit")],
)
def test_rivals_race_on_either_side_with_what_became_of_their_tokens(tmp_path: Path, left: str, right: str) -> None:
    both = [classifier(narrow(name), name, input_size=112, regions=True, predicts=False) for name in (left, right)]
    source = make_clip(tmp_path / "a.mp4", 3, (96, 128))
    *_, last = process(source, tmp_path / "b.mp4", SideBySideTask(*both), records=tmp_path / "b.jsonl")
    assert (
        last.conclusion["race"]["headline"].startswith(f"{left} ")
        and f", {right} " in last.conclusion["race"]["headline"]
    )
    assert last.conclusion["race"]["engines"] == ["eager"]
    *frames, _ = map(json.loads, (tmp_path / "b.jsonl").read_text().splitlines())
    assert len(frames) == 3 and all(np.shape(frame["model"]["regions"]["identities"]) == (14, 14) for frame in frames)


def test_a_batch_gives_the_same_as_single_frames(semantic: torch.nn.Module) -> None:
    model = classifier(semantic, "STViT", regions=True)
    together = results(model, 3)
    for index, result in enumerate(together):
        alone = model.infer([model.prepare(scene(index, (120, 200)))])[0]
        assert alone.top1[0] == result.top1[0] and alone.top1[1] == pytest.approx(result.top1[1], abs=1e-4)
        assert (alone.regions.assignment == result.regions.assignment).mean() > 0.98


def test_parts_of_a_batch_come_back_in_order(semantic: torch.nn.Module) -> None:
    compute = Compute(torch.device("cpu"))
    compute.lanes = 3
    model = classifier(semantic, "STViT", regions=True, compute=compute)
    assert model.batch_size == 24
    model.begin((120, 200))
    batch = [model.prepare(scene(index, (120, 200))) for index in range(5)]  # parts of 2, 2 and 1
    found = model.infer(batch)
    assert len({result.model_ms for result in found}) == 1  # the batch's time, shared out
    for result, frame in zip(found, batch, strict=True):
        (alone,) = model.infer([frame])
        assert alone.top1[0] == result.top1[0] and alone.top1[1] == pytest.approx(result.top1[1], abs=1e-4)
        assert (alone.regions.assignment == result.regions.assignment).mean() > 0.98


def test_a_narrow_network_takes_more_frames_at_once() -> None:
    compute = Compute(torch.device("cpu"))
    compute.lanes = 1
    narrow = network("deit_tiny_patch16_224", img_size=112, patch_size=8, embed_dim=96, num_heads=3)
    assert classifier(narrow, "DeiT", input_size=112, compute=compute).batch_size == 16


def test_a_batch_is_not_larger_on_many_cores(semantic: torch.nn.Module) -> None:
    compute = Compute(torch.device("cpu"))
    compute.lanes = 64
    assert classifier(semantic, "STViT", compute=compute).batch_size == 32


def test_predictions_are_those_of_the_network_on_the_central_square(semantic: torch.nn.Module) -> None:
    from PIL import Image
    from timm.data import create_transform, resolve_data_config

    model = classifier(semantic, "STViT")
    (result,) = results(model, 1)
    transform = create_transform(
        **resolve_data_config({"input_size": (3, 224, 224), "crop_pct": 0.875, "interpolation": "bicubic"})
    )
    with torch.inference_mode():
        probabilities = semantic(transform(Image.fromarray(scene(0, (120, 200))))[None]).softmax(-1)
    assert result.top1[1] == pytest.approx(probabilities.max().item(), abs=2e-3)
    assert result.regions is None and model.macs == stvit.count_macs(semantic)


def test_without_weights_nothing_is_predicted_and_regions_are_there(semantic: torch.nn.Module) -> None:
    (result,) = results(classifier(semantic, "STViT", predicts=False, regions=True), 1)
    assert result.top1 is None and result.regions.assignment.shape == (14, 14) and result.regions.num_tokens == 16
    left, top, right, bottom = result.regions_xyxy
    assert (right - left, bottom - top) == pytest.approx((105, 105), abs=0.2)
    assert (left + right, top + bottom) == pytest.approx((200, 120), abs=0.1)


@pytest.mark.parametrize(
    ("name", "options", "negative"),
    [("evit_deit_tiny_patch16_224", {"keep_rate": 0.5}, DROPPED), ("tome_deit_tiny_patch16_224", {"r": 16}, CLEAR)],
)
def test_networks_that_reduce_tokens_show_what_became_of_them(name: str, options: dict, negative: int) -> None:
    (result,) = results(classifier(network(name, **options), name, regions=True), 1)
    assert result.regions.assignment.shape == (14, 14) and result.regions.assignment.max() < result.regions.num_tokens
    grouped = result.regions.grouped()
    assert (grouped == negative).any() or (grouped == CLEAR).any()


def test_a_full_token_network_has_no_regions() -> None:
    (result,) = results(classifier(network("deit_tiny_patch16_224"), "DeiT", regions=True), 1)
    assert result.regions is None


def test_a_compared_pass_is_one_pass_with_its_regions(
    semantic: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = classifier(semantic, "STViT", regions=True)
    model.begin((120, 200))
    passes: list[str] = []
    run = model.classifier.engine
    monkeypatch.setattr(model.classifier, "engine", lambda images, wanted: passes.append(wanted) or run(images, wanted))
    model.infer([model.prepare(scene(0, (120, 200)))])
    (result,) = model.infer([model.prepare(scene(0, (120, 200)))], compared=True)
    assert passes == ["last", "last", "last"] and result.regions is not None


def test_a_clip_begins_on_the_graph_of_the_one_before(semantic: torch.nn.Module, direct: None) -> None:
    model = FrameClassifier(Classifier(semantic, engine="openvino"), "STViT", regions=True)
    assert model.begin((120, 200)) == "eager"
    results(model, 1)
    assert model.classifier.engine.settle(60)
    assert model.begin((120, 200)) == "openvino" and results(model, 1)[0].engine == "openvino"
    model.in_eager()
    assert results(model, 1)[0].engine == "eager"


@pytest.mark.parametrize("wait", [True, False])
def test_both_sides_of_a_race_run_under_one_engine(
    semantic: torch.nn.Module, tmp_path: Path, direct: None, wait: bool
) -> None:
    """Side by side nothing is swapped midway: where graphs are not there at the start, eager runs both to the end."""
    networks = semantic, network("deit_tiny_patch16_224")
    models = [
        FrameClassifier(Classifier(one, engine="openvino", wait=wait), "Model", regions=True, batch_size=2)
        for one in networks
    ]
    records = tmp_path / "b.jsonl"
    list(process(make_clip(tmp_path / "a.mp4", 5), tmp_path / "b.mp4", SideBySideTask(*models), records=records))
    frames = [json.loads(line) for line in records.read_text().splitlines()][:5]
    names = {side["engine"] for frame in frames for side in (frame["model"], frame["baseline"])}
    assert names == {"openvino" if wait else "eager"}


def test_a_detector_without_weights_shows_the_regions_of_its_backbone() -> None:
    model = detector(network(DETECTOR, **NARROW_DETECTOR), "STViT-R", scale=(200, 120), predicts=False)
    (result,) = results(model, 1, (120, 200))
    assert result.found is None and result.regions.assignment.shape == (8, 14) and model.macs > 1e6
    assert result.regions_xyxy == pytest.approx((0, 0, 224, 128))


def test_a_detector_alone_is_told_by_its_whole_time_and_a_compared_one_by_its_backbones() -> None:
    model = detector(network(DETECTOR, **NARROW_DETECTOR), "STViT-R", scale=(200, 120))
    (alone,) = results(model, 1)
    (compared,) = model.infer([model.prepare(scene(0, (120, 200)))], compared=True)
    assert alone.found is not None and alone.pace_ms == alone.model_ms
    assert compared.pace_ms < compared.model_ms
    assert (alone.paced_part, compared.paced_part) == ("", "backbone")
    assert alone.counted_part == compared.counted_part == "backbone"


@pytest.mark.parametrize(("part", "words"), [("", "50.0 frames/s"), ("backbone", "backbone 50.0 frames/s")])
def test_what_speed_and_cost_are_about_is_written_on_the_frame(
    part: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    monkeypatch.setattr("stvit.video.annotate.put_text", lambda canvas, lines, *more, **named: written.extend(lines))
    annotator = Annotator(Seer(), 10.0)
    result = FrameResult(60.0, 20.0, paced_part=part, counted_part="backbone")
    annotator.draw(rgb_canvas(scene(0, (120, 200))), annotator.follow(result))
    assert written == ["Seer (eager)", words, "2 billion multiply-adds a frame in the backbone"]


@pytest.mark.parametrize("known", [True, False])
def test_a_frame_of_none_of_the_classes_says_so_in_place_of_a_class(
    known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    monkeypatch.setattr("stvit.video.annotate.put_text", lambda canvas, lines, *more, **named: written.extend(lines))
    one = network("deit_tiny_patch16_224", img_size=32, embed_dim=WIDTH, num_heads=3, num_classes=3).eval()
    scored = Classifier(one, preprocessing=Preprocessing(32), classes=CLASSES, scope=row(100.0 if known else -100.0))
    (result,) = results(FrameClassifier(scored, "DeiT"), 1)
    annotator = Annotator(Seer(), 10.0)
    followed = annotator.follow(result)
    annotator.draw(rgb_canvas(scene(0, (120, 200))), followed)
    record = annotator.record(followed)
    assert record["in_scope"] is known and record["top1"]["label"] in CLASSES
    assert written[-1] == (f"{result.top1[0]} {100 * result.top1[1]:.0f} %" if known else OUT_OF_SCOPE)


def test_regions_cover_the_frame_and_stay_in_colour_while_nothing_moves(
    semantic: torch.nn.Module, tmp_path: Path
) -> None:
    import av

    still = tmp_path / "still.mp4"
    with av.open(str(still), "w") as output:
        stream = output.add_stream("libx264", rate=10, options={"crf": "1"})
        stream.height, stream.width, stream.pix_fmt = 128, 160, "yuv420p"
        for _ in range(6):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(scene(3, (128, 160)), "rgb24")))
        output.mux(stream.encode(None))
    model = classifier(semantic, "STViT", predicts=False, regions=True)
    list(process(still, tmp_path / "b.mp4", AnnotateTask(model), records=tmp_path / "b.jsonl"))
    lines = [json.loads(line)["regions"]["identities"] for line in (tmp_path / "b.jsonl").read_text().splitlines()]
    same = np.mean([np.mean(np.array(line) == lines[0]) for line in lines[1:]])
    assert len(lines) == 6 and same > 0.95


def test_the_command_line_makes_a_clip_and_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make_clip(tmp_path / "a.mp4", 5, (120, 200))
    arguments = [str(source), str(tmp_path / "b.mp4"), "--task", "clusters", "--model", "stvit_deit_tiny_patch16_224"]
    assert main([*arguments, "--random-weights", "--device", "cpu", "--records", str(tmp_path / "b.jsonl")]) == 0
    assert "Saved" in capsys.readouterr().err
    assert len(frames_of(tmp_path / "b.mp4")) == len((tmp_path / "b.jsonl").read_text().splitlines()) == 5


def test_every_frame_names_the_engine_that_answered(
    tmp_path: Path, direct: None, capsys: pytest.CaptureFixture[str]
) -> None:
    source, records = make_clip(tmp_path / "a.mp4", 5, (120, 200)), tmp_path / "b.jsonl"
    arguments = [str(source), str(tmp_path / "b.mp4"), "--random-weights", "--device", "cpu", "--records", str(records)]
    arguments += ["--model", "stvit_deit_tiny_patch16_224", "--task", "clusters"]
    assert main([*arguments, "--engine", "openvino"]) == 0
    assert {json.loads(line)["engine"] for line in records.read_text().splitlines()} == {"openvino"}
    assert "Frames by engine: openvino 5" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*arguments, "--engine", "auto", "--baseline", "deit_tiny_patch16_224"])
    assert "under the same engine" in capsys.readouterr().err


def test_the_command_line_names_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.mp4").write_text("words")
    arguments = [
        str(tmp_path / "a.mp4"),
        str(tmp_path / "b.mp4"),
        "--model",
        "stvit_deit_tiny_patch16_224",
        "--device",
        "cpu",
    ]
    assert main([*arguments, "--random-weights"]) == 1
    assert "holds text, not a clip" in capsys.readouterr().err
    assert main(arguments) == 1
    assert "--checkpoint" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(tmp_path / "a.mp4"), str(tmp_path / "b.avi")])
    assert "ends in .mp4" in capsys.readouterr().err


@pytest.mark.slow
def test_the_library_imports_none_of_it() -> None:
    code = "import sys, stvit; sys.exit(any(name in sys.modules for name in ('av', 'cv2', 'supervision', 'gradio')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
