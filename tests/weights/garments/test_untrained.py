from pathlib import Path

import pytest

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
    ]
    full, *others = map(int, macs)
    assert all(abs(other - others[0]) < 0.1 * full for other in others)
