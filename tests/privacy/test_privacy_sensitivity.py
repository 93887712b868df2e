"""T1: measured sensitivity on adversarial neighbours D and D' = D without one person. Deterministic, no false alarms.

Two ways. Full path: D and D' are both written, loaded and counted; for every vector of every release the keys and
dtypes are the same and the tables differ by at most the claim in L1, L2 and Linf. Person by person: one load of D gives
the vector of every person in it (the sum over people, which is the last step, is replaced by a sum per person), which
is what the table moves by when that person is removed; two more loads of D with half of the people each show that
nobody's vector depends on who else is there. That makes hundreds of pairs out of three loads.

Claims for a vector of bound C of which one person can touch at most k cells: L2 and Linf at most C, L1 at most
sqrt(k) C.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from privacy_worlds import NOW, SECRET

from contracts.trials import TrialDesign
from privacy import credit, diagnostics, journeys, kpi, levels, media, trials
from privacy.bounding import per_cell, total
from privacy.bounds import Bound, fixed_point
from privacy.load import LoadSettings, load_people
from privacy.measure_policies import CreditPolicy, JourneyPolicy, LevelPolicy, MediaPolicy, TrialPolicy
from privacy.people import People, Statement, loaded, sql
from privacy.plan import plan_releases
from privacy.policy import PrivacyPolicy
from privacy.publish import exact_vectors
from privacy.rules import LastNonDirect, PositionWeights, TimeDecay

MEASURES = (kpi, journeys, trials, diagnostics, media, credit, levels)

TIGHT = PrivacyPolicy(
    kpi={"conversions": Bound(1.5, 0.7), "revenue": Bound(20, 0.2), "active_users": Bound(2, 0.1)},
    journeys=JourneyPolicy(3, Bound(2.5, 0.3), Bound(2, 0.3), Bound(30, 0.15), Bound(1.2, 0.15), 0.1),
    trials=TrialPolicy(visits=2, conversions=1, revenue=50),
    shares={
        "kpi": 0.2, "journeys": 0.2, "trials": 0.15, "diagnostics": 0.1, "media": 0.1, "credit": 0.15, "levels": 0.1,
    },
    levels=LevelPolicy({"main": ("north", "south")}),
    media=MediaPolicy(("search", "video"), Bound(1.5, 0.5), Bound(0.9, 0.45)),
    credit=CreditPolicy(
        20, 5, Bound(1.3, 0.6), Bound(25, 0.35), 0.05,
        {"decay": TimeDecay(3.0), "non_direct": LastNonDirect(("video",)), "shaped": PositionWeights(0.5, 0.1, 0.3)},
    ),
)  # fmt: skip
PEOPLE = ["a", "b", "ü", "u\u0308", "a ", "'; --", "0", "00", "nan", "NULL", "\U0001f600", "a\x1f", "-1", "1e5"]
VALUES = ["", "0", "0.000001", "19.99", "1e6", "-5", "nan", "inf", "999999999999", "abc", "1e300", "-1e300", "-inf"]
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


def touched_cells(measure: str, name: str, cells: int) -> int:
    """Most cells that one person can touch, from the public keys."""
    if name.startswith(("clipped:", "quarter:")) or name == "cohort":
        return 1
    known = {"kpi": 13, "levels": 13, "media": 13 * 2, "trials": len(TrialDesign().components()), "diagnostics": 3}
    return min(known.get(measure, cells), cells, 1024)


def check_claims(moved: np.ndarray, bound_units: int, most: int, name: Any) -> float:
    """Asserts the claims for one difference of integers (cells,); returns L2 / C."""
    x = [int(v) for v in moved if v]
    square = sum(v * v for v in x)
    assert min(x, default=0) >= 0, name
    assert max(x, default=0) <= bound_units, name
    assert square <= bound_units**2, name
    assert len(x) <= most and sum(x) ** 2 <= most * bound_units**2, name
    return math.sqrt(square) / bound_units


def check_people(found: pd.DataFrame, bound_units: int, most: int, name: Any) -> float:
    """`check_claims` for each person of a frame (person, cell, x); the largest L2 / C."""
    used = found[found["x"] != 0]
    if used.empty:
        return 0.0
    assert used["x"].min() >= 0 and used["x"].max() <= bound_units, name  # so that no square leaves int64
    person = used.assign(square=used["x"] ** 2).groupby("person").agg(
        cells=("x", "size"), l1=("x", "sum"), square=("square", "sum")
    )  # fmt: skip
    assert (person["square"] <= bound_units**2).all(), name
    assert (person["cells"] <= most).all(), name
    assert all(int(v) ** 2 <= most * bound_units**2 for v in person["l1"]), name
    return math.sqrt(person["square"].max()) / bound_units


def small_world(world, make_question, **changes):  # type: ignore[no-untyped-def]
    """One quarter and one user test inside it."""
    whole = make_question()
    test = replace(whole.experiments[0], end=date(2024, 3, 24))
    question = replace(whole, blocks=whole.blocks[:1], experiments=(test,))
    return world(question=question, policy=replace(TIGHT, **changes), max_rejected=1.0, is_touch=True)


def same_person(a: str, b: str) -> bool:
    """Ids are trimmed at load."""
    return a.strip(" ") == b.strip(" ")


def exact(here, rows, arms):  # type: ignore[no-untyped-def]
    """Bounded totals of a world of rows and (person, arm) pairs."""
    events = here.write(rows or [adversarial(np.random.default_rng(0), 1)[0] | {"user_id": ""}], "events.jsonl")
    return here.exact(here.inputs(events, here.groups(arms or [("", "control")])))


def check_full_path(here, datasets, neighbours, size):  # type: ignore[no-untyped-def]
    """Largest L2 / C over pairs that are written and loaded twice."""
    arms = [(p, ("control", "treated")[i % 2]) for i, p in enumerate([*PEOPLE, "giant"])]
    plans = {
        (f"{p.measure} {p.blocks[0]}", v.name): (p.measure, v)
        for p in plan_releases(here.question, here.policy)
        for v in p.vectors
    }
    worst = 0.0
    for seed in range(datasets):
        rng = np.random.default_rng(seed)
        rows = adversarial(rng, size)
        whole = exact(here, rows, arms)
        assert whole.keys() == plans.keys()
        for name in ["giant", *map(str, rng.choice(PEOPLE, neighbours - 1, replace=False))]:
            less = exact(
                here,
                [r for r in rows if not same_person(r["user_id"], name)],
                [(p, a) for p, a in arms if not same_person(p, name)],
            )
            assert whole.keys() == less.keys()
            for key, units in whole.items():
                measure, v = plans[key]
                assert units.shape == less[key].shape == (v.cells,)
                assert units.dtype == less[key].dtype == np.int64
                most = touched_cells(measure, v.name, v.cells)
                worst = max(worst, check_claims(units - less[key], v.bound_units, most, (key, name)))
    return worst


@dataclass
class Probe:
    """Stands where the measures expect `People`; keeps what each statement found per person."""

    people: People
    found: list[pd.DataFrame] = field(default_factory=list)

    @property
    def conversion_is_touch(self) -> bool:
        return self.people.conversion_is_touch

    def keep(self, name: str, statement: Statement) -> None:
        self.people.keep(name, statement)

    def drop(self, name: str) -> None:
        self.people.drop(name)

    def vector(self, statement: Statement, cells: int) -> np.ndarray:
        self.found.append(pd.DataFrame(dict(self.people.engine.rows(statement))))
        return np.zeros(cells, dtype=np.int64)


@contextmanager
def per_person(monkeypatch) -> Iterator[None]:  # type: ignore[no-untyped-def]
    """The measures group by person and cell in their last step, instead of by cell."""

    def by_person(table):  # type: ignore[no-untyped-def]
        return table.group_by(["person", "cell"]).agg(x=total(table.x))

    with monkeypatch.context() as patch:
        for module in MEASURES:
            patch.setattr(module, "totals", by_person)
            module.statement.cache_clear()
        yield
    for module in MEASURES:
        module.statement.cache_clear()


def person_vectors(here, rows, arms):  # type: ignore[no-untyped-def]
    """(measure, vector) -> frame (who, cell, x); `who` is the keyed hash, or '' for people without consent."""
    inputs = here.inputs(here.write(rows, "events.jsonl"), here.groups(arms))
    out = {}
    with load_people(inputs, here.question, LoadSettings(NOW, here.root / "raw", SECRET)) as everybody:
        (people,) = everybody.each()
        names = pd.DataFrame(dict(people.engine.rows(sql(loaded("keys"))))).set_index("person")["user_key"]
        for plan in plan_releases(here.question, here.policy):
            probe = Probe(people)
            exact_vectors(plan, probe, here.policy, here.question)  # type: ignore[arg-type]
            for v, found in zip(plan.vectors, probe.found, strict=True):
                assert all(found[c].dtype.kind == "i" for c in ("person", "cell", "x")), (plan.measure, v.name)
                who = found["person"].map(names).fillna("")
                out[plan.measure, v.name] = found.assign(who=who)
    return out


def crowd(rng: np.random.Generator, people: int, giant: int) -> list[dict[str, str]]:
    """Adversarial rows of `people` people, one of whom has `giant` of them, well spread over the quarter."""
    rows = adversarial(rng, 16 * people)
    names = [*PEOPLE, *(f"{'pü日'[i % 3]}{i}" for i in range(people - len(PEOPLE) - 1))]
    for row in rows:
        row["user_id"] = names[rng.integers(len(names))]
    base = adversarial(rng, 500)
    for i in range(giant):
        minute = int(rng.integers(1, 60 * 24 * 87))
        when = f"{date(2024, 1, 1) + timedelta(days=minute // 1440)}T{minute % 1440 // 60:02}:{minute % 60:02}:00Z"
        rows.append(base[i % 500] | {"user_id": "giant", "event_id": f"g{i}", "ts": when, "consent": "true"})
    return rows


def check_person_by_person(here, datasets, people, giant, more=()):  # type: ignore[no-untyped-def]
    """(pairs, {(measure, vector): largest L2 / C}) over all people of all datasets.

    `more`: per further column of the assignments, the values that people have in turn.
    """
    components = max(len(here.question.design(e).components()) for e in here.question.experiments)
    plans = {(p.measure, v.name): v for p in plan_releases(here.question, here.policy) for v in p.vectors}
    pairs, worst = 0, dict.fromkeys(plans, 0.0)
    for seed in range(datasets):
        rng = np.random.default_rng(1000 + seed)
        rows = crowd(rng, people, giant if seed == 0 else giant // 20)
        ids = sorted({r["user_id"].strip(" ") for r in rows})
        side = {name: i % 2 for i, name in enumerate(ids)}
        arms = [
            (name, ("control", "treated")[i // 2 % 2], *(values[i // 4 % len(values)] for values in more))
            for i, name in enumerate(ids)
        ]
        whole = person_vectors(here, rows, arms)
        halves = [
            person_vectors(
                here, [r for r in rows if side[r["user_id"].strip(" ")] == k], [a for a in arms if side[a[0]] == k]
            )
            for k in (0, 1)
        ]
        pairs += len(ids)
        for key, v in plans.items():
            found = whole[key]
            assert found.empty or 0 <= found["cell"].min() <= found["cell"].max() < v.cells, key
            most = components if key[0] == "trials" else touched_cells(key[0], v.name, v.cells)
            worst[key] = max(worst[key], check_people(found, v.bound_units, most, key))
            alone = pd.concat([half[key] for half in halves])
            columns, order = ["who", "cell", "x"], ["who", "cell", "x"]
            left = found[columns].sort_values(order, ignore_index=True)
            right = alone[columns].sort_values(order, ignore_index=True)
            pd.testing.assert_frame_equal(left, right, obj=str(key))
    return pairs, worst


def test_removing_anybody_moves_no_vector_by_more_than_its_bound(world, make_question) -> None:  # type: ignore[no-untyped-def]
    assert check_full_path(small_world(world, make_question), datasets=2, neighbours=3, size=250) > 0.999


def test_five_hundred_people_removed_one_at_a_time(world, make_question, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    here = small_world(world, make_question)
    with per_person(monkeypatch):
        pairs, worst = check_person_by_person(here, datasets=5, people=102, giant=10_000)
    assert pairs >= 500
    slack = {key: w for key, w in worst.items() if w < 0.99}
    assert not slack, f"the data never pushed against these bounds: {slack}"


@pytest.mark.parametrize("ghost", [False, True])
def test_a_trial_with_everything_declared_keeps_its_bound(world, make_question, monkeypatch, ghost) -> None:  # type: ignore[no-untyped-def]
    """Days before the test, strata, exposure and a ratio; or a covariate, entry and ghost exposure."""
    design = TrialDesign(strata=("new", "old"), exposed="assignments" if ghost else "click", ghost=ghost)
    if ghost:
        design = replace(design, covariate=40.0, covariate_since=date(2024, 1, 8), entry=True)
    else:
        design = replace(design, pre_days=28, ratio=("revenue", "visits"))
    here = small_world(world, make_question, shares={"trials": 0.3})
    here.question = replace(here.question, designs={"holdout": design})
    columns = (("new", "old"), ("true", "false", ""), ("1e300", "99", "", "0.5"), ("2024-02-05", "2024-03-24"))
    with per_person(monkeypatch):
        pairs, worst = check_person_by_person(here, datasets=1, people=60, giant=1500, more=columns)
    assert pairs >= 58 and worst["trials", "trial"] > (0.9 if not ghost else 0.8)


def test_the_claims_hold_when_cells_are_capped_instead(world, make_question, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    here = small_world(world, make_question, bounding="l0_linf")
    with per_person(monkeypatch):
        pairs, worst = check_person_by_person(here, datasets=1, people=40, giant=2000)
    assert pairs >= 38 and worst["kpi", "conversions"] > 0.99


@pytest.mark.slow
def test_removing_anybody_of_many(world, make_question) -> None:  # type: ignore[no-untyped-def]
    assert check_full_path(small_world(world, make_question), datasets=20, neighbours=10, size=1000) > 0.999


@pytest.mark.parametrize("module", [kpi, journeys, media, credit, levels], ids=lambda m: m.__name__)
def test_the_test_above_sees_a_missing_bound(world, make_question, monkeypatch, module) -> None:  # type: ignore[no-untyped-def]
    """Mutant of every measure: cells are clipped, but the vector is not scaled."""
    name = module.__name__.removeprefix("privacy.")
    here = small_world(world, make_question, shares={name: 0.2})
    monkeypatch.setattr(module, "bounded", lambda rows, bound, cells, l0=0: per_cell(rows, bound))
    with per_person(monkeypatch), pytest.raises(AssertionError, match=name):
        check_person_by_person(here, datasets=1, people=30, giant=300)


@pytest.mark.parametrize("name", ["trials", "diagnostics"])
def test_the_test_above_sees_a_wrong_bound(world, make_question, monkeypatch, name) -> None:  # type: ignore[no-untyped-def]
    """Mutant of the measures whose vectors fit by construction: C stands for one cell, and nothing is scaled."""
    here = small_world(world, make_question, shares={name: 0.2})
    monkeypatch.setattr(trials, "bound_units", lambda components: trials.ONE)
    monkeypatch.setattr(diagnostics, "PEOPLE_UNITS", 10**6)
    for module in (trials, diagnostics):
        monkeypatch.setattr(module, "bounded", lambda rows, bound, cells, l0=0: per_cell(rows, bound))
    with per_person(monkeypatch), pytest.raises(AssertionError, match=name):
        check_person_by_person(here, datasets=1, people=30, giant=300)


def test_every_bound_is_a_whole_number_of_units() -> None:
    for bound in (1.5, 20, 2.5, 1.2, 200):
        fixed = fixed_point(bound)
        assert fixed.micros == round(bound * 1e6)
