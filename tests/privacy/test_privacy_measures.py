"""Noise-free totals of hand-made people and of real public data: every rule of DESIGN section 3, seen on a number."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from contracts.calendar import blocks, week_of, weeks_between
from contracts.evidence import Experiment
from contracts.trials import TrialDesign, component_name
from privacy import trials
from privacy.plan import plan_releases, release_keys
from privacy.room import Bound, FileSet, Fixed, HashOf, JourneyPolicy, PrivacyPolicy, Question, TrialPolicy

Q1, Q2 = "quarter-2024-01-01", "quarter-2024-04-01"
LOOSE = PrivacyPolicy(
    kpi={"conversions": Bound(60, 0.7), "revenue": Bound(60_000, 0.2), "active_users": Bound(60, 0.1)},
    journeys=JourneyPolicy(6, Bound(60, 0.35), Bound(60, 0.35), Bound(60_000, 0.15), Bound(60, 0.15)),
    trials=TrialPolicy(visits=10, conversions=5, revenue=500),
)


def totals(world, inputs):  # type: ignore[no-untyped-def]
    """(measure and block, vector) -> {key: metric total} without the zero cells."""
    exact = world.exact(inputs)
    out = {}
    for plan in plan_releases(world.question, world.policy):
        keys = release_keys(plan, world.question, world.policy)
        for v in plan.vectors:
            units = exact[f"{plan.measure} {plan.blocks[0]}", v.name]
            frame = keys[v.name]
            used = [c for c in frame.columns if c != "experiment" and frame[c].nunique() > 1]
            names = [tuple(row) for row in frame[used].itertuples(index=False)]
            out[f"{plan.measure} {plan.blocks[0]}", v.name] = {
                (name[0] if len(name) == 1 else name): round(float(x) * v.unit, 6)
                for name, x in zip(names, units, strict=True)
                if x
            }
    return out


@pytest.fixture
def story(world, make_event):  # type: ignore[no-untyped-def]
    """Ann sees search and social, buys, then sees video. Bob buys untouched. Cem refused. Dee is a bot."""
    rows = [
        make_event("ann", 1, "2024-01-02T10:00:00Z", "impression", channel="search", geo="south"),
        make_event("ann", 2, "2024-01-10T10:00:00Z", "click", channel="social"),
        make_event("ann", 3, "2024-01-11T10:00:00Z", "conversion", value="49.99", currency="USD"),
        make_event("ann", 4, "2024-01-12T10:00:00Z", "visit", channel="video"),
        make_event("ann", 5, "2024-01-13T10:00:00Z", "visit", channel="unheard-of"),
        make_event("bob", 1, "2024-04-08T10:00:00Z", "conversion", value="30", currency="EUR", geo="atlantis"),
        make_event("cem", 1, "2024-01-02T10:00:00Z", "conversion", value="5", currency="USD"),
        make_event("cem", 2, "2024-01-03T10:00:00Z", "visit", consent="false"),
        make_event("dee", 1, "2024-01-03T10:00:00Z", "visit", valid="false", channel="search"),
    ]
    here = world(policy=LOOSE, rates={"EUR": 1.1})
    groups = here.groups([("ann", "treated"), ("bob", "control"), ("cem", "control"), ("dee", "treated")])
    return here, here.inputs(here.write(rows), groups)


def test_kpi_counts_consenting_people_in_their_first_geo(story) -> None:  # type: ignore[no-untyped-def]
    out = totals(*story)
    week1, week2 = date(2024, 1, 1), date(2024, 1, 8)
    assert out[f"kpi {Q1}", "conversions"] == {("south", week2): 1}
    assert out[f"kpi {Q1}", "revenue"] == {("south", week2): 49.99}
    assert out[f"kpi {Q1}", "active_users"] == {("south", week1): 1, ("south", week2): 1}
    assert out[f"kpi {Q2}", "conversions"] == {("other", date(2024, 4, 8)): 1}
    assert out[f"kpi {Q2}", "revenue"] == {("other", date(2024, 4, 8)): 33}


def test_journeys_of_one_person(story) -> None:  # type: ignore[no-untyped-def]
    out = totals(*story)
    assert out[f"journeys {Q1}", "flow"] == {
        ("start", "search"): 1, ("search", "social"): 1, ("social", "conversion"): 1,
        ("start", "video"): 1, ("video", "null"): 1,
    }  # fmt: skip
    assert out[f"journeys {Q1}", "position"] == {("search", 1, 2): 1, ("social", 2, 2): 1}
    assert out[f"journeys {Q1}", "position_value"] == {("search", 1, 2): 49.99, ("social", 2, 2): 49.99}
    assert out[f"journeys {Q1}", "sets"] == {("search+social", "conversion"): 1, ("video", "null"): 1}
    assert out[f"journeys {Q2}", "flow"] == {("start", "conversion"): 1}
    assert out[f"journeys {Q2}", "position"] == {("", 0, 0): 1}
    assert out[f"journeys {Q2}", "position_value"] == {("", 0, 0): 33}
    assert out[f"journeys {Q2}", "sets"] == {("", "conversion"): 1}


def test_diagnostics_see_everybody_but_only_as_counts(story) -> None:  # type: ignore[no-untyped-def]
    out = totals(*story)
    assert out[f"diagnostics {Q1}", "people"] == {"people": 3, "consenting": 2, "invalid_people": 1}
    assert out[f"diagnostics {Q1}", "cohort"] == {"south": 1}
    assert out[f"diagnostics {Q1}", "clipped:conversions"] == {}


def test_trials_count_all_assigned_consenting_people(story) -> None:  # type: ignore[no-untyped-def]
    out = totals(*story)[f"trials {Q1}", "trial"]
    assert {k: v for k, v in out.items() if k[1] == "n"} == {("control", "n"): 1, ("treated", "n"): 2}
    assert out["control", "revenue"] == pytest.approx(33 / 500, abs=1e-5)
    assert out["control", "conversions*conversions"] == pytest.approx(1 / 25, abs=1e-5)
    assert out["control", "conversions*revenue"] == pytest.approx(33 / 2500, abs=1e-5)
    assert ("treated", "conversions") not in out, "the window starts after Ann's purchase"


def test_a_conversion_row_can_be_its_own_touch(world, make_event, no_trial, make_question) -> None:  # type: ignore[no-untyped-def]
    rows = [
        make_event("ann", 1, "2024-01-02", "impression", channel="search"),
        make_event("ann", 2, "2024-01-03", "conversion", channel="social"),
        make_event("ann", 3, "2024-01-04", "conversion"),
    ]
    here = world(policy=LOOSE, question=make_question(**no_trial))
    path = here.write(rows)
    assert totals(here, here.inputs(path))[f"journeys {Q1}", "flow"] == {
        ("start", "search"): 1, ("search", "conversion"): 1, ("start", "conversion"): 1,
    }  # fmt: skip
    here.is_touch = True
    assert totals(here, here.inputs(path))[f"journeys {Q1}", "flow"] == {
        ("start", "search"): 1, ("search", "social"): 1, ("social", "conversion"): 1, ("start", "conversion"): 1,
    }  # fmt: skip


def test_only_the_last_touches_before_the_end_are_kept(world, make_event, no_trial, make_question) -> None:  # type: ignore[no-untyped-def]
    policy = replace(LOOSE, journeys=replace(LOOSE.journeys, max_touches=2))
    rows = [make_event("ann", i, f"2024-01-0{i}", channel=c) for i, c in enumerate(("video", "search", "social"), 1)]
    rows.append(make_event("ann", 9, "2024-01-09", "conversion"))
    here = world(policy=policy, question=make_question(**no_trial))
    out = totals(here, here.inputs(here.write(rows)))
    assert out[f"journeys {Q1}", "position"] == {("search", 1, 2): 1, ("social", 2, 2): 1}
    assert out[f"journeys {Q1}", "sets"] == {("search+social", "conversion"): 1}


def test_a_journey_is_cut_at_the_end_of_its_quarter(world, make_event, no_trial, make_question) -> None:  # type: ignore[no-untyped-def]
    rows = [
        make_event("ann", 1, "2024-03-31", channel="search"),  # last day of the first quarter's last week
        make_event("ann", 2, "2024-04-01", "conversion"),
    ]
    here = world(policy=LOOSE, question=make_question(**no_trial))
    out = totals(here, here.inputs(here.write(rows)))
    assert out[f"journeys {Q1}", "flow"] == {("start", "search"): 1, ("search", "null"): 1}
    assert out[f"journeys {Q2}", "flow"] == {("start", "conversion"): 1}


def test_above_ten_channels_sets_are_channel_by_number(world, make_event, no_trial, make_question) -> None:  # type: ignore[no-untyped-def]
    channels = tuple(f"c{i:02}" for i in range(11))
    rows = [make_event("ann", i, f"2024-01-0{i}", channel=c) for i, c in enumerate(("c00", "c10", "c00"), 1)]
    rows.append(make_event("ann", 9, "2024-01-09", "conversion"))
    rows.append(make_event("bob", 1, "2024-01-09", "conversion"))
    rows.append(make_event("bob", 2, "2024-01-10", channel="c04"))
    here = world(policy=LOOSE, question=make_question(channels=channels, **no_trial))
    out = totals(here, here.inputs(here.write(rows)))[f"journeys {Q1}", "sets"]
    assert out == {
        ("", 0, "conversion"): 1, ("c00", 2, "conversion"): 1, ("c10", 2, "conversion"): 1, ("c04", 1, "null"): 1,
    }  # fmt: skip


@pytest.mark.parametrize(("first", "then"), [("north", "south"), ("south", "north"), ("north", "")])
def test_a_cohort_is_the_geo_of_the_first_event_of_the_quarter(  # type: ignore[no-untyped-def]
    world, make_event, no_trial, make_question, first, then
) -> None:
    rows = [
        make_event("ann", 2, "2024-01-09", "conversion", geo=then),
        make_event("ann", 1, "2024-01-02", geo=first),
        make_event("ann", 3, "2024-04-02", "conversion", geo="south"),  # the next quarter decides anew
    ]
    here = world(policy=LOOSE, question=make_question(**no_trial))
    out = totals(here, here.inputs(here.write(rows)))
    assert out[f"kpi {Q1}", "conversions"] == {(first, date(2024, 1, 8)): 1}
    assert out[f"diagnostics {Q1}", "cohort"] == {first: 1}
    assert out[f"kpi {Q2}", "conversions"] == {("south", date(2024, 4, 1)): 1}


def test_weeks_and_blocks_follow_the_project_time_zone(world, make_event, no_trial, make_question) -> None:  # type: ignore[no-untyped-def]
    rows = [
        make_event("ann", 1, "2024-01-07T23:30:00Z", "conversion"),  # already Monday in Berlin
        make_event("bob", 1, "2024-01-07T23:30:00", "conversion"),  # naive: Sunday in Berlin
    ]
    here = world(policy=LOOSE, question=make_question(**no_trial), zone="Europe/Berlin")
    out = totals(here, here.inputs(here.write(rows)))[f"kpi {Q1}", "conversions"]
    assert out == {("north", date(2024, 1, 8)): 1, ("north", date(2024, 1, 1)): 1}


@pytest.mark.parametrize(
    ("value", "counted"), [("1000000", 20_000), ("999999999999.999999", 20_000), ("0.000001", 1e-6)]
)
def test_very_large_and_very_small_sales_are_counted_up_to_the_bound(  # type: ignore[no-untyped-def]
    world, make_event, no_trial, make_question, value, counted
) -> None:
    """No value may stop the load: an error that depends on one person's row would be a release of its own."""
    policy = replace(LOOSE, kpi={"revenue": Bound(20_000 if counted > 1 else 60, 1.0)})
    here = world(policy=policy, question=make_question(**no_trial))
    rows = [make_event("ann", 1, "2024-01-02", "conversion", value=value, currency="USD")]
    assert totals(here, here.inputs(here.write(rows)))[f"kpi {Q1}", "revenue"] == {("north", date(2024, 1, 1)): counted}


def test_clipped_mass_is_what_the_bound_took_and_is_itself_capped(world, make_event, no_trial, make_question) -> None:  # type: ignore[no-untyped-def]
    rows = [make_event("ann", i, f"2024-01-02T10:00:{i:02}Z", "conversion") for i in range(5)]  # 5 in one week
    rows += [make_event("bob", i, f"2024-01-02T10:{i:02}:00Z", "conversion") for i in range(50)]
    policy = replace(LOOSE, kpi={"conversions": Bound(2, 1.0)})
    here = world(policy=policy, question=make_question(**no_trial))
    out = totals(here, here.inputs(here.write(rows)))
    assert out[f"kpi {Q1}", "conversions"] == {("north", date(2024, 1, 1)): 4}
    assert list(out[f"diagnostics {Q1}", "clipped:conversions"].values()) == [3 + 8]


@pytest.mark.parametrize("loose", [True, False])
def test_flow_is_conserved(world, make_event, no_trial, make_question, loose) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(3)
    kinds = ("impression", "click", "visit", "conversion")
    rows = [
        make_event(f"p{rng.integers(40)}", i, f"2024-02-{rng.integers(1, 29):02}T00:00:{rng.integers(60):02}Z",
                   kinds[rng.integers(4)], channel=("search", "social", "video", "")[rng.integers(4)])
        for i in range(1500)
    ]  # fmt: skip
    q = make_question(**no_trial)
    here = world(policy=replace(LOOSE, journeys=JourneyPolicy(4)) if not loose else LOOSE, question=q, is_touch=True)
    units = here.exact(here.inputs(here.write(rows)))[f"journeys {Q1}", "flow"]
    keys = release_keys(plan_releases(q, here.policy)[1], q, here.policy)["flow"]
    for channel in q.channels:
        gap = units[(keys["target"] == channel).to_numpy()].sum() - units[(keys["source"] == channel).to_numpy()].sum()
        # one unit for each of a person's cells from the integer division; exact while nobody is scaled
        assert abs(gap) <= (0 if loose else 40 * len(keys)), channel


def test_real_journeys_are_counted_exactly(world, shared_data: Path) -> None:  # type: ignore[no-untyped-def]
    """1,838 conversions worth 11,423.5 (shared/data/README.md) when nothing is clipped."""
    weeks = weeks_between(week_of(date(2018, 7, 1)), date(2018, 7, 30))
    channels = ("Facebook", "Instagram", "Online Display", "Online Video", "Paid Search")
    columns = {
        "user_id": "customer_id", "ts": "time", "event": "interaction", "value": "conversion_value",
        "event_id": HashOf(("customer_id", "time", "interaction", "channel")), "geo": Fixed("national"),
        "currency": Fixed("USD"),
    }  # fmt: skip
    events = FileSet((shared_data / "journeys" / "events_july_2018.csv",), columns)
    q = Question(blocks(weeks), "monday", ("national",), channels)
    here = world(question=q, policy=LOOSE, assumed=True, is_touch=True)
    out = totals(here, here.inputs(events))
    ids = [b.id for b in q.blocks]
    assert sum(sum(out[f"kpi {b}", "conversions"].values()) for b in ids) == pytest.approx(1838)
    assert sum(sum(out[f"kpi {b}", "revenue"].values()) for b in ids) == pytest.approx(11423.5)
    ends = [v for b in ids for k, v in out[f"journeys {b}", "flow"].items() if k[1] == "conversion"]
    assert sum(ends) == pytest.approx(1838)
    assert sum(v for b in ids for k, v in out[f"journeys {b}", "sets"].items() if k[1] == "conversion") == 1838
    last = [v for b in ids for (_, p, n), v in out[f"journeys {b}", "position_value"].items() if p == n]
    assert sum(last) == pytest.approx(11423.5)
    assert all(k[0] != "start" or k[1] != "conversion" for b in ids for k in out[f"journeys {b}", "flow"])


def test_real_trial_sums_are_exact_before_noise(world, shared_data: Path) -> None:  # type: ignore[no-untyped-def]
    """Hillstrom: the differences of shared/data/README.md from the trial components."""
    import pandas as pd  # noqa: PLC0415

    frame = pd.read_csv(shared_data / "trials" / "hillstrom.csv")
    people = frame.index.astype(str)
    visits = [
        {"event_id": f"v{i}", "user_id": i, "ts": "2008-03-25", "event": "visit"} for i in people[frame.visit == 1]
    ]
    bought = frame[frame.conversion == 1]
    sales = [
        {"event_id": f"c{i}", "user_id": i, "ts": "2008-03-26", "event": "conversion", "value": s, "currency": "USD"}
        for i, s in zip(bought.index.astype(str), bought.spend, strict=True)
    ]
    weeks = weeks_between(date(2008, 3, 24), date(2008, 4, 7))
    arms = tuple(sorted(frame.segment.unique()))
    e = Experiment("mail", "user", "email", date(2008, 3, 24), date(2008, 4, 7), (), None, control_arm="No E-Mail")
    q = Question(blocks(weeks), "monday", ("us",), ("email",), (e,), {"mail": arms})
    here = world(question=q, policy=replace(LOOSE, trials=TrialPolicy(1, 1, 500)), assumed=True)
    events = FileSet((here.write(visits + sales),), {"geo": Fixed("us")})
    table = [{"user_id": i, "experiment": "mail", "arm": a} for i, a in zip(people, frame.segment, strict=True)]
    groups = here.write(table, "assignments.csv", ("user_id", "experiment", "arm"))
    inputs = replace(here.inputs(events), assignments=FileSet((groups,)))
    out = totals(here, inputs)[f"trials {q.blocks[0].id}", "trial"]
    components = TrialDesign().components()
    bounds = trials.component_bounds(here.policy.trials, components)
    scale = dict(zip(map(component_name, components), bounds, strict=True))

    def mean(arm: str, name: str) -> float:
        return float(out[arm, name] * scale[name] / out[arm, "n"])

    for arm, expected in (
        ("Mens E-Mail", (0.07659, 0.006805, 0.7698)), ("Womens E-Mail", (0.04523, 0.003111, 0.4244)),
    ):  # fmt: skip
        found = [mean(arm, m) - mean("No E-Mail", m) for m in ("visits", "conversions", "revenue")]
        assert found == pytest.approx(expected, abs=6e-5)
