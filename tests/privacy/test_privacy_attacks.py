"""Attacks on what is read (docs/privacy.md): whoever writes other rows into the files cannot move a victim's figures.

Totals are sums over people, so what a victim adds is total(attack + victim) - total(attack). It must be what the victim
adds alone, bit by bit.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from privacy_worlds import SECRET, World, event

from contracts.errors import InputError
from privacy.plan import plan_releases
from privacy.room import read_charges

Rows = list[dict[str, Any]]
VICTIM: Rows = [
    event("ann", 1, "2024-01-05T10:00:00", "click", channel="search"),
    event("ann", 2, "2024-01-06T10:00:00", "conversion", value="30", currency="USD"),
    event("ann", 3, "2024-02-06T10:00:00", "visit", channel="video", geo="south"),
    event("ann", 4, "2024-04-09T10:00:00", "conversion", value="7.5", currency="USD"),
]
Totals = dict[tuple[str, str], np.ndarray]


@pytest.fixture
def here(world, make_question, no_trial) -> World:  # type: ignore[no-untyped-def]
    return world(question=make_question(**no_trial), max_rejected=1.0)  # type: ignore[no-any-return]


def totals(here: World, rows: Rows, name: str = "events.csv") -> Totals:
    return here.exact(here.inputs(here.write(rows, name)))


def added(here: World, attack: Rows) -> Totals:
    """What the victim adds to the totals of the attack."""
    both, attack_only = totals(here, attack + VICTIM), totals(here, attack)
    return {key: both[key] - attack_only[key] for key in both}


def same(a: Totals, b: Totals) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def told_as(user: str, **more: Any) -> Rows:
    """The victim's own events told by somebody else: same event ids, same times."""
    return [row | {"user_id": user} | more for row in VICTIM]


HASHED = hmac.new(SECRET, b"ann", hashlib.sha256).hexdigest()
NAMES = {
    "sql": "ann'; DROP TABLE parsed; --",
    "comment": "ann/*",
    "quotes": 'ann"',
    "backslash": "ann\\",
    "percent": "an%",
    "cyrillic": "\u0430nn",
    "full width": "\uff41nn",
    "combining": "a\u0301nn",
    "zero width": "ann\u200b",
    "right to left": "\u202enna",
    "capital": "ANN",
    "minus one": "-1",
    "zeros": "00",
    "separator": "ann|ann-1",
    "event id inside": "annann-1",
    "null": "NULL",
    "long": "a" * 100_000,
    "keyed hash": HASHED,
    "plain hash": hashlib.sha256(b"ann").hexdigest(),
    "secret": SECRET.decode(),
}


def test_confusing_user_ids_are_people_of_their_own(here: World) -> None:
    """All of them at once, telling the victim's own events; each (but one that may be refused) is one more person."""
    attack = [row for name in NAMES.values() for row in told_as(name, value="9", currency="USD", channel="social")]
    assert same(added(here, attack), totals(here, VICTIM))
    people = totals(here, attack + VICTIM)["diagnostics quarter-2024-01-01", "people"]
    assert people[0] == people[1] >= len(NAMES) * 1_000_000


COLLISIONS: dict[str, Rows] = {
    "same event ids, other content": told_as("eve", value="99", currency="USD", geo="south"),
    "ids that join to the victim's": [event("an", 1, "2024-01-05", event_id="nann-1"),
                                      event("ann-1", 1, "2024-01-05", event_id="ann")],
    "a refusal in a neighbour's name": [event("eve", 1, "2024-06-20", consent="false", event_id="ann-1")],
    "malformed rows under the victim's event ids": told_as("eve", ts="soon"),
    "invalid rows under the victim's event ids": told_as("eve", valid="false"),
}  # fmt: skip


def test_rows_made_to_collide_do_not_move_the_victim(here: World) -> None:
    attack = [row for rows in COLLISIONS.values() for row in rows]
    assert same(added(here, attack), totals(here, VICTIM))


REFUNDS = ("-20", "-0.000001", "-inf", "1e-400", "\u22125", "(5)", "-")


def test_refunds_and_negative_values_take_nothing_away(here: World) -> None:
    alone = totals(here, VICTIM)
    refunds = [event("ann", 90 + i, f"2024-01-07T1{i}:00:00", "conversion", value=value, currency="USD")
               for i, value in enumerate(REFUNDS)]  # fmt: skip
    after = totals(here, VICTIM + refunds)
    for key in alone:
        assert (after[key] >= 0).all()
        if key[1] in ("conversions", "revenue"):
            assert (after[key] >= alone[key]).all(), key


def test_order_formats_and_repeats_change_no_bit(here: World) -> None:
    rows = VICTIM + told_as("eve", value="3", currency="USD") + told_as("bob", geo="south")
    whole = totals(here, rows)
    random = np.random.default_rng(3)
    for _ in range(2):
        assert same(whole, totals(here, [rows[i] for i in random.permutation(len(rows))]))
    assert same(whole, totals(here, rows + rows))
    assert same(whole, totals(here, rows, "events.jsonl"))


def test_a_flood_of_one_person_moves_each_vector_by_at_most_its_bound(here: World) -> None:
    """3,000 maximal rows: the person's own share of every table stays in the ball of radius C."""
    flood = [
        event("eve", i, f"2024-0{1 + i % 3}-{1 + i % 28:02}T{i % 24:02}:00:00", ("click", "conversion")[i % 2],
              channel=("search", "social", "video")[i % 3], value="1e9", currency="USD")
        for i in range(3_000)
    ]  # fmt: skip
    with_flood, without = totals(here, VICTIM + flood), totals(here, VICTIM)
    for plan in plan_releases(here.question, here.policy):
        for v in plan.vectors:
            key = (f"{plan.measure} {plan.blocks[0]}", v.name)
            assert np.linalg.norm((with_flood[key] - without[key]).astype(float)) <= v.bound_units, key


HIDDEN: dict[str, Callable[[], Rows]] = {
    "on a malformed row": lambda: [event("ann", 9, "2024-06-20", "dance", consent="false")],
    "without a time": lambda: [event("ann", 9, "", consent="false")],
    "in the future": lambda: [event("ann", 9, "2039-01-01", consent="false")],
    "outside the calendar": lambda: [event("ann", 9, "2025-03-01", consent="false")],
    "on an invalid row": lambda: [event("ann", 9, "2024-06-20", valid="false", consent="false")],
}


@pytest.mark.parametrize("kind", HIDDEN)
def test_a_refusal_counts_wherever_it_stands(here: World, kind: str) -> None:
    found = totals(here, VICTIM + HIDDEN[kind]())
    for key, units in found.items():
        if key[1] != "people":
            assert not units.any(), key


def test_many_malformed_rows_stop_a_load_before_anything_is_charged(here: World) -> None:
    here.max_rejected = 0.01
    with pytest.raises(InputError, match=r"more than 0\.01 of the rows are malformed"):
        here.publish(here.inputs(here.write(VICTIM + told_as("eve", ts="soon"))))
    assert not list((here.root / "releases").glob("*")) and read_charges(here.ledger).empty
