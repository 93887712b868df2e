"""What is read from several releases of one quarter is read once."""

from __future__ import annotations

from datetime import date, timedelta

import pandas as pd
import pytest

from contracts.evidence import Credit
from contracts.intervals import normal_interval
from contracts.release import Release, VectorSpec
from workflow.panel_build import kpi_rows, scale_back
from workflow.step_credit import credit_gap

FIRST = date(2024, 4, 1)
BLOCK = "quarter-2024-04-01"
VECTOR = VectorSpec("conversions", 2.0, 1e-6, 5.0, 1, "l2")


def release(name: str, measure: str, table: pd.DataFrame, weeks: tuple[int, int] = (0, 13)) -> Release:
    """A release of some weeks of the quarter."""
    start = FIRST + timedelta(weeks=weeks[0])
    end = FIRST + timedelta(weeks=weeks[1]) - timedelta(days=1)
    return Release(name, measure, BLOCK, start, end, table, (VECTOR,), 0.1, 1.0, 1e-6, {})  # type: ignore[arg-type]


def kpi(weeks: tuple[int, int], variance: float) -> Release:
    """100 conversions a week in one geo."""
    rows = [
        {"vector": "conversions", "metric": "conversions", "geo": "north", "week": FIRST + timedelta(weeks=i),
         "value": 100.0, "variance": variance}
        for i in range(*weeks)
    ]  # fmt: skip
    return release(f"kpi-{weeks[0]}", "kpi", pd.DataFrame(rows), weeks)


def clipped() -> Release:
    """130 conversions were clipped in the quarter."""
    row = {"vector": "clipped:conversions", "metric": "clipped:conversions", "geo": "", "value": 130.0, "variance": 9.0}
    return release("diagnostics", "diagnostics", pd.DataFrame([row]))


def credit(mean: float) -> Credit:
    """Last touch gives one channel `mean` conversions of the quarter."""
    end = FIRST + timedelta(weeks=13) - timedelta(days=1)
    interval = normal_interval(mean, 10.0)
    return Credit("last_touch", "search", "conversions", FIRST, end, evidence_ids=("j",), **interval)


def test_the_clipped_mass_of_a_quarter_counts_once_however_many_batches_there_are() -> None:
    whole = scale_back("conversions", [kpi((0, 13), 25.0), clipped()])
    batches = [kpi((0, 4), 25.0), kpi((4, 5), 25.0), kpi((5, 13), 25.0), clipped()]
    assert scale_back("conversions", batches) == pytest.approx(whole)
    assert whole[0] == pytest.approx(1.1, abs=0.002)


def test_batches_keep_their_own_variances() -> None:
    rows = kpi_rows([kpi((0, 9), 25.0), kpi((9, 13), 400.0)])
    assert rows.groupby("release_id")["variance"].unique().map(list).to_dict() == {"kpi-0": [25.0], "kpi-9": [400.0]}


def test_credit_of_a_quarter_is_compared_with_all_its_weeks_or_with_none() -> None:
    journeys = release("j", "journeys", pd.DataFrame({"vector": [], "value": [], "variance": []}))
    parts = [journeys, kpi((0, 9), 25.0), kpi((9, 13), 100.0)]
    (row,) = credit_gap(parts, [credit(1320.0)]).to_dict("records")
    assert (row["period"], row["credit"], row["kpi"]) == (BLOCK, 1320.0, 1300.0)
    assert row["gap_sd"] == pytest.approx(20 / (9 * 25 + 4 * 100 + 100) ** 0.5)
    assert credit_gap(parts[:2], [credit(1320.0)]).empty, "four weeks of kpi are not out"
