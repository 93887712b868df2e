"""What the pool refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import pytest

from contracts.errors import ContractError
from contracts.evidence import LiftLibrary
from reconcile.inputs import Covariate, LiftScope
from reconcile.priors import PoolPriors

Make = Callable[..., Any]


def test_a_lift_already_in_the_model_is_refused(make_world: Make) -> None:
    inputs = make_world(1).inputs
    seen = replace(inputs.mmm, evidence_ids=("kpi", "exp0"))
    with pytest.raises(ContractError, match="'exp0' would be counted twice"):
        replace(inputs, mmm=seen)
    assert not replace(inputs, mmm=seen, lifts_pooled=False).lifts_pooled


def test_one_test_under_two_estimators_is_refused(make_world: Make) -> None:
    inputs = make_world(1).inputs
    test = inputs.lifts.estimates[0]
    twice = LiftLibrary((test, replace(test, estimator="scm")), np.eye(2) * test.std_error**2)
    with pytest.raises(ContractError, match="'test0' is in the lift library twice"):
        replace(inputs, lifts=twice)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kpi": np.zeros(3)}, "its sum > 0"),
        ({"kpi": np.ones(2)}, r"kpi must have shape \(3,\)"),
        ({"channels": ("c0",), "spend": None}, "names channel 'c1', which is not pooled"),
        ({"families": {}}, "channel 'c0' has no family"),
        ({"scopes": (LiftScope(),)}, "scopes must be one per lift"),
        ({"covariates": (Covariate("x", np.zeros((1, 1))),)}, "covariate 'x' must have shape"),
        (
            {"mmm": None, "lifts": LiftLibrary((), np.zeros((0, 0))), "credits": (), "scopes": ()},
            "nothing to reconcile",
        ),
    ],
)
def test_misfits_are_named(make_world: Make, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        replace(make_world(1).inputs, **change)


def test_periods_must_follow_each_other(make_world: Make) -> None:
    inputs = make_world(1).inputs
    day = date(2024, 1, 1)
    with pytest.raises(ContractError, match="periods must follow each other"):
        replace(inputs, periods=((day, date(2024, 6, 30)), (date(2024, 6, 30), date(2024, 9, 1)), inputs.periods[2]))


def test_too_few_draws_and_channels_without_effect_are_refused(make_world: Make) -> None:
    mmm = make_world(1).inputs.mmm
    with pytest.raises(ContractError, match="at least 100 draws; got 50"):
        replace(mmm, totals=mmm.totals[:50], lift_draws=mmm.lift_draws[:50])
    with pytest.raises(ContractError, match="channel 'c0' must be finite and > 0"):
        replace(mmm, totals=mmm.totals * np.array([0.0, 1, 1, 1]))
    with pytest.raises(ContractError, match="profile and profile_sd together"):
        replace(mmm, profile=None)


def test_priors_check_themselves_and_explain_themselves() -> None:
    with pytest.raises(ContractError, match="lift_bias_sd must be"):
        PoolPriors(lift_bias_sd=0.0)
    with pytest.raises(ContractError, match="dof must be > 2"):
        PoolPriors(dof=1.5)
    rows = {r["name"]: r for r in PoolPriors(walk_sd=0.2).table()}
    assert rows["walk_sd"]["changed"] is True and rows["dof"]["changed"] is False
    assert all(r["meaning"] for r in rows.values())
