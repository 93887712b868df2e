"""Pacing: what is planned to a day, what is spent, and when it is called out."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts.errors import ContractError
from planning.pacing import Thresholds, by_period, daily_plan, pacing, planned
from planning.surface import held

Make = Callable[..., Any]
START = date(2025, 1, 13)


def spent(plan: pd.DataFrame, days: int, factor: dict[str, float]) -> pd.DataFrame:
    """The first days of the plan, each channel off by its factor."""
    past = plan[plan["date"] < START + timedelta(days=days)]
    return past.assign(spend=past["spend"] * past["channel"].map(factor))


def test_days_add_up_to_the_plan(make_surface: Make) -> None:
    surface = make_surface(1, channels=2)
    plan = daily_plan(planned(surface, held(surface)))
    assert len(plan) == 6 * 7 * 2 and plan["spend"].sum() == pytest.approx(held(surface).sum())


def test_alerts_name_what_is_off(make_surface: Make) -> None:
    surface = make_surface(1, channels=3)
    actual = spent(daily_plan(planned(surface, held(surface))), 21, {"c0": 1.0, "c1": 1.4, "c2": 0.7})
    found = pacing(planned(surface, held(surface)), actual, START + timedelta(days=20)).set_index("channel")
    assert found["elapsed"].to_numpy() == pytest.approx(np.full(4, 0.5))
    assert found.loc["c0", "alerts"] == "" and found.loc["c0", "deviation"] == pytest.approx(0.0)
    assert "40% over plan to date" in found.loc["c1", "alerts"]
    assert "at this pace 40% over budget at the end" in found.loc["c1", "alerts"]
    assert found.loc["c2", "alerts"] == "30% under plan to date"
    assert found.loc["total", "actual"] == pytest.approx(actual["spend"].sum())
    assert found.loc["c1", "projected"] == pytest.approx(1.4 * held(surface)[:, :, 1].sum())


def test_a_budget_that_burns_early_is_called_out_once(make_surface: Make) -> None:
    surface = make_surface(1, channels=1)
    actual = spent(daily_plan(planned(surface, held(surface))), 7, {"c0": 5.0})  # a week planned, five weeks spent
    found = pacing(planned(surface, held(surface)), actual, START + timedelta(days=6)).iloc[0]
    assert "75% of the budget is spent where the plan has 17%" in found["alerts"]
    assert "50%" not in found["alerts"]


def test_nothing_spent_yet_is_under_plan_and_no_plan_is_no_alert(make_surface: Make) -> None:
    surface = make_surface(1, channels=2)
    plan = held(surface)
    plan[:, :, 1] = 0.0
    none = pd.DataFrame({"date": pd.Series(dtype=object), "channel": pd.Series(dtype=object), "spend": []})
    found = pacing(planned(surface, plan), none, START).set_index("channel")
    assert found.loc["c0", "alerts"] == "100% under plan to date" and found.loc["c1", "alerts"] == ""
    unplanned = pd.DataFrame({"date": [START], "channel": ["c1"], "spend": [3.0]})
    assert (
        pacing(planned(surface, plan), unplanned, START)
        .set_index("channel")
        .loc["c1", "alerts"]
        .startswith("without any")
    )


def test_periods_hold_planned_and_actual_side_by_side(make_surface: Make) -> None:
    surface = make_surface(1, channels=2)
    actual = spent(daily_plan(planned(surface, held(surface))), 14, {"c0": 1.5, "c1": 1.0})
    found = by_period(planned(surface, held(surface)), actual)
    first = found[(found["channel"] == "c0") & (found["period_start"] == START)].iloc[0]
    assert first["actual"] == pytest.approx(1.5 * first["planned"])
    assert found["actual"].isna().sum() == 2 * 4


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"channel": "tv"}, "actual spend names channel 'tv'; the plan knows c0"),
        ({"date": date(2024, 1, 1)}, "row 1 is of 2024-01-01, outside the plan's 2025-01-13 to 2025-02-23"),
        ({"spend": -1.0}, "row 1 must be a number >= 0; got -1.0"),
        ({"spend": "ten"}, "row 1 must be a number >= 0; got ten"),
    ],
)
def test_rows_that_cannot_be_are_refused(make_surface: Make, row: dict[str, Any], message: str) -> None:
    surface = make_surface(1, channels=1)
    actual = pd.DataFrame([{"date": START, "channel": "c0", "spend": 1.0} | row])
    with pytest.raises(ContractError, match=message):
        pacing(planned(surface, held(surface)), actual, START)


def test_thresholds_and_days_are_checked(make_surface: Make) -> None:
    surface = make_surface(1, channels=1)
    actual = pd.DataFrame([{"date": START, "channel": "c0", "spend": 1.0}])
    with pytest.raises(ContractError, match="asked for 2024-12-01, outside the plan's"):
        pacing(planned(surface, held(surface)), actual, date(2024, 12, 1))
    with pytest.raises(ContractError, match="needs the column 'spend'"):
        pacing(planned(surface, held(surface)), actual.drop(columns="spend"), START)
    with pytest.raises(ContractError, match="burn thresholds must rise"):
        Thresholds(burn=(0.9, 0.5))
    with pytest.raises(ContractError, match="deviation must lie between 0 and 1"):
        Thresholds(deviation=2.0)
