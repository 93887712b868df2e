"""What crosses a block (issue: cut at the boundary, or charge): a quarter's release never moves with another's rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from privacy.crossing import CUT, crossing
from privacy.plan import plan_releases
from privacy.policy import MEASURES, PrivacyPolicy
from privacy.room import read_release

FIRST, SECOND = "quarter-2024-01-01", "quarter-2024-04-01"
SHARES = {"kpi": 0.3, "journeys": 0.2, "trials": 0.15, "diagnostics": 0.05, "reserve": 0.05, "media": 0.1,
          "credit": 0.15}  # fmt: skip


@pytest.fixture
def here(world, make_question):  # type: ignore[no-untyped-def]
    """Two quarters, all six measures, a user test that touches both; everybody may be refused."""
    return world(question=make_question(), policy=replace(PrivacyPolicy(), shares=SHARES), max_rejected=1.0)


def totals(here, rows: list[dict[str, Any]]) -> dict[tuple[str, str], np.ndarray]:  # type: ignore[no-untyped-def]
    return here.exact(here.inputs(here.write(rows), here.groups([("ann", "treated"), ("bob", "control")])))  # type: ignore[no-any-return]


def of_block(found: dict[tuple[str, str], np.ndarray], block: str) -> dict[tuple[str, str], list[int]]:
    """Everything that is released about one quarter alone."""
    return {k: v.tolist() for k, v in found.items() if k[0].endswith(block) and not k[0].startswith("trials")}


def background(make_event) -> list[dict[str, Any]]:  # type: ignore[no-untyped-def]
    return [
        make_event(
            "bob", i, f"2024-0{1 + i}-10T12:00:00", kind, channel="video", geo="south", value="5", currency="USD"
        )
        for i, kind in enumerate(("impression", "click", "conversion", "visit", "click", "conversion"))
    ]


def test_each_look_back_of_one_person_ends_at_the_boundary(here, make_event) -> None:  # type: ignore[no-untyped-def]
    """Cohort, journey, credit window, retained copy: each has its earlier half in the first quarter."""
    later = [
        make_event("ann", 1, "2024-04-02T09:00:00", "visit", channel="search"),
        make_event("ann", 2, "2024-04-03T09:00:00", "conversion", value="30", currency="USD"),
        make_event("ann", 3, "2024-04-04T09:00:00", "conversion", value="10", currency="USD"),
    ]
    earlier = [
        make_event("ann", 11, "2024-03-30T09:00:00", "click", channel="video", geo="south"),  # cohort, journey, credit
        make_event("ann", 2, "2024-03-30T10:00:00", "conversion", value="99", currency="USD"),  # contradicts one
        make_event("ann", 3, "2024-03-31T09:00:00", "conversion", value="10", currency="USD"),  # repeats one
    ]
    rest = background(make_event)
    with_both, without = totals(here, rest + earlier + later), totals(here, rest + later)
    assert of_block(with_both, SECOND) == of_block(without, SECOND)
    assert of_block(with_both, FIRST) != of_block(without, FIRST)
    assert of_block(totals(here, rest + earlier), FIRST) == of_block(with_both, FIRST)


KINDS = st.sampled_from(("impression", "click", "visit", "conversion"))
DAYS = st.sampled_from(
    ("2024-01-01", "2024-02-11", "2024-03-30", "2024-03-31", "2024-04-01", "2024-04-07", "2024-04-14", "2024-06-30")
)
EVENTS = st.lists(
    st.tuples(DAYS, KINDS, st.sampled_from(("search", "video", "")), st.sampled_from(("north", "south", "east")),
              st.integers(0, 4)),
    min_size=1, max_size=9,
)  # fmt: skip


def keeps_the_law(here, make_event, events) -> None:  # type: ignore[no-untyped-def]
    """Taking all of a person's rows of one block away leaves every release about the other block bit by bit."""
    mine = [
        make_event("ann", number, f"{day}T0{i}:00:00", kind, channel=channel, geo=geo, value=str(i), currency="USD")
        for i, (day, kind, channel, geo, number) in enumerate(events)
    ]
    rest = background(make_event)
    whole = totals(here, rest + mine)
    for block, other in ((FIRST, SECOND), (SECOND, FIRST)):
        kept = totals(here, rest + [r for r in mine if (r["ts"] < "2024-04-01") != (block == FIRST)])
        assert of_block(kept, other) == of_block(whole, other)
        for plan in plan_releases(here.question, here.policy):
            if plan.measure == "trials":  # it touches both blocks, and each of them pays for it in full
                key = (f"trials {plan.blocks[0]}", "trial")
                assert np.linalg.norm((whole[key] - kept[key]).astype(float)) <= plan.vectors[0].bound_units
                assert {c.block: c.nano_rho for c in plan.charges} == {FIRST: plan.nano, SECOND: plan.nano}


@settings(max_examples=2, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(EVENTS)
def test_the_rows_of_one_quarter_never_move_the_other(here, make_event, events) -> None:  # type: ignore[no-untyped-def]
    keeps_the_law(here, make_event, events)


@pytest.mark.slow
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(EVENTS)
def test_the_law_on_many_people(here, make_event, events) -> None:  # type: ignore[no-untyped-def]
    keeps_the_law(here, make_event, events)


def test_consent_is_of_the_person_and_reaches_every_block(here, make_event) -> None:  # type: ignore[no-untyped-def]
    """What is not cut, and is said so: a refusal in the second quarter takes the person out of the first, too."""
    yes = make_event("ann", 1, "2024-01-02", "conversion", value="3", currency="USD")
    no = make_event("ann", 2, "2024-05-02", "visit", consent="false")
    rest = background(make_event)
    before, after = totals(here, [*rest, yes]), totals(here, [*rest, yes, no])
    assert of_block(before, FIRST) != of_block(after, FIRST)
    kpi = of_block(totals(here, rest), FIRST)
    assert {k: v for k, v in of_block(after, FIRST).items() if k[0].startswith("kpi")} == {
        k: v for k, v in kpi.items() if k[0].startswith("kpi")
    }


def test_every_release_says_what_crosses(here, make_event) -> None:  # type: ignore[no-untyped-def]
    rows = background(make_event)
    paths = here.publish(here.inputs(here.write(rows), here.groups([("ann", "treated"), ("bob", "control")])))
    for path in paths:
        release = read_release(path)
        said = release.metadata["crosses_blocks"]
        assert said == crossing(release.measure, tuple(release.metadata["blocks"]))
        assert said["cut"] and "consent" in said["person"][0]
        assert ("touches 2 blocks" in "".join(said["charged"])) == (release.measure == "trials")
    assert set(CUT) == set(MEASURES) - {"reserve"}, "a new measure must say what it cuts"
