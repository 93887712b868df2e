"""T1: measured sensitivity on adversarial neighbours D and D' = D without one person. Deterministic, no false alarms.

For every vector of every release: same keys, same dtype, and the tables differ by at most the claimed C in L2.
"""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest

from privacy.plan import plan_releases
from privacy.policy import fixed_point
from privacy.room import Bound, JourneyPolicy, PrivacyPolicy, TrialPolicy

TIGHT = PrivacyPolicy(
    kpi={"conversions": Bound(1.5, 0.7), "revenue": Bound(20, 0.2), "active_users": Bound(2, 0.1)},
    journeys=JourneyPolicy(3, Bound(2.5, 0.35), Bound(2, 0.35), Bound(30, 0.15), Bound(1.2, 0.15)),
    trials=TrialPolicy(visits=2, conversions=1, revenue=50),
)
PEOPLE = ["a", "b", "ü", "u\u0308", "a ", "'; --", "0", "00", "nan", "NULL", "\U0001f600", "a\x1f", "-1", "1e5"]
VALUES = ["", "0", "0.000001", "19.99", "1e6", "-5", "nan", "inf", "999999999999", "abc", "1e300"]
TIMES = ["2024-01-01", "2024-03-31T23:59:59Z", "2024-02-10T00:00:00+14:00", "2024-02-10", "never", "", "2030-01-01"]


def adversarial(rng: np.random.Generator, size: int) -> list[dict[str, str]]:
    """Rows of a few people: collisions of ids, one giant, huge and missing values, every kind of malformed row."""
    rows = []
    for _ in range(size):
        day = 1 + int(rng.integers(0, 88))
        when = f"{date(2024, 1, 1) + timedelta(days=day)}T{rng.integers(24):02}:00:00Z"
        rows.append(
            {
                "event_id": str(rng.integers(0, size // 2 + 1)) if rng.random() < 0.9 else "",
                "user_id": "giant" if rng.random() < 0.4 else PEOPLE[rng.integers(len(PEOPLE))],
                "ts": when if rng.random() < 0.9 else TIMES[rng.integers(len(TIMES))],
                "event": ("impression", "click", "visit", "conversion", "conversion", "?")[rng.integers(6)],
                "channel": ("search", "social", "video", "", "x")[rng.integers(5)],
                "geo": ("north", "south", "", "mars")[rng.integers(4)],
                "value": VALUES[rng.integers(len(VALUES))] if rng.random() < 0.8 else str(rng.integers(10**9)),
                "currency": ("USD", "USD", "USD", "")[rng.integers(4)],
                "consent": ("true", "true", "true", "", "false")[rng.integers(5)],
                "valid": ("", "true", "true", "false")[rng.integers(4)],
            }
        )
    return rows


def same_person(a: str, b: str) -> bool:
    """Ids are trimmed at load."""
    return a.strip(" ") == b.strip(" ")


def compare(world, rows, gone, name):  # type: ignore[no-untyped-def]
    """Largest measured L2 / C over all vectors for one removed person; asserts keys and dtypes."""
    arms = {p: ("control", "treated")[i % 2] for i, p in enumerate([*PEOPLE, "giant"])}

    def exact(keep):  # type: ignore[no-untyped-def]
        events = world.write(keep or [rows[0] | {"user_id": ""}], "events.jsonl")
        people = [(p, a) for p, a in arms.items() if name is None or not same_person(p, name)]
        return world.exact(world.inputs(events, world.groups(people or [("", "control")])))

    whole = exact(rows) if gone is None else gone
    if name is None:
        return whole
    less = exact([r for r in rows if not same_person(r["user_id"], name)])
    assert whole.keys() == less.keys()
    worst = 0.0
    claims = {
        (f"{p.measure} {p.blocks[0]}", v.name): v.bound_units
        for p in plan_releases(world.question, world.policy)
        for v in p.vectors
    }
    for key, units in whole.items():
        assert units.shape == less[key].shape and units.dtype == less[key].dtype == np.int64
        moved = [int(x) - int(y) for x, y in zip(units, less[key], strict=True)]
        assert sum(m * m for m in moved) <= claims[key] ** 2, (key, name)
        assert all(m >= 0 for m in moved), (key, name)
        worst = max(worst, math.sqrt(sum(m * m for m in moved)) / claims[key])
    return worst


def check_pairs(world, make_question, datasets, neighbours, size):  # type: ignore[no-untyped-def]
    """Returns the largest L2 / C seen, so that the test can tell that it pushed against the bound."""
    whole = make_question()
    test = replace(whole.experiments[0], end=date(2024, 3, 24))
    question = replace(whole, blocks=whole.blocks[:1], experiments=(test,))
    here = world(question=question, policy=TIGHT, max_rejected=1.0, is_touch=True)
    worst = 0.0
    for seed in range(datasets):
        rng = np.random.default_rng(seed)
        rows = adversarial(rng, size)
        whole = compare(here, rows, None, None)
        for name in ["giant", *rng.choice(PEOPLE, neighbours - 1, replace=False)]:
            worst = max(worst, compare(here, rows, whole, str(name)))
    return worst


def test_removing_anybody_moves_no_vector_by_more_than_its_bound(world, make_question) -> None:  # type: ignore[no-untyped-def]
    assert check_pairs(world, make_question, datasets=6, neighbours=10, size=250) > 0.999


@pytest.mark.slow
def test_removing_anybody_of_many(world, make_question) -> None:  # type: ignore[no-untyped-def]
    assert check_pairs(world, make_question, datasets=25, neighbours=12, size=1000) > 0.999


def test_the_test_above_sees_a_missing_clip(world, make_question, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """Mutant: each cell is clipped, but the vector is not scaled."""
    from privacy import kpi  # noqa: PLC0415
    from privacy.bounding import per_cell  # noqa: PLC0415

    kpi.statement.cache_clear()
    monkeypatch.setattr(kpi, "bounded", lambda rows, bound, cells: per_cell(rows, bound))
    with pytest.raises(AssertionError, match="kpi"):
        check_pairs(world, make_question, datasets=1, neighbours=1, size=250)
    kpi.statement.cache_clear()


def test_every_bound_is_a_whole_number_of_units() -> None:
    for bound in (1.5, 20, 2.5, 1.2, 200):
        fixed = fixed_point(bound)
        assert fixed.micros == round(bound * 1e6)
