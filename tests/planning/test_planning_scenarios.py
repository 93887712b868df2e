"""Scenarios: totals, cells and paired comparison."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import numpy as np
import pytest

from contracts.errors import ContractError
from contracts.tables import BY_NAME, STAMP
from planning.scenarios import Horizon, Scenario, compare, current_scenario, evaluate, recommended_scenario

Make = Callable[..., Any]
HORIZON = Horizon(date(2025, 1, 6), 13)


SAVED = {"scenario_id", "version", "author", "note", "outdated"}  # of what people save; empty for the job's own


def test_tables_have_the_columns_of_the_views_and_cells_add_up(make_response: Make) -> None:
    response = make_response(1, channels=3)
    found = evaluate(current_scenario(response, HORIZON), response)
    stamp = {c.name for c in STAMP}
    for table, view in ((found.channels, "v_scenarios"), (found.cells, "v_scenario_cells")):
        assert set(table.columns) == {n for n in BY_NAME[view].names if n not in stamp | SAVED}
        assert not table.duplicated([k for k in BY_NAME[view].key if k not in SAVED]).any()
    assert len(found.cells) == 3 * 3 * 13
    by_channel = found.cells.groupby("channel")[["spend", "mean"]].sum()
    assert np.allclose(by_channel, found.channels.set_index("channel")[["spend", "mean"]])
    assert found.channels["period_end"].iloc[0] == date(2025, 4, 6)
    assert found.channels["spend"].sum() == pytest.approx(13 * response.current_spend.sum())
    assert (found.channels["spend_change"] == 0).all()
    steady = 13 * response.evaluate(response.current_spend).sum(axis=(1, 2))
    assert found.total["mean"] == pytest.approx(float(response.weights @ steady))


def test_a_daily_panel_counts_seven_periods_a_week(make_response: Make) -> None:
    response = make_response(1, channels=2)
    week, day = (evaluate(current_scenario(response, Horizon(date(2025, 1, 6), 2, d)), response) for d in (7, 1))
    assert day.total["mean"] == pytest.approx(7 * week.total["mean"])
    assert day.cells["spend"].sum() == pytest.approx(7 * week.cells["spend"].sum())


def test_recommended_keeps_budget_and_limits_and_beats_today(make_response: Make) -> None:
    response = make_response(2, channels=4)
    plan, split = recommended_scenario(response, HORIZON)
    base = evaluate(current_scenario(response, HORIZON), response)
    found = evaluate(plan, response)
    assert sum(plan.spend.values()) == pytest.approx(response.current_spend.sum(), abs=0.006)
    assert found.channels["spend_change"].abs().max() <= 0.3 + 1e-3
    better = compare(base, found)
    assert better.interval["mean"] > 0 and better.probability > 0.5
    assert better.interval["mean"] == pytest.approx(13 * split.gain_interval["mean"], rel=1e-2)
    back = compare(found, base)
    assert back.interval["mean"] == pytest.approx(-better.interval["mean"])
    assert better.interval["sd"] < found.total["sd"]


def test_nothing_may_move(make_response: Make) -> None:
    response = make_response(2, channels=4)
    plan, _ = recommended_scenario(response, HORIZON, max_change=0.0)
    assert list(plan.spend.values()) == pytest.approx(list(response.current_spend.sum(axis=0)), abs=0.011)


def test_a_bound_replaces_the_default(make_response: Make) -> None:
    response = make_response(2, channels=4)
    today = response.current_spend.sum(axis=0)
    plan, _ = recommended_scenario(response, HORIZON, lower={"c1": 1.2 * today[1]})
    assert plan.spend["c1"] >= 1.2 * today[1] - 0.01
    with pytest.raises(ContractError, match="a bound names channel 'tv'"):
        recommended_scenario(response, HORIZON, upper={"tv": 1.0})


def test_user_scenarios_are_checked(make_response: Make) -> None:
    response = make_response(1, channels=2)
    with pytest.raises(ContractError, match="plans for channel 'tv'; the model knows c0, c1"):
        evaluate(Scenario("mine", {"c0": 1.0, "c1": 1.0, "tv": 5.0}, HORIZON), response)
    with pytest.raises(ContractError, match="no spend for channel 'c1'"):
        evaluate(Scenario("mine", {"c0": 1.0}, HORIZON), response)
    with pytest.raises(ContractError, match="spend of 'c0' must be >= 0; got -1"):
        Scenario("mine", {"c0": -1.0}, HORIZON)
    with pytest.raises(ContractError, match="at least 1 week; got 0"):
        Horizon(date(2025, 1, 6), 0)


def test_a_dark_channel_brings_nothing(make_response: Make) -> None:
    response = make_response(1, channels=2)
    found = evaluate(Scenario("dark", {"c0": 0.0, "c1": 100.0}, HORIZON), response)
    row = found.channels.set_index("channel").loc["c0"]
    assert row["mean"] == 0 and row["spend_change"] == -1


def test_only_like_is_compared(make_response: Make) -> None:
    response = make_response(1, channels=2)
    base = evaluate(current_scenario(response, HORIZON), response)
    longer = evaluate(current_scenario(response, Horizon(date(2025, 1, 6), 26)), response)
    with pytest.raises(ContractError, match="must share one horizon"):
        compare(base, longer)
    elsewhere = make_response(2, channels=2)
    with pytest.raises(ContractError, match="draws of one and the same response"):
        compare(base, evaluate(current_scenario(elsewhere, HORIZON), elsewhere))
