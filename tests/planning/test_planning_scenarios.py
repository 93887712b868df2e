"""Scenarios on the response in time: totals, parts, cells and paired comparison."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest

from contracts.columns import STAMP
from contracts.errors import ContractError
from contracts.tables import BY_NAME
from planning.scenarios import compare, evaluate_plan, last_day, plan_of_cells, steady_plan, today
from planning.surface import build_surface, by_geo, evaluate, extrapolated, held, value_draws

Make = Callable[..., Any]
SAVED = {"scenario_id", "version", "author", "note", "outdated", "locked", "of_record"}  # of what people save


def test_tables_have_the_columns_of_the_views_and_cells_add_up(make_surface: Make) -> None:
    surface = make_surface(1, channels=3, geos=2, periods=6)
    spend = held(surface) * np.linspace(0.5, 2.0, 6)[:, None, None]
    found = evaluate_plan(surface, spend, "mine")
    stamp = {c.name for c in STAMP}
    for table, view in ((found.channels, "v_scenarios"), (found.cells, "v_scenario_cells")):
        assert set(table.columns) == {n for n in BY_NAME[view].names if n not in stamp | SAVED}
        assert not table.duplicated([k for k in BY_NAME[view].key if k not in SAVED]).any()
    assert len(found.cells) == 3 * 2 * 6
    cells = found.cells.groupby("channel")[["spend", "mean"]].sum()
    whole = found.channels.set_index("channel")
    assert np.allclose(cells["spend"], whole["spend"]) and np.allclose(cells["mean"], whole["within"])
    assert np.allclose(whole["within"] + whole["beyond"], whole["mean"])
    assert (whole["beyond"] > 0).all() and (whole["carried_in"] > 0).all()
    assert found.channels["period_end"].iloc[0] == last_day(surface) == date(2025, 2, 23)
    assert found.total["mean"] == pytest.approx(float(surface.weights @ value_draws(surface, spend)))
    assert np.allclose(plan_of_cells(surface, found.cells), spend)


def test_a_channel_by_geo_is_the_channel(make_surface: Make) -> None:
    surface = make_surface(2, channels=2, geos=3)
    spend = 3.0 * held(surface)  # beyond what was seen: the widened part must be split as well
    assert extrapolated(surface, spend)
    whole = evaluate(surface, spend).plan
    for c in range(2):
        assert np.allclose(by_geo(surface, spend, c).sum(axis=2), whole[c])


def test_days_of_a_daily_panel_add_up_to_weeks(make_dynamic: Make) -> None:
    daily = dataclasses.replace(make_dynamic(1, channels=2), period_days=1)
    surface = build_surface(daily, daily.last_period + timedelta(days=1), 14)
    spend = held(surface) * np.linspace(0.5, 1.5, 14)[:, None, None]
    found = evaluate_plan(surface, spend, "mine")
    assert len(found.cells) == 2 * 2 * 2 and set(found.cells["period_start"]) == {date(2025, 1, 7), date(2025, 1, 14)}
    assert found.cells["spend"].sum() == pytest.approx(spend.sum())
    assert found.cells["mean"].sum() == pytest.approx(found.channels["within"].sum())
    back = plan_of_cells(surface, found.cells)
    assert back.reshape(2, 7, 2, 2).sum(axis=1) == pytest.approx(spend.reshape(2, 7, 2, 2).sum(axis=1))


def test_today_held_is_no_change_and_differences_are_paired(make_surface: Make) -> None:
    surface = make_surface(2, channels=3)
    base = evaluate_plan(surface, held(surface), "current")
    assert (base.channels["spend_change"] == 0).all()
    more = evaluate_plan(surface, 1.1 * held(surface), "more")
    found, back = compare(base, more), compare(more, base)
    assert found.interval["mean"] == pytest.approx(-back.interval["mean"]) and found.probability == pytest.approx(1.0)
    assert found.interval["sd"] < 0.5 * more.total["sd"]
    assert more.channels["spend_change"].tolist() == pytest.approx([0.1] * 3)


def test_extrapolation_is_marked_and_widened_not_moved(make_surface: Make) -> None:
    surface = make_surface(3, channels=2, draws=400)
    spend = held(surface)
    spend[:, :, 0] *= 6.0
    found = evaluate_plan(surface, spend, "far")
    assert found.channels["extrapolated"].tolist() == [True, False]
    plain = build_surface(surface.response, surface.start, 6, dataclasses.replace(surface.assumptions,
                                                                                  extrapolation_sd=0.0))  # fmt: skip
    sure = evaluate_plan(plain, spend, "far")
    assert found.channels["sd"][0] > 1.01 * sure.channels["sd"][0]
    assert found.channels["mean"][0] == pytest.approx(sure.channels["mean"][0], rel=0.05)


def test_a_plan_by_channel_names_all_of_them(make_surface: Make) -> None:
    surface = make_surface(1, channels=2)
    with pytest.raises(ContractError, match="names channel 'tv'; the model knows c0, c1"):
        steady_plan(surface, {"c0": 1.0, "c1": 1.0, "tv": 5.0})
    with pytest.raises(ContractError, match="no spend for channel 'c1'"):
        steady_plan(surface, {"c0": 1.0})
    with pytest.raises(ContractError, match="spend of 'c0' must be a number >= 0; got -1"):
        steady_plan(surface, {"c0": -1.0, "c1": 0.0})
    dark = evaluate_plan(surface, steady_plan(surface, {"c0": 0.0, "c1": today(surface)[1]}), "dark")
    row = dark.channels.set_index("channel").loc["c0"]
    assert row["mean"] == 0 and row["spend_change"] == -1


def test_cells_of_another_period_or_geo_are_refused(make_surface: Make) -> None:
    surface = make_surface(1, channels=2)
    cells = evaluate_plan(surface, held(surface), "mine").cells
    with pytest.raises(ContractError, match="spends in geo 'mars'; the model knows g0, g1"):
        plan_of_cells(surface, cells.replace({"geo": {"g0": "mars"}}))
    late = cells.assign(period_start=[d + timedelta(days=70) for d in cells["period_start"]])
    with pytest.raises(ContractError, match="the week of 2025-03-24; the period is 2025-01-13 to 2025-02-23"):
        plan_of_cells(surface, late)


def test_only_like_is_compared(make_surface: Make) -> None:
    base, longer = (make_surface(1, channels=2, periods=n) for n in (6, 8))
    first = evaluate_plan(base, held(base), "a")
    with pytest.raises(ContractError, match="must share one period"):
        compare(first, evaluate_plan(longer, held(longer), "b"))
    other = make_surface(2, channels=2)
    with pytest.raises(ContractError, match="draws of one and the same response"):
        compare(first, evaluate_plan(other, held(other), "b"))
