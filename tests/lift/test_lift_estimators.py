"""Every geo estimator keeps the same promises: p and interval agree, the estimate lies inside, noise widens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from lift_worlds import recast_a1, weekly

from contracts.errors import ContractError
from lift.did import DifferenceInDifferences
from lift.donors import WeightedDonors
from lift.inference import blocks, by_placebos, jackknife_plus
from lift.protocol import GeoEstimator, GeoResult, GeoTest
from lift.registry import ESTIMATORS
from lift.weights import ridge_augmented, simplex_weights

FAST: list[GeoEstimator] = [
    ESTIMATORS["gls_control"], ESTIMATORS["did_cluster"], ESTIMATORS["tbr"], ESTIMATORS["tbr_iid"],
    ESTIMATORS["trimmed_pairs"], WeightedDonors("did"), WeightedDonors("synthetic_control"),
    WeightedDonors("augmented_sc", penalty=1e6), WeightedDonors("sdid"),
    WeightedDonors("synthetic_control", inference="jackknife+"),
    WeightedDonors("did", inference="space", level=0.8),
]  # fmt: skip


def world(seed: int, treated: int = 4, noise: float = 0.0) -> GeoTest:
    """40 + 6 weeks, 12 geos, the first `treated` treated, no effect."""
    kpi, _ = weekly(np.random.default_rng(seed), pre=40, post=6, noise=(noise, noise))
    return GeoTest(
        "law", kpi, np.full(kpi.shape, noise**2), np.arange(treated), np.arange(treated, 12), np.arange(40),
        np.arange(40, 46), 7.0,
    )  # fmt: skip


def lifted(test: GeoTest, per_cell: float) -> GeoTest:
    kpi = test.kpi.copy()
    kpi[np.ix_(test.treated, test.window)] += per_cell
    return replace(test, kpi=kpi)


def label(estimator: GeoEstimator) -> str:
    return f"{estimator.name}-{getattr(estimator, 'inference', 't')}"


@pytest.mark.parametrize("estimator", FAST, ids=label)
def test_the_interval_holds_the_estimate_and_agrees_with_p(estimator: GeoEstimator) -> None:
    for effect in (0.0, 15.0, 60.0):
        r = estimator(lifted(world(3), effect))
        assert r.lower < r.mean < r.upper
        assert (r.p_value <= 1 - r.level) == (not r.lower <= 0 <= r.upper)
        assert r.std_error > 0 and 0 < r.p_value <= 1


@pytest.mark.parametrize("estimator", FAST, ids=label)
def test_an_effect_moves_the_estimate_by_what_was_added(estimator: GeoEstimator) -> None:
    test = world(5)
    before, after = estimator(test), estimator(lifted(test, 40.0))
    trimming = estimator.name == "trimmed_pairs"
    assert after.mean - before.mean == pytest.approx(40.0 * 4 * 6, rel=1e-6 if not trimming else 1e-3)
    assert after.std_error == pytest.approx(before.std_error, rel=1e-6)


@pytest.mark.parametrize("estimator", [e for e in FAST if e.name not in ("did_cluster", "trimmed_pairs")], ids=label)
def test_released_noise_in_the_window_widens_the_answer(estimator: GeoEstimator) -> None:
    test = world(7, noise=10.0)
    louder = test.noise.copy()
    louder[:, 40:] += 300.0**2
    quiet, loud = estimator(test), estimator(replace(test, noise=louder))
    added = (loud.cell_weights[:, 40:] ** 2 * 300.0**2).sum()
    assert loud.upper - loud.lower > 1.5 * (quiet.upper - quiet.lower)
    assert loud.noise_variance_share > quiet.noise_variance_share
    assert loud.std_error**2 == pytest.approx(quiet.std_error**2 + added, rel=0.35)


@pytest.mark.parametrize("estimator", FAST, ids=label)
def test_units_pass_through(estimator: GeoEstimator) -> None:
    test = world(9, noise=5.0)
    if getattr(estimator, "penalty", None) is not None:
        estimator = replace(estimator, penalty=estimator.penalty * 1e-6)  # type: ignore[attr-defined, type-var]
        base = replace(estimator, penalty=estimator.penalty * 1e6)(test)  # type: ignore[attr-defined, type-var]
    else:
        base = estimator(test)
    small = estimator(replace(test, kpi=test.kpi / 1000, noise=test.noise / 1e6))
    assert small.mean == pytest.approx(base.mean / 1000, rel=1e-5)
    assert small.upper == pytest.approx(base.upper / 1000, rel=1e-4)
    assert small.p_value == pytest.approx(base.p_value, rel=1e-4)


@pytest.mark.parametrize("name", sorted(set(ESTIMATORS) - {"bayes_control"}))
def test_refusals_say_what_to_do(name: str) -> None:
    test, estimator = world(1), ESTIMATORS[name]
    with pytest.raises(ContractError, match="periods before"):
        estimator(replace(test, pre=np.arange(3)))
    flat = test.kpi.copy()
    flat[:4] = 7.0
    with pytest.raises(ContractError, match="same number"):
        estimator(replace(test, kpi=flat))
    gone = test.kpi.copy()
    gone[0, 41:] = np.nan
    with pytest.raises(ContractError, match="Load the missing rows"):
        estimator(replace(test, kpi=gone))
    with pytest.raises(ContractError, match="no control geo is left"):
        replace(test, donors=np.array([], dtype=int))


def test_too_few_placebos_is_a_sentence() -> None:
    with pytest.raises(ContractError, match="has 8 placebos, and an interval at level 0.95 needs at least 19"):
        WeightedDonors("synthetic_control", inference="space")(world(2))
    with pytest.raises(ContractError, match="placebos in time need 14 or more"):
        WeightedDonors("did")(replace(world(2), pre=np.arange(10)))


def test_cluster_robust_did_is_what_statsmodels_gives() -> None:
    test = world(11, treated=5)
    r = DifferenceInDifferences("cr1")(test)
    geos, periods = np.indices(test.kpi.shape)
    flag = (np.isin(geos, test.treated) & (periods >= 40)).ravel().astype(float)
    dummies = [np.eye(12)[geos.ravel()], np.eye(46)[periods.ravel()][:, 1:]]
    fit = sm.OLS(test.kpi.ravel(), np.column_stack([flag, *dummies])).fit(
        cov_type="cluster", cov_kwds={"groups": geos.ravel()}
    )
    assert r.mean == pytest.approx(fit.params[0] * 5 * 6, rel=1e-9)
    assert r.std_error == pytest.approx(fit.bse[0] * 5 * 6, rel=1e-6)


def test_permutation_p_counts_the_test_itself() -> None:
    r = by_placebos(10.0, 0.0, np.arange(1.0, 20.0) / 4, np.zeros(19), 4.0, 0.95, "x")
    assert r.p_value == pytest.approx(1 / 20)
    assert r.lower == pytest.approx(10 - 19 / 4)
    assert len(blocks(10, 4)) == 7


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(-3, 3))
def test_jackknife_plus_agrees_with_its_p_value(seed: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    totals, sums = shift + 0.2 * rng.standard_normal(40), rng.standard_normal(40)
    r = jackknife_plus(totals, np.zeros(40), sums, np.zeros(40), 0.95, "x")
    assert r.lower <= r.mean <= r.upper
    assert (r.p_value <= 0.05) == (not r.lower <= 0 <= r.upper)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 10))
def test_simplex_weights_are_a_minimum(seed: int, penalty: float) -> None:
    rng = np.random.default_rng(seed)
    target, donors = rng.standard_normal(12), rng.standard_normal((6, 12))

    def loss(w: np.ndarray) -> float:
        return float(((target - w @ donors) ** 2).sum() + penalty * (w**2).sum())

    w = simplex_weights(target, donors, penalty)
    assert w.min() >= 0 and w.sum() == pytest.approx(1)
    for other in [*np.eye(6), *rng.dirichlet(np.ones(6), 20)]:
        for share in (1e-3, 0.1):
            assert loss(w) <= loss((1 - share) * w + share * other) + 1e-9


def test_a_large_ridge_penalty_leaves_the_simplex_weights() -> None:
    test = world(4)
    y, x = test.kpi[:4, :40].sum(axis=0), test.kpi[4:, :40]
    plain, far = ridge_augmented(y, x, 4.0, 1e18).weights, ridge_augmented(y, x, 4.0, 1e2).weights
    centred = x - x.mean(axis=1, keepdims=True)
    assert plain == pytest.approx(4 * simplex_weights((y - y.mean()) / 4, centred), abs=1e-6)
    assert not np.allclose(plain, far)


def test_covariates_take_out_what_they_explain() -> None:
    test = world(13)
    promo = np.random.default_rng(0).standard_normal(46)
    kpi = test.kpi.copy()
    kpi[test.treated] *= 1 + 0.1 * promo
    plain: GeoResult = ESTIMATORS["gls_control"](replace(test, kpi=kpi))
    known: GeoResult = ESTIMATORS["gls_control"](replace(test, kpi=kpi, covariates=promo[None]))
    assert known.std_error < 0.7 * plain.std_error
    with pytest.raises(ContractError, match="never changes"):
        ESTIMATORS["gls_control"](replace(test, covariates=np.ones((1, 46))))


@pytest.mark.slow
def test_the_bayesian_predictive_carries_autocorrelation() -> None:
    """12 panels of world A1: the posterior sd of the sum is near that of the default, far above an iid one."""
    ratio, covered = [], 0
    for seed in range(12):
        kpi = recast_a1(np.random.default_rng([seed, 8]))
        test = GeoTest(
            "b", kpi, np.zeros_like(kpi), np.array([0]), np.arange(1, 21), np.arange(90), np.arange(90, 105), 1.0
        )
        b, d = ESTIMATORS["bayes_control"](test), ESTIMATORS["gls_control"](test)
        ratio.append(b.std_error / d.std_error)
        covered += b.lower <= 0 <= b.upper
    assert 0.75 < np.median(ratio) < 1.4
    assert covered >= 9  # at 95 % fewer than 9 of 12 has probability 2e-4
