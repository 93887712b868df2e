"""Parity: the change test keeps its false-alarm rate and finds a real move; the other findings state a distance."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from functools import cache

import numpy as np
import pandas as pd
import pytest
from journey_worlds import exact_table, release_of, simulate, with_noise
from scipy import stats

from attribution.credit import MODELS, Estimate, credit_rows, estimates
from attribution.parity import ALPHA, agreement, change, costs, restatement, totals, versions

CHANNELS = ("search", "social", "video", "mail")
NOISE = {"flow": 12.0, "position": 8.0, "position_value": 300.0, "sets": 10.0}
BLOCKS = ("quarter-2024-01-01", "quarter-2024-04-01")
QUARTER = (date(2024, 1, 1), date(2024, 3, 28))


@cache
def stable() -> pd.DataFrame:
    """Exact tables of 6,000 journeys."""
    return exact_table(simulate(np.random.default_rng(0), CHANNELS, 6000), CHANNELS)


def worked(seed: int, first=None, second=None, models=("linear",), draws: int = 200):  # type: ignore[no-untyped-def]
    """Estimates of two quarters; the same exact tables under fresh noise unless others are given."""
    same, rng = stable(), np.random.default_rng([seed, 9])
    tables = [with_noise(t if t is not None else same, NOISE, rng) for t in (first, second)]
    releases = [release_of(t, block=b) for t, b in zip(tables, BLOCKS, strict=True)]
    return estimates(releases, CHANNELS, draws=draws, seed=seed, models=models)


def test_a_stable_world_raises_few_alarms() -> None:
    """150 stable worlds, two families each; the limit is passed by a rate of 1 % with probability 1e-5."""
    limit = int(stats.binom.isf(1e-5, 150, ALPHA))
    single, all_ = 0, 0
    for seed in range(150):
        found = [f for f in change(worked(seed)) if f.metric == "conversions"]
        single += any(f.status == "warn" for f in found if f.channel)
        all_ += any(f.status == "warn" for f in found if not f.channel)
    assert single <= limit and all_ <= limit, (single, all_)


def test_a_real_move_is_found() -> None:
    journeys = simulate(np.random.default_rng(0), CHANNELS, 6000)
    moved = [replace(j, path=tuple("mail" if c == "video" else c for c in j.path)) for j in journeys]
    found = change(worked(1, second=exact_table(moved, CHANNELS), models=("linear", "markov")))
    bad = {(f.subject, f.channel) for f in found if f.status == "warn" and f.metric == "conversions"}
    for model in ("linear", "markov"):
        assert {(model, "video"), (model, "mail"), (model, "")} <= bad
    video = next(f for f in found if (f.subject, f.channel, f.metric) == ("linear", "video", "conversions"))
    assert video.value < -0.05 and video.z < -3 and "the share of video went from" in video.text


def test_one_quarter_or_another_set_of_channels_is_not_compared() -> None:
    one, two = (e for e in worked(1) if e.metric == "conversions")
    assert change([one]) == []
    assert change([one, replace(two, channels=("other", *CHANNELS[1:]))]) == []


def test_shares_of_an_exact_release_move_or_do_not() -> None:
    table = exact_table(simulate(np.random.default_rng(0), CHANNELS, 3000), CHANNELS)
    releases = [release_of(table, block=b) for b in BLOCKS]
    found = change(estimates(releases, CHANNELS, models=("linear",)))
    assert {f.status for f in found} == {"pass"} and {f.value for f in found} == {0.0}


def _estimate(model: str, shares: list[float]) -> Estimate:
    release = release_of(exact_table([], CHANNELS))
    mean = np.array([*shares, 0.0])
    return Estimate(release, model, "conversions", CHANNELS, mean, np.zeros((5, 5)), [{}] * 5)


def test_agreement_is_total_variation() -> None:
    (found,) = agreement([_estimate("a", [50, 30, 20, 0]), _estimate("b", [30, 30, 20, 20])])
    assert found.value == pytest.approx(0.2) and found.status == "warn" and {found.subject, found.other} == {"a", "b"}
    (same,) = agreement([_estimate("a", [5, 3, 2, 0]), _estimate("b", [50, 30, 20, 0])])
    assert same.value == pytest.approx(0.0) and same.status == "pass"


def test_versions_compare_what_both_have() -> None:
    now = credit_rows(worked(1, models=MODELS))
    assert {f.status for f in versions(now, now)} == {"pass"}
    before = [replace(c, mean=c.mean * (1.5 if c.channel == "search" else 1.0)) for c in now if c.model == "linear"]
    found = versions(now, before)
    assert {f.subject for f in found} == {"linear"} and {f.status for f in found} == {"warn"}
    assert all("moved since the version before" in f.text for f in found)


def test_totals_against_the_books() -> None:
    key = ("revenue", QUARTER)
    (fine,) = totals({key: (1000.0, 20.0)}, {key: 1005.0}, "credited totals", "billing")
    (off,) = totals({key: (1000.0, 20.0)}, {key: 1200.0}, "credited totals", "billing")
    (near,) = totals({key: (1000.0, 100.0)}, {key: 1200.0}, "credited totals", "billing")
    assert [f.status for f in (fine, off, near)] == ["pass", "warn", "pass"]
    assert off.value == pytest.approx(-1 / 6) and off.z == pytest.approx(-10.0)
    assert totals({key: (1.0, 1.0)}, {}, "a", "b") == []


def test_costs_and_restatements() -> None:
    from types import SimpleNamespace  # noqa: PLC0415

    found = costs({"search": 110.0, "social": 100.0, "tv": 5.0}, {"search": 100.0, "social": 100.0}, QUARTER)
    assert [(f.channel, f.status) for f in found] == [("search", "warn"), ("social", "pass")]
    pair = [SimpleNamespace(as_of=date(2024, 4, d), value=v) for d, v in ((2, 100.0), (9, 103.0))]
    moved = restatement("meta", "conversions", QUARTER, *pair)
    assert moved.status == "warn" and moved.value == pytest.approx(0.03)
    assert moved.text == "meta restated its conversions by +3.0% between 2024-04-02 and 2024-04-09"
