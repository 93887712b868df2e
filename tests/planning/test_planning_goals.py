"""Goal seek, free totals, the frontier and the ranking of the next money."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from contracts.errors import ContractError
from planning.goals import frontier, largest_budget, least_budget, lower_mean, marginal_ranking
from planning.limits import Limit
from planning.objective import Objective
from planning.optimise import Problem, describe, optimise
from planning.surface import held

Make = Callable[..., Any]


def free(surface: Any, share: float = 0.5, **more: Any) -> Problem:
    """Every channel within ± share of today, the total free."""
    today = held(surface).sum(axis=(0, 1))
    rules = [
        Limit(name=c, low=(1 - share) * x, high=(1 + share) * x, channels=(c,))
        for c, x in zip(surface.response.channels, today, strict=True)
    ]
    return Problem(surface=surface, rules=tuple(rules), **more)


def test_the_least_budget_reaches_the_target_and_less_does_not(make_surface: Make) -> None:
    surface = make_surface(1, channels=3, draws=100)
    problem = free(surface)
    target = describe(problem, held(surface)).interval["p50"]
    goal = least_budget(problem, target, 0.7)
    assert goal.probability >= 0.7 and goal.best.spend.sum() == pytest.approx(goal.total, abs=0.006)
    less = round(0.99 * goal.total, 2)
    tighter = Problem(
        surface=surface,
        rules=(*problem.rules, Limit(name="total", low=less, high=less)),
        objective=Objective(kind="quantile", level=0.3),
    )
    assert surface.weights @ (optimise(tighter).draws >= target) < 0.7


def test_a_target_out_of_reach_says_what_is_in_reach(make_surface: Make) -> None:
    surface = make_surface(1, channels=2)
    with pytest.raises(ContractError, match=r"no plan up to .* EUR reaches 1,000,000 with probability 80%: the best"):
        least_budget(free(surface), 1e6, 0.8)
    with pytest.raises(ContractError, match="probability of a goal must lie between 0 and 1; got 1.0"):
        least_budget(free(surface), 1.0, 1.0)


def test_the_least_budget_is_the_floor_where_even_that_is_enough(make_surface: Make) -> None:
    surface = make_surface(1, channels=2)
    goal = least_budget(free(surface), 1e-3, 0.9)
    assert goal.total == pytest.approx(
        0.5 * float(held(surface).sum()), abs=0.011
    ) and goal.probability == pytest.approx(1.0)


def test_the_largest_budget_keeps_the_ratio_and_more_does_not(make_surface: Make) -> None:
    surface = make_surface(2, channels=3)
    problem = free(surface, 0.9, objective=Objective(unit="revenue"))
    now = describe(problem, held(surface))
    asked = float(surface.weights @ now.draws) / float(held(surface).sum())
    goal = largest_budget(problem, roi=asked)
    assert float(surface.weights @ goal.best.draws) / goal.total == pytest.approx(asked, rel=1e-3)
    assert goal.total > held(surface).sum()  # the best plan of today's money has the better ratio
    same = largest_budget(problem, cpa=20.0 / asked)
    assert same.total == pytest.approx(goal.total, rel=1e-3)
    with pytest.raises(ContractError, match=r"meets the ROI of 10000.0: the best ROI is \d"):
        largest_budget(problem, roi=10000.0)
    with pytest.raises(ContractError, match="needs one of a target ROI and a target CPA"):
        largest_budget(problem)


def test_the_frontier_trades_the_mean_for_the_bad_case(make_surface: Make) -> None:
    surface = make_surface(3, channels=4, draws=100)
    budget = round(float(held(surface).sum()), 2)
    problem = free(surface)
    fixed = Problem(surface=surface, rules=(*problem.rules, Limit(name="total", low=budget, high=budget)))
    found = frontier(fixed, 4)
    assert (np.diff(found["mean"]) <= 1e-4 * found["mean"].iloc[0]).all()
    assert (np.diff(found["cvar"]) >= -1e-4 * found["mean"].iloc[0]).all()
    assert all(round(p.spend.sum() * 100) == round(budget * 100) for p in found["plan"])
    with pytest.raises(ContractError, match="at least 2 points; got 1"):
        frontier(fixed, 1)


def test_the_next_money_goes_where_it_brings_most(make_surface: Make) -> None:
    surface = make_surface(4, channels=4, draws=50)
    problem = Problem(surface=surface, objective=Objective(unit="revenue"))
    ranking = marginal_ranking(problem, held(surface), 10.0)
    assert list(ranking["mean"]) == sorted(ranking["mean"], reverse=True)
    first = ranking.iloc[0]
    c = surface.response.channels.index(first["channel"])
    more = held(surface)
    more[:, :, c] *= 1 + 10.0 / more[:, :, c].sum()
    extra = describe(problem, more).interval["mean"] - describe(problem, held(surface)).interval["mean"]
    assert first["mean"] == pytest.approx(extra, rel=1e-6)
    assert first["per_currency"] == pytest.approx(extra / 10.0) and 0 <= first["beats_hurdle"] <= 1
    with pytest.raises(ContractError, match="amount must be a finite number > 0"):
        marginal_ranking(problem, held(surface), 0.0)


def test_lower_mean_is_the_mean_of_the_worst() -> None:
    assert lower_mean(np.arange(10.0), np.full(10, 0.1), 0.3) == pytest.approx(1.0)
