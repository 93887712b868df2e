"""The bridge from plan to actual: its steps, and that they sum."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import date
from typing import Any

import numpy as np
import pytest

from contracts.errors import ContractError
from planning.bridge import STEPS, Actuals, bridge, score_recommendation
from planning.surface import Assumptions, build_surface, evaluate, held

Make = Callable[..., Any]
START = date(2025, 1, 13)


def media(surface: Any, spend: np.ndarray) -> np.ndarray:
    found = evaluate(surface, spend)
    return (found.plan + found.in_flight)[:, :, : surface.periods].sum(axis=0)


def as_planned(surface: Any, plan: np.ndarray, baseline: np.ndarray) -> Actuals:
    """Everything comes as the plan's mean said."""
    return Actuals(
        spend=plan,
        kpi=surface.weights @ (media(surface, plan) + baseline),
        noise_variance=np.full(surface.periods, 9.0),
        baseline=baseline,
        residual_variance=np.full(surface.periods, 3.0),
    )


def steps_of(found: Any) -> dict[str, float]:
    return dict(zip(found.steps["step"], found.steps["mean"], strict=True))


def test_what_comes_as_planned_has_an_empty_bridge(make_surface: Make) -> None:
    surface, plan = make_surface(1, channels=2), held(make_surface(1, channels=2))
    baseline = np.full((40, 6), 50.0)
    found = bridge(surface, surface, plan, as_planned(surface, plan, baseline), baseline)
    assert tuple(found.steps["step"]) == STEPS
    assert np.abs(found.steps["mean"]).max() < 1e-6 * found.actual
    assert found.plan["mean"] == pytest.approx(found.actual)


@pytest.mark.parametrize("draws", [40, 60])
@pytest.mark.parametrize("unit", ["kpi", "revenue"])
def test_the_steps_sum_to_the_difference(make_surface: Make, unit: str, draws: int) -> None:
    rng = np.random.default_rng(2)
    surface, plan = make_surface(1, channels=3), held(make_surface(1, channels=3))
    came = Assumptions(cost_index=1.2, price=17.0, demand=1.1)
    refitted = make_surface(1, channels=3, draws=draws, assumptions=came)
    baseline = rng.normal(50, 3, (40, 6))
    actuals = Actuals(
        spend=plan * rng.uniform(0.5, 1.8, plan.shape),
        kpi=rng.normal(200, 30, 6),
        noise_variance=rng.uniform(1, 9, 6),
        baseline=rng.normal(55, 3, (draws, 6)),
        residual_variance=rng.uniform(1, 9, 6),
    )
    found = bridge(surface, refitted, plan, actuals, baseline, unit=unit)
    assert found.steps["mean"].sum() == pytest.approx(found.actual - found.plan["mean"], rel=1e-9)
    price = 17.0 if unit == "revenue" else 1.0
    assert found.actual == pytest.approx(price * actuals.kpi.sum())
    assert found.steps["p10"].le(found.steps["p90"]).all()


def test_each_change_lands_in_its_own_step(make_surface: Make) -> None:
    surface, plan = make_surface(1, channels=2), held(make_surface(1, channels=2))
    baseline = np.full((40, 6), 50.0)
    same = as_planned(surface, plan, baseline)
    more = dataclasses.replace(same, spend=1.3 * plan)
    steps = steps_of(bridge(surface, surface, plan, more, baseline))
    gained = float((surface.weights @ (media(surface, 1.3 * plan) - media(surface, plan))).sum())
    assert steps["spend"] == pytest.approx(gained) and steps["mix"] == pytest.approx(0.0, abs=1e-9)
    # The KPI did not move with the spend: what the model expected of it is unexplained.
    assert steps["noise"] + steps["residual"] == pytest.approx(-gained)
    assert steps["noise"] == pytest.approx(3 * steps["residual"])  # variances 9 and 3
    moved = plan.copy()
    moved[:, :, 0] += 0.5 * plan[:, :, 1]
    moved[:, :, 1] *= 0.5
    steps = steps_of(bridge(surface, surface, plan, dataclasses.replace(same, spend=moved), baseline))
    assert steps["spend"] == pytest.approx(0.0, abs=1e-6) and abs(steps["mix"]) > 0.01
    dear = make_surface(1, channels=2, assumptions=Assumptions(cost_index=1.5))
    steps = steps_of(bridge(surface, dear, plan, same, baseline))
    assert steps["price and currency"] < 0 and steps["effectiveness"] == pytest.approx(0.0, abs=1e-6)
    demand = dataclasses.replace(same, baseline=baseline + 4.0, kpi=same.kpi + 4.0)
    steps = steps_of(bridge(surface, surface, plan, demand, baseline))
    assert steps["baseline"] == pytest.approx(24.0) and steps["residual"] == pytest.approx(0.0, abs=1e-6)
    stronger = dataclasses.replace(surface, amplitude=2 * surface.amplitude, in_flight=2 * surface.in_flight)
    steps = steps_of(bridge(surface, stronger, plan, same, baseline))
    assert steps["effectiveness"] == pytest.approx(float((surface.weights @ media(surface, plan)).sum()))


def test_a_recommendation_is_scored() -> None:
    stated = {"p10": 5.0, "p50": 10.0, "p90": 15.0, "sd": 4.0}
    weights = np.full(100, 0.01)
    good = score_recommendation(stated, np.linspace(8, 13, 100), weights)
    assert good["inside"] and good["right"] and good["probability"] == pytest.approx(1.0)
    bad = score_recommendation(stated, np.linspace(-20, 4, 100), weights)
    assert not bad["inside"] and not bad["right"] and bad["off_by"] == pytest.approx(-4.5, abs=0.1)


def test_a_bridge_between_what_differs_is_refused(make_surface: Make) -> None:
    surface, plan = make_surface(1, channels=2), held(make_surface(1, channels=2))
    baseline = np.full((40, 6), 50.0)
    actuals = as_planned(surface, plan, baseline)
    later = build_surface(surface.response, date(2025, 1, 20), 6)
    with pytest.raises(ContractError, match="6 from 2025-01-13 and 6 from 2025-01-20"):
        bridge(surface, later, plan, actuals, baseline)
    dollars = build_surface(surface.response, START, 6, Assumptions(currency="USD", rate=0.9))
    with pytest.raises(ContractError, match="the plan is in EUR and the actuals are in USD"):
        bridge(surface, dollars, plan, actuals, baseline)
    with pytest.raises(ContractError, match="must hold the same channels"):
        bridge(surface, make_surface(1, channels=3), plan, actuals, baseline)
    with pytest.raises(ContractError, match="actual KPI holds values that are not finite"):
        bridge(surface, surface, plan, dataclasses.replace(actuals, kpi=np.full(6, np.nan)), baseline)
    with pytest.raises(ContractError, match=r"planned baseline must have shape \(40, 6\)"):
        bridge(surface, surface, plan, actuals, baseline[:, :3])
    with pytest.raises(ContractError, match="'kpi' or 'revenue'; got 'margin'"):
        bridge(surface, surface, plan, actuals, baseline, unit="margin")
