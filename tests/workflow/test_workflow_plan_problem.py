"""[planning] as the planning room reads it: limits, assumptions, and sentences for what cannot be."""

from __future__ import annotations

from datetime import date, timedelta
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from test_workflow_cli_scenario import response

from app.draws import surface_of
from contracts.errors import ConfigError, ContractError
from planning.optimise import optimise
from planning.surface import held
from workflow.config import parse
from workflow.config_planning import Planning, changed_planning
from workflow.job import Job
from workflow.plan_forecast import forecast_rows
from workflow.plan_problem import problem_for, surface_for, with_new_channels
from workflow.step_publish import _period

BASE: dict[str, Any] = {"project": {"id": "abcd"}, "inputs": {"events": {"path": "events.csv"}}}


def planning(**keys: Any) -> Planning:
    return Planning.model_validate({"horizon_weeks": 4} | keys)


def test_the_period_and_its_assumptions_reach_the_surface() -> None:
    surface = surface_for(response(), planning(cost_index=[1.0, 1.0, 2.0, 2.0], demand=1.5, price=3.0, margin=0.5))
    assert (surface.start, surface.periods) == (date(2026, 1, 12), 4)
    assert surface.per_spend[3] == pytest.approx(surface.per_spend[0] / 2)
    assert (surface.demand == 1.5).all() and surface.price is not None and (surface.price == 3.0).all()
    assert surface_for(response(), planning(start=date(2026, 2, 2))).start == date(2026, 2, 2)


def test_every_key_becomes_a_limit_that_holds() -> None:
    asked = planning(
        budget=900, decision="channel_period", weekly_change=0.1, max_change=0.5,
        channels={"tv": {"least": 350, "most": 380}}, groups={"all": {"channels": ["tv", "web"], "most": 1000}},
    )  # fmt: skip
    problem = problem_for(surface_for(response(), asked), asked)
    spend = optimise(problem).spend.sum(axis=1)  # (T, C)
    assert round(float(spend.sum()), 2) == 3600.0
    assert 4 * 350 - 0.01 <= spend[:, 0].sum() <= 4 * 380 + 0.01
    assert (np.abs(spend[1:] / spend[:-1] - 1) <= 0.101).all()
    assert optimise(problem_for(problem.surface, planning(channels={"tv": {"locked": True}}))).spend[
        :, :, 0
    ].sum() == pytest.approx(held(problem.surface)[:, :, 0].sum(), abs=0.02)


def test_a_free_budget_stops_at_the_hurdle() -> None:
    asked = planning(budget_range=[100, 5000], hurdle=0.05, max_change=10.0)
    surface = surface_for(response(), asked)
    low = optimise(problem_for(surface, asked)).spend.sum()
    high = optimise(problem_for(surface, planning(budget_range=[100, 5000], hurdle=0.02, max_change=10.0))).spend.sum()
    assert 400 < low < high < 20_000


def test_a_new_channel_is_planned_from_its_stated_prior() -> None:
    new = {"return_low": 0.2, "return_high": 0.6, "reference_spend": 50, "half_at": 200, "source": "sister market"}
    asked = planning(new_channels={"radio": new})
    whole = with_new_channels(response(), asked)
    assert whole.channels == ("tv", "web", "radio")
    best = optimise(problem_for(surface_for(whole, asked), asked))
    assert best.spend[:, :, 2].sum() > 0 and "radio" in best.extrapolated


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"channels": {"radio": {"locked": True}}}, r"\[planning.channels\] names 'radio'; the model knows tv, web"),
        ({"groups": {"g": {"channels": ["radio"]}}}, r"\[planning.groups.g\] names 'radio'"),
        ({"start": date(2025, 6, 2)}, "the plan starts on 2025-06-02, before the history ends; start on 2026-01-12"),
        ({"budget": 100, "channels": {"tv": {"least": 200}}}, "'budget'.*'limits of tv'.*smallest relaxation"),
        ({"unit": "revenue"}, "revenue needs a value per conversions"),
    ],
)
def test_what_cannot_be_is_a_sentence(keys: dict[str, Any], sentence: str) -> None:
    asked = planning(**keys)
    with pytest.raises(ContractError, match=sentence):
        optimise(problem_for(surface_for(response(), asked), asked))


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"budget": 1, "budget_range": [1, 2]}, "budget and budget_range are both given"),
        ({"objective": "probability"}, "needs the target"),
        ({"unit": "margin"}, "needs margin"),
        ({"price": [1.0, 2.0]}, r"price needs one number or one a week \(13\); got 2"),
        ({"channels": {"tv": {"least": 5, "most": 2}}}, "least 5 lies over most 2"),
        ({"channels": {"tv": {"locked": True, "most": 2}}}, "a locked channel keeps today's spend"),
        ({"objectiv": "mean"}, r"objectiv is not .*; did you mean objective\?"),
    ],
)
def test_a_bad_key_is_named(keys: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parse(BASE | {"planning": keys})


def test_a_question_may_change_the_configuration_and_is_checked_again() -> None:
    changed = changed_planning(planning(budget_range=[1, 2]), budget=5.0, locked=["tv"])
    assert changed.budget == 5.0 and changed.budget_range is None and changed.channels["tv"].locked
    with pytest.raises(ConfigError, match=r"\[planning\] max_change is -1.0; it must be greater than 0"):
        changed_planning(planning(), max_change=-1.0)


def test_a_forecast_is_demand_and_media_together() -> None:
    surface = surface_for(response(), planning())
    demand = 100.0 + np.random.default_rng(0).standard_normal((surface.response.draws, 4))
    table = forecast_rows(surface, {"current": held(surface)}, demand)
    assert len(table) == 8
    assert (table["demand"] + table["carried_in"] + table["plan"]).tolist() == pytest.approx(table["mean"].tolist())
    weeks, dated = (table[table["scope"] == s] for s in ("week", "to_date"))
    assert weeks["mean"].sum() == pytest.approx(dated["mean"].iloc[-1])
    assert weeks["carried_in"].iloc[0] > weeks["carried_in"].iloc[-1] >= 0
    assert weeks["period_start"].tolist() == [date(2026, 1, 12) + timedelta(days=7 * w) for w in range(4)]


@pytest.mark.parametrize(
    ("start", "want"),
    [(None, date(2026, 1, 12)), (date(2026, 2, 2), date(2026, 2, 2)), (date(2025, 1, 6), date(2026, 1, 12)),
     (date(2026, 2, 3), date(2026, 1, 12))],
)  # fmt: skip
def test_the_explorer_always_gets_a_period_that_it_can_open(start: date | None, want: date) -> None:
    job = SimpleNamespace(config=SimpleNamespace(planning=planning(start=start)))
    period = _period(cast("Job", job), response())
    assert period is not None and surface_of(response(), period.to_json()).start == want
