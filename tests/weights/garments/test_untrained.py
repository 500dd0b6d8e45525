import sys
from pathlib import Path

import pytest
from torch import nn

import stvit
from stvit.errors import UserError
from stvit.measure.timing import Quartiles
from tests.stvit.sparsify.hosts import host, images_for
from tests.stvit.training.tiny_sources import write_items, write_photos
from weights.garments import untrained


def test_the_nearest_cost_is_found_whether_costs_rise_or_fall() -> None:
    for costs in (lambda choice: 3 * choice, lambda choice: 300 - 3 * choice):
        assert costs(untrained.nearest(costs, list(range(100)), 100)) in (99, 102)


def test_all_networks_of_the_table_take_the_same_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(untrained, "TOKENS", (16,))
    monkeypatch.setattr(untrained, "MERGED", range(15, 25))
    monkeypatch.setattr(untrained, "RATES", [0.3, 0.4, 0.5])
    items, photos = write_items(tmp_path / "items"), write_photos(tmp_path / "photos")
    data = ["--data", f"backgrounds={photos}", "--data", f"items={items}", "--samples", "4"]
    assert untrained.main(data) == 0
    rows = [line.split("|")[1:3] for line in capsys.readouterr().out.splitlines()[2:]]
    names, macs = zip(*rows, strict=True)
    assert [name.split(",")[0].strip() for name in names] == [
        "all 196 image tokens",
        "16 semantic tokens",
        "ToMe",
        "EViT",
        "ATC",
    ]
    full, *others = map(int, macs)
    assert all(abs(other - others[0]) < 0.1 * full for other in others)

    def as_cheap_as_they_are_late(clock: untrained.Clock, model: nn.Module) -> Quartiles:
        gain = getattr(model, "r", 0) or 1.5
        return Quartiles(gain - 0.1, gain, gain + 0.1)

    monkeypatch.setattr(untrained, "accuracy", lambda model, batches: 50.0)
    monkeypatch.setattr(untrained.Clock, "__call__", as_cheap_as_they_are_late)
    assert untrained.main([*data, "--engine", "eager", "--batch-size", "2"]) == 0
    said, _, head, _, *rows = capsys.readouterr().out.splitlines()
    assert said.startswith("Speed-up under eager, batches of 2") and "speed-up" in head
    tome = next(row for row in rows if "ToMe" in row)
    assert "r = 15 " in tome and "| 15.00 (14.90 to 15.10) |" in tome  # nearest to 1.5


def test_networks_are_measured_beside_the_original_or_the_engine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    original, images = host("deit_tiny_patch16_224"), images_for("deit_tiny_patch16_224")
    clock = untrained.Clock(original, images, "eager", rounds=3)
    gains = clock(stvit.sparsify(original, 4))
    assert 0 < gains.q1 <= gains.median <= gains.q3 and clock.share(original) > 0
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UserError, match="openvino cannot run VisionTransformer, eager does"):
        untrained.Clock(original, images, "openvino", rounds=3)
