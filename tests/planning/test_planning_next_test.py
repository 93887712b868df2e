"""The value of a test: closed forms, its bounds, and what it must not see."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from contracts.errors import ContractError
from planning.limits import Limit
from planning.loss import decision_loss, plan_worth
from planning.next_test import Candidate, plans_to_choose_from, rank, readings, sample_information
from planning.optimise import Problem
from planning.surface import evaluate, held

Make = Callable[..., Any]


def two_plans(draws: int, mean: float, sd: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Worth of 'stay' (0) and 'move' (theta), and theta itself."""
    theta = mean + sd * np.random.default_rng(seed).standard_normal(draws)
    return np.stack([np.zeros(draws), theta], axis=1), theta


@pytest.mark.parametrize("std_error", [0.3, 1.0, 2.0])
def test_a_normal_prior_and_two_plans_have_the_closed_form(std_error: float) -> None:
    """Raiffa and Schlaifer (1961): the posterior mean is normal with sd s² / sqrt(s² + se²), and the value of the test
    is its unit normal loss."""
    mean, sd = -0.4, 1.0
    worth, theta = two_plans(8000, mean, sd)
    found = sample_information(worth, theta, std_error)
    spread = sd**2 / np.sqrt(sd**2 + std_error**2)
    u = abs(mean) / spread
    want = spread * (norm.pdf(u) - u * norm.sf(u))
    assert found.value == pytest.approx(want, abs=4 * found.std_error + 0.03 * want)
    perfect = sd * (norm.pdf(0.4) - 0.4 * norm.sf(0.4))
    assert found.perfect == pytest.approx(perfect, rel=0.06)
    assert 0 < found.value < found.perfect


def test_a_test_of_something_else_is_worth_nothing_and_none_beats_perfect_information() -> None:
    rng = np.random.default_rng(3)
    theta = rng.standard_normal((1000, 6))
    worth = np.concatenate([np.zeros((1000, 1)), 0.3 + theta @ rng.standard_normal((6, 60))], axis=1)
    for seed in range(6):
        noise = np.random.default_rng(seed + 10).standard_normal(1000)
        nothing = sample_information(worth, noise, 0.5, seed=seed)
        assert abs(nothing.value) <= max(4 * nothing.std_error, 0.02 * nothing.perfect)
        something = sample_information(worth, theta[:, seed], 0.5, seed=seed)
        assert something.value <= something.perfect
        assert something.value > nothing.value


def test_a_copy_of_the_present_plan_is_no_other_plan() -> None:
    """Copies that differ in the last digits, up or down with what the test reads, are better for sure, by nothing."""
    theta = np.random.default_rng(5).standard_normal(1000)
    best = 2000.0 + 100 * theta
    copies = best[:, None] + 1e-9 * theta[:, None] * np.array([-2.0, -1.0, 1.0, 2.0])
    found = sample_information(np.column_stack([best, copies]), theta, 0.3)
    assert (found.value, found.share_changed, found.perfect) == (0.0, 0.0, 0.0)
    assert found.threshold == (-np.inf, np.inf)


def test_a_better_test_is_worth_more_and_an_endless_error_nothing() -> None:
    worth, theta = two_plans(2000, -0.2, 1.0)
    values = [sample_information(worth, theta, se).value for se in (0.2, 1.0, 4.0, 1e6)]
    assert values == sorted(values, reverse=True)
    assert values[-1] == 0.0
    assert sample_information(worth, theta, 0.2).ess < sample_information(worth, theta, 4.0).ess


def test_the_threshold_is_where_the_sign_of_the_move_turns() -> None:
    worth, theta = two_plans(4000, -0.5, 1.0)
    low, high = sample_information(worth, theta, 0.2).threshold
    assert low == -np.inf and 0.0 < high < 0.4


def problem(make_surface: Make, seed: int = 4, channels: int = 3) -> Problem:
    surface = make_surface(seed, channels=channels, draws=400, periods=4)
    equal = dataclasses.replace(
        surface.response,
        steady=dataclasses.replace(surface.response.steady, weights=np.full(400, 1 / 400)),
    )
    total = round(float(held(surface).sum()), 2)
    from planning.surface import build_surface

    rules = [Limit(name="total", low=total, high=total)]
    rules += [
        Limit(name=c, low=0.5 * x, high=1.5 * x, channels=(c,))
        for c, x in zip(surface.response.channels, held(surface).sum(axis=(0, 1)), strict=True)
    ]
    return Problem(surface=build_surface(equal, surface.start, 4), rules=tuple(rules))


def candidate(channel: str, std_error: float = 50.0, cost: float = 100.0) -> Candidate:
    return Candidate(
        name=f"{channel} dark", channel=channel, kind="geo, go dark", weeks=6, spend_change=-500.0, reach=0.3,
        std_error=std_error, mde=2.8 * std_error, cost=cost,
    )  # fmt: skip


def test_plans_keep_the_limits_and_the_best_is_first(make_surface: Make) -> None:
    asked = problem(make_surface)
    plans = plans_to_choose_from(asked, 60)
    worth = plan_worth(asked, plans).draws
    assert (
        worth.shape == (400, 60)
        and worth.mean(axis=0).argmax() == pytest.approx(0, abs=0)
        or (worth.mean(axis=0)[0] >= worth.mean(axis=0).max() * (1 - 1e-5))
    )
    assert plans.sum(axis=(1, 2, 3)) == pytest.approx(np.full(60, plans[0].sum()), rel=1e-4)
    want = evaluate(asked.surface, plans[3]).plan.sum(axis=(0, 2))
    assert np.allclose(worth[:, 3], want)


def test_a_reading_is_the_steady_change_at_the_reach_of_the_test(make_surface: Make) -> None:
    asked = problem(make_surface)
    steady, test = asked.surface.response.steady, candidate("c1")
    got = readings(asked.surface, [test])[:, 0]
    now = steady.current_spend.copy()
    less = now.copy()
    less[:, 1] -= now[:, 1] / now[:, 1].sum() * 500.0 / 6 / 0.3
    less = np.maximum(less, 0.0)
    want = 0.3 * 6 * (steady.evaluate(less) - steady.evaluate(now))[:, :, 1].sum(axis=1)
    assert np.allclose(got, want) and (got < 0).all()


def test_tests_are_ranked_and_what_changes_the_plan_is_said(make_surface: Make) -> None:
    asked = problem(make_surface)
    lifts = readings(asked.surface, [candidate(c) for c in ("c0", "c1", "c2")])
    tests = [candidate(f"c{k}", std_error=0.3 * float(lifts[:, k].std())) for k in range(3)]
    blunt = dataclasses.replace(candidate("c0", std_error=1e6), name="blunt")
    found = plan_worth(asked, plans_to_choose_from(asked, 80))
    table = rank(asked, found, [*tests, blunt], money_per_unit=2.0)
    assert table["net_value"].is_monotonic_decreasing
    assert table["net_value"].tolist() == pytest.approx((2 * table["value"] - table["cost"]).tolist())
    row = table.set_index("test").loc["blunt"]
    assert row["value"] == 0 and row["decision"].startswith("no outcome of this test changes the plan")
    assert (table["value"] <= table["perfect_information"] + 1e-9).all()
    best = table.loc[table["value"].idxmax()]
    assert best["value"] > 0 and "EUR" in best["decision"] and "expected lift" in best["decision"]
    assert rank(asked, found, tests)["net_value"].isna().all()


def test_bad_candidates_are_refused(make_surface: Make) -> None:
    with pytest.raises(ContractError, match="std_error"):
        candidate("c0", std_error=0.0)
    with pytest.raises(ContractError, match="reach in"):
        dataclasses.replace(candidate("c0"), reach=0.0)
    with pytest.raises(ContractError, match="tests channel 'tv'; the model knows c0, c1, c2"):
        readings(problem(make_surface).surface, [candidate("tv")])
    with pytest.raises(ContractError, match="at least 40 draws"):
        sample_information(np.zeros((10, 2)), np.zeros(10), 1.0)


def test_following_the_truth_costs_nothing_and_a_source_that_errs_costs_money(make_surface: Make) -> None:
    asked = problem(make_surface)
    found = plan_worth(asked, plans_to_choose_from(asked, 80))
    assert np.allclose(found.by_channel.sum(axis=0), found.draws.mean(axis=0))
    sources = {"right": dict.fromkeys(("c0", "c1", "c2"), 1.0), "alike": dict.fromkeys(("c0", "c1", "c2"), 3.0),
               "wrong": {"c0": 8.0, "c2": 0.1}}  # fmt: skip
    table = decision_loss(asked, found, sources).set_index(["source", "channel"])
    assert len(table) == 4 + 4 + 3
    assert (table.loc["right", "mean"] == 0).all() and table.loc[("alike", ""), "mean"] == pytest.approx(0, abs=1e-9)
    assert table.loc[("wrong", ""), "mean"] > 0 and table.loc[("wrong", ""), "probability"] > 0.5
    assert table.loc[("wrong", "c0"), "spend_change"] > 0 > table.loc[("wrong", "c2"), "spend_change"]
    assert table.loc[("wrong", ""), "mean"] >= 0 and (table["mean"] >= -1e-9).all()
    with pytest.raises(ContractError, match="source 'x' speaks of 'tv'"):
        decision_loss(asked, found, {"x": {"tv": 1.0}})
    with pytest.raises(ContractError, match="factor of -1.0 for 'c0'"):
        decision_loss(asked, found, {"x": {"c0": -1.0}})
