"""Spend change of a test and the spend that would have been."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lift_worlds import geo_test, panel

from contracts.errors import ContractError
from lift.spend import spend_delta

RATIO = np.array([2.0, 1.0, 3.0, 4.0, 5.0])


def _spend(factor: float = 1.0) -> np.ndarray:
    """Five geos in fixed proportion, a ramp over 20 weeks; the first two times `factor` from week 15 on."""
    money = RATIO[:, None] * (10 + np.arange(20.0))[None, :]
    money[:2, 15:] *= factor
    return money


def _kpi() -> np.ndarray:
    return np.random.default_rng(0).normal(100, 3, (5, 20))


@pytest.mark.parametrize("factor", [0.0, 0.4, 1.8])
def test_default_is_the_change_against_controls_in_proportion(factor: float) -> None:
    p = panel(_kpi(), spend=_spend(factor))
    found = spend_delta(geo_test(p, 2, 15, 19), p)
    expected = _spend()[:2, 15:]
    np.testing.assert_allclose(found.counterfactual, expected)
    assert found.value == pytest.approx((factor - 1) * expected.sum())
    assert found.se == 0.0


def test_spend_out_of_proportion_has_a_standard_error() -> None:
    money = _spend(0.0) * np.random.default_rng(1).gamma(20, 1 / 20, (5, 20))
    p = panel(_kpi(), spend=money)
    assert spend_delta(geo_test(p, 2, 15, 19), p).se > 0


@settings(max_examples=40, deadline=None)
@given(st.floats(0.0, 2.0), st.floats(-1.0, 0.99))
def test_declared_change_is_met_exactly_and_no_spend_is_negative(factor: float, share: float) -> None:
    p = panel(_kpi(), spend=_spend(factor))
    actual = _spend(factor)[:2, 15:].sum()
    declared = share * (actual if share > 0 else 400.0)
    found = spend_delta(geo_test(p, 2, 15, 19, delta=declared), p)
    assert found.value == declared
    assert actual - found.counterfactual.sum() == pytest.approx(declared, abs=1e-6)
    assert (found.counterfactual >= -1e-9).all()


def test_user_test_takes_the_whole_spend_of_its_window() -> None:
    p = panel(_kpi(), spend=_spend())
    user = replace(geo_test(p, 2, 15, 19), kind="user", treated=())
    assert spend_delta(user, p).value == pytest.approx(_spend()[:, 15:].sum())
    assert spend_delta(user, p).counterfactual.shape == (0, 5)
    assert spend_delta(replace(user, spend_delta=7.0), p).value == 7.0


def test_geos_of_other_tests_are_no_controls() -> None:
    money = _spend(0.0)
    money[4, 10:] *= 9.0
    p = panel(_kpi(), spend=money)
    other = geo_test(p, ("g04",), 10, 12, name="other")
    found = spend_delta(geo_test(p, 2, 15, 19), p, exclude=(other,))
    np.testing.assert_allclose(found.counterfactual, _spend()[:2, 15:])


def test_refusals_say_what_to_do() -> None:
    p = panel(_kpi(), spend=_spend())
    with pytest.raises(ContractError, match="tests channel 'radio', which the panel does not hold; it holds tv"):
        spend_delta(replace(geo_test(p, 2, 15, 19), channel="radio"), p)
    with pytest.raises(ContractError, match="spend_delta is 1e\\+09, more than the"):
        spend_delta(geo_test(p, 2, 15, 19, delta=1e9), p)
    silent = _spend()
    silent[2:] = 0.0
    q = panel(_kpi(), spend=silent)
    with pytest.raises(ContractError, match="control geos spent nothing on its channel before the test"):
        spend_delta(geo_test(q, 2, 15, 19), q)
    with pytest.raises(ContractError, match="no control geo to compare spend with"):
        spend_delta(geo_test(p, 5, 15, 19), p)
