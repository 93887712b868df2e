"""What the pool refuses, and how draws become margins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtri

from contracts.errors import ContractError
from contracts.evidence import LiftLibrary
from reconcile.inputs import PoolPriors, _heard, _margin, prepare

Make = Callable[..., Any]


def test_a_lift_already_in_the_model_is_refused(make_world: Make) -> None:
    inputs = make_world(1).inputs
    with pytest.raises(ContractError, match="'exp0' would be counted twice"):
        replace(inputs, mmm=replace(inputs.mmm, evidence_ids=("kpi", "exp0")))


def test_one_test_under_two_estimators_is_refused(make_world: Make) -> None:
    inputs = make_world(1, tested=1).inputs
    test = inputs.lifts.estimates[0]
    twice = LiftLibrary((test, replace(test, estimator="scm")), np.eye(2) * test.std_error**2)
    with pytest.raises(ContractError, match="'test0' is in the lift library twice"):
        replace(inputs, lifts=twice)


def test_a_lift_that_nothing_ties_to_its_channel_is_refused(make_world: Make) -> None:
    inputs = replace(make_world(1, tested=1).inputs, mmm=None)
    with pytest.raises(ContractError, match="lift 'test0' cannot be tied to the total of channel 'c0'"):
        prepare(inputs, PoolPriors())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kpi_total": 0.0}, "kpi_total must be"),
        ({"channels": ("c0",)}, "names channel 'c1', which is not pooled"),
        ({"families": {}}, "channel 'c0' has no family"),
        ({"period_end": date(2023, 1, 1)}, "before it starts"),
    ],
)
def test_misfits_are_named(make_world: Make, change: dict[str, Any], message: str) -> None:
    inputs = make_world(1).inputs
    with pytest.raises(ContractError, match=message):
        replace(inputs, **change)


def test_credits_of_another_period_are_refused(make_world: Make) -> None:
    inputs = make_world(1).inputs
    with pytest.raises(ContractError, match="pass totals of the same period"):
        prepare(replace(inputs, period_start=date(2023, 1, 1)), PoolPriors())
    half = tuple(c for c in inputs.credits if c.period_start == date(2024, 1, 1))
    with pytest.raises(ContractError, match="pass totals of the same period"):
        prepare(replace(inputs, credits=half), PoolPriors())
    with pytest.raises(ContractError, match="must follow each other"):
        prepare(replace(inputs, credits=inputs.credits + half), PoolPriors())


def test_quarters_are_summed_with_independent_noise(make_world: Make) -> None:
    inputs = make_world(1, models=1, channels=2, tested=0).inputs
    data = prepare(inputs, PoolPriors())
    assert data.credit[0] == pytest.approx(sum(c.mean for c in inputs.credits if c.channel == "c0"))
    assert data.credit_sd[0] == pytest.approx(15.0)


def test_a_model_that_predicts_no_lift_is_refused(make_world: Make) -> None:
    inputs = make_world(1, tested=1).inputs
    zero = replace(inputs.mmm, lift_draws=np.zeros_like(inputs.mmm.lift_draws))
    with pytest.raises(ContractError, match="prediction of lift 'test0'"):
        prepare(replace(inputs, mmm=zero), PoolPriors())


def test_priors_check_themselves() -> None:
    with pytest.raises(ContractError, match="lift_bias_sd must be"):
        PoolPriors(lift_bias_sd=0.0)
    with pytest.raises(ContractError, match="dof must be > 2"):
        PoolPriors(dof=1.5)


@given(st.floats(-0.9, 0.9), st.floats(0.05, 2.0), st.floats(-5, 5))
def test_a_g_distribution_is_found_again(g: float, scale: float, centre: float) -> None:
    z = ndtri((np.arange(20001) + 0.5) / 20001)
    bent = z if abs(g) < 1e-6 else np.expm1(g * z) / g
    found = _margin(centre + scale * bent)
    assert found[0] == pytest.approx(centre, abs=0.05 * scale)
    assert found[1] == pytest.approx(scale, rel=0.05)
    assert found[2] == pytest.approx(g, abs=0.05)


def test_a_channel_that_no_credit_model_can_see_is_not_evidence() -> None:
    """Channel 0 is seen by one of two models and keeps both sds; channel 1 may be zero in both and is silenced."""
    channel, credit, sd = np.array([0, 0, 1, 1]), np.array([50.0, 1.0, 3.0, -4.0]), np.full(4, 10.0)
    heard = _heard(channel, credit, sd, kpi_total=1000.0)
    assert heard[:2].tolist() == [10.0, 10.0]
    assert (heard[2:] > 1000 * np.abs(credit[2:]).max()).all()


def test_a_silenced_channel_keeps_its_credit_for_the_reader(make_world: Make) -> None:
    inputs = make_world(1).inputs
    target = inputs.credits[0].channel
    empty = tuple(
        replace(c, mean=0.0, p05=-1.0, p10=-1.0, p50=0.0, p90=1.0, p95=1.0) if c.channel == target else c
        for c in inputs.credits
    )
    data = prepare(replace(inputs, credits=empty), PoolPriors())
    rows = data.credit_channel == inputs.channels.index(target)
    assert (data.credit[rows] == 0).all()
    assert not data.printed[rows].any()
    assert (data.credit_sd[rows] > 100 * inputs.kpi_total).all()
    assert (data.credit_sd[~rows] < inputs.kpi_total).all()
