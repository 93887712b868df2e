"""Random-effects pool: exact cases, calibration on its own model, staleness, prediction, refusals."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest

from contracts.errors import ContractError
from contracts.evidence import LiftEstimate, LiftLibrary
from lift.geo import t_columns
from lift.pool import LEVELS, PoolTest, pool, returns, season_of, typical_scale

TODAY = date(2025, 6, 30)


def _test(name: str, value: float, channel: str = "tv", family: str = "video", days: int = 0) -> PoolTest:
    return PoolTest(name, channel, family, "Q2", TODAY - timedelta(days=days), value, (f"experiment:{name}",))


def test_one_sharp_test_is_believed_and_one_vague_test_is_not() -> None:
    sharp = pool([_test("a", 2.0)], np.array([[1e-4]]), scale=1.0, as_of=TODAY).shrunken()[0]
    assert sharp["mean"] == pytest.approx(2.0, abs=0.01)
    vague = pool([_test("a", 2.0)], np.array([[1e6]]), scale=1.0, as_of=TODAY).effect("tv", "video")
    assert vague["mean"] == pytest.approx(0.0, abs=0.1)
    assert vague["sd"] == pytest.approx(np.sqrt(4 + 1 + 1), rel=0.05)  # mu, family and channel by their priors


def test_a_new_channel_knows_less_than_its_family_and_more_than_nothing() -> None:
    rng = np.random.default_rng(0)
    tests = [_test(f"t{i}", 2 + 0.1 * rng.standard_normal(), channel=f"c{i % 3}") for i in range(9)]
    found = pool(tests, 0.01 * np.eye(9), scale=1.0, as_of=TODAY)
    known, sibling, stranger = (found.effect(*x) for x in (("c0", "video"), ("new", "video"), ("new", "print")))
    assert known["sd"] < sibling["sd"] < stranger["sd"]
    assert sibling["mean"] == pytest.approx(2.0, abs=0.3)
    assert set(found.spread()) == set(LEVELS)
    assert found.effective_points > 100


def test_a_stale_test_says_less_about_today() -> None:
    fresh, old = (pool([_test("a", 2.0, days=d)], np.array([[0.04]]), scale=1.0, as_of=TODAY) for d in (0, 1500))
    assert old.effect("tv", "video")["sd"] > fresh.effect("tv", "video")["sd"]
    assert old.effect("tv", "video")["mean"] < fresh.effect("tv", "video")["mean"]
    assert (old.stale(), fresh.stale()) == (("a",), ())
    assert old.shrunken()[0]["sd"] == pytest.approx(fresh.shrunken()[0]["sd"], rel=0.1)


def test_correlated_errors_count_once() -> None:
    tests = [_test("a", 1.0), _test("b", 1.0)]
    alone = pool(tests[:1], np.array([[1.0]]), scale=1.0, as_of=TODAY).effect("tv", "video")["sd"]
    copied = pool(tests, np.array([[1.0, 0.999], [0.999, 1.0]]), scale=1.0, as_of=TODAY).effect("tv", "video")["sd"]
    apart = pool(tests, np.eye(2), scale=1.0, as_of=TODAY).effect("tv", "video")["sd"]
    assert apart < copied < alone * 1.02


@pytest.mark.slow
def test_the_next_test_is_covered_on_worlds_of_the_model() -> None:
    """200 worlds drawn from the prior: 80 % intervals leave 68-90 % with chance 1e-4 (binomial, sd 2.8 points)."""
    rng, hits = np.random.default_rng(5), 0
    for _ in range(200):
        sd = np.abs(rng.standard_normal(5))
        mu, family = 2 * rng.standard_normal(), sd[0] * rng.standard_normal(2)
        channel, season = sd[1] * rng.standard_normal(4), sd[2] * rng.standard_normal(4)
        tests = []
        for i in range(8):
            c = i % 4
            true = mu + family[c // 2] + channel[c] + season[i % 4] + sd[3] * rng.standard_normal()
            value = true + 0.3 * rng.standard_normal()
            tests.append(replace(_test(f"t{i}", value, f"c{c}", f"f{c // 2}"), season=f"Q{i % 4 + 1}"))
        found = pool(tests, 0.09 * np.eye(8), scale=1.0, as_of=TODAY, points=512)
        p = found.next_test("c0", "f0", "Q2", 0.3)
        new = mu + family[0] + channel[0] + season[1] + sd[3] * rng.standard_normal() + 0.3 * rng.standard_normal()
        hits += p.estimate["p10"] <= new <= p.estimate["p90"]
    assert 0.68 <= hits / 200 <= 0.90


def test_prediction_of_the_next_test() -> None:
    found = pool([_test(f"t{i}", 2.0) for i in range(6)], 0.01 * np.eye(6), scale=1.0, as_of=TODAY)
    precise, vague = found.next_test("tv", "video", "Q2", 0.2), found.next_test("tv", "video", "Q2", 5.0)
    assert precise.chance_significant > 0.9 > 0.3 > vague.chance_significant > 0.05
    assert precise.estimate["sd"] > precise.true_effect["sd"]
    assert precise.estimate["mean"] == pytest.approx(2.0, abs=0.2)


def _estimate(name: str, mean: float, spend: float, spend_se: float = 0.0, arm: str = "") -> LiftEstimate:
    return LiftEstimate(
        experiment=name, estimator="gls_control", kind="geo", channel="tv", arm=arm, metric="conversions",
        start=date(2025, 4, 1), end=date(2025, 5, 1), treated=("a",), mean=mean, std_error=10.0, dof=12.0,
        **t_columns(mean, 10.0, 12.0), noise_variance_share=0.1, spend_delta=spend, spend_delta_se=spend_se,
        evidence_ids=(f"experiment:{name}",),
    )  # fmt: skip


def test_returns_carry_the_joint_covariance_and_name_what_is_left_out() -> None:
    estimates = (_estimate("a", 100, 50), _estimate("dark", -80, -40, 4.0), _estimate("none", 9, float("nan")),
                 _estimate("weak", 9, 10, 6.0))  # fmt: skip
    covariance = np.full((4, 4), 30.0) + 70 * np.eye(4)
    tests, errors, left = returns(LiftLibrary(estimates, covariance), "conversions", {"tv": "video"})
    assert [(t.name, t.value, t.family, t.season) for t in tests] == [
        ("a", 2, "video", "Q2"),
        ("dark", 2, "video", "Q2"),
    ]
    assert errors[0, 0] == pytest.approx(100 / 2500 * 12 / 10)
    assert errors[0, 1] == pytest.approx(30 / (50 * -40) * 12 / 10)
    assert errors[1, 1] == pytest.approx(100 / 1600 * 12 / 10 + (2 * 4 / 40) ** 2)
    assert "give spend_delta" in left["none"] and "within 2 standard errors" in left["weak"]
    assert pool(tests, errors, scale=typical_scale(tests), as_of=TODAY).evidence_ids == (
        "experiment:a",
        "experiment:dark",
    )


def test_refusals_and_seasons() -> None:
    one = np.eye(1)
    with pytest.raises(ContractError, match="needs at least one test"):
        pool([], np.zeros((0, 0)), scale=1.0, as_of=TODAY)
    with pytest.raises(ContractError, match="'a' would be pooled twice"):
        pool([_test("a", 1), _test("a", 2)], np.eye(2), scale=1.0, as_of=TODAY)
    with pytest.raises(ContractError, match="after as_of"):
        pool([_test("a", 1, days=-3)], one, scale=1.0, as_of=TODAY)
    with pytest.raises(ContractError, match="scale must be a finite number > 0"):
        pool([_test("a", 1)], one, scale=0.0, as_of=TODAY)
    with pytest.raises(ContractError, match="negative eigenvalue"):
        pool([_test("a", 1), _test("b", 1)], np.array([[1.0, 2.0], [2.0, 1.0]]), scale=1.0, as_of=TODAY)
    with pytest.raises(ContractError, match="state one"):
        typical_scale([_test("a", 0.0)])
    assert season_of(date(2024, 12, 20), date(2025, 2, 1)) == "Q1"
