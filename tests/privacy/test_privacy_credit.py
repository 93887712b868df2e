"""Credit rules on hand-made people and against exact fractions on random ones; policy faults name their key."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace
from datetime import date, timedelta
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from contracts.errors import ConfigError
from privacy import credit
from privacy.bounds import Bound
from privacy.measure_policies import CreditPolicy
from privacy.plan import plan_releases, release_keys
from privacy.policy import PrivacyPolicy
from privacy.rules import LastNonDirect, PositionWeights, TimeDecay

Q1, Q2 = "quarter-2024-01-01", "quarter-2024-04-01"
RULES = {
    "time_decay": TimeDecay(7.0),
    "last_non_direct": LastNonDirect(("video",)),
    "u_shaped": PositionWeights(0.4, 0.2, 0.4),
}
LOOSE = CreditPolicy(30, 20, Bound(60, 0.6), Bound(60_000, 0.35), 0.05, RULES)


def policy(rules: CreditPolicy = LOOSE, share: float = 0.2) -> PrivacyPolicy:
    """Everything for credit."""
    return PrivacyPolicy(shares={"credit": share}, credit=rules)


def totals(world, path):  # type: ignore[no-untyped-def]
    """(block, vector) -> {channel: metric total} without zeros."""
    exact = world.exact(world.inputs(path))
    out = {}
    for plan in plan_releases(world.question, world.policy):
        keys = release_keys(plan, world.question, world.policy)
        for v in plan.vectors:
            units = exact[f"{plan.measure} {plan.blocks[0]}", v.name]
            cells = zip(keys[v.name]["channel"], units, strict=True)
            out[plan.blocks[0], v.name] = {c: round(float(x) * v.unit, 5) for c, x in cells if x}
    return out


@pytest.fixture
def story(world, make_event, no_trial, make_question):  # type: ignore[no-untyped-def]
    """Ann: search 14 days, social 7 days and video 0 days before a sale of 100, then a sale out of nowhere."""
    rows = [
        make_event("ann", 0, "2024-01-02T10:00:00Z", "click", channel="video"),  # 36 days before: too old
        make_event("ann", 1, "2024-01-24T10:00:00Z", "impression", channel="search"),
        make_event("ann", 2, "2024-01-31T10:00:00Z", "click", channel="social"),
        make_event("ann", 3, "2024-02-07T09:00:00Z", "visit", channel="video"),
        make_event("ann", 4, "2024-02-07T10:00:00Z", "conversion", value="100", currency="USD"),
        make_event("ann", 5, "2024-02-08T10:00:00Z", "conversion", value="30", currency="USD"),
    ]
    here = world(policy=policy(), question=make_question(**no_trial))
    return here, here.write(rows)


def test_the_three_rules_on_one_journey(story) -> None:  # type: ignore[no-untyped-def]
    out = totals(*story)
    seventh = 100 / 7  # weights 1/4, 1/2, 1
    assert out[Q1, "time_decay:revenue"] == pytest.approx(
        {"search": seventh, "social": 2 * seventh, "video": 4 * seventh, "unattributed": 30}, abs=2e-3
    )
    assert out[Q1, "last_non_direct:revenue"] == {"social": 100, "unattributed": 30}
    assert out[Q1, "u_shaped:revenue"] == pytest.approx(
        {"search": 40, "social": 20, "video": 40, "unattributed": 30}, abs=2e-3
    )
    assert out[Q1, "u_shaped:conversions"] == pytest.approx(
        {"search": 0.4, "social": 0.2, "video": 0.4, "unattributed": 1}, abs=1e-4
    )
    assert out[Q1, "clipped:u_shaped:revenue"] == {} and out[Q2, "u_shaped:conversions"] == {}


def test_direct_gets_the_credit_where_there_is_nothing_else(world, make_event, no_trial, make_question) -> None:  # type: ignore[no-untyped-def]
    rows = [make_event("ann", 1, "2024-02-07", channel="video"), make_event("ann", 2, "2024-02-08", "conversion")]
    here = world(policy=policy(), question=make_question(**no_trial))
    assert totals(here, here.write(rows))[Q1, "last_non_direct:conversions"] == {"video": 1}


def test_the_look_back_window_is_cut_at_the_block(world, make_event, no_trial, make_question) -> None:  # type: ignore[no-untyped-def]
    rows = [make_event("ann", 1, "2024-03-31", channel="search"), make_event("ann", 2, "2024-04-01", "conversion")]
    here = world(policy=policy(), question=make_question(**no_trial))
    out = totals(here, here.write(rows))
    assert out[Q1, "u_shaped:conversions"] == {} and out[Q2, "u_shaped:conversions"] == {"unattributed": 1}


def test_a_conversion_that_is_a_touch_credits_itself(world, make_event, no_trial, make_question) -> None:  # type: ignore[no-untyped-def]
    rows = [make_event("ann", 1, "2024-02-07", "conversion", channel="social")]
    here = world(policy=policy(), question=make_question(**no_trial), is_touch=True)
    assert totals(here, here.write(rows))[Q1, "time_decay:conversions"] == {"social": 1}


def test_clipped_mass_of_credit(world, make_event, no_trial, make_question) -> None:  # type: ignore[no-untyped-def]
    """Five sales of one channel under a bound of 2; fifty of bob, whose clipped mass is capped at 8."""
    rows = [make_event("ann", i, f"2024-02-07T10:00:{i:02}Z", "conversion") for i in range(5)]
    rows += [make_event("bob", i, f"2024-02-07T10:{i:02}:00Z", "conversion") for i in range(50)]
    tight = replace(LOOSE, conversions=Bound(2.0, 0.6))
    here = world(policy=policy(tight), question=make_question(**no_trial))
    out = totals(here, here.write(rows))
    assert out[Q1, "u_shaped:conversions"] == {"unattributed": 4}
    assert out[Q1, "clipped:u_shaped:conversions"] == {"": 3 + 8}


def spread(rule, ages, channels, direct):  # type: ignore[no-untyped-def]
    """Exact shares of the touches of one conversion, oldest first."""
    n = len(ages)
    if isinstance(rule, TimeDecay):
        weights = [Fraction(credit.decay_table(rule, 98)[a]) for a in ages]
    elif isinstance(rule, LastNonDirect):
        good = [i for i, c in enumerate(channels) if c not in direct] or [n - 1]
        weights = [Fraction(int(i == good[-1])) for i in range(n)]
    elif n == 1:
        weights = [Fraction(1)]
    elif n == 2:
        weights = [Fraction(str(rule.first)), Fraction(str(rule.last))]
    else:
        weights = [Fraction(str(rule.first)), *[Fraction(str(rule.middle)) / (n - 2)] * (n - 2)]
        weights.append(Fraction(str(rule.last)))
    return [w / sum(weights) for w in weights]


def reference(rows, rule, lookback, most):  # type: ignore[no-untyped-def]
    """{channel: revenue} in exact fractions, from rows in the order of time of one block."""
    out: dict[str, Fraction] = defaultdict(Fraction)
    journeys: dict[str, list[tuple[date, str]]] = defaultdict(list)
    for person, day, kind, channel, value in rows:
        if kind != "conversion":
            if channel:
                journeys[person].append((day, channel))
            continue
        led = [(d, c) for d, c in journeys.pop(person, []) if (day - d).days <= lookback][-most:]
        if not led:
            out["unattributed"] += value
            continue
        shares = spread(rule, [(day - d).days for d, _ in led], [c for _, c in led], {"video"})
        for (_, c), s in zip(led, shares, strict=True):
            out[c] += value * s
    return out


@pytest.mark.parametrize("seed", range(3))
def test_random_people_agree_with_exact_fractions(world, make_event, no_trial, make_question, seed) -> None:  # type: ignore[no-untyped-def]
    """Each touch is within one unit of its exact share, and the credits of a block sum to its revenue exactly."""
    rng = np.random.default_rng(seed)
    instants = np.sort(rng.choice(80 * 24 * 60, 1200, replace=False))
    plain, rows = [], []
    for i, minute in enumerate(instants):
        when = date(2024, 1, 1) + timedelta(days=int(minute) // 1440)
        kind = ("impression", "click", "visit", "conversion")[rng.integers(4)]
        channel = ("search", "social", "video", "")[rng.integers(4)] if kind != "conversion" else ""
        person, cents = f"p{rng.integers(15)}", int(rng.integers(0, 100))
        stamp = f"{when}T{minute % 1440 // 60:02}:{minute % 60:02}:00Z"
        money = {"value": f"{cents / 100}", "currency": "USD"} if kind == "conversion" else {}
        rows.append(make_event(person, i, stamp, kind, channel=channel, **money))
        plain.append((person, when, kind, channel, Fraction(cents, 100)))
    rules = replace(LOOSE, lookback_days=9, max_touches=4, revenue=Bound(60, 0.35))
    here = world(policy=policy(rules), question=make_question(**no_trial))
    exact = here.exact(here.inputs(here.write(rows)))
    revenue = sum(v for _, _, kind, _, v in plain if kind == "conversion")
    for plan in plan_releases(here.question, here.policy)[:1]:
        keys = release_keys(plan, here.question, here.policy)
        for v in plan.vectors:
            if not v.name.endswith(":revenue") or v.name.startswith("clipped"):
                continue
            units = exact[f"{plan.measure} {plan.blocks[0]}", v.name]
            unit = Fraction(v.numerator, v.denominator)
            assert sum(int(u) for u in units) * unit == revenue
            wanted = reference(plain, RULES[v.name.split(":")[0]], 9, 4)
            for channel, u in zip(keys[v.name]["channel"], units, strict=True):
                assert abs(int(u) * unit - wanted[channel]) <= len(plain) * unit, (v.name, channel)


def test_the_decay_table_halves_with_each_half_life() -> None:
    table = credit.decay_table(TimeDecay(7.0), 98)
    assert [table[7 * i] for i in range(15)] == [2 ** (20 - i) for i in range(15)]
    assert all(a > b for a, b in pairwise(table))
    assert table[1] == math.floor(2 ** (20 - 1 / 7))
    assert credit.decay_table(TimeDecay(0.1), 98)[-1] == 1, "an old touch keeps some weight, so no sum is 0"


def test_weights_stay_inside_exact_integers() -> None:
    """C and all weights of a journey at their largest: the product is at most 2^52."""
    decay = 64 * max(credit.decay_table(TimeDecay(365), 98))
    position = (64 - 2) * sum(PositionWeights(1, 1, 1).thousandths())
    assert 2**26 * max(decay, position) <= 2**52


def test_parameters_are_part_of_the_id_and_the_release(world, make_event, no_trial, make_question) -> None:  # type: ignore[no-untyped-def]
    here = world(policy=policy(), question=make_question(**no_trial))
    path = here.write([make_event("ann", 1, "2024-02-07", "conversion")])
    other = policy(replace(LOOSE, rules=RULES | {"time_decay": TimeDecay(8.0)}))
    ids = {p.release_id for p in plan_releases(here.question, here.policy)}
    assert not ids & {p.release_id for p in plan_releases(here.question, other)}
    from privacy.room import read_release  # noqa: PLC0415

    found = read_release(here.publish(here.inputs(path))[0])
    declared = found.metadata["credit"]
    rules = declared["rules"]
    assert rules["time_decay"]["half_life_days"] == 7 and len(rules["time_decay"]["weights_by_age"]) == 31
    assert declared["lookback_days"] == 30 and "cut at the first day" in declared["boundary"]
    assert set(found.table["model"]) == set(RULES) and "unattributed" in set(found.table["channel"])


BAD = [
    ({"lookback_days": 0}, r"privacy.credit.lookback_days must be an integer from 1 to 98; got 0"),
    ({"max_touches": 65}, r"privacy.credit.max_touches must be an integer from 1 to 64; got 65"),
    ({"clipped_share": 0.2}, r"privacy.credit.\* must add up to 1 at most; got 1.15"),
    ({"rules": {"Bad name": TimeDecay()}}, r"privacy.credit.rules.Bad name needs another name"),
    ({"rules": {"markov": TimeDecay()}}, r"privacy.credit.rules.markov needs another name.* not one of last_touch"),
    ({"rules": {"a": TimeDecay(0.0)}}, r"privacy.credit.rules.a.half_life_days must lie between 0.1 and 365; got 0.0"),
    ({"rules": {"a": PositionWeights(0.0005)}}, r"privacy.credit.rules.a.first must lie .* in steps of 0.001"),
    ({"rules": {"a": PositionWeights(0, 0, 0)}}, r"privacy.credit.rules.a has only weights of 0"),
    ({"rules": {"a": LastNonDirect(("x", "x"))}}, r"privacy.credit.rules.a.direct must be unique; got x, x"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "sentence"), BAD, ids=[str(c) for c, _ in BAD])
def test_a_fault_names_its_key(changes, sentence) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=sentence):
        CreditPolicy(**changes)


def test_an_unknown_direct_channel_is_refused_before_any_row_is_read(make_question, no_trial) -> None:  # type: ignore[no-untyped-def]
    rules = CreditPolicy(rules={"a": LastNonDirect(("direct",))})
    with pytest.raises(ConfigError, match=r"rules.a.direct names 'direct', .* declared are search, social, video"):
        plan_releases(make_question(**no_trial), policy(rules))


def test_credit_and_media_are_off_by_default(make_question) -> None:  # type: ignore[no-untyped-def]
    measures = {p.measure for p in plan_releases(make_question(), PrivacyPolicy())}
    assert measures == {"kpi", "journeys", "diagnostics", "trials"}


def test_a_credit_release_is_read_by_attribution(story) -> None:  # type: ignore[no-untyped-def]
    """The door between the rooms: the file, not the code."""
    from attribution.rule_credit import read_credit  # noqa: PLC0415
    from contracts.errors import ContractError  # noqa: PLC0415
    from privacy.room import read_release  # noqa: PLC0415

    here, path = story
    here.policy = replace(here.policy, rho_per_user_quarter=100.0, shares={"credit": 1.0, "kpi": 0.0})
    found = read_release(here.publish(here.inputs(path))[0])
    credits = {(c.model, c.metric): c for c in read_credit(found)}
    assert set(credits) == {(r, m) for r in RULES for m in ("conversions", "revenue")}
    one = credits["u_shaped", "conversions"]
    assert one.channels == ("search", "social", "video", "unattributed")
    assert one.parameters == {"kind": "position", "first": 0.4, "middle": 0.2, "last": 0.4}
    total, variance = one.total
    assert abs(total - 2) < 7 * variance**0.5, "two conversions; false alarm 3e-12"
    assert one.clipped_variance > 0 and np.isfinite(one.clipped)
    with pytest.raises(ContractError, match="holds 'kpi'; this reads 'credit'"):
        read_credit(replace(found, measure="kpi"))
