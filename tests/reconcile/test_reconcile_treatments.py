"""Four treatments of a lift that the model has seen, against closed forms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from contracts.errors import ContractError
from contracts.evidence import LiftLibrary
from reconcile.inputs import MmmEvidence
from reconcile.treatments import treat

Make = Callable[..., Any]
SECANT = 0.1


def evidence(mean: float, sd: float, ids: tuple[str, ...] = ("kpi", "exp0")) -> MmmEvidence:
    """One channel, log total ~ N(mean, sd), a test of a tenth of it."""
    rng = np.random.default_rng(0)
    totals = np.exp(mean + sd * rng.standard_normal((20_000, 1)))
    return MmmEvidence(("c0",), totals, SECANT * totals * np.exp(1e-3 * rng.standard_normal(totals.shape)), ids)


def library(make_lift: Make, mean: float, se: float) -> LiftLibrary:
    """One test of c0."""
    return LiftLibrary((replace(make_lift(0, "c0", mean, se), dof=np.inf),), np.array([[se**2]]))


def calibrated(prior: tuple[float, float], effect: float, se: float) -> tuple[float, float]:
    """Mean and sd of the log total after a test whose effect is small in its own error: the linear normal update."""
    at = SECANT * np.exp(prior[0])
    precision = prior[1] ** -2 + (at / se) ** 2
    return prior[0] + (effect - at) * at / se**2 / precision, precision**-0.5


def test_pooling_a_model_that_has_seen_the_test_is_refused(make_lift: Make) -> None:
    lifts = library(make_lift, 40.0, 10.0)
    with pytest.raises(ContractError, match="'exp0' is already in the model.*'cavity'"):
        treat(evidence(6.0, 0.1), lifts, "pooled", 1)
    found, pooled = treat(evidence(6.0, 0.1, ("kpi",)), lifts, "pooled", 1)
    assert pooled and found.evidence_ids == ("kpi",)


def test_check_leaves_the_tests_out_of_the_likelihood(make_lift: Make) -> None:
    mmm = evidence(6.0, 0.1)
    assert treat(mmm, library(make_lift, 40.0, 10.0), "check", 1) == (mmm, False)


def test_a_cavity_takes_the_test_out_again(make_lift: Make) -> None:
    prior, effect, se = (6.0, 0.10), 44.0, 5.0
    after = calibrated(prior, effect, se)
    found, pooled = treat(evidence(*after), library(make_lift, effect, se), "cavity", 1)
    logs = np.log(found.totals[:, 0])
    assert pooled and found.evidence_ids == ("kpi",)
    assert after[1] < 0.095, "the test told something"
    assert logs.std() == pytest.approx(prior[1], rel=0.06)
    assert logs.mean() == pytest.approx(prior[0], abs=0.015)


def test_a_cavity_that_is_no_distribution_is_refused(make_lift: Make) -> None:
    with pytest.raises(ContractError, match="cannot be taken out of the calibrated model again"):
        treat(evidence(6.0, 0.10), library(make_lift, 40.0, 1.0), "cavity", 1)


def test_leaving_a_test_out_by_weighting_finds_the_posterior_without_it(make_lift: Make) -> None:
    prior, effect, se = (6.0, 0.05), 44.0, 5.0
    after = calibrated(prior, effect, se)
    found, pooled = treat(evidence(*after), library(make_lift, effect, se), "leave_one_out", 1)
    assert not pooled and found.unseen_draws is not None
    logs = np.log(found.unseen_draws[:, 0] / SECANT)
    assert logs.mean() == pytest.approx(prior[0], abs=0.01)
    assert logs.std() == pytest.approx(prior[1], rel=0.1)


def test_a_test_that_decides_the_model_cannot_be_weighted_away(make_lift: Make) -> None:
    with pytest.raises(ContractError, match="test 'test0' decides the calibrated model too much"):
        treat(evidence(6.0, 0.10), library(make_lift, 40.3, 3.0), "leave_one_out", 1)
