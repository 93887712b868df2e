"""Response surfaces: carry-over, accounting of what is in flight and what comes after, assumptions, extrapolation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import date
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import ContractError
from contracts.surface import DynamicResponse
from planning.surface import Assumptions, build_surface, evaluate, extrapolated, held, value_draws

Make = Callable[..., Any]
START = date(2025, 1, 13)


def by_hand(response: DynamicResponse, spend: np.ndarray, tail: int) -> np.ndarray:
    """KPI (D, C) over plan and tail, by loops over the definition."""
    steady = response.steady
    d, c = steady.half_saturation.shape
    out = np.zeros((d, c))
    for draw in range(d):
        for k in range(c):
            lag = np.arange(1, response.lags)
            ratio = response.retention[draw, k] * (lag + response.delay[draw, k]) / lag
            weights = np.concatenate([[1.0], np.cumprod(ratio)])
            weights /= weights.sum()
            for g in range(len(response.geos)):
                x = np.concatenate([response.recent[g, :, k], steady.unit[g, k] * spend[:, g, k], np.zeros(tail)])
                for t in range(response.lags - 1, len(x)):
                    stock = sum(weights[lag] * x[t - lag] for lag in range(response.lags))
                    n = steady.slope[draw, k]
                    share = stock**n / (stock**n + steady.half_saturation[draw, k] ** n)
                    out[draw, k] += steady.amplitude[draw, g, k] * share
    return out


def test_a_plan_is_the_definition_worked_out_by_hand(make_dynamic: Make) -> None:
    response = make_dynamic(1, channels=2, draws=3)
    surface = build_surface(response, START, 4)
    spend = held(surface) * np.random.default_rng(0).uniform(0.2, 9.0, surface.shape)
    surface = build_surface(response, START, 4, Assumptions(extrapolation_sd=0.0))
    found = evaluate(surface, spend)
    whole = (found.plan + found.in_flight).sum(axis=2).T
    assert whole == pytest.approx(by_hand(response, spend, 4), rel=1e-9)
    empty = by_hand(response, 0 * spend, 4)
    assert found.within + found.beyond == pytest.approx(whole - empty, rel=1e-9)
    assert (found.beyond > 0).all() and (found.carried_in > 0).all()


def test_a_spend_held_long_enough_is_the_steady_response(make_dynamic: Make) -> None:
    response = make_dynamic(2, channels=3, geos=2)
    surface = build_surface(response, START, 12)
    spend = held(surface)
    last = (evaluate(surface, spend).plan + surface.in_flight)[:, :, 11].T
    assert last == pytest.approx(response.steady.evaluate(spend[0]).sum(axis=1), rel=1e-9)


def test_two_plans_in_a_row_are_one_plan(make_dynamic: Make) -> None:
    """A plan of ten weeks brings what six weeks bring and then four with the six in flight."""
    response = make_dynamic(3, channels=2)
    whole = build_surface(response, START, 10)
    spend = held(whole) * np.random.default_rng(1).uniform(0.2, 1.8, whole.shape)
    first = build_surface(response, START, 6)
    exposure = (spend[:6] * response.steady.unit).transpose(1, 0, 2)
    recent = np.concatenate([response.recent, exposure], axis=1)[:, -(response.lags - 1) :]
    later = dataclasses.replace(response, recent=recent, last_period=date(2025, 2, 17))
    second = build_surface(later, date(2025, 2, 24), 4)
    one = evaluate(first, spend[:6]).plan[:, :, :6] + first.in_flight[:, :, :6]
    two = evaluate(second, spend[6:]).plan + second.in_flight
    total = evaluate(whole, spend).plan + whole.in_flight
    assert np.concatenate([one, two], axis=2) == pytest.approx(total, rel=1e-9)
    by_gap = build_surface(response, date(2025, 2, 24), 4, gap_spend=spend[:6])
    assert evaluate(by_gap, spend[6:]).plan == pytest.approx(evaluate(second, spend[6:]).plan, rel=1e-9)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 20), st.floats(0.5, 2.0), st.floats(0.3, 3.0).filter(lambda r: r + 1e-3 != 1.0))
def test_dearer_media_and_other_money_only_rescale_spend(
    make_dynamic: Make, seed: int, inflation: float, rate: float
) -> None:
    response = make_dynamic(seed, channels=2, draws=5)
    plain = build_surface(response, START, 3)
    spend = held(plain)
    dear = build_surface(response, START, 3, Assumptions(cost_index=inflation))
    assert evaluate(dear, spend * inflation).plan == pytest.approx(evaluate(plain, spend).plan, rel=1e-9)
    dollars = build_surface(response, START, 3, Assumptions(currency="USD", rate=rate + 1e-3))
    assert held(dollars) * (rate + 1e-3) == pytest.approx(spend)
    assert evaluate(dollars, held(dollars)).plan == pytest.approx(evaluate(plain, spend).plan, rel=1e-9)
    euros = value_draws(plain, spend, "revenue") / (rate + 1e-3)
    assert value_draws(dollars, held(dollars), "revenue") == pytest.approx(euros, rel=1e-9)


def test_demand_and_price_of_the_period_scale_effect_and_worth(make_dynamic: Make) -> None:
    response = make_dynamic(4, channels=2)
    plain = build_surface(response, START, 3)
    spend = held(plain)
    high = build_surface(response, START, 3, Assumptions(demand=np.array([1.0, 2.0, 3.0])))
    ratio = evaluate(high, spend).plan / evaluate(plain, spend).plan
    assert ratio[:, :, :3] == pytest.approx(np.broadcast_to([1.0, 2.0, 3.0], ratio[:, :, :3].shape))
    assert ratio[:, :, 3:] == pytest.approx(np.full_like(ratio[:, :, 3:], 3.0))
    promo = build_surface(response, START, 3, Assumptions(price=np.array([20.0, 20.0, 10.0]), margin=0.5))
    path = evaluate(promo, spend).plan.sum(axis=0)
    revenue = path @ np.array([20.0, 20.0, *[10.0] * 5])
    assert value_draws(promo, spend, "revenue") == pytest.approx(revenue)
    assert value_draws(promo, spend, "margin") == pytest.approx(0.5 * revenue - spend.sum())
    assert value_draws(promo, spend, tail=False) == pytest.approx(path[:, :3].sum(axis=1))


def test_spend_beyond_anything_seen_is_marked_and_widened(make_dynamic: Make) -> None:
    response = make_dynamic(5, channels=2, draws=400)
    wide, narrow = (build_surface(response, START, 8, Assumptions(extrapolation_sd=sd)) for sd in (0.5, 0.0))
    spend = held(wide)
    assert extrapolated(wide, spend) == ()
    assert evaluate(wide, spend).plan == pytest.approx(evaluate(narrow, spend).plan)
    far = spend.copy()
    far[:, :, 1] *= 4
    assert extrapolated(wide, far) == ("c1",)
    draws = [evaluate(s, far).within for s in (wide, narrow)]
    assert draws[0][:, 0] == pytest.approx(draws[1][:, 0])
    assert draws[0][:, 1].std() > 1.02 * draws[1][:, 1].std()
    weights = response.steady.weights
    assert weights @ draws[0][:, 1] == pytest.approx(weights @ draws[1][:, 1], rel=0.02)


@pytest.mark.parametrize(
    ("start", "assumptions", "message"),
    [
        (date(2025, 1, 6), {}, "starts on 2025-01-06, before the history ends; start on 2025-01-13 or later"),
        (date(2025, 1, 15), {}, "inside a period of the panel; start on 2025-01-20"),
        (START, {"currency": "USD"}, "the plan is in USD and the panel in EUR: give `rate`, EUR per USD"),
        (START, {"rate": 1.1}, "the panel's currency: its rate must be 1; got 1.1"),
        (START, {"demand": np.ones(5)}, r"demand must be one number, one per period \(3\)"),
        (START, {"cost_index": np.ones((3, 7))}, "cost_index must be .* a table of 3 × 2"),
    ],
)
def test_a_planning_period_that_cannot_be_is_refused(
    make_dynamic: Make, start: date, assumptions: dict[str, Any], message: str
) -> None:
    with pytest.raises(ContractError, match=message):
        build_surface(make_dynamic(1, channels=2), start, 3, Assumptions(**assumptions))


def test_assumptions_and_plans_are_checked(make_dynamic: Make) -> None:
    with pytest.raises(ContractError, match="assumption demand must hold finite numbers > 0; got -1"):
        Assumptions(demand=-1.0)
    with pytest.raises(ContractError, match="margin must be a share over 0"):
        Assumptions(margin=1.5)
    response = make_dynamic(1, channels=2, price=None)
    surface = build_surface(response, START, 3)
    with pytest.raises(ContractError, match="at least 1 period; got 0"):
        build_surface(response, START, 0)
    with pytest.raises(ContractError, match=r"a plan must have shape \(3, 2, 2\)"):
        evaluate(surface, np.ones((3, 2)))
    with pytest.raises(ContractError, match="finite numbers >= 0"):
        evaluate(surface, -held(surface))
    with pytest.raises(ContractError, match="revenue needs a value per conversions: give the assumption `price`"):
        value_draws(surface, held(surface), "revenue")
    priced = build_surface(response, START, 3, Assumptions(price=3.0))
    with pytest.raises(ContractError, match="give the assumption `margin`"):
        value_draws(priced, held(priced), "margin")
    with pytest.raises(ContractError, match="valued in 'kpi', 'revenue' or 'margin'; got 'clicks'"):
        value_draws(priced, held(priced), "clicks")
    dark = dataclasses.replace(
        response, steady=dataclasses.replace(response.steady, unit=response.steady.unit * np.array([[0, 1], [1, 1]]))
    )
    with pytest.raises(ContractError, match="channel 'c0' never ran in geo 'g0'"):
        evaluate(build_surface(dark, START, 3), np.ones((3, 2, 2)))
