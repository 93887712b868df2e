"""Which touches count (path, look-back, order of the flow), and credit of bounded counts person by person."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import replace
from datetime import date, timedelta
from itertools import groupby

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from attribution.credit import RULES
from attribution.rules import PositionWeights, rule_matrix
from attribution.shapley import conversion_matrix
from attribution.states import state_names
from attribution.tables import read_journeys
from contracts.errors import ConfigError
from contracts.release import Release
from privacy.bounds import Bound
from privacy.measure_policies import JourneyPolicy
from privacy.paths import PATHS
from privacy.plan import plan_releases, release_keys
from privacy.policy import PrivacyPolicy

Q1 = "quarter-2024-01-01"
CHANNELS = ("search", "social", "video")
WIDE = JourneyPolicy(50, Bound(60, 0.35), Bound(60, 0.35), Bound(60_000, 0.15), Bound(60, 0.15))
FIRST = date(2024, 1, 1)


def rows_of(seed, make_event, people=25, n=700):  # type: ignore[no-untyped-def]
    """Random events of the first quarter, with runs of one channel, in the order of time per person."""
    rng, rows = np.random.default_rng(seed), []
    for i in range(n):
        day = FIRST + timedelta(days=int(rng.integers(0, 80)))
        kind = "conversion" if rng.random() < 0.25 else "click"
        channel = "" if kind == "conversion" or rng.random() < 0.1 else CHANNELS[min(int(rng.exponential(0.8)), 2)]
        value = {"value": str(int(rng.integers(1, 90))), "currency": "USD"} if kind == "conversion" else {}
        when = f"{day}T{i // 3600 % 24:02}:{i // 60 % 60:02}:{i % 60:02}Z"
        rows.append(make_event(f"p{rng.integers(people)}", i, when, kind, channel=channel, **value))
    return rows


def journeys_of(rows):  # type: ignore[no-untyped-def]
    """Per person: list of (touches [(day, channel)], day of the conversion or None, value)."""
    out = defaultdict(list)
    mine = defaultdict(list)
    for r in sorted(rows, key=lambda r: r["ts"]):
        day = date.fromisoformat(r["ts"][:10])
        if r["event"] == "conversion":
            out[r["user_id"]].append((mine.pop(r["user_id"], []), day, int(r["value"])))
        elif r["channel"]:
            mine[r["user_id"]].append((day, r["channel"]))
    for person, touches in mine.items():
        out[person].append((touches, None, 0))
    return out


def kept(touches, end, policy):  # type: ignore[no-untyped-def]
    """Channels of the touches that count, the slow way."""
    end = end or (touches[-1][0] if touches else None)
    touches = [t for t in touches if (end - t[0]).days <= policy.lookback_days]
    if policy.path.endswith("_of_run"):
        pick = 0 if policy.path.startswith("first") else -1
        touches = [list(g)[pick] for _, g in groupby(touches, key=lambda t: t[1])]
    elif policy.path.endswith("_of_channel"):
        order = touches if policy.path.startswith("first") else touches[::-1]
        seen: dict[str, tuple[date, str]] = {}
        for t in order:
            seen.setdefault(t[1], t)
        touches = list(seen.values()) if policy.path.startswith("first") else list(seen.values())[::-1]
    return [c for _, c in touches][-policy.max_touches :]


def exact_cells(world, policy, rows, no_trial, make_question, vector):  # type: ignore[no-untyped-def]
    """[(key row, units)] of one vector of the first quarter, and its unit."""
    here = world(policy=PrivacyPolicy(journeys=policy), question=make_question(**no_trial))
    units = here.exact(here.inputs(here.write(rows)))[f"journeys {Q1}", vector]
    plan = next(p for p in plan_releases(here.question, here.policy) if p.measure == "journeys" and p.blocks[0] == Q1)
    keys = release_keys(plan, here.question, here.policy)
    return here, plan, keys, units


@pytest.mark.parametrize(
    ("path", "order", "lookback", "most"),
    [(p, *rest) for p, rest in zip(PATHS, [(3, 98, 50), (2, 20, 4), (2, 98, 6), (1, 20, 6), (2, 25, 3)], strict=True)],
)
def test_flow_is_that_of_a_plain_count(  # type: ignore[no-untyped-def]
    world, make_event, no_trial, make_question, path, order, lookback, most
) -> None:
    policy = replace(WIDE, path=path, lookback_days=lookback, max_touches=most, markov_order=order)
    rows = rows_of(4, make_event)
    _, plan, keys, units = exact_cells(world, policy, rows, no_trial, make_question, "flow")
    one = next(v for v in plan.vectors if v.name == "flow").denominator
    expected: Counter[tuple[str, str]] = Counter()
    for journeys in journeys_of(rows).values():
        for touches, end, _ in journeys:
            channels, state = kept(touches, end, policy), "start"
            if not channels and end is None:
                continue
            for i, c in enumerate(channels):
                expected[state, c] += 1
                state = ">".join(channels[max(0, i + 1 - order) : i + 1])
            expected[state, "conversion" if end else "null"] += 1
    found = {
        (s, t): u / one for s, t, u in zip(keys["flow"]["source"], keys["flow"]["target"], units, strict=True) if u
    }
    assert found == dict(expected)
    assert set(keys["flow"]["source"]) == set(state_names(CHANNELS, order))


def bounded(cells: Counter[int], bound: int) -> dict[int, int]:
    """One person's vector in the ball of radius `bound` (DESIGN section 3)."""
    clipped = {k: min(v, bound) for k, v in cells.items()}
    square = sum(v * v for v in clipped.values())
    if square <= bound * bound:
        return clipped
    n = math.ceil(math.sqrt(square)) + 1
    return {k: v * bound // n for k, v in clipped.items()}


@settings(max_examples=3, deadline=None)
@given(st.integers(0, 10_000))
@example(566)  # a credit of half a unit
def test_credit_of_bounded_counts_is_that_of_each_person(seed: int) -> None:
    """Rules and Shapley on the exact bounded tables = sum of each person's own credit, to the last unit.

    Tight bounds, so that most people are scaled. The fixtures are built by hand because hypothesis redraws.
    """
    import tempfile  # noqa: PLC0415
    from pathlib import Path  # noqa: PLC0415

    from privacy_worlds import World, event, question  # noqa: PLC0415

    policy = replace(WIDE, position=Bound(2.5, 0.35), sets=Bound(1.5, 0.15), max_touches=5)
    rows = rows_of(seed, event, people=15, n=300)
    with tempfile.TemporaryDirectory() as folder:
        fixed = {"experiments": (), "arms": {}}
        here = lambda **fields: World(Path(folder), **fields)  # noqa: E731
        world, plan, keys, _ = exact_cells(here, policy, rows, fixed, question, "position")
        exact = world.exact(world.inputs(world.write(rows)))
    vectors = {v.name: v for v in plan.vectors}
    mine = {name: _per_person(rows, policy, name, keys[name], vectors[name]) for name in ("position", "sets")}
    release = _release(plan, keys, {n: exact[f"journeys {Q1}", n] for n in vectors})
    table = read_journeys(release, CHANNELS)
    for rule in RULES:
        weights = rule_matrix(rule, table.position, 3, PositionWeights(0.5, 0.2, 0.3))
        whole = weights @ table.position.cells.value
        people = sum(weights @ cells for cells in mine["position"])
        np.testing.assert_allclose(whole, people, rtol=0, atol=1e-6)
        # a credit of k + ½ units is that in both; the sums differ behind the ninth digit, and round() would tell
        np.testing.assert_array_equal(*(np.round(np.round(x, 6)) for x in (whole, people)))
    assert table.sets is not None
    shapley = conversion_matrix(table.sets)
    np.testing.assert_allclose(shapley @ table.sets.cells.value, sum(shapley @ c for c in mine["sets"]), atol=1e-6)


def _per_person(rows, policy, name, keys, vector):  # type: ignore[no-untyped-def]
    """Each person's bounded units per cell, from their own journeys alone."""
    if name == "position":
        at = {k: i for i, k in enumerate(zip(keys["channel"], keys["position"], keys["length"], strict=True))}
    else:
        at = {k: i for i, k in enumerate(zip(keys["channels"], keys["outcome"], strict=True))}
    one = min(vector.denominator, vector.bound_units * vector.numerator) // vector.numerator
    out = []
    for journeys in journeys_of(rows).values():
        cells: Counter[int] = Counter()
        for touches, end, _ in journeys:
            path = kept(touches, end, policy)
            if name == "sets" and (path or end):
                members = "+".join(c for c in CHANNELS if c in path)
                cells[at[members, "conversion" if end else "null"]] += one
            elif name == "position" and end:
                hits = [(c, i, len(path)) for i, c in enumerate(path, 1)] or [("", 0, 0)]
                for hit in hits:
                    cells[at[hit]] += one
        units = np.zeros(len(keys))
        for cell, x in bounded(cells, vector.bound_units).items():
            units[cell] = x
        out.append(units)
    return out


def _release(plan, keys, units):  # type: ignore[no-untyped-def]
    """The table as released, in fixed-point units and without noise; read by the attribution room."""
    import pandas as pd  # noqa: PLC0415

    frames = [keys[n].assign(vector=n, value=u.astype(float), variance=0.0) for n, u in units.items()]
    return Release(
        plan.release_id, "journeys", Q1, plan.period_start, plan.period_end, pd.concat(frames, ignore_index=True), (),
        0.1, 1.0, 1e-6, {},
    )  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), [
    ({"markov_order": 0}, r"privacy.journeys.markov_order must be an integer from 1 to 4; got 0"),
    ({"markov_order": 5}, r"privacy.journeys.markov_order must be an integer from 1 to 4; got 5"),
    ({"lookback_days": 99}, r"privacy.journeys.lookback_days must be an integer from 1 to 98; got 99"),
    ({"path": "newest"}, r"privacy.journeys.path must be one of all, first_of_run, .*; got 'newest'"),
])  # fmt: skip
def test_faults_name_their_key(changes, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=message):
        JourneyPolicy(**changes)


def test_what_is_not_changed_is_not_named_and_what_is_changes_the_id(make_question) -> None:  # type: ignore[no-untyped-def]
    def ids(policy: JourneyPolicy) -> set[str]:
        plans = plan_releases(make_question(), PrivacyPolicy(journeys=policy))
        return {p.release_id for p in plans if p.measure == "journeys"}

    plain = JourneyPolicy()
    assert plain.declared() == {"max_touches": 6}
    others = [replace(plain, markov_order=2), replace(plain, path="first_of_run"), replace(plain, lookback_days=30)]
    found = [ids(p) for p in (plain, *others)]
    assert not set.intersection(*found) and len(set.union(*found)) == 4 * len(found[0])


def test_too_many_states_and_ambiguous_names_are_refused(make_question) -> None:  # type: ignore[no-untyped-def]
    many = make_question(channels=tuple(f"c{i}" for i in range(30)))
    with pytest.raises(ConfigError, match=r"markov_order = 2\); at most 20,000 are released. Lower markov_order"):
        plan_releases(many, PrivacyPolicy(journeys=JourneyPolicy(markov_order=2)))
    odd = make_question(channels=("search", "a>b"))
    with pytest.raises(ConfigError, match="channel 'a>b' holds '>'"):
        plan_releases(odd, PrivacyPolicy(journeys=JourneyPolicy(markov_order=2)))
