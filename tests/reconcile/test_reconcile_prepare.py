"""Evidence as arrays: margins, tests in time, credits near and far from zero, channels that nothing tracks."""

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
from reconcile.inputs import LiftScope
from reconcile.prepare import _margin, prepare
from reconcile.priors import PoolPriors

Make = Callable[..., Any]


@given(st.floats(-0.9, 0.9), st.floats(0.05, 2.0), st.floats(-5, 5))
def test_a_g_distribution_is_found_again(g: float, scale: float, centre: float) -> None:
    z = ndtri((np.arange(20001) + 0.5) / 20001)
    bent = z if abs(g) < 1e-6 else np.expm1(g * z) / g
    found = _margin(centre + scale * bent)
    assert found[0] == pytest.approx(centre, abs=0.05 * scale)
    assert found[1] == pytest.approx(scale, rel=0.05)
    assert found[2] == pytest.approx(g, abs=0.05)


def test_a_test_speaks_of_its_own_period(make_world: Make) -> None:
    arrays = prepare(make_world(1).inputs, PoolPriors()).arrays
    np.testing.assert_allclose(arrays.lift_when, [[0, 1, 0], [0, 1, 0]])


def test_old_tests_and_thin_tests_count_less(make_world: Make) -> None:
    inputs, priors = make_world(1).inputs, PoolPriors()
    test = inputs.lifts.estimates[0]
    old = replace(test, start=date(2021, 11, 1), end=date(2022, 1, 1))
    lifts = LiftLibrary((old, inputs.lifts.estimates[1]), inputs.lifts.covariance)
    aged = prepare(replace(inputs, lifts=lifts), priors).arrays
    now = prepare(inputs, priors).arrays
    gap = (date(2024, 1, 1) - old.end).days / 365.25
    assert aged.lift_extra[0] ** 2 - now.lift_extra[0] ** 2 == pytest.approx(priors.drift_sd**2 * gap)
    assert aged.lift_when[0].tolist() == [1, 0, 0]
    whole = prepare(replace(inputs, scopes=(LiftScope(1.0), LiftScope(0.0))), priors).arrays.lift_extra
    assert whole[0] == pytest.approx(priors.lift_bias_sd)
    assert whole[1] == pytest.approx(np.hypot(priors.lift_bias_sd, priors.lift_scope_sd))


def test_a_lift_that_nothing_ties_to_its_channel_is_refused(make_world: Make) -> None:
    with pytest.raises(ContractError, match="lift 'test0' cannot be tied to the total of channel 'c0'"):
        prepare(replace(make_world(1).inputs, mmm=None, spend=None), PoolPriors())


def test_a_model_that_predicts_no_lift_is_refused(make_world: Make) -> None:
    inputs = make_world(1).inputs
    zero = replace(inputs.mmm, lift_draws=np.zeros_like(inputs.mmm.lift_draws))
    with pytest.raises(ContractError, match="prediction of lift 'test0'"):
        prepare(replace(inputs, mmm=zero), PoolPriors())


def test_credits_of_other_days_are_left_out_and_named(make_world: Make, make_credit: Make) -> None:
    inputs = make_world(1).inputs
    strange = replace(inputs.credits[0], period_start=date(2023, 1, 1), period_end=date(2023, 3, 31))
    found = prepare(replace(inputs, credits=(*inputs.credits, strange)), PoolPriors())
    assert found.left_out == ("credit of 2023-01-01 to 2023-03-31 covers no period of the pool",)
    with pytest.raises(ContractError, match="is given twice"):
        prepare(replace(inputs, credits=(*inputs.credits, inputs.credits[0])), PoolPriors())


def test_small_credits_are_read_on_their_own_scale(make_world: Make, make_credit: Make) -> None:
    inputs = make_world(1).inputs
    rest = tuple(
        c for c in inputs.credits if (c.model, c.channel, c.period_start) != ("m0", "c0", inputs.periods[0][0])
    )
    found = prepare(replace(inputs, credits=(*rest, make_credit("m0", "c0", 0, -3.0, 5.0))), PoolPriors())
    j = found.models.index("m0")
    assert (found.arrays.near[j, 0].tolist(), found.arrays.far[j, 0].tolist()) == ([0, 1, 1], [1, 0, 0])
    assert not found.printed[j, 0, 0] and found.recorded[j, 0, 0]


def test_a_channel_that_no_credit_model_can_see_is_no_evidence(make_world: Make, make_credit: Make) -> None:
    inputs = make_world(1).inputs
    rest = tuple(c for c in inputs.credits if c.channel != "c3")
    empty = tuple(make_credit(m, "c3", p, 2.0 * (-1) ** p, 5.0) for m in ("m0", "m1") for p in range(3))
    found = prepare(replace(inputs, credits=(*rest, *empty)), PoolPriors())
    assert found.tracked.tolist() == [[True, True, True, False]]
    assert not (found.arrays.near + found.arrays.far)[:, 3].any() and found.recorded[:, 3].all()


def test_a_period_without_spend_holds_no_credit_evidence(make_world: Make) -> None:
    inputs = make_world(1).inputs
    spend = inputs.spend.copy()
    spend[2, 1] = 0.0
    found = prepare(replace(inputs, spend=spend), PoolPriors())
    assert not (found.arrays.near + found.arrays.far)[:, 2, 1].any()
    assert found.arrays.profile_on[2].tolist() == [1, 0, 1]


def test_claims_are_a_source_of_their_own(make_world: Make, make_credit: Make) -> None:
    inputs = make_world(1).inputs
    claims = tuple(make_credit("platform_claimed", "c0", p, 900.0, 0.0) for p in range(3))
    found = prepare(
        replace(inputs, credits=(*inputs.credits, *claims), sources={"platform_claimed": "claims"}), PoolPriors()
    )
    assert found.sources == ("journeys", "claims")
    assert found.arrays.source.tolist() == [[1, 1, 0], [0, 0, 1]]
    assert found.arrays.lone.tolist() == [0, 1]
