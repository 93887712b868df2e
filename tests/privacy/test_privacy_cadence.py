"""Batches inside a quarter: what they cover, what they pay, and what they count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from privacy_worlds import NOW, SECRET, World, event, question

from contracts.calendar import LEAST_WEEKS, Block, blocks, weeks_between
from contracts.errors import BudgetExceeded, ConfigError
from privacy.bounds import Bound
from privacy.cadence import Cadence, Part
from privacy.load import LoadSettings, load_people
from privacy.plan import plan_releases, release_keys
from privacy.policy import PrivacyPolicy
from privacy.publish import exact_totals
from privacy.room import read_charges, read_release

SPLIT = (Part(4, 0.25), Part(None, 0.75))
Q2 = "quarter-2024-04-01"


def quarter(weeks: int = 13, *, first: int = 0, closed: bool = True) -> Block:
    """Some weeks of the second quarter of 2024, which has 13."""
    start = date(2024, 4, 1)
    return Block(
        start, date(2024, 6, 30), tuple(start + timedelta(weeks=i) for i in range(first, first + weeks)), closed
    )


@given(st.dates(date(2000, 1, 1), date(2040, 1, 1)), st.integers(1, 12))
def test_a_quarter_holds_twelve_to_fourteen_weeks_however_many_the_calendar_gives(day: date, month: int) -> None:
    whole = blocks(weeks_between(day, day + timedelta(weeks=60)), month)[1:-1]
    for block in whole:
        assert LEAST_WEEKS <= len(block.weeks) <= 14 and block.full_weeks == block.weeks
        assert replace(block, weeks=block.weeks[5:7]).full_weeks == block.weeks


def test_one_batch_is_the_default_and_costs_the_whole_share() -> None:
    policy = PrivacyPolicy()
    (only,) = policy.batches("kpi", quarter(5, closed=False))
    assert only.nano == policy.share_nano("kpi") and len(only.weeks) == 5


def test_weekly_batches_pay_the_floor_of_the_share_over_all_weeks_of_the_quarter() -> None:
    policy = PrivacyPolicy(cadence={"kpi": "week"})
    share = policy.share_nano("kpi")
    for block in (quarter(), quarter(2, closed=False), quarter(3, first=9)):
        found = policy.batches("kpi", block)
        assert [b.weeks for b in found] == [(w,) for w in block.weeks]
        assert {b.nano for b in found} == {share // 13}


def test_a_part_is_due_when_its_last_week_is_over_and_all_are_when_the_quarter_is() -> None:
    policy = PrivacyPolicy(cadence={"kpi": SPLIT})
    share = policy.share_nano("kpi")
    assert policy.batches("kpi", quarter(3, closed=False)) == ()
    assert [(len(b.weeks), b.nano) for b in policy.batches("kpi", quarter(9, closed=False))] == [(4, share // 4)]
    assert [(len(b.weeks), b.nano) for b in policy.batches("kpi", quarter())] == [(4, share // 4), (9, share * 3 // 4)]
    late = policy.batches("kpi", quarter(6, first=7))  # a calendar that begins inside the quarter
    assert [(len(b.weeks), b.nano) for b in late] == [(6, share * 3 // 4)]


cadences = st.one_of(
    st.sampled_from(["quarter", "week"]),
    st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(0, 40), st.integers(0, 40)).map(
        lambda t: (Part(t[0], t[2] / 100), Part(t[1], t[3] / 100), Part(None, (100 - t[2] - t[3]) / 100))
    ),
)


@settings(max_examples=60, deadline=None)
@given(cadences, cadences, st.floats(0.01, 3), st.integers(1, 12))
def test_batches_never_cost_more_than_the_share_and_never_cover_a_week_twice(
    kpi: Cadence, journeys: Cadence, rho: float, first: int
) -> None:
    policy = PrivacyPolicy(rho_per_user_quarter=rho, cadence={"kpi": kpi, "journeys": journeys})
    for measure in ("kpi", "journeys"):
        for block in (quarter(), quarter(first), quarter(13 - first, first=first), quarter(first, closed=False)):
            found = policy.batches(measure, block)
            assert sum(b.nano for b in found) <= policy.share_nano(measure)
            weeks = [w for b in found for w in b.weeks]
            assert weeks == sorted(set(weeks)) and set(weeks) <= set(block.weeks)


@pytest.mark.parametrize(
    ("cadence", "message"),
    [
        ({"trials": "week"}, r"privacy\.cadence\.trials is unknown; a cadence is declared for kpi or journeys only"),
        ({"kpi": "month"}, r"privacy\.cadence\.kpi must be 'quarter', 'week' or a list of parts; got 'month'"),
        ({"kpi": (Part(None, 1.0),)}, r"privacy\.cadence\.kpi must list at least two parts"),
        ({"kpi": (Part(None, 0.5), Part(None, 0.5))}, r"must list at least two parts"),
        ({"kpi": (Part(4, 0.5), Part(9, 0.5))}, r"the last takes the rest"),
        ({"kpi": (Part(8, 0.5), Part(4, 0.2), Part(None, 0.3))}, r"at most 11, because a quarter may have 12 weeks"),
        ({"journeys": (Part(0, 0.5), Part(None, 0.5))}, r"each part covers at least one week"),
        ({"kpi": (Part(4, 0.5), Part(None, 0.6))}, r"privacy\.cadence\.kpi\.\*\.share must add up to 1 at most"),
    ],
)
def test_a_cadence_that_cannot_be_kept_is_refused(cadence: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PrivacyPolicy(cadence=cadence)


def exact(world: World, rows: list[dict[str, Any]]) -> dict[tuple[str, date, str], np.ndarray]:
    """(measure, first day, vector) -> bounded totals before noise, in metric units."""
    inputs = world.inputs(world.write(rows))
    plans = plan_releases(world.question, world.policy)
    with load_people(inputs, world.question, LoadSettings(NOW, world.root / "raw", SECRET)) as crowd:
        totals = {p.release_id: exact_totals(p, crowd, world.policy, world.question) for p in plans}
    return {
        (plan.measure, plan.period_start, v.name): totals[plan.release_id][v.name] * v.unit
        for plan in plans
        for v in plan.vectors
    }


@pytest.fixture
def second_quarter() -> dict[str, Any]:
    """The question of one quarter without a test."""
    return {"question": question(blocks=(quarter(),), experiments=(), arms={})}


def buyer() -> list[dict[str, Any]]:
    """One person who starts in the north, moves south and buys in weeks 1, 2 and 6."""
    return [
        event("ann", 1, "2024-04-02T10:00:00", "click", channel="search"),
        event("ann", 2, "2024-04-03T10:00:00", "conversion", value="30", currency="USD"),
        event("ann", 3, "2024-04-10T10:00:00", "conversion", value="30", currency="USD", geo="south"),
        event("ann", 4, "2024-05-07T10:00:00", "click", channel="social", geo="south"),
        event("ann", 5, "2024-05-08T10:00:00", "conversion", value="30", currency="USD", geo="south"),
    ]


def test_batches_count_what_one_batch_counts_and_keep_the_cohort(
    world: Callable[..., World], second_quarter: dict[str, Any]
) -> None:
    wide = {"conversions": Bound(50, 0.7), "revenue": Bound(5000, 0.2), "active_users": Bound(50, 0.1)}
    whole = exact(world(policy=PrivacyPolicy(kpi=wide), **second_quarter), buyer())
    for cadence in ("week", SPLIT):
        here = world(policy=PrivacyPolicy(kpi=wide, cadence={"kpi": cadence}), **second_quarter)
        parts = exact(here, buyer())
        for name in wide:
            geos = len(here.question.cohorts)
            grids = [v.reshape(geos, -1) for (m, _, n), v in parts.items() if m == "kpi" and n == name]
            together = np.concatenate(grids, axis=1)
            np.testing.assert_array_equal(together, whole["kpi", date(2024, 4, 1), name].reshape(geos, 13))
            assert together[0].sum() > 0 and together[1:].sum() == 0, "one cohort through the whole quarter"


def test_every_batch_has_a_bound_of_its_own_and_the_clipped_mass_is_what_they_took_together(
    world: Callable[..., World], second_quarter: dict[str, Any]
) -> None:
    kpi = {"conversions": Bound(1, 1.0)}
    first = date(2024, 4, 1)
    lost = {}
    for cadence in ("quarter", "week"):
        found = exact(world(policy=PrivacyPolicy(kpi=kpi, cadence={"kpi": cadence}), **second_quarter), buyer())
        kept = sum(v.sum() for (m, _, n), v in found.items() if (m, n) == ("kpi", "conversions"))
        lost[cadence] = found["diagnostics", first, "clipped:conversions"].sum()
        assert kept + lost[cadence] == pytest.approx(3, abs=1e-5), "three conversions"
        for (measure, _, name), units in found.items():
            if (measure, name) == ("kpi", "conversions"):
                assert np.sqrt((units**2).sum()) <= 1 + 1e-9
    assert lost["week"] == pytest.approx(0, abs=1e-5) and lost["quarter"] > 1


def test_journeys_end_with_their_batch(world: Callable[..., World], second_quarter: dict[str, Any]) -> None:
    rows = [
        event("bob", 1, "2024-04-05T10:00:00", "click", channel="search"),
        event("bob", 2, "2024-04-09T10:00:00", "conversion", value="30", currency="USD"),
    ]
    whole = exact(world(**second_quarter), rows)
    weekly = exact(world(policy=PrivacyPolicy(cadence={"journeys": "week"}), **second_quarter), rows)
    here = world(**second_quarter)
    plan = next(p for p in plan_releases(here.question, here.policy) if p.measure == "journeys")
    flow = release_keys(plan, here.question, here.policy)["flow"]
    names = list(zip(flow["source"], flow["target"], strict=True))

    def moves(units: np.ndarray) -> set[tuple[str, str]]:
        return {n for n, x in zip(names, units, strict=True) if x > 0}

    assert moves(whole["journeys", date(2024, 4, 1), "flow"]) == {("start", "search"), ("search", "conversion")}
    assert moves(weekly["journeys", date(2024, 4, 1), "flow"]) == {("start", "search"), ("search", "null")}
    assert moves(weekly["journeys", date(2024, 4, 8), "flow"]) == {("start", "conversion")}


def test_diagnostics_wait_for_the_end_of_a_quarter_whose_kpi_comes_in_batches() -> None:
    open_quarter = question(blocks=(quarter(6, closed=False),), experiments=(), arms={})
    for cadence, waits in (("quarter", False), ("week", True), (SPLIT, True)):
        policy = PrivacyPolicy(cadence={"kpi": cadence})
        assert waits == all(p.measure != "diagnostics" for p in plan_releases(open_quarter, policy))
        closed = question(blocks=(quarter(),), experiments=(), arms={})
        assert any(p.measure == "diagnostics" for p in plan_releases(closed, policy))


def test_weeks_already_out_are_neither_drawn_nor_charged_again(world: Callable[..., World]) -> None:
    policy = PrivacyPolicy(cadence={"kpi": "week", "journeys": SPLIT})
    early = question(blocks=(quarter(2, closed=False),), experiments=(), arms={})
    here = world(policy=policy, question=early)
    inputs = here.inputs(here.write(buyer()))
    first = {p.name: p.read_bytes() for p in here.publish(inputs)}
    assert len(first) == 2
    here.question = replace(early, blocks=(quarter(),))
    later = here.publish(inputs)
    assert {p.name: p.read_bytes() for p in later if p.name in first} == first
    assert len(later) == 13 + 2 + 1
    charges = read_charges(here.ledger)
    spent = charges.groupby("measure")["rho"].sum()
    for measure, rho in spent.items():
        assert rho <= policy.share_nano(str(measure)) / 1e9 + 1e-15
    assert spent["kpi"] == pytest.approx(policy.share_nano("kpi") / 1e9, abs=1e-6)
    kpi = [read_release(p) for p in later if p.name.startswith("kpi")]
    assert [r.metadata["weeks"] for r in kpi] == [[w.isoformat()] for w in quarter().weeks]
    assert {r.block for r in kpi} == {Q2} and kpi[3].block_start == date(2024, 4, 22)


def test_another_cadence_in_a_quarter_that_is_open_cannot_buy_more(world: Callable[..., World]) -> None:
    closed = question(blocks=(quarter(),), experiments=(), arms={})
    here = world(policy=PrivacyPolicy(cadence={"kpi": "week"}), question=closed)
    inputs = here.inputs(here.write(buyer()))
    here.publish(inputs)
    here.policy = PrivacyPolicy()
    before = read_charges(here.ledger)
    with pytest.raises(BudgetExceeded, match="left"):
        here.publish(inputs)
    assert len(read_charges(here.ledger)) == len(before)
