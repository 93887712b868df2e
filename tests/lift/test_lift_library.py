"""The library of tests, and iROAS."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import pandas as pd
import pytest
from lift_worlds import geo_test, panel, release_of, trial_table, weekly
from scipy import stats

from contracts.errors import ContractError
from contracts.evidence import Experiment, LiftEstimate
from lift.geo import geo_lift
from lift.iroas import iroas
from lift.library import _nearest_psd, build_library

MAIL = Experiment("mail", "user", "tv", date(2024, 1, 1), date(2024, 1, 14), (), None)


def _trial_release() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    arm = rng.choice(["control", "a", "b"], 3000)
    conversions = rng.binomial(1, 0.1, 3000)
    people = {"arm": arm, "visits": rng.poisson(1, 3000), "conversions": conversions, "revenue": conversions * 9.0}
    return trial_table(pd.DataFrame(people), {"n": 5.0, "conversions": 5.0})


def _money() -> np.ndarray:
    """Eight or twelve weeks dark for g00-g02 and g05, otherwise 100 a week everywhere."""
    money = np.full((12, 48), 100.0)
    money[:3, 40:] = 0.0
    money[5, 42:] = 0.0
    return money


def test_library_holds_every_estimate_and_a_valid_covariance() -> None:
    p = panel(*weekly(np.random.default_rng(1)), spend=_money())
    dark, late = geo_test(p, 3, 40, 47), geo_test(p, ("g05",), 42, 47, name="late")
    library = build_library(p, (dark, late, MAIL), {"mail": release_of(_trial_release())})
    keys = [(e.experiment, e.arm, e.metric) for e in library.estimates]
    assert keys[:2] == [("dark", "", "conversions"), ("late", "", "conversions")]
    assert len(keys) == len(set(keys)) == 8
    assert library.estimates[0].spend_delta == pytest.approx(-2400.0)
    assert library.estimates[0].mean == geo_lift(dark, p, exclude=(late,)).mean
    assert np.linalg.eigvalsh(library.covariance)[0] > -1e-9 * library.covariance.max()
    assert library.covariance[0, 1] > 0  # both read the same controls in the same weeks
    assert (library.covariance[:2, 2:] == 0).all()
    arms = [i for i, e in enumerate(library.estimates) if e.metric == "conversions" and e.kind == "user"]
    assert library.covariance[arms[0], arms[1]] > 0


@pytest.mark.slow
def test_shared_controls_make_geo_tests_covary_as_said() -> None:
    """200 null worlds: the correlation of two tests that share donors is near the mean of what the library says."""
    pairs, said = [], []
    for seed in range(200):
        kpi, variance = weekly(np.random.default_rng([seed, 5]), geos=5, phi=0.0, pre=30, post=6)
        p = panel(kpi, variance, spend=np.full(kpi.shape, 50.0))
        tests = [geo_test(p, (g,), 30, 35, name=g) for g in ("g00", "g01")]
        library = build_library(p, tests, {})
        z = [e.mean / e.std_error for e in library.estimates]
        pairs.append(z)
        sd = np.sqrt(np.diag(library.covariance))
        said.append(library.covariance[0, 1] / sd[0] / sd[1])
    seen = stats.spearmanr(np.array(pairs)).statistic
    assert abs(seen - float(np.mean(said))) < 0.25  # 3.5 standard errors of a correlation from 200 pairs
    assert np.mean(said) > 0.1


def test_empty_library_and_refusals() -> None:
    p = panel(*weekly(np.random.default_rng(1)))
    assert build_library(p, (), {}).covariance.shape == (0, 0)
    with pytest.raises(ContractError, match="no trials release for experiment 'mail'; run `plumb release` first"):
        build_library(p, (MAIL,), {})
    with pytest.raises(ContractError, match="experiment names must be unique"):
        build_library(p, (MAIL, MAIL), {})
    with pytest.raises(ContractError, match="experiment 'post' has no arm 'control' .* which holds no arm at all"):
        build_library(p, (replace(MAIL, name="post"),), {"post": release_of(_trial_release())})


def test_shrinking_gives_a_valid_covariance_and_keeps_the_diagonal() -> None:
    bad = np.array([[1.0, 0.9, -0.9], [0.9, 4.0, 1.9], [-0.9, 1.9, 1.0]])
    good = _nearest_psd(bad)
    np.testing.assert_allclose(np.diag(good), np.diag(bad))
    assert np.linalg.eigvalsh(good)[0] >= 0


def _estimate(mean: float, spend: float, spend_se: float = 0.0) -> LiftEstimate:
    p = panel(*weekly(np.random.default_rng(1), pre=12, post=3))
    e = geo_lift(geo_test(p, 3, 12, 14), p)
    return replace(e, mean=mean, std_error=10.0, dof=np.inf, spend_delta=spend, spend_delta_se=spend_se)


def test_iroas_of_known_spend_is_the_interval_divided() -> None:
    found = iroas(_estimate(-100.0, -50.0))
    z = stats.norm.ppf(0.95)
    assert found["iroas"] == pytest.approx(2.0)
    assert found["iroas_p05"] == pytest.approx((100 - z * 10) / 50)
    assert found["iroas_p95"] == pytest.approx((100 + z * 10) / 50)


def test_iroas_is_nan_without_a_spend_change() -> None:
    for spend in (0.0, float("nan")):
        assert all(np.isnan(v) for v in iroas(_estimate(5.0, spend)).values())
    unclear = iroas(_estimate(5.0, 10.0, spend_se=9.0))
    assert unclear["iroas"] == 0.5
    assert np.isnan(unclear["iroas_p05"])


def test_iroas_with_uncertain_spend_covers() -> None:
    """Fieller's set holds the true ratio in 90 % of 400 draws; outside 85-95 % has probability 1e-3 (seed fixed)."""
    rng = np.random.default_rng(2)
    base = _estimate(0.0, 1.0)
    held = 0
    for _ in range(400):
        e = replace(
            base, mean=200 + 10 * rng.standard_normal(), spend_delta=50 + 8 * rng.standard_normal(), spend_delta_se=8.0
        )
        found = iroas(e)
        held += found["iroas_p05"] <= 4.0 <= found["iroas_p95"]
    assert 0.85 <= held / 400 <= 0.95
