"""The optimiser against brute force, optimality conditions and its bounds."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import ContractError
from planning.allocate import _curves, best_split, geo_shares, outcome_draws

Make = Callable[..., Any]
FREE = np.inf


def brute(response: Any, budget: float, low: float, high: float, points: int = 4001) -> float:
    """Best expected outcome of two channels on a fine grid."""
    grid = np.linspace(max(low, budget - high), min(high, budget - low), points)
    share = geo_shares(response)
    values = [response.weights @ response.evaluate(share * np.array([x, budget - x])).sum(axis=(1, 2)) for x in grid]
    return float(max(values))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("slope", [(0.6, 1.0), (1.5, 3.0)])
def test_two_channels_match_brute_force(make_response: Make, seed: int, slope: tuple[float, float]) -> None:
    response = make_response(seed, channels=2, draws=40, slope=slope)
    budget = float(response.current_spend.sum()) * (0.5 + 0.3 * seed)
    split = best_split(response, budget, lower=np.zeros(2), upper=np.full(2, FREE))
    best = brute(response, round(budget, 2), 0.0, budget)
    assert split.expected >= best - 1e-6 * best
    assert abs(split.spend.sum() - budget) < 0.01


def test_two_s_curves_that_cannot_both_rise_are_not_split_evenly(make_response: Make) -> None:
    response = make_response(1, channels=2, draws=20, geos=1, slope=(4.0, 4.0))
    alike = replace(
        response,
        amplitude=np.full((20, 1, 2), 100.0),
        unit=np.full((1, 2), 0.01),
        half_saturation=np.ones((20, 2)),
        slope=np.full((20, 2), 4.0),
    )
    split = best_split(alike, 100.0, lower=np.zeros(2), upper=np.full(2, FREE))
    assert sorted(split.spend) == pytest.approx([0.0, 100.0], abs=2.0)
    assert split.expected > 1.5 * float(np.mean(outcome_draws(alike, np.array([50.0, 50.0])).sum(axis=(1, 2))))


@pytest.mark.parametrize("seed", range(3))
def test_steep_s_curves_are_chosen_like_a_knapsack(make_response: Make, seed: int) -> None:
    """Eight switches of unequal cost and worth; which to pay for is combinatorial. An independent search over every
    subset, the budget then split by today's rule of thumb, must not beat the answer."""
    rng = np.random.default_rng(seed)
    response = make_response(1, channels=8, draws=1, geos=1)
    cost, worth = rng.uniform(20, 60, 8), rng.uniform(50, 200, 8)
    switches = replace(
        response,
        amplitude=worth[None, None],
        unit=(1 / cost)[None],
        half_saturation=np.full((1, 8), 0.7),
        slope=np.full((1, 8), 12.0),
        current_spend=np.full((1, 8), 15.0),
        weights=np.ones(1),
    )
    split = best_split(switches, 120.0, lower=np.zeros(8), upper=np.full(8, FREE))
    best = 0.0
    for chosen in itertools.product((0.0, 1.0), repeat=8):
        paid = cost * np.array(chosen)
        if paid.sum() > 0:
            best = max(best, float(outcome_draws(switches, 120.0 * paid / paid.sum()).sum()))
    assert split.expected >= best * (1 - 1e-6)


def test_thirty_channels_meet_the_optimality_conditions(make_response: Make) -> None:
    response = make_response(11, channels=30, geos=5, draws=300)
    today = response.current_spend.sum(axis=0)
    budget = float(today.sum())
    split = best_split(response, budget, lower=0.7 * today, upper=1.3 * today)
    assert split.kkt_residual < 1e-3
    assert abs(split.spend.sum() - budget) < 0.01
    assert (split.spend >= 0.7 * today - 0.01).all() and (split.spend <= 1.3 * today + 0.01).all()
    inside = (split.spend > 0.7 * today + 1) & (split.spend < 1.3 * today - 1)
    assert inside.sum() >= 3
    assert np.ptp(split.marginal[inside]) < 1e-3 * split.marginal[inside].mean()
    assert split.gain @ response.weights > 0


def test_thirty_s_curves_are_no_worse_than_many_random_searches(make_response: Make) -> None:
    response = make_response(12, channels=30, geos=2, draws=50, slope=(1.2, 3.0))
    today = response.current_spend.sum(axis=0)
    budget = float(today.sum()) * 0.6
    split = best_split(response, budget, lower=np.zeros(30), upper=np.full(30, FREE))
    other = [best_split(response, budget, lower=np.zeros(30), upper=np.full(30, FREE), seed=s) for s in (1, 2)]
    assert split.expected >= max(o.expected for o in other) * (1 - 1e-4)
    rng = np.random.default_rng(0)
    tries = budget * rng.dirichlet(np.ones(30), size=300)
    best = max(float(response.weights @ outcome_draws(response, x).sum(axis=(1, 2))) for x in tries)
    assert split.expected > best


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 50), st.floats(0.2, 3.0), st.floats(0.0, 0.9), st.floats(0.0, 2.0))
def test_budget_and_bounds_hold_and_no_plan_beats_the_gain(
    make_response: Make, seed: int, scale: float, down: float, up: float
) -> None:
    response = make_response(seed, channels=4, geos=2, draws=30, slope=(0.6, 2.0))
    today = response.current_spend.sum(axis=0) * scale
    budget = round(float(today.sum()), 2)
    split = best_split(response, budget, lower=(1 - down) * today, upper=(1 + up) * today)
    assert round(split.spend.sum() * 100) == round(budget * 100)
    assert (split.spend >= (1 - down) * today - 0.011).all() and (split.spend <= (1 + up) * today + 0.011).all()
    assert np.allclose(split.spend * 100, np.rint(split.spend * 100))
    assert response.weights @ split.gain >= -1e-6 * split.expected


def test_gain_is_paired_draw_by_draw(make_response: Make) -> None:
    response = make_response(5, channels=3)
    today = response.current_spend.sum(axis=0)
    split = best_split(response, float(today.sum()), lower=0 * today, upper=3 * today)
    paired = split.outcome - outcome_draws(response, today).sum(axis=(1, 2))
    assert split.gain == pytest.approx(paired, rel=1e-3, abs=1e-3 * split.expected)
    assert split.gain_interval["sd"] < 0.6 * split.interval["sd"]
    assert 0.5 < split.gain_probability <= 1
    assert split.expected == pytest.approx(split.interval["mean"])


def test_spend_over_anything_observed_is_named(make_response: Make) -> None:
    response = make_response(5, channels=2)
    split = best_split(response, float(response.observed_max.sum()) * 2, lower=np.zeros(2), upper=np.full(2, FREE))
    assert split.extrapolated


def test_derivatives_match_finite_differences(make_response: Make) -> None:
    curves = _curves(make_response(3, channels=4, slope=(0.6, 2.5)), None)
    x = np.array([10.0, 200.0, 700.0, 3000.0])
    step = 1e-4 * x
    slope = (curves.value(x + step) - curves.value(x - step)) / (2 * step)
    bend = (curves.slope_at(x + step) - curves.slope_at(x - step)) / (2 * step)
    assert curves.slope_at(x) == pytest.approx(slope, rel=1e-5)
    assert curves.bend(x) == pytest.approx(bend, rel=1e-4)


@pytest.mark.parametrize(
    ("lower", "upper", "message"),
    [
        ([90.0, 20.0], [100.0, 100.0], r"lower bounds of c0 \(90.00\), c1 \(20.00\) .*these bounds by 10.00 in all"),
        ([0.0, 0.0], [40.0, 50.0], r"upper bounds of c0 \(40.00\), c1 \(50.00\) .*these bounds by 10.00 in all"),
        ([60.0, 0.0], [50.0, 90.0], "channel 'c0' must spend at least 60.00 and at most 50.00"),
        ([-1.0, 0.0], [50.0, 90.0], "bounds of channel 'c0' must be numbers >= 0"),
    ],
)
def test_bounds_that_clash_are_named(make_response: Make, lower: list[float], upper: list[float], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        best_split(make_response(1, channels=2), 100.0, lower=np.array(lower), upper=np.array(upper))


def test_unknown_objective_and_budget_are_refused(make_response: Make) -> None:
    response = make_response(1, channels=2)
    with pytest.raises(ContractError, match="objective must be one of mean; got 'luck'"):
        best_split(response, 100.0, lower=np.zeros(2), upper=np.full(2, FREE), objective="luck")
    with pytest.raises(ContractError, match="budget must be a finite number > 0; got 0"):
        best_split(response, 0.0, lower=np.zeros(2), upper=np.full(2, FREE))
