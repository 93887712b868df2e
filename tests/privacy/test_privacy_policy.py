"""The policy and the plans: validated at birth, priced in whole nano-rho, named by the question alone."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.calendar import blocks, weeks_between
from contracts.errors import ConfigError, ContractError, InputError
from contracts.evidence import Experiment
from contracts.release import NANO
from privacy import journeys
from privacy.bounds import MAX_UNITS, MICROS, MIN_UNITS, Bound, fixed_point
from privacy.measure_policies import JourneyPolicy, TrialPolicy
from privacy.mechanism import cost
from privacy.plan import plan_releases, release_keys, waiting
from privacy.policy import PrivacyPolicy


@pytest.mark.parametrize("bad", [0, -1, float("nan"), float("inf")])
def test_a_bound_must_be_positive_and_the_message_names_the_key(bad: float) -> None:
    with pytest.raises(ConfigError, match=r"privacy\.kpi\.conversions\.bound must be > 0; got"):
        PrivacyPolicy(kpi={"conversions": Bound(bad, 0.5)})
    with pytest.raises(ConfigError, match=r"privacy\.journeys\.sets\.bound must be > 0"):
        JourneyPolicy(sets=Bound(bad, 0.1))
    with pytest.raises(ConfigError, match=r"privacy\.trials\.revenue must be > 0"):
        TrialPolicy(revenue=bad)
    with pytest.raises(ConfigError, match=r"privacy\.rho_per_user_quarter must be > 0"):
        PrivacyPolicy(rho_per_user_quarter=bad)


def test_a_bound_too_small_for_fixed_point_is_refused_rather_than_rounded_to_zero() -> None:
    with pytest.raises(ConfigError, match=r"privacy\.kpi\.revenue\.bound must lie between 0\.004096"):
        PrivacyPolicy(kpi={"revenue": Bound(0.001, 0.5)})


def test_shares_must_add_up_and_be_known() -> None:
    with pytest.raises(ConfigError, match=r"privacy\.shares\.\* must add up to 1 at most; got 1\.2"):
        PrivacyPolicy(shares={"kpi": 0.9, "journeys": 0.3})
    with pytest.raises(ConfigError, match=r"privacy\.shares\.kip is unknown"):
        PrivacyPolicy(shares={"kip": 0.9})
    with pytest.raises(ConfigError, match=r"privacy\.kpi\.visits is unknown"):
        PrivacyPolicy(kpi={"visits": Bound(1, 0.5)})


@given(st.floats(min_value=MIN_UNITS / MICROS, max_value=1e9))
def test_fixed_point_stays_in_range_and_never_exceeds_the_declared_bound(bound: float) -> None:
    fixed = fixed_point(bound)
    assert MIN_UNITS <= fixed.units <= MAX_UNITS
    assert Fraction(fixed.micros, MICROS) <= Fraction(repr(bound))
    assert Fraction(fixed.micros, MICROS) >= Fraction(repr(bound)) * Fraction(4095, 4096)


@settings(max_examples=25, deadline=None)
@given(st.floats(min_value=1e-3, max_value=5), st.floats(min_value=0.01, max_value=0.9))
def test_no_block_is_ever_charged_more_than_its_grant(rho: float, trial_share: float) -> None:
    from privacy_worlds import question  # noqa: PLC0415

    rest = (1 - trial_share) / 4
    shares = {"kpi": rest, "journeys": rest, "diagnostics": rest, "trials": trial_share}
    policy = PrivacyPolicy(rho_per_user_quarter=rho, shares=shares)
    spent: dict[str, int] = {}
    for plan in plan_releases(question(), policy):
        for charge in plan.charges:
            spent[charge.block] = spent.get(charge.block, 0) + charge.nano_rho
        for v in plan.vectors:
            assert cost(v.bound_units, v.sigma_units) <= Fraction(v.nano, NANO)
    assert all(total <= policy.cap_nano <= Fraction(repr(rho)) * NANO for total in spent.values())


def test_ids_name_the_question_and_nothing_else(make_question) -> None:  # type: ignore[no-untyped-def]
    policy = PrivacyPolicy()
    ids = [p.release_id for p in plan_releases(make_question(), policy)]
    assert ids == [p.release_id for p in plan_releases(make_question(), PrivacyPolicy())]
    assert len(set(ids)) == len(ids) == 7
    other = [p.release_id for p in plan_releases(make_question(geos=("north", "west")), policy)]
    changed = {i for i in other if i not in ids}
    assert {i.split("-")[0] for i in changed} == {"kpi", "diagnostics"}, "geos are not part of journeys or trials"
    bounds = replace(policy, kpi={"conversions": Bound(3, 0.7), "revenue": Bound(200, 0.2)})
    assert not {i for i in ids if i.startswith("kpi")} & {p.release_id for p in plan_releases(make_question(), bounds)}


def test_keys_are_the_public_cross_product(make_question) -> None:  # type: ignore[no-untyped-def]
    q, policy = make_question(), PrivacyPolicy()
    for plan in plan_releases(q, policy):
        keys = release_keys(plan, q, policy)
        assert [len(keys[v.name]) for v in plan.vectors] == [v.cells for v in plan.vectors]
        for frame in keys.values():
            assert not frame.duplicated().any()
    kpi = release_keys(plan_releases(q, policy)[0], q, policy)["conversions"]
    assert list(kpi["geo"].unique()) == ["north", "south", "other"]
    assert set(kpi["week"]) == set(q.blocks[0].weeks)


def test_journey_keys_match_their_closed_form_count() -> None:
    for n in (1, 3, 10, 12):
        channels = tuple(f"c{i}" for i in range(n))
        frames = journeys.keys(channels, 6, ("flow", "position", "position_value", "sets"))
        assert sum(map(len, frames.values())) == journeys.cell_count(n, 6)
    sets = journeys.set_keys(("a", "b"), 6)
    assert list(zip(sets["channels"], sets["outcome"], strict=True)) == [
        ("", "conversion"), ("a", "conversion"), ("a", "null"), ("b", "conversion"), ("b", "null"),
        ("a+b", "conversion"), ("a+b", "null"),
    ]  # fmt: skip


def test_too_large_a_journeys_table_is_refused(make_question) -> None:  # type: ignore[no-untyped-def]
    q = make_question(channels=tuple(f"c{i}" for i in range(150)))
    with pytest.raises(ConfigError, match=r"the journeys table would have [0-9,]+ cells"):
        plan_releases(q, PrivacyPolicy())


def test_experiments_share_a_block_and_pay_the_smallest_slice(make_question) -> None:  # type: ignore[no-untyped-def]
    first = make_question().experiments[0]  # touches both quarters
    second = replace(first, name="second", start=date(2024, 5, 6), end=date(2024, 6, 2))  # the second quarter only
    late = replace(first, name="late", start=date(2024, 6, 3), end=date(2024, 9, 1))  # runs on after the calendar
    arms = dict.fromkeys(("holdout", "second", "late"), ("control", "treated"))
    q = make_question(experiments=(first, second, late), arms=arms)
    policy = PrivacyPolicy()
    trials = {p.experiment: p for p in plan_releases(q, policy) if p.measure == "trials"}
    assert set(trials) == {"holdout", "second"}
    assert waiting(q) == (late,)
    third = policy.share_nano("trials") // 3
    assert [(c.block, c.nano_rho) for c in trials["holdout"].charges] == [
        ("quarter-2024-01-01", third), ("quarter-2024-04-01", third),
    ]  # fmt: skip
    assert trials["second"].nano == third
    assert math.isclose(trials["second"].vectors[0].bound, math.sqrt(8))


def test_an_experiment_before_the_calendar_is_refused(make_question) -> None:  # type: ignore[no-untyped-def]
    early = Experiment("early", "user", "search", date(2023, 12, 1), date(2024, 2, 1), (), None)
    q = make_question(experiments=(early,), arms={"early": ("control", "treated")})
    with pytest.raises(InputError, match="experiment 'early' starts on 2023-12-01, before the calendar"):
        plan_releases(q, PrivacyPolicy())


def test_a_question_checks_itself(make_question) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ContractError, match="must declare at least two different arms; got none"):
        make_question(arms={})
    with pytest.raises(ContractError, match="must hold its control arm 'control'"):
        make_question(arms={"holdout": ("a", "b")})
    with pytest.raises(ContractError, match="a channel may not be called 'null'"):
        make_question(channels=("null",))
    with pytest.raises(ContractError, match="does not start on a sunday"):
        make_question(week_start="sunday")
    weeks = weeks_between(date(2024, 1, 1), date(2024, 2, 5))
    with pytest.raises(ContractError, match="in time order and may not share a week"):
        make_question(blocks=blocks(weeks) + blocks(weeks), experiments=(), arms={})
