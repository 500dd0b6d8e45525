"""Timing and the benchmark command."""

import json
import re

import pytest
import timm
import torch
from torch import nn

from stvit.measure import suite
from stvit.measure.__main__ import main
from stvit.measure.compare import Comparison, ModelCost, SpeedUp, compare
from stvit.measure.machine import MachineLimits
from stvit.measure.macs import count_macs
from stvit.measure.memory import peak_memory_bytes
from stvit.measure.roofline import Roofline
from stvit.measure.timing import Round, interleave, quartiles, speed_up, summarise

PAIR = ["deit_tiny_patch16_224", "stvit_deit_tiny_patch16_224"]


class Recorder(nn.Module):
    """Notes its name each time it runs."""

    def __init__(self, name: str, calls: list[str]) -> None:
        super().__init__()
        self.name, self.calls = name, calls

    def forward(self, images):
        self.calls.append(self.name)
        return images


def test_models_take_turns_and_alternate_who_is_first():
    calls: list[str] = []
    models = {name: Recorder(name, calls) for name in ("a", "b")}
    rounds = list(interleave(models, torch.zeros(1, 3, 4, 4), rounds=3, warmup=1))
    assert calls == ["b", "a", "a", "b", "b", "a", "a", "b"]
    assert [one.index for one in rounds] == [0, 1, 2]
    assert all(list(one.times_ms) == ["a", "b"] and min(one.times_ms.values()) >= 0 for one in rounds)


def test_stopping_the_iteration_stops_the_models():
    calls: list[str] = []
    rounds = interleave({"a": Recorder("a", calls)}, torch.zeros(1, 3, 4, 4), rounds=100, warmup=0)
    next(rounds)
    rounds.close()
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("values", "expected"), [([3.0], (3.0, 3.0, 3.0)), ([4.0, 1.0, 2.0, 3.0, 5.0], (2.0, 3.0, 4.0))]
)
def test_quartiles(values, expected):
    assert quartiles(values) == expected


def test_nothing_to_summarise_is_an_error():
    with pytest.raises(ValueError, match="no measurements"):
        summarise([])


def test_speed_up_is_taken_within_rounds():
    rounds = [Round(i, {"new": t, "old": 2 * t}) for i, t in enumerate([1.0, 50.0, 3.0])]
    summary = summarise([1.0])
    costs = {name: ModelCost(macs, macs, 1, None, summary, 1.0, 0) for name, macs in (("new", 10), ("old", 40))}
    bounds = {name: Roofline(1, 1, 1, 1, ms, MachineLimits(1.0, 1.0)) for name, ms in (("new", 1.0), ("old", 3.0))}
    comparison = Comparison("CPU", "float32", (3, 4, 4), 1, {}, costs, {"throughput": rounds}, {"throughput": bounds})
    assert comparison.speed_up("new", "old", "throughput") == SpeedUp((2.0, 2.0, 2.0), 4.0, 0.5, 3.0)


def test_a_speed_up_is_the_median_of_ratios_not_the_ratio_of_medians():
    """The machine slows down by ten in the second half: the medians of both models lie on either side of that."""
    model, baseline = [1.0, 1.0, 10.0, 10.0, 10.0], [2.0, 2.0, 2.0, 20.0, 20.0]
    assert speed_up(model, baseline) == (2.0, 2.0, 2.0)
    assert speed_up([1.0, 1.0, 1.0], [1.0, 2.0, 4.0]) == (1.5, 2.0, 3.0)
    with pytest.raises(ValueError, match="no measurements"):
        speed_up([], [])
    with pytest.raises(ValueError, match="zip"):
        speed_up([1.0], [1.0, 2.0])


def test_peak_memory_is_what_is_alive_at_once():
    """Of three layers in a row, the input and the output of one are alive together; views and weights are free."""
    images = torch.zeros(4, 250)
    layers = nn.Sequential(*(nn.Linear(250, 250, bias=False) for _ in range(3)), nn.Unflatten(1, (5, 50)))
    assert peak_memory_bytes(layers, images) == 2 * 4 * 250 * 4
    assert peak_memory_bytes(nn.Identity(), images) == 0


def test_one_model_is_no_comparison():
    with pytest.raises(ValueError, match="at least one baseline"):
        compare({"a": nn.Identity()})


def test_models_of_different_precision_are_not_compared():
    with pytest.raises(ValueError, match="several kinds"):
        compare({"a": nn.Linear(1, 1), "b": nn.Linear(1, 1).bfloat16()})


@pytest.mark.slow
def test_command_prints_and_saves(tmp_path, capsys):
    output = tmp_path / "figures" / "comparison.json"
    arguments = ["deit_tiny_patch16_224", "stvit_r_swin_small_224", "--rounds", "2", "--batch-size", "2"]
    assert main([*arguments, "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    assert "deit_tiny_patch16_224 against stvit_r_swin_small_224" in printed and "the roofline allows" in printed
    saved = json.loads(output.read_text())
    assert saved["costs"]["deit_tiny_patch16_224"]["latency"]["runs"] == 2
    ratio = saved["speed_up_of_the_first_against"]["stvit_r_swin_small_224"]["throughput"]
    assert ratio["quotient"] == pytest.approx(ratio["measured"][1] / ratio["allowed_by_macs"])
    assert saved["versions"]["torch"] == torch.__version__


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["deit_tiny_patch16_224"], "at least one baseline"),
        (["deit_tiny_patch16_224", "no_such_model"], "unknown model: no_such_model. List"),
        (["deit_tiny_patch16_224", "deit_tiny_patch16_225"], "Did you mean deit_tiny_patch16_224"),
        (["deit_tiny_patch16_224", "deit_tiny_patch16_224"], "each model once"),
        (["a", "b", "--rounds", "0"], "not a whole number from 1 on"),
        ([*PAIR, "--batch-size", "1.5"], "not a whole number from 1 on"),
        ([*PAIR, "--load", "-1"], "not a whole number from 0 on"),
        ([*PAIR, "--load", "1000"], "--load 1000 keeps more cores busy than there are"),
        ([*PAIR, "--input-size", "224"], "expected 2 arguments"),
        ([*PAIR, "--engines", "eager", "tensorrt"], "invalid choice: 'tensorrt'"),
        ([*PAIR, "--engines", "eager", "eager"], "each engine once"),
        ([*PAIR, "--engine", "eager", "--engines", "openvino"], "not allowed with argument"),
        ([*PAIR, "--groups", "deit_small"], "add --suite"),
        ([*PAIR, "--precision", "int8"], "invalid choice: 'int8'"),
        (["a", "--suite", "paper"], "not both"),
        (["--suite", "table4", "--groups", "deit_tiny"], "table4 has no deit_tiny; choose among deit_small, deit_base"),
        (["--suite", "aims", "--groups", "deit_base"], "aims has no deit_base; choose among deit_small, swin_small"),
        (["--suite", "paper", "--backbones"], "leave out --backbones and --input-size"),
        (["--suite", "paper", "--input-size", "224", "224"], "leave out --backbones and --input-size"),
        ([*PAIR, "--output", "."], "--output . cannot be written: it is a folder"),
        ([*PAIR, "--output", f"{__file__}/figures.json"], "test_measure.py is no folder"),
    ],
)
def test_command_refuses_what_it_cannot_do(arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err


def test_stopping_the_command_is_no_traceback(monkeypatch, capsys):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("stvit.measure.models.build", stop)
    assert main(PAIR) == 130
    assert "Stopped" in capsys.readouterr().err


@pytest.mark.slow
def test_the_suite_names_every_method_of_the_papers():
    assert list(suite.groups()) == [f"{family}_{size}" for family in ("deit", "swin") for size in suite.SIZES]
    labels = [contestant.label for contestant in suite.deit_group("tiny")]
    semantic = [f"STViT, {n} tokens" for n in (16, 36, 64, 100)]
    assert labels[:7] == ["DeiT", *semantic, "EViT, 0.7", "EViT, 0.5"]
    assert [contestant.label for contestant in suite.swin_group("base")][-1] == "STViT-R"


@pytest.mark.slow
def test_tome_is_set_to_the_cost_it_is_compared_at():
    target = suite.Contestant("STViT, 64 tokens", "stvit_deit_tiny_patch16_224", {"num_semantic_tokens": 64})
    with torch.device("meta"):
        goal = count_macs(timm.create_model(target.model, **target.options))
        costs = [abs(count_macs(timm.create_model("tome_deit_tiny_patch16_224", r=r)) - goal) for r in range(17)]
    assert suite.merges_nearest_in_cost("tome_deit_tiny_patch16_224", target) == costs.index(min(costs))


@pytest.mark.slow
def test_suite_command_prints_ratios_of_time_and_of_macs(tmp_path, capsys):
    output = tmp_path / "suite.json"
    assert main(f"--suite paper --groups swin_tiny --rounds 2 --batch-size 1 --output {output}".split()) == 0
    printed = capsys.readouterr().out
    assert "STViT, 9 per window" in printed and "fewer MACs" in printed
    saved = json.loads(output.read_text())["swin_tiny"]
    assert saved["full_token_model"] == "Swin"
    ratio = saved["speed_up_over_full_tokens"]["STViT, 9 per window"]
    assert ratio["quotient"] == pytest.approx(ratio["measured"][1] / ratio["allowed_by_macs"])
    assert 1.3 < ratio["allowed_by_macs"] < 1.4


def test_table_4_names_every_method_with_public_code_and_its_published_figures():
    assert list(suite.groups_of("table4")) == ["deit_small", "deit_base", "swin_tiny", "swin_small", "swin_base"]
    small, base, swin = suite.table4_deit("small"), suite.table4_deit("base"), suite.table4_swin("small")
    assert [c.label.partition(",")[0] for c in base] == [
        *("DeiT", "STViT", "DynamicViT", "EViT", "Evo-ViT", "ToMe", "ATC", "DiffRate", "TokenLearner")
    ]
    assert [c.label for c in swin] == ["Swin", "STViT, 9 per window", "STViT-R", "DynamicSwin, 0.7"]
    top1 = {c.label: c.published().get("top1") for c in (*small, *swin)}
    assert (top1["STViT, 16 tokens"], top1["DynamicViT, 0.7"], top1["ATC, 0.7"]) == (79.8, 79.3, None)
    assert (top1["STViT-R"], top1["DynamicSwin, 0.7"], top1["STViT, 9 per window"]) == (82.7, 83.21, 83.0)
    diffrate = next(c for c in small if c.label == "DiffRate")
    assert diffrate.published()["note"] == "with the authors' schedule, not this one"
    assert [c.model for c in small if c.caution] == ["avit_small_patch16_224"]


def test_a_model_with_other_options_than_the_published_one_has_no_published_figures():
    assert suite.Contestant("STViT", "stvit_deit_small_patch16_224", {"num_semantic_tokens": 64}).published() == {}


@pytest.mark.slow
def test_an_avit_with_random_weights_halts_nothing():
    torch.manual_seed(0)
    model = timm.create_model("avit_small_patch16_224").eval()
    with torch.inference_mode():
        assert model.halting(torch.randn(1, 3, 224, 224)).depths.min() == len(model.blocks)


@pytest.mark.slow
def test_table_4_is_measured_with_published_beside_measured_figures(tmp_path, capsys):
    output = tmp_path / "table4.json"
    output.write_text('{"swin_small": {"rows": []}, "swin_tiny": {"rows": []}}')
    assert main(f"--suite table4 --groups swin_tiny --rounds 1 --batch-size 1 --output {output}".split()) == 0
    groups = json.loads(output.read_text())
    saved = groups["swin_tiny"]
    assert groups["swin_small"] == {"rows": []}  # measured before, and not again
    assert [(row["model"], row["engine"], row["over_baseline"] is None) for row in saved["rows"]] == [
        ("STViT, 9 per window", "eager", False),
        ("DynamicSwin, 0.7", "eager", False),
        ("Swin", "eager", True),
    ]
    assert saved["rows"][1]["allowed_by_macs"] == pytest.approx(1.110, abs=0.001)
    assert saved["published"]["Swin"]["top1"] == 81.3 and saved["cautions"] == {} and saved["baseline"] == "Swin"
    assert "DynamicSwin, 0.7" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("names", "macs"),
    [
        (["stvit_deit_tiny_patch16_224", "deit_tiny_patch16_224"], (1.55, 4.0)),
        (["evit_deit_tiny_patch16_224", "swin_tiny_patch4_window7_224"], (2.6, 14.0)),
    ],
)
def test_models_are_built_for_the_input_size(names, macs, tmp_path):
    output = tmp_path / "figures.json"
    assert (
        main([*names, *["--input-size", "384", "384", "--rounds", "1", "--batch-size", "1", "--output"], str(output)])
        == 0
    )
    saved = json.loads(output.read_text())
    assert saved["input_shape"] == [3, 384, 384]
    for name, giga in zip(names, macs, strict=True):
        assert saved["costs"][name]["macs"] / 1e9 == pytest.approx(giga, rel=0.2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "stvit_swin_tiny_224 swin_tiny_patch4_window7_224 --input-size 384 384",
            "stvit_swin_tiny_224 cannot .*224",
        ),
        (
            "swin_tiny_patch4_window7_224 deit_tiny_patch16_224 --input-size 30 384",
            "cannot be measured on inputs of 30x",
        ),
        ("deit_tiny_patch16_224 swin_tiny_patch4_window7_224 --backbones", "deit_tiny_patch16_224 is no detector or"),
        (f"{' '.join(PAIR)} --batch-size {10**9}", r"Eager fails: .*memory.* Try a smaller batch\."),
    ],
)
def test_what_does_not_fit_is_one_message(arguments, message, capsys):
    assert main(["--rounds", "1", "--batch-size", "1", *arguments.split()]) == 1
    found = capsys.readouterr().err
    assert re.search(message, found) and "Traceback" not in found
