"""The truth is the difference between worlds: with and without a channel, with and without an experiment.

Statistical checks use 5 standard deviations, a false alarm in 1.7 million.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from simulate.media import Media
from simulate.outcomes import BASE, Conversions, make_conversions, trial_effect
from simulate.params import CHANNELS, HISTORY
from simulate.people import CONTROL, EXPOSED
from simulate.world import World, build

REPEATS = 40


@pytest.fixture(scope="module", params=[11, 12])
def world(request: pytest.FixtureRequest) -> World:
    return build(people=4_000, geos=5, weeks=52, seed=request.param, start=date(2024, 1, 1))


def _draw(world: World, seed: int, media: Media | None = None) -> Conversions:
    rng = np.random.default_rng([seed, 77])
    return make_conversions(rng, world.draw, world.base, media or world.media, world.people)


def _mass(world: World) -> np.ndarray:
    """Total susceptibility, (channel, geo, arm)."""
    people = world.people
    group = 2 * people.geo + people.arm
    return np.stack([np.bincount(group, s, 2 * len(people.per_geo)) for s in people.susceptibility]).reshape(
        len(CHANNELS), -1, 2
    )


@pytest.mark.parametrize("channel", range(len(CHANNELS)))
def test_removing_a_channel_removes_what_carries_its_label(world: World, channel: int) -> None:
    keep = (np.arange(len(CHANNELS)) != channel)[:, None, None, None]
    absent = replace(world.media, pressure=world.media.pressure * keep, without=world.media.without * keep)
    gaps = []
    for seed in range(REPEATS):
        full, reduced = _draw(world, seed), _draw(world, 10_000 + seed, absent)
        assert not (reduced.cause == channel).any()
        gaps.append((full.actual & (full.cause != channel)).sum() - reduced.actual.sum())
    assert abs(np.mean(gaps)) < 5 * np.std(gaps, ddof=1) / np.sqrt(REPEATS)


def test_labels_follow_the_intensities(world: World) -> None:
    """Realised counts per cause against the sums of the intensities: Poisson, so variance = mean."""
    happened = world.happened
    counts = np.array([(happened.cause == c).sum() for c in range(BASE, len(CHANNELS))])
    people = world.people
    base = (np.bincount(2 * people.geo + people.arm, people.intent).reshape(-1, 2, 1) * world.base).sum()
    expected = np.array([base, *(_mass(world)[..., None] * world.media.pressure).sum(axis=(1, 2, 3))])
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected)).all()


def test_shares_and_returns_are_as_drawn(world: World) -> None:
    """Without experiments a channel causes its drawn share, and revenue over planned spend is its drawn ROI."""
    people, draw, media = world.people, world.draw, world.media
    total = draw.scalars["conversions_per_person_week"] * people.size * world.weeks
    untested = [c for c in range(len(CHANNELS)) if c not in {t.channel for t in media.tests}]
    expected = (_mass(world)[..., None] * media.pressure).sum(axis=(1, 2, 3))
    for c in untested:
        assert expected[c] == pytest.approx(draw.channels[c].share * total, rel=1e-9)
        revenue = expected[c] * draw.scalars["order_value"]
        assert revenue / media.planned[c].sum() == pytest.approx(draw.channels[c].roi, rel=1e-9)
        assert np.allclose(media.spend[c], media.planned[c], atol=0.006)
    own = (np.bincount(people.geo, people.intent)[:, None] * world.base[:, 0]).sum()
    assert own == pytest.approx((1 - sum(c.share for c in draw.channels)) * total, rel=1e-9)


def test_experiment_truth_has_the_right_mean(world: World) -> None:
    """Mean of the realised truth over redraws against the difference of the two worlds' intensities."""
    people, media = world.people, world.media
    draws = [_draw(world, seed) for seed in range(REPEATS)]
    group = 2 * people.geo + people.arm
    for trial in media.tests:
        consenting = np.bincount(group, people.susceptibility[trial.channel] * people.consent, 2 * len(people.per_geo))
        change = (media.pressure - media.without)[trial.channel][..., trial.begin : trial.stop].sum(axis=-1)
        change = consenting.reshape(-1, 2) * change
        expected = change[list(trial.treated)].sum() if trial.kind == "geo" else change[:, EXPOSED].sum()
        realised = np.array([trial_effect(d, people, trial) for d in draws])
        assert abs(realised.mean() - expected) < 5 * realised.std(ddof=1) / np.sqrt(REPEATS)
        assert abs(expected) > 3


def test_experiment_truth_counts_consenting_people_only(world: World) -> None:
    people, drawn = world.people, world.conversions
    others, everybody = replace(people, consent=~people.consent), replace(people, consent=people.consent | True)
    for trial in world.media.tests:
        parts = [trial_effect(drawn, p, trial) for p in (people, others, everybody)]
        assert parts[0] + parts[1] == parts[2]
        assert parts[2] != 0
        assert trial_effect(drawn, replace(people, consent=people.consent & False), trial) == 0


def test_worlds_differ_only_where_the_test_reached(world: World) -> None:
    media = world.media
    for trial in media.tests:
        was, would = media.pressure[trial.channel], media.without[trial.channel]
        assert np.array_equal(was[..., : trial.begin], would[..., : trial.begin])
        window = slice(trial.begin, trial.stop)
        others = [g for g in range(len(was)) if g not in trial.treated]
        if trial.kind == "geo":
            assert np.array_equal(was[others], would[others])
            sign = np.sign(trial.factor - 1)
            assert (sign * (was - would)[list(trial.treated)][..., window] > 0).all()
        else:
            assert np.array_equal(was[:, CONTROL], would[:, CONTROL])
            assert np.array_equal(would[:, EXPOSED], would[:, CONTROL])
            assert (was[:, EXPOSED, window] > would[:, EXPOSED, window]).all()
    untested = [c for c in range(len(CHANNELS)) if c not in {t.channel for t in media.tests}]
    assert np.array_equal(media.pressure[untested], media.without[untested])


def test_untouched_conversions_are_shared_between_the_worlds(world: World) -> None:
    """Monotone coupling: a go-dark only removes conversions, a heavy-up and an exposure only add them."""
    drawn = world.conversions
    for trial in world.media.tests:
        mine = drawn.take(drawn.cause == trial.channel)
        only_actual, only_without = mine.actual & ~mine.without, mine.without & ~mine.actual
        assert not (only_actual if trial.factor == 0 and trial.kind == "geo" else only_without).any()
        reached = only_actual | only_without
        assert (mine.week[reached] >= trial.begin).all() and (mine.week[reached] < trial.stop + HISTORY).all()
    assert (drawn.actual | drawn.without).all()


def test_held_out_people_lose_the_channel_gradually(world: World) -> None:
    """Carry-over from before the window decays in the control arm; it does not stop at once."""
    trial = next(t for t in world.media.tests if t.kind == "user")
    control = world.media.pressure[trial.channel][:, CONTROL, trial.begin : trial.stop]
    assert (np.diff(control, axis=1) <= 1e-15).all()
    assert (world.media.delivery[trial.channel][:, CONTROL, trial.begin : trial.stop] == 0).all()
