"""Each reason fires once and stays silent once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest

from contracts.evidence import LiftLibrary
from reconcile.inputs import Covariate, LiftScope, PoolInputs
from reconcile.reasons import reasons

Make = Callable[..., Any]


def kinds(inputs: PoolInputs, channel: str = "c0") -> list[str]:
    """Reasons of one channel."""
    return [r.kind for r in reasons(inputs) if r.channel == channel]


def with_test(inputs: PoolInputs, **change: Any) -> PoolInputs:
    """The same with its first test changed."""
    estimates = (replace(inputs.lifts.estimates[0], **change), *inputs.lifts.estimates[1:])
    return replace(inputs, lifts=LiftLibrary(estimates, inputs.lifts.covariance))


@pytest.fixture
def plain(make_world: Make) -> PoolInputs:
    """A world in which nothing is odd: even spend, independent channels, a test that went dark."""
    inputs = make_world(1).inputs
    rng = np.random.default_rng(0)
    mmm = replace(inputs.mmm, totals=np.exp(6 + 0.2 * rng.standard_normal(inputs.mmm.totals.shape)))
    return replace(inputs, spend=np.full_like(inputs.spend, 1000.0), mmm=mmm)


def test_nothing_odd_gives_no_reason(plain: PoolInputs) -> None:
    assert reasons(plain) == ()


def test_window(plain: PoolInputs) -> None:
    start = plain.lifts.estimates[0].start
    assert kinds(with_test(plain, end=start + timedelta(days=6))) == ["window"]
    assert kinds(with_test(plain, start=date(2023, 11, 1), end=date(2024, 1, 9))) == ["window"]
    assert kinds(with_test(plain, end=start + timedelta(days=13))) == []


def test_estimand(plain: PoolInputs) -> None:
    assert kinds(replace(plain, scopes=(LiftScope(0.3, 0.8), LiftScope(0.3, 2.0)))) == ["estimand"]
    assert kinds(replace(plain, scopes=(LiftScope(0.3, 0.4), LiftScope(0.3, 2.0)))) == []


def test_range(plain: PoolInputs) -> None:
    spend = plain.spend.copy()
    spend[0, -1] = 1400.0
    assert kinds(replace(plain, spend=spend)) == ["range"]
    spend[0, -1] = 1200.0
    assert kinds(replace(plain, spend=spend)) == []
    assert kinds(replace(plain, spend=spend), "c2") == [], "a channel without a test has no tested range"


def test_incident(plain: PoolInputs) -> None:
    part = np.zeros((4, 3))
    assert kinds(replace(plain, covariates=(Covariate("incident tags", part),))) == []
    part[0, 1] = 0.4
    hit = replace(plain, covariates=(Covariate("incident tags", part),))
    assert kinds(hit) == ["incident"] and kinds(hit, "c1") == []


def test_consent(plain: PoolInputs) -> None:
    fell = np.tile([0.05, 0.05, -0.10], (4, 1))
    assert kinds(replace(plain, covariates=(Covariate("consent", fell),))) == ["consent"]
    assert kinds(replace(plain, covariates=(Covariate("consent", -fell),))) == [], "a rise explains nothing"
    assert kinds(replace(plain, covariates=(Covariate("consent", 0.2 * fell),))) == []


def test_stale(plain: PoolInputs) -> None:
    later = tuple((a + timedelta(days=364), b + timedelta(days=364)) for a, b in plain.periods)
    moved = replace(plain, periods=later, credits=())
    assert "stale" in kinds(moved)
    assert "stale" not in kinds(plain)


def test_collinear(plain: PoolInputs) -> None:
    totals = plain.mmm.totals.copy()
    totals[:, 1] = totals[:, 0] ** -1.0 * np.exp(12.0)
    found = [r for r in reasons(replace(plain, mmm=replace(plain.mmm, totals=totals))) if r.channel == "c0"]
    assert [r.kind for r in found] == ["collinear"] and "c1 (correlation -1.00)" in found[0].text
    assert kinds(plain) == []
