"""The numbers of a test's page: what they are, what would change the conclusion, and refusals."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lift_worlds import geo_test, panel, release_of, trial_table, weekly

from contracts.errors import ContractError
from contracts.evidence import Experiment, LiftEstimate
from contracts.readout import LiftReadout
from lift.geo import DEFAULT, geo_fit, t_columns
from lift.protocol import GeoResult, GeoTest
from lift.readout import changes, geo_readout, placebos_in_time, user_readout
from lift.rows import select_rows
from lift.trials import read_trial

MAIL = Experiment("mail", "user", "email", date(2024, 1, 1), date(2024, 1, 14), (), None)


def _geo() -> LiftReadout:
    kpi, variance = weekly(np.random.default_rng(1))
    kpi[:2, 40:] *= 1.3
    p = panel(kpi, variance)
    e = geo_test(p, 2, 40, 47)
    return geo_readout(select_rows(e, p), geo_fit(e, p), p.weeks, "USD")


def _people(extra: float = 0.04) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    arm = rng.choice(["control", "a"], size=8000)
    conversions = rng.binomial(1, 0.08 + extra * (arm == "a"))
    return pd.DataFrame({"arm": arm, "visits": rng.poisson(0.6, 8000), "conversions": conversions,
                         "revenue": conversions * 20.0})  # fmt: skip


def _user(split: dict[str, float] | None = None, people: pd.DataFrame | None = None) -> LiftReadout:
    release = release_of(trial_table(_people() if people is None else people, {"n": 20.0, "conversions": 15.0}))
    reading = read_trial(MAIL, release, spend_delta=500.0)
    return user_readout(MAIL, release, reading, "USD", kpi="conversions", split=split)


def test_geo_page_carries_history_path_and_the_same_sum() -> None:
    r = _geo()
    assert (len(r.history), len(r.path), r.arms) == (40, 8, ())
    assert sum(p.effect for p in r.path) == pytest.approx(r.headline.mean, rel=1e-6)
    assert r.relative == pytest.approx(r.headline.mean / sum(p.expected for p in r.path))
    assert all(math.isnan(p.effect) for p in r.history)
    assert {c.name for c in r.checks} == {"fit before the test", "placebo windows", "released noise"}
    assert 5 <= len(r.placebos) <= 24 and max(map(abs, r.placebos)) < abs(r.statistic)
    assert any("carries the largest part" in c for c in r.changes)


def test_placebo_windows_lie_before_the_test_and_read_only_what_came_before() -> None:
    kpi, variance = weekly(np.random.default_rng(1))
    p = panel(kpi, variance)
    e = geo_test(p, 2, 40, 47)
    seen: list[tuple[int, int, int]] = []

    @dataclass(frozen=True)
    class Spy:
        name: str = "spy"

        def __call__(self, test: GeoTest, /) -> GeoResult:
            seen.append((int(test.pre[-1]), int(test.window[0]), int(test.window[-1])))
            return DEFAULT(test)

    found = placebos_in_time(select_rows(e, p), Spy())
    assert len(found) == len(seen) > 5
    assert all(before == first - 1 and last - first == 7 and last < 40 for before, first, last in seen)
    short = replace(select_rows(e, p), pre=np.arange(10))
    assert placebos_in_time(short) == ()


def test_user_page_leads_with_the_kpi_and_tests_the_split() -> None:
    r = _user()
    assert r.headline.metric == "conversions" and len(r.estimates) == 3
    assert [a.name for a in r.arms] == ["a", "control"]
    assert (r.checks[0].name, r.checks[0].verdict) == ("sample ratio", "warn")
    assert _user({"a": 1.0, "control": 1.0}).checks[0].verdict == "pass"
    bad = _user({"a": 2.0, "control": 1.0}).checks[0]
    assert bad.verdict == "fail" and "find out why before any figure here is used" in bad.text
    with pytest.raises(ContractError, match="planned split names b, control; the release holds a, control"):
        _user({"b": 1.0, "control": 1.0})


def _estimate(mean: float, se: float, share: float) -> LiftEstimate:
    columns: dict[str, Any] = t_columns(mean, se, 30.0)
    return replace(_user().headline, mean=mean, std_error=se, noise_variance_share=share, **columns)


def test_what_would_change_the_conclusion() -> None:
    clear = changes(_estimate(100.0, 20.0, 0.2))
    assert "stays clear of zero by 66.1" in clear[0] and "66% of the estimate" in clear[0]
    assert "would not change the conclusion" in clear[1]
    blurred = changes(_estimate(30.0, 20.0, 0.8))
    assert "an estimate of 33.9 conversions or more would leave it out" in blurred[0]
    assert "1.28 times smaller" in blurred[0]
    assert "that would change the conclusion" in blurred[1]
    assert "No released noise" in changes(_estimate(30.0, 20.0, 0.0))[1]
    assert "All of the variance is released noise" in changes(_estimate(30.0, 20.0, 1.0))[1]
    assert changes(_estimate(0.0, 20.0, 0.1))[0].startswith("The estimate is zero")


def test_a_total_far_below_zero_is_no_total_of_people() -> None:
    table = trial_table(_people(), {"visits": 5.0})
    table.loc[(table["component"] == "visits") & (table["arm"] == "a"), "value"] = -300.0
    with pytest.raises(ContractError, match="total of -300 for 'visits', more than 8 sd of its noise below zero"):
        read_trial(MAIL, release_of(table), spend_delta=None)


def test_an_arm_of_nobody_is_refused() -> None:
    table = trial_table(_people(), {"n": 20.0})
    for c in table["component"].unique():
        table.loc[(table["component"] == c) & (table["arm"] == "control"), "value"] = 0.0
    with pytest.raises(ContractError, match="released size of 0, under the 100 that its noise allows"):
        read_trial(MAIL, release_of(table), spend_delta=None)


def test_a_page_needs_an_estimate() -> None:
    with pytest.raises(ContractError, match="needs at least one estimate"):
        replace(_user(), estimates=())
