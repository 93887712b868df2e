"""Spend change of a test and the spend that would have been."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lift_worlds import geo_test, panel

from contracts.errors import ContractError
from lift.spend import counterfactual_spend, spend_delta

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


@pytest.mark.parametrize("declared", [False, True])
def test_channels_that_changed_at_once_count_with_their_sum_and_keep_their_own_path(declared: bool) -> None:
    """tv goes dark and radio doubles; a declared change of half as much halves both paths."""
    p = panel(_kpi(), spend=_spend())
    money = np.stack([_spend(0.0), 10 * _spend(2.0)], axis=2)
    p = replace(p, channels=("tv", "radio"), spend=money, media=money)
    base = _spend()[:2, 15:]
    test = replace(geo_test(p, 2, 15, 19), channel="tv;radio")
    assert spend_delta(test, p).value == pytest.approx(9 * base.sum())
    if not declared:
        np.testing.assert_allclose(counterfactual_spend(test, p), np.stack([base, 10 * base]))
        return
    half = counterfactual_spend(replace(test, spend_delta=4.5 * base.sum()), p)
    np.testing.assert_allclose(half, np.stack([0.5 * base, 15 * base]))
    with pytest.raises(ContractError, match="for several channels together, but the spend table shows a change of"):
        counterfactual_spend(replace(test, spend_delta=-base.sum()), p)
    with pytest.raises(ContractError, match="tests channel 'print', which the panel does not hold"):
        counterfactual_spend(replace(test, channel="tv;print"), p)


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
