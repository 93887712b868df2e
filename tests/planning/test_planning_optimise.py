"""The optimizer against brute force, optimality conditions, limits and its own bound."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import ContractError
from planning.derivatives import derivatives
from planning.limits import Change, Fairness, Limit, MinimumCampaign
from planning.objective import Objective
from planning.optimise import Problem, choose_and_value, coarse, describe, optimise
from planning.surface import Surface, build_surface, evaluate, held, value_draws

Make = Callable[..., Any]


def within(surface: Any, share: float, total: float = 1.0) -> tuple[Limit, ...]:
    """The total fixed at `total` of today's, each channel within ± share of its part."""
    today = held(surface).sum(axis=(0, 1)) * total
    bounds = [
        Limit(name=c, low=(1 - share) * x, high=(1 + share) * x, channels=(c,))
        for c, x in zip(surface.response.channels, today, strict=True)
    ]
    budget = round(float(today.sum()), 2)
    return (Limit(name="total", low=budget, high=budget), *bounds)


def worth(surface: Any, totals: np.ndarray) -> np.ndarray:
    """Draws of the KPI of channel totals, even periods and today's geos."""
    return evaluate(surface, held(surface, totals / surface.periods)).plan.sum(axis=(0, 2))


@pytest.mark.parametrize("kind", ["mean", "quantile", "cvar"])
@pytest.mark.parametrize("slope", [(0.6, 1.0), (1.5, 3.0)])
@pytest.mark.parametrize("seed", range(2))
def test_two_channels_match_brute_force_within_a_thousandth(
    make_surface: Make, seed: int, slope: tuple[float, float], kind: str
) -> None:
    surface = make_surface(seed, channels=2, draws=60, slope=slope)
    budget = round(float(held(surface).sum()) * (0.6 + 0.5 * seed), 2)
    problem = Problem(
        surface=surface, objective=Objective(kind=kind), rules=(Limit(name="total", low=budget, high=budget),)
    )
    found = optimise(problem)
    grid = np.linspace(0, budget, 1001)
    best = max(describe(problem, held(surface, np.array([x, budget - x]) / surface.periods)).value for x in grid)
    assert found.value >= best * (1 - 1e-3)
    assert round(found.spend.sum() * 100) == round(budget * 100)


def test_thirty_channels_meet_the_optimality_conditions(make_surface: Make) -> None:
    surface = make_surface(11, channels=30, geos=3, draws=100)
    problem = Problem(surface=surface, rules=within(surface, 0.3))
    found = optimise(problem)
    slope = derivatives(surface, found.spend, surface.weights, np.ones(surface.periods + 4)).gradient
    spent = found.spend.sum(axis=(0, 1))
    marginal = (slope * found.spend).sum(axis=(0, 1)) / spent
    today = held(surface).sum(axis=(0, 1))
    inside = (spent > 0.7 * today + 1) & (spent < 1.3 * today - 1)
    assert inside.sum() >= 3
    price = marginal[inside].mean()
    assert np.ptp(marginal[inside]) < 2e-3 * price
    assert (marginal[spent <= 0.7 * today + 1] < price * 1.002).all()
    assert (marginal[spent >= 1.3 * today - 1] > price * 0.998).all()
    assert found.gap < 1e-3 and found.gain_interval["mean"] > 0
    assert round(found.spend.sum() * 100) == round(problem.rules[0].high * 100)
    assert (spent >= 0.7 * today - 0.02).all() and (spent <= 1.3 * today + 0.02).all()


@pytest.mark.parametrize("decision", ["channel_period", "channel_geo", "cell"])
def test_finer_decisions_bring_no_less_and_no_slope_is_left(make_surface: Make, decision: str) -> None:
    surface = make_surface(3, channels=4, geos=3, draws=50)
    rules = within(surface, 0.3)
    rough, fine = (optimise(Problem(surface=surface, rules=rules, decision=d)) for d in ("channel", decision))
    assert fine.value >= rough.value * (1 - 1e-6)
    assert fine.gap < 2e-3
    assert round(fine.spend.sum() * 100) == round(rules[0].high * 100)


def test_an_equal_split_is_not_returned_for_channels_that_differ(make_surface: Make) -> None:
    surface = make_surface(1, channels=4, geos=1, draws=30)
    steady = surface.response.steady
    height = surface.amplitude[:1] * np.array([10.0, 3.0, 1.0, 0.1])[:, None, None]
    strong = dataclasses.replace(surface, amplitude=height)
    equal = held(strong, np.full(4, steady.current_spend.sum() / 4))
    budget = round(float(equal.sum()), 2)
    found = optimise(Problem(surface=strong, reference=equal, rules=(Limit(name="total", low=budget, high=budget),)))
    share = found.spend.sum(axis=(0, 1)) / budget
    assert share[0] > 0.35 and share[3] < 0.1
    assert found.gain_interval["mean"] > 0.05 * float(surface.weights @ evaluate(strong, equal).plan.sum(axis=(0, 2)))


def test_channels_that_are_alike_are_split_equally(make_surface: Make) -> None:
    surface = make_surface(1, channels=3, geos=1, draws=30)
    names = ("per_spend", "before", "lag_weights", "amplitude", "log_half", "slope", "seen", "seen_share", "in_flight")
    same = {}
    for name in names:
        value = getattr(surface, name)
        axis = 2 if name in ("per_spend", "before") else 0
        same[name] = np.repeat(np.take(value, [0], axis=axis), 3, axis=axis)
    alike = dataclasses.replace(surface, **same)
    found = optimise(Problem(surface=alike, rules=(Limit(name="total", low=900, high=900),)))
    assert found.spend.sum(axis=(0, 1)) == pytest.approx([300, 300, 300], abs=3)


def test_every_kind_of_limit_holds_in_the_answer(make_surface: Make) -> None:
    surface = make_surface(4, channels=3, geos=4, draws=30)
    today = held(surface).sum(axis=(0, 1))
    budget = round(float(today.sum()), 2)
    rules = (
        Limit(name="total", low=budget, high=budget),
        Limit(name="lock", low=100.25, high=100.25, channels=("c0",)),
        Limit(name="group", high=round(0.5 * budget, 2), channels=("c1",)),
        Change(name="smooth", up=0.2, down=0.2),
        Fairness(name="fair", within=0.15),
    )
    found = optimise(Problem(surface=surface, decision="cell", rules=rules))
    assert found.breach < 0.06  # whole cents: six cells of a geo, a cent each
    assert found.spend[:, :, 0].sum() == pytest.approx(100.25, abs=0.0101)
    assert found.gap < 5e-3


def test_a_minimum_campaign_is_all_or_nothing_and_the_best_choice(make_surface: Make) -> None:
    surface = make_surface(5, channels=4, geos=1, draws=30)
    budget = round(0.3 * float(held(surface).sum()), 2)
    total = Limit(name="total", low=budget, high=budget)
    least = round(0.4 * budget, 2)
    campaigns = tuple(MinimumCampaign(channel=c, amount=least) for c in surface.response.channels)
    found = optimise(Problem(surface=surface, rules=(total,), campaigns=campaigns))
    spent = found.spend.sum(axis=(0, 1))
    assert ((spent == 0) | (spent >= least - 0.02)).all() and found.proved
    best = 0.0
    for on in itertools.product((False, True), repeat=4):
        if 1 <= sum(on) <= 2:
            rules = [
                Limit(name=c, low=least, channels=(c,)) if o else Limit(name=c, high=0.0, channels=(c,))
                for c, o in zip(surface.response.channels, on, strict=True)
            ]
            best = max(best, optimise(Problem(surface=surface, rules=(total, *rules))).value)
    assert found.value >= best * (1 - 1e-3)


def test_a_free_total_stops_where_the_next_unit_of_money_misses_the_hurdle(make_surface: Make) -> None:
    surface = make_surface(6, channels=3, draws=60)
    most = 20 * float(held(surface).sum())
    objective = Objective(unit="revenue", hurdle=2.0)
    found = optimise(Problem(surface=surface, objective=objective, rules=(Limit(name="total", high=most),)))
    slope = derivatives(surface, found.spend, surface.weights, np.full(surface.periods + 4, 20.0)).gradient
    pattern = held(surface, np.ones(3)) / surface.periods
    marginal, on = (slope * pattern).sum(axis=(0, 1)), found.spend.sum(axis=(0, 1)) > 0
    assert found.spend.sum() < most and on.any()
    assert marginal[on] == pytest.approx(np.full(on.sum(), 2.0), rel=0.02)
    assert (marginal[~on] < 2.0).all()


def test_a_cautious_plan_has_the_better_bad_case(make_surface: Make) -> None:
    surface = make_surface(7, channels=5, draws=200)
    rules = within(surface, 0.5)
    figures = {}
    for kind in ("mean", "quantile", "cvar"):
        found = optimise(Problem(surface=surface, rules=rules, objective=Objective(kind=kind, gain=True)))
        worst = np.sort(found.gain)[:20].mean()
        figures[kind] = (float(surface.weights @ found.gain), found.value, worst)
    mean = optimise(Problem(surface=surface, rules=rules, objective=Objective(gain=True)))
    for kind in ("quantile", "cvar"):
        same = describe(Problem(surface=surface, objective=Objective(kind=kind, gain=True)), mean.spend)
        assert figures[kind][1] >= same.value * (1 - 1e-3)
        assert figures[kind][0] <= figures["mean"][0] * (1 + 1e-4)


def test_the_probability_of_a_target_is_raised(make_surface: Make) -> None:
    surface = make_surface(8, channels=4, draws=200)
    rules = within(surface, 0.5)
    base = describe(Problem(surface=surface), held(surface))
    target = base.interval["p90"]
    best = optimise(Problem(surface=surface, rules=rules, objective=Objective(kind="probability", target=target)))
    assert surface.weights @ (best.draws >= target) > surface.weights @ (base.draws >= target) + 0.02


def test_the_plan_is_valued_on_other_draws_than_it_was_chosen_on(make_surface: Make) -> None:
    surface = make_surface(9, channels=3, draws=40)
    rules = within(surface, 0.5)
    chosen, valued = choose_and_value(Problem(surface=surface, rules=rules))
    assert np.array_equal(chosen.spend, valued.spend)
    assert len(chosen.draws) == len(valued.draws) == 20 and not set(chosen.draws) & set(valued.draws)


def test_few_draws_stand_for_all(make_surface: Make) -> None:
    surface = make_surface(9, channels=3, draws=400)
    few = coarse(surface, 100)
    spend = held(surface)
    whole = float(surface.weights @ evaluate(surface, spend).plan.sum(axis=(0, 2)))
    assert float(evaluate(few, spend).plan.sum(axis=(0, 2)).mean()) == pytest.approx(whole, rel=0.1)
    assert few.response.draws == 100 and coarse(surface, 1000) is surface


def test_bad_questions_are_refused(make_surface: Make) -> None:
    surface = make_surface(1, channels=2)
    with pytest.raises(ContractError, match="'minimum campaign of tv' names a channel that is not there"):
        optimise(Problem(surface=surface, campaigns=(MinimumCampaign(channel="tv", amount=1.0),)))
    with pytest.raises(ContractError, match="the total is free and nothing limits it: give it an upper limit"):
        optimise(Problem(surface=surface))
    floor = Limit(name="contract", low=80.0, channels=("c0",))
    with pytest.raises(ContractError, match="limits 'total', 'contract' cannot hold together.* moves 30.00"):
        optimise(Problem(surface=surface, rules=(Limit(name="total", low=50, high=50), floor)))


def switches(surface: Surface, cost: np.ndarray, worth: np.ndarray) -> Surface:
    """One geo and draw; channel c brings `worth` once about `cost` a period is spent on it, and nothing before."""
    c = len(cost)
    steady = dataclasses.replace(
        surface.response.steady, amplitude=worth[None, None], unit=(1 / cost)[None],
        half_saturation=np.full((1, c), 0.7), slope=np.full((1, c), 12.0),
        current_spend=np.full((1, c), 15.0), weights=np.ones(1),
    )  # fmt: skip
    still = dataclasses.replace(
        surface.response, steady=steady, retention=np.zeros((1, c)), recent=np.zeros_like(surface.response.recent),
        observed=np.full((1, c), 10.0),
    )  # fmt: skip
    return build_surface(still, surface.start, 1)


@pytest.mark.parametrize("seed", range(3))
def test_steep_s_curves_are_chosen_like_a_knapsack(make_surface: Make, seed: int) -> None:
    """Eight switches of unequal cost and worth; which to pay for is combinatorial. An independent search over every
    subset, the budget then split by their cost, must not beat the answer."""
    rng = np.random.default_rng(seed)
    cost, worth = rng.uniform(20, 60, 8), rng.uniform(50, 200, 8)
    surface = switches(make_surface(1, channels=8, draws=1, geos=1), cost, worth)
    found = optimise(Problem(surface=surface, rules=(Limit(name="total", low=120.0, high=120.0),)))
    best = 0.0
    for chosen in itertools.product((0.0, 1.0), repeat=8):
        paid = cost * np.array(chosen)
        if paid.sum() > 0:
            plan = (120.0 * paid / paid.sum())[None, None]
            best = max(best, float(value_draws(surface, plan)[0]))
    assert found.value >= best * (1 - 1e-6)
    assert round(float(found.spend.sum()) * 100) == 12000


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 50), st.floats(0.2, 3.0), st.floats(0.0, 0.9), st.floats(0.0, 2.0))
def test_budget_and_bounds_hold_to_the_cent(
    make_surface: Make, seed: int, scale: float, down: float, up: float
) -> None:
    surface = make_surface(seed, channels=4, geos=2, draws=20, slope=(0.6, 2.0), periods=3)
    now = held(surface).sum(axis=(0, 1)) * scale
    total = round(float(now.sum()), 2)
    rules = [Limit(name="total", low=total, high=total)]
    rules += [
        Limit(name=c, low=(1 - down) * x - 0.01 if down < 1 else 0.0, high=(1 + up) * x + 0.01, channels=(c,))
        for c, x in zip(surface.response.channels, now, strict=True)
    ]
    found = optimise(Problem(surface=surface, rules=tuple(rules), reference=scale * held(surface)))
    spent = found.spend.sum(axis=(0, 1))
    assert round(float(spent.sum()) * 100) == round(total * 100)
    assert (spent >= (1 - down) * now - 0.03).all() and (spent <= (1 + up) * now + 0.03).all()
    assert np.allclose(found.spend * 100, np.rint(found.spend * 100))
    assert found.gain_interval["mean"] >= -1e-6 * abs(found.interval["mean"])
