"""Laws of the small parts: carry-over, curves, group draws, last touch, demand, sizes."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulate.credit import last_touch, plan_credit
from simulate.demand import ar1, make_demand, season
from simulate.files import geo_names, numbered
from simulate.media import carry_over, kernel, saturate
from simulate.params import CHANNELS, HISTORY, RANGES, ChannelDraw, draw_world
from simulate.people import draw_from_groups, geo_sizes, make_people
from simulate.touches import WEEK, times


def _channel(**changes: object) -> ChannelDraw:
    fixed: dict[str, object] = {
        "name": "search",
        "share": 0.05,
        "roi": 1.0,
        "adstock": "geometric",
        "retention": 0.5,
        "peak": 0.0,
        "curve": "hill",
        "half": 1.0,
        "slope": 1.0,
        "follow": 0.5,
    }
    return ChannelDraw(**(fixed | changes))  # type: ignore[arg-type]


def test_geometric_kernel_is_the_textbook_one() -> None:
    weights = kernel(_channel(retention=0.5))
    assert weights.sum() == pytest.approx(1)
    assert weights[1:] / weights[:-1] == pytest.approx(np.full(HISTORY, 0.5))


def test_delayed_kernel_peaks_where_it_says() -> None:
    weights = kernel(_channel(adstock="delayed", retention=0.6, peak=2.0))
    assert weights.sum() == pytest.approx(1)
    assert int(np.argmax(weights)) == 2


def test_carry_over_is_the_plain_sum() -> None:
    rng = np.random.default_rng(0)
    z, weights = rng.random((2, HISTORY + 6)), rng.random(HISTORY + 1)
    naive = [
        [sum(weights[lag] * z[g, HISTORY + t - lag] for lag in range(HISTORY + 1)) for t in range(6)] for g in (0, 1)
    ]
    assert carry_over(z, weights) == pytest.approx(np.array(naive))


@given(
    curve=st.sampled_from(["hill", "exponential", "power"]),
    half=st.floats(*RANGES["half"]),
    slope=st.floats(0.5, 1.8),
    x=st.lists(st.floats(0, 20), min_size=2, max_size=8),
)
def test_curves_start_at_nothing_and_never_fall(curve: str, half: float, slope: float, x: list[float]) -> None:
    draw = _channel(curve=curve, half=half, slope=slope)
    y = saturate(np.array([0.0, *sorted(x)]), draw)
    assert y[0] == 0
    assert (np.diff(y) >= 0).all()


def test_hill_is_half_at_half() -> None:
    assert saturate(np.array([1.7]), _channel(half=1.7, slope=1.4))[0] == pytest.approx(0.5)


@given(st.integers(4, 60), st.floats(*RANGES["geo_size_ratio"]), st.integers(0, 99))
def test_geo_sizes_sum_to_the_people(geos: int, ratio: float, seed: int) -> None:
    people = 50 * geos
    sizes = geo_sizes(np.random.default_rng(seed), people, geos, ratio)
    assert sizes.sum() == people and len(sizes) == geos
    assert sizes.min() >= 10


def test_group_draws_are_poisson_per_person() -> None:
    """Counts per person have mean and variance weight · rate, and never leave their group; 5 sd."""
    rng = np.random.default_rng(3)
    people = make_people(rng, draw_world(rng).scalars, people=500, geos=4)
    weight, rate = rng.gamma(1, 1, people.size), rng.random((4, 2, 3))
    rate[1, 0] = 0
    repeats = 400
    counts = np.zeros((repeats, people.size))
    for r in range(repeats):
        person, week = draw_from_groups(rng, people, weight, rate)
        assert week.min() >= 0 and week.max() <= 2
        counts[r] = np.bincount(person, minlength=people.size)
    mean = weight * rate.sum(axis=2)[people.geo, people.arm]
    silent = (people.geo == 1) & (people.arm == 0)
    assert (counts[:, silent] == 0).all()
    z = (counts.sum(axis=0) - repeats * mean)[~silent] / np.sqrt(repeats * mean[~silent] + 1e-12)
    assert np.abs(z[mean[~silent] > 0.05]).max() < 6
    assert abs(np.sum(z**2) - len(z)) < 6 * np.sqrt(2 * len(z)) + 5
    dispersion = counts[:, ~silent].var(axis=0).sum() / mean[~silent].sum()
    assert dispersion == pytest.approx(1, abs=0.06)


def test_people_are_in_order_of_group_and_consent_follows_intent() -> None:
    rng = np.random.default_rng(4)
    scalars = draw_world(rng).scalars
    people = make_people(rng, scalars, people=20_000, geos=7)
    group = 2 * people.geo + people.arm
    assert (np.diff(group) >= 0).all()
    assert np.array_equal(np.bincount(group, minlength=14), people.per_group.ravel())
    assert people.per_group.sum(axis=0).tolist() == [10_000, 10_000]
    assert people.consent.mean() == pytest.approx(scalars["consent"], abs=1e-3)
    assert people.intent[people.consent].mean() > people.intent[~people.consent].mean()
    assert people.exposure.mean(axis=1) == pytest.approx(1)
    assert people.susceptibility.mean(axis=1) == pytest.approx(1)
    assert sorted(people.user_number) == list(range(20_000))


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30), st.integers(-1, 3)), min_size=1, max_size=25))
def test_last_touch_is_the_naive_search(rows: list[tuple[int, int, int]]) -> None:
    person, ts, channel = (np.array(c) for c in zip(*rows, strict=True))
    converts = channel == -1
    found = last_touch(person, ts, channel, converts, lookback=10)
    naive = []
    for i in np.lexsort((ts[converts], person[converts])):
        p, t = person[converts][i], ts[converts][i]
        earlier = (person == p) & (ts <= t) & (ts >= t - 10) & ~converts
        latest = ts[earlier].max() if earlier.any() else None
        naive.append(set(channel[earlier & (ts == latest)]) if earlier.any() else {-1})
    assert all(f in options for f, options in zip(found, naive, strict=True))


@given(st.integers(0, 99))
def test_drawn_parameters_keep_their_ranges(seed: int) -> None:
    rng = np.random.default_rng(seed)
    draw = draw_world(rng)
    assert [c.name for c in draw.channels] == list(CHANNELS)
    for name, value in draw.scalars.items():
        low, high = RANGES[name]
        assert low <= value <= high, name
    assert sum(c.share for c in draw.channels) <= RANGES["share_sum"][1] + 1e-12
    for channel in draw.channels:
        assert 0.014 <= channel.share <= RANGES["share"][1]
        assert RANGES["roi"][0] <= channel.roi <= RANGES["roi"][1]
        assert 0 <= channel.retention < 1
    assert all(2.3 <= k <= 6.0 for k in draw.credit_targets)
    people = make_people(rng, draw.scalars, people=500, geos=4)
    plan = plan_credit(draw, people)
    assert 0 < plan.addressable <= 0.9
    assert plan.background.sum() == pytest.approx(1)
    for probabilities in (plan.direct, *plan.intercept):
        assert (probabilities >= 0).all() and probabilities.sum() < 1


def test_families_vary_between_seeds() -> None:
    draws = [draw_world(np.random.default_rng(s)) for s in range(30)]
    assert {c.curve for d in draws for c in d.channels} == {"hill", "exponential", "power"}
    assert {c.adstock for d in draws for c in d.channels} == {"geometric", "delayed"}
    assert {d.heavy_channel for d in draws} == {"social", "tv"}


def test_demand_index_sees_the_shock_through_noise() -> None:
    rng = np.random.default_rng(8)
    scalars = draw_world(rng).scalars
    demand = make_demand(rng, scalars, start=date(2024, 1, 1), geos=8, weeks=78)
    trend = scalars["trend_per_year"] * np.arange(78 + HISTORY) / 52.18
    error = np.log(demand.index / 100) - trend - demand.log_demand
    wanted = scalars["index_noise"] * np.hypot(scalars["shock_sd"], scalars["geo_shock_sd"])
    assert error.std() == pytest.approx(wanted, rel=0.15)
    assert (demand.price > 0).all()
    assert 0.05 < demand.promo.mean() < 0.25


def test_season_repeats_every_year_and_peaks_before_christmas() -> None:
    rng = np.random.default_rng(0)
    curve = season(rng, date(2024, 1, 1), 104, 0.0, 0.3)
    peak = date(2024, 1, 1) + timedelta(weeks=int(np.argmax(curve[:52])))
    assert peak.month in (11, 12)
    assert curve[:52] == pytest.approx(curve[52:], abs=0.05)


def test_ar1_keeps_its_sd() -> None:
    series = ar1(np.random.default_rng(1), (2000, 20), 0.8, 0.1)
    assert series.std(axis=0) == pytest.approx(np.full(20, 0.1), rel=0.1)
    assert np.corrcoef(series[:, 10], series[:, 11])[0, 1] == pytest.approx(0.8, abs=0.05)


def test_times_stay_in_their_week() -> None:
    week = np.repeat(np.arange(5), 2000)
    ts = times(np.random.default_rng(0), week)
    assert np.array_equal(ts // WEEK, week)


def test_names() -> None:
    assert geo_names(4) == ["geo_01", "geo_02", "geo_03", "geo_04"]
    assert geo_names(120)[0] == "geo_001"
    assert numbered("u", np.array([0, 12]), 6).to_pylist() == ["u000000", "u000012"]
