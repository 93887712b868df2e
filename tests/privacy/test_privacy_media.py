"""The media table on hand-made people: what counts, which channels, what is clipped; clipped mass of journeys."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from contracts.errors import ConfigError
from privacy.bounds import Bound
from privacy.measure_policies import JourneyPolicy, MediaPolicy
from privacy.plan import plan_releases, release_keys
from privacy.policy import PrivacyPolicy
from privacy.room import read_release

Q1 = "quarter-2024-01-01"
LOOSE = MediaPolicy((), Bound(60, 0.5), Bound(60, 0.45), 0.05)


def policy(media: MediaPolicy = LOOSE) -> PrivacyPolicy:
    """Everything for media."""
    return PrivacyPolicy(shares={"media": 0.2}, media=media)


def totals(world, path, measure="media"):  # type: ignore[no-untyped-def]
    """Vector -> {key: metric total} of the first quarter, without zeros."""
    exact = world.exact(world.inputs(path))
    plan = next(p for p in plan_releases(world.question, world.policy) if p.measure == measure and p.blocks[0] == Q1)
    keys = release_keys(plan, world.question, world.policy)
    out = {}
    for v in plan.vectors:
        rows = keys[v.name].drop(columns="metric", errors="ignore").itertuples(index=False, name=None)
        units = exact[f"{measure} {Q1}", v.name]
        out[v.name] = {k: round(float(x) * v.unit, 6) for k, x in zip(rows, units, strict=True) if x}
    return out


@pytest.fixture
def rows(make_event):  # type: ignore[no-untyped-def]
    """Ann sees search twice and clicks social; visits, conversions and unknown channels are not media."""
    return [
        make_event("ann", 1, "2024-01-02T10:00:00Z", "impression", channel="search", geo="south"),
        make_event("ann", 2, "2024-01-03T10:00:00Z", "impression", channel="search"),
        make_event("ann", 3, "2024-01-10T10:00:00Z", "click", channel="social"),
        make_event("ann", 4, "2024-01-10T11:00:00Z", "visit", channel="social"),
        make_event("ann", 5, "2024-01-10T12:00:00Z", "conversion", channel="social"),
        make_event("ann", 6, "2024-01-10T13:00:00Z", "impression", channel="unheard-of"),
        make_event("ann", 7, "2024-01-10T14:00:00Z", "impression"),
        make_event("bob", 1, "2024-01-03T10:00:00Z", "impression", channel="video", geo="atlantis", consent="false"),
    ]


def test_impressions_and_clicks_by_cohort_week_and_channel(world, rows, no_trial, make_question) -> None:  # type: ignore[no-untyped-def]
    here = world(policy=policy(), question=make_question(**no_trial))
    out = totals(here, here.write(rows))
    assert out["impressions"] == {("south", date(2024, 1, 1), "search"): 2}
    assert out["clicks"] == {("south", date(2024, 1, 8), "social"): 1}
    assert out["clipped:impressions"] == out["clipped:clicks"] == {}


def test_only_the_named_channels_are_released(world, rows, no_trial, make_question) -> None:  # type: ignore[no-untyped-def]
    here = world(policy=policy(replace(LOOSE, channels=("video", "social"))), question=make_question(**no_trial))
    path = here.write(rows)
    out = totals(here, path)
    assert out["impressions"] == {} and out["clicks"] == {("south", date(2024, 1, 8), "social"): 1}
    found = read_release(here.publish(here.inputs(path))[0])
    assert set(found.vector("clicks")["channel"]) == {"social", "video"}
    assert len(found.vector("clicks")) == 3 * 13 * 2
    lost = found.vector("clipped:clicks")
    assert len(lost) == 1 and lost["week"][0] is None and lost["geo"][0] == ""


def test_the_bound_and_what_it_takes(world, make_event, no_trial, make_question) -> None:  # type: ignore[no-untyped-def]
    """Ann has 3 + 4 impressions in two cells (norm 5) under a bound of 2.5; bob's loss is capped at 10."""
    rows = [make_event("ann", i, f"2024-01-02T10:00:{i:02}Z", "impression", channel="search") for i in range(3)]
    rows += [make_event("ann", 10 + i, f"2024-01-09T10:00:{i:02}Z", "impression", channel="search") for i in range(4)]
    rows += [make_event("bob", i, f"2024-01-02T11:{i:02}:00Z", "impression", channel="video") for i in range(60)]
    here = world(policy=policy(replace(LOOSE, impressions=Bound(2.5, 0.5))), question=make_question(**no_trial))
    out = totals(here, here.write(rows))
    kept = out["impressions"]
    assert kept["north", date(2024, 1, 1), "video"] == 2.5
    ann = [kept["north", w, "search"] for w in (date(2024, 1, 1), date(2024, 1, 8))]
    assert ann == pytest.approx([2.5 / 2**0.5] * 2, rel=1e-5), "each cell is clipped to C, then the vector is scaled"
    assert out["clipped:impressions"]["", None, ""] == pytest.approx(7 - sum(ann) + 10, abs=1e-5)


def test_an_undeclared_media_channel_is_refused(make_question) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=r"privacy.media.channels names 'tv', .* declared are search, social, video"):
        plan_releases(make_question(), policy(replace(LOOSE, channels=("tv",))))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"channels": ("a", "a")}, r"privacy.media.channels must be unique; got a, a"),
        ({"clipped_share": 0.5}, r"privacy.media.\* must add up to 1 at most; got 1.45"),
        ({"clicks": Bound(-1, 0.1)}, r"privacy.media.clicks.bound must be > 0; got -1"),
    ],
)
def test_a_fault_of_the_media_policy_names_its_key(changes, sentence) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=sentence):
        MediaPolicy(**changes)


def test_a_grant_in_a_quarter_that_had_none_is_refused(world, rows, no_trial, make_question) -> None:  # type: ignore[no-untyped-def]
    """A ledger from before the measure existed is read as a grant of 0, not as an error."""
    here = world(policy=PrivacyPolicy(), question=make_question(**no_trial))
    inputs = here.inputs(here.write(rows))
    here.publish(inputs)
    here.policy = PrivacyPolicy(shares=dict(PrivacyPolicy().shares) | {"reserve": 0.0, "media": 0.05})
    from contracts.errors import PrivacyError  # noqa: PLC0415

    with pytest.raises(PrivacyError, match="opened with a .* grant of"):
        here.publish(inputs)


def test_journeys_may_buy_their_clipped_mass(world, make_event, no_trial, make_question) -> None:  # type: ignore[no-untyped-def]
    """Ann has 3 conversions without a touch under bounds of 2: one lost in each count; 30 - 20 in money."""
    rows = [make_event("ann", i, f"2024-01-02T10:00:0{i}Z", "conversion", value="10", currency="USD") for i in range(3)]
    tight = JourneyPolicy(3, Bound(2, 0.3), Bound(2, 0.3), Bound(20, 0.15), Bound(2, 0.15), clipped_share=0.1)
    here = world(policy=replace(PrivacyPolicy(), journeys=tight), question=make_question(**no_trial))
    out = totals(here, here.write(rows), "journeys")
    lost = {n.removeprefix("clipped:"): sum(v.values()) for n, v in out.items() if n.startswith("clipped:")}
    assert lost == pytest.approx({"flow": 1, "position": 1, "position_value": 10, "sets": 1}, abs=1e-3)
    plain = {p.release_id for p in plan_releases(here.question, PrivacyPolicy()) if p.measure == "journeys"}
    off = replace(PrivacyPolicy(), journeys=JourneyPolicy(clipped_share=0.0))
    assert plain == {p.release_id for p in plan_releases(here.question, off) if p.measure == "journeys"}
