"""What a plan brings, and how a plan is kept inside budget and guardrails."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

import app_sample_warehouse as sample
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import scenario
from app.figures import Estimate
from app.wording import Units
from contracts.errors import ContractError
from planning.surface import build_surface, value_draws

UNITS = Units("conversions", "EUR", "week")
SURFACE = sample.surface()
RESPONSE = SURFACE.response
NOW = scenario.current(SURFACE)
changes = st.lists(st.floats(-0.9, 2.0), min_size=5, max_size=5).map(lambda x: NOW * (1 + np.array(x)))


def test_the_current_split_changes_nothing_at_all() -> None:
    got = scenario.compare(SURFACE, NOW)
    assert got.change == Estimate(0.0, 0.0, 0.0)
    assert not got.moved
    assert scenario.verdict(got.change, got.probability) == "The scenario brings what the current split brings."


@given(changes)
def test_the_difference_is_paired(plan: np.ndarray) -> None:
    got = scenario.compare(SURFACE, plan)
    assert got.change.mean == pytest.approx(got.planned.mean - got.current.mean, abs=1e-6)
    assert got.rows["mean"].sum() == pytest.approx(got.change.mean, abs=1e-6)
    apart = got.planned.p95 - got.current.p05
    assert got.change.p95 <= apart + 1e-9, "paired draws cannot be wider than unpaired ends"


def test_pairing_takes_out_what_both_share() -> None:
    got = scenario.compare(SURFACE, NOW * 1.05)
    width = got.change.p95 - got.change.p05
    assert width < 0.2 * (got.planned.p95 - got.planned.p05)
    assert got.change.p05 > 0
    assert got.probability == pytest.approx(1.0)


def test_a_channel_without_spend_may_be_typed_up_to_what_was_observed() -> None:
    now = RESPONSE.steady.current_spend.copy()
    now[:, 2] = 0
    idle = build_surface(replace(RESPONSE, steady=replace(RESPONSE.steady, current_spend=now)), SURFACE.start, 13)
    low, high = scenario.guardrails(idle, 0.3)
    assert (low[2], high[2]) == (0.0, RESPONSE.steady.observed_max[2])
    got = scenario.compare(idle, scenario.current(idle) + np.array([0, 0, 500.0, 0, 0]))
    assert got.rows["spend_change"].isna()[2]
    assert got.rows["mean"][2] > 0


@given(changes)
def test_a_plan_is_laid_over_the_geos_as_current_spend_is(plan: np.ndarray) -> None:
    by_hand = np.broadcast_to(RESPONSE.steady.current_spend * (plan / NOW), SURFACE.shape)
    want = value_draws(SURFACE, by_hand).mean() / SURFACE.periods
    assert scenario.compare(SURFACE, plan).planned.mean == pytest.approx(want)


def test_a_held_plan_earns_its_steady_response_whatever_ran_before() -> None:
    """Periods far enough inside a long plan are steady; the start lacks what earlier spend brings, the end has its
    carry-over: with equal spend before and after, what is missing and what comes later are nearly one."""
    long = build_surface(RESPONSE, SURFACE.start, 104)
    steady = RESPONSE.steady.evaluate(RESPONSE.steady.current_spend).sum(axis=(1, 2)).mean()
    assert scenario.outcome(long, NOW).sum(axis=1).mean() == pytest.approx(steady, rel=0.02)


@pytest.mark.parametrize("plan", [np.array([1.0, 2.0]), np.full(5, -1.0), np.full(5, np.nan)])
def test_a_wrong_plan_is_refused(plan: np.ndarray) -> None:
    with pytest.raises(ContractError, match=r"one spend >= 0 for each of 5 channels"):
        scenario.compare(SURFACE, plan)


@given(
    st.lists(st.floats(0.7, 1.3), min_size=5, max_size=5),
    st.lists(st.booleans(), min_size=5, max_size=5),
    st.floats(0.6, 1.4),
)
def test_holding_the_total_meets_the_budget_or_says_that_it_cannot(
    shape: list[float], keep: list[bool], part: float
) -> None:
    low, high = scenario.guardrails(SURFACE, 0.3)
    plan, budget = NOW * np.array(shape), part * NOW.sum()
    held = scenario.hold_total(plan, budget, keep, low, high)
    least, most = scenario.hold_locked(low, high, plan, keep)
    fits = least.sum() - 1e-6 <= budget <= most.sum() + 1e-6
    if held is None:
        assert not (least.sum() + 1e-3 < budget < most.sum() - 1e-3)
        return
    assert fits
    assert held.sum() == pytest.approx(budget)
    assert (held >= least - 1e-6).all()
    assert (held <= most + 1e-6).all()
    np.testing.assert_array_equal(held[np.array(keep)], plan[np.array(keep)])


def test_an_impossible_budget_names_the_way_out() -> None:
    low, high = scenario.guardrails(SURFACE, 0.3)
    assert scenario.feasible(low, high, NOW.sum(), UNITS) == ""
    assert "less than the least" in scenario.feasible(low, high, 1.0, UNITS)
    assert "widen the guardrails" in scenario.feasible(low, high, 10 * NOW.sum(), UNITS)


def test_spend_above_the_observed_is_named() -> None:
    plan = NOW.copy()
    share = RESPONSE.steady.current_spend[:, 3] / NOW[3]
    plan[3] = 1.01 * (RESPONSE.observed[:, 3] / (RESPONSE.steady.unit[:, 3] * share)).min()
    assert scenario.extrapolated(SURFACE, NOW) == ()
    assert scenario.extrapolated(SURFACE, plan) == ("tv",)


def test_a_verdict_never_claims_certainty() -> None:
    assert "above zero" in scenario.verdict(Estimate(2, 1, 3), 1.0)
    assert "below zero" in scenario.verdict(Estimate(-2, -3, -1), 0.0)
    assert "99 %" in scenario.verdict(Estimate(2, -1, 3), 1.0)


@given(changes)
def test_an_address_carries_a_plan(plan: np.ndarray) -> None:
    query = scenario.to_query(RESPONSE.channels, plan)
    np.testing.assert_allclose(scenario.from_query(RESPONSE.channels, query, NOW), plan, atol=0.005)


@pytest.mark.parametrize("value", ["", "abc", "-5", "nan", "inf", "1e999"])
def test_nonsense_in_an_address_is_left_aside(value: str) -> None:
    got = scenario.from_query(RESPONSE.channels, {"spend.tv": value, "spend.nobody": "3", "x": "y"}, NOW)
    np.testing.assert_array_equal(got, NOW)


def test_the_download_adds_up() -> None:
    plan = scenario.from_changes(SURFACE, {"social": 0.2})
    got = scenario.compare(SURFACE, plan)
    frame = pd.read_csv(StringIO(scenario.cells_csv(got, UNITS))).set_index("channel")
    assert frame.loc["total", "spend_EUR_per_week"] == pytest.approx(plan.sum())
    assert frame.loc["social", "spend_change"] == pytest.approx(0.2)
    assert frame.loc["total", "change_conversions_per_week"] == pytest.approx(got.change.mean)
