"""The public panel of 40 geos: the aggregate-only door passes the publishing gate (issue 2, "Real input")."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from workflow.warehouse import read_view

# Meridian's own demo on this file: ROI mean and 90 % interval (shared/data/README.md)
PUBLISHED = {
    "Channel0": (1.61, 0.41, 3.18),
    "Channel1": (0.94, 0.26, 2.00),
    "Channel2": (1.24, 0.46, 2.32),
    "Channel3": (0.80, 0.27, 1.58),
    "Channel4": (1.65, 0.42, 3.44),
}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_panel_of_forty_geos_passes_its_gate(
    shared_data: Path, tmp_path: Path, plumb: Callable[..., tuple[int, dict[str, object]]]
) -> None:
    shutil.copy(shared_data / "mmm" / "meridian_geo_all_channels.csv", tmp_path / "panel.csv")
    for command in ("init", "run"):
        code, answer = plumb(command, tmp_path)
        assert code == 0, answer
    warehouse = tmp_path / "warehouse.duckdb"
    effects = read_view(warehouse, "v_effects")
    assert set(effects["status"]) == {"published"}
    roi = effects[(effects["scope"] == "total") & (effects["metric"] == "roi")].set_index("channel")
    assert set(roi.index) == set(PUBLISHED)
    for channel, (_, low, high) in PUBLISHED.items():
        # two models of one panel: their 90 % intervals meet
        assert roi.loc[channel, "p05"] < high, channel
        assert roi.loc[channel, "p95"] > low, channel
    checks = read_view(warehouse, "v_checks")
    assert not (checks["status"] == "fail").any()
