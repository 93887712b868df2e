"""Declared trials: every component against an independent count, sensitivity, charges, looks, and bad input."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from privacy_worlds import EXPERIMENT, NOW, SECRET

from contracts.errors import ConfigError, ContractError, InputError
from contracts.trials import TrialDesign, component_name, design_of
from lift.totals import product
from privacy import trials
from privacy.load import LoadSettings, load_people
from privacy.measure_policies import TrialPolicy
from privacy.plan import plan_releases, release_keys, trial_part
from privacy.policy import PrivacyPolicy
from privacy.publish import exact_totals
from privacy.room import read_charges, read_release
from privacy.verify import Surroundings, verify_file

Q1, Q2 = "quarter-2024-01-01", "quarter-2024-04-01"
LATER = replace(EXPERIMENT, start=date(2024, 4, 15), end=date(2024, 5, 12))  # in the second quarter
POLICY = PrivacyPolicy(trials=TrialPolicy(visits=3, conversions=2, revenue=50), shares={"trials": 0.15})
EVERYTHING = TrialDesign(
    pre_days=28, exposed="click", ratio=("revenue", "visits"), strata=("new", "old"), looks=3, headline="cuped"
)
GHOST = TrialDesign(
    metrics=("conversions",), covariate=40.0, covariate_since=date(2024, 4, 1), exposed="assignments", ghost=True,
    entry=True, looks=2,
)  # fmt: skip


def people_of(seed: int, size: int = 60) -> pd.DataFrame:
    """user, arm, stratum, exposed, covariate, entered."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "user_id": [f"p{i}" for i in range(size)], "arm": rng.choice(["control", "treated"], size),
            "stratum": rng.choice(["new", "old"], size), "exposed": rng.choice(["true", "false"], size),
            "covariate": np.round(rng.gamma(1.0, 40.0, size), 2),
            "entered": [str(LATER.start + timedelta(days=int(d))) for d in rng.integers(0, 28, size)],
        }
    )  # fmt: skip


def events_of(seed: int, people: pd.DataFrame, make_event) -> list[dict[str, Any]]:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng([seed, 1])
    rows = []
    for i in range(900):
        who = people["user_id"].iloc[rng.integers(len(people))]
        when = f"{date(2024, 3, 1) + timedelta(days=int(rng.integers(0, 90)))}T12:00:00Z"
        kind = ("impression", "click", "visit", "conversion")[rng.integers(4)]
        more = {"value": str(rng.integers(1, 90)), "currency": "USD"} if kind == "conversion" else {}
        rows.append(make_event(who, i, when, kind, channel=("search", "video")[rng.integers(2)], **more))
    return rows


def counted(rows: list[dict[str, Any]], people: pd.DataFrame, part: trials.Part) -> dict[tuple[str, ...], float]:
    """The components again, person by person, in plain Python."""
    bounds = POLICY.trials.bounds()
    out: dict[tuple[str, ...], float] = {}
    for p in people.itertuples():
        entered = date.fromisoformat(p.entered)
        if part.look and part.design.entry and not part.start <= entered <= part.end:
            continue
        factor = dict.fromkeys((*bounds, *(f"pre_{m}" for m in bounds), "exposed"), 0.0)
        for r in rows:
            day = date.fromisoformat(r["ts"][:10])
            if r["user_id"] != p.user_id or (part.design.entry and part.start <= day < entered):
                continue
            inside, before = part.start <= day <= part.end, part.first_day <= day < part.start
            for m in bounds if inside or before else ():
                size = {"visits": r["event"] == "visit", "conversions": r["event"] == "conversion"}.get(
                    m, float(r["value"]) if r["event"] == "conversion" else 0.0
                )
                factor[m if inside else f"pre_{m}"] += min(float(size), bounds[m])
            if inside and (r["event"], r["channel"]) == ("click", "search") and part.design.exposed == "click":
                factor["exposed"] = 1.0
        for name in factor:
            if name != "exposed":
                factor[name] = min(factor[name], bounds[name.removeprefix("pre_")])
        if part.design.exposed == "assignments":
            factor["exposed"] = float(p.exposed == "true")
        factor["covariate"] = min(p.covariate, part.design.covariate)
        strata = (p.stratum,) if len(part.cells) > 1 else ()
        for c in part.components:
            key = (p.arm, *strata, component_name(c))
            out[key] = out.get(key, 0.0) + float(np.prod([factor[f] for f in c]))
    return out


@pytest.mark.parametrize("design", [EVERYTHING, GHOST], ids=["everything", "ghost"])
def test_every_component_is_what_a_plain_count_gives(world, make_event, make_question, design) -> None:  # type: ignore[no-untyped-def]
    question = make_question(experiments=(LATER,), designs={"holdout": design})
    here = world(question=question, policy=POLICY)
    people = people_of(3)
    rows = events_of(3, people, make_event)
    inputs = here.inputs(here.write(rows), here.groups(people.itertuples(index=False)))
    paths = here.publish(inputs)  # the noise is not looked at: keys, units and provenance are
    settings = LoadSettings(NOW, here.root / "raw", SECRET)
    plans = [p for p in plan_releases(question, POLICY) if p.measure == "trials"]
    assert [p.look for p in plans] == [*range(1, design.looks + 1), 0]
    with load_people(inputs, question, settings) as crowd:
        for plan in plans:
            part = trial_part(plan, question)
            units = exact_totals(plan, crowd, POLICY, question)["trial"]
            frame = release_keys(plan, question, POLICY)["trial"]
            bounds = trials.component_bounds(POLICY.trials, part.components, design.covariate)
            value = units / trials.ONE * np.tile(bounds, len(units) // len(bounds))
            want = counted(rows, people, part)
            names = [c for c in ("arm", "stratum", "component") if c in frame]
            for key, got, most in zip(
                frame[names].itertuples(index=False, name=None), value, np.tile(bounds, len(units)), strict=False
            ):
                rounding = len(people) * 4 * most / trials.ONE
                assert got == pytest.approx(want.get(key, 0.0), abs=rounding), (plan.look, key)
    for path in paths:
        release = read_release(path)
        _, checks = verify_file(path, Surroundings(None, {p.release_id: p for p in plan_releases(question, POLICY)}),
                                stored=True)  # fmt: skip
        assert {c.status for c in checks} <= {"holds", "unknown"}, [c for c in checks if c.status == "fails"]
        if release.measure == "trials":
            assert design_of(release.metadata["spec"]["design"]) == design
            assert ("days read before it" in release.metadata["crosses_blocks"]["charged"][0]) == design.before
            assert (release.block_end == LATER.end) == ("look" not in release.metadata["spec"])


def test_names_of_components_are_those_that_the_estimators_ask_for() -> None:
    for design in (EVERYTHING, GHOST, replace(EVERYTHING, ghost=True)):
        names = {component_name(c) for c in design.components()}
        for m in design.metrics:
            e = product(m, "exposed")
            asked = {"n", m, product(m, m), product(m, design.before_of(m)), "exposed", e}
            asked |= {product(e, e)} if design.ghost else set()
            assert asked <= names
        assert len(names) == len(design.components())
    assert product("revenue", "visits") in {component_name(c) for c in EVERYTHING.components()}


def test_what_is_not_declared_leaves_the_release_as_it_was(make_question) -> None:  # type: ignore[no-untyped-def]
    """The id of the test question since before declarations; a declaration gives another id and fewer components."""
    (plain,) = (p for p in plan_releases(make_question(), PrivacyPolicy()) if p.measure == "trials")
    assert plain.release_id == "trials-holdout-0f1df71e74421f9b"
    explicit = make_question(designs={"holdout": TrialDesign()})
    assert [p for p in plan_releases(explicit, PrivacyPolicy()) if p.measure == "trials"] == [plain]
    few = make_question(designs={"holdout": TrialDesign(metrics=("conversions",))})
    (fewer,) = (p for p in plan_releases(few, PrivacyPolicy()) if p.measure == "trials")
    assert fewer.release_id != plain.release_id and fewer.cells == 6
    assert fewer.vectors[0].sigma_units == pytest.approx(plain.vectors[0].sigma_units * (3 / 8) ** 0.5, rel=1e-6)


def test_every_block_that_the_days_before_touch_pays(make_question) -> None:  # type: ignore[no-untyped-def]
    def charged(design: TrialDesign) -> list[dict[str, int]]:
        question = make_question(experiments=(LATER,), designs={"holdout": design})
        plans = [p for p in plan_releases(question, POLICY) if p.measure == "trials"]
        return [{c.block: c.nano_rho for c in p.charges} for p in plans]

    grant = POLICY.share_nano("trials")
    assert charged(TrialDesign()) == [{Q2: grant}]
    assert charged(TrialDesign(pre_days=14)) == [{Q2: grant}], "1 April is the first day of the second quarter"
    assert charged(TrialDesign(pre_days=15)) == [{Q1: grant, Q2: grant}]
    assert charged(TrialDesign(covariate=5.0, covariate_since=date(2024, 2, 1))) == [{Q1: grant, Q2: grant}]
    looks = charged(TrialDesign(looks=4, pre_days=15))
    assert looks == [{Q2: grant // 8}] * 4 + [{Q1: grant - grant // 8 * 4, Q2: grant - grant // 8 * 4}]
    assert sum(c[Q2] for c in looks) == grant


def test_looks_come_while_the_test_runs_and_keep_their_id(make_question) -> None:  # type: ignore[no-untyped-def]
    """After two weeks of the test two looks are due; later ones change none of them, whatever begins."""
    whole = make_question(
        experiments=(LATER, replace(LATER, name="next", start=date(2024, 6, 3), end=date(2024, 6, 23))),
        arms={"holdout": ("control", "treated"), "next": ("control", "treated")},
        designs={"holdout": TrialDesign(looks=4)},
    )
    first, second = whole.blocks
    open_ = replace(whole, blocks=(first,), running=(replace(second, weeks=second.weeks[:4], closed=False),))
    early = [p for p in plan_releases(open_, POLICY) if p.measure == "trials"]
    late = [p for p in plan_releases(whole, POLICY) if p.measure == "trials"]
    assert [(p.experiment, p.look) for p in early] == [("holdout", 1), ("holdout", 2)]
    assert [p.release_id for p in early] == [p.release_id for p in late[:2]]
    assert {p.blocks[0] for p in plan_releases(open_, POLICY) if p.measure == "kpi"} <= {Q1}
    spent: dict[str, int] = {}
    for p in late:
        for c in p.charges:
            spent[c.block] = spent.get(c.block, 0) + c.nano_rho
    assert max(spent.values()) <= POLICY.share_nano("trials")


def test_what_cannot_be_read_is_refused_before_any_row(make_question) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=r"reads days from 2023-12-18 on .* calendar starts on 2024-01-01; read fewer"):
        plan_releases(make_question(designs={"holdout": TrialDesign(pre_days=49)}), POLICY)
    with pytest.raises(ContractError, match="looks is 11, and the test has 10 whole weeks"):
        make_question(designs={"holdout": TrialDesign(looks=11)})
    with pytest.raises(ConfigError, match="channel 'search' is not declared"):
        question = make_question(channels=("video",), designs={"holdout": TrialDesign(exposed="click")})
        plan_releases(question, POLICY)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"metrics": ("profit",)}, "metrics must name some of visits"),
        ({"metrics": ()}, "metrics must name some"),
        ({"pre_days": 10_000}, "pre_days must lie between 0 and 730"),
        ({"covariate": 3.0}, "needs a bound and the first day"),
        ({"covariate": 3.0, "covariate_since": date(2024, 1, 1), "pre_days": 7}, "not both"),
        ({"exposed": "conversion"}, "exposed must be one of impression"),
        ({"ghost": True}, "ghost = true needs exposed"),
        ({"ratio": ("revenue", "revenue")}, "ratio must be two different metrics"),
        ({"ratio": ("revenue", "visits"), "metrics": ("revenue",)}, "ratio must be two different metrics"),
        ({"strata": ("one",)}, "strata must be 2 to 50 different"),
        ({"looks": -1}, "looks must be a number of weeks"),
        ({"headline": "cuped"}, "headline must be one of difference_in_means here"),
    ],
)
def test_a_declaration_checks_itself(change, words) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=words):
        TrialDesign(**change)


def test_rows_that_the_declaration_does_not_know_are_set_aside(world, make_event, make_question) -> None:  # type: ignore[no-untyped-def]
    design = replace(GHOST, strata=("new", "old"))
    here = world(question=make_question(experiments=(LATER,), designs={"holdout": design}), max_rejected=1.0,
                 assumed=True)  # fmt: skip
    good = ("treated", "new", "true", "1.5", "2024-04-20")
    rows = [
        ("a", *good), ("b", "treated", "strange", *good[2:]), ("c", "treated", "", *good[2:]),
        ("d", *good[:2], "perhaps", *good[3:]), ("e", *good[:3], "-1", good[4]), ("f", *good[:3], "many", good[4]),
        ("g", *good[:4], "2024-05-13"), ("h", *good[:4], "soon"), ("i", *good[:2], "", "", good[4]),
    ]  # fmt: skip
    events = here.write([make_event("a", 1, "2024-04-21")])
    assert sum(u.sum() for k, u in here.exact(here.inputs(events, here.groups(rows))).items() if "trials" in k[0]) > 0
    assert here.quarantined("assignments") == [
        (2, "stratum is not declared for this experiment"), (3, "stratum is empty"),
        (4, "exposed is neither true nor false"), (5, "covariate is negative"),
        (6, "covariate is not a number under 10^12"), (7, "entered lies outside the test"),
        (8, "entered is not an ISO date"),
    ]  # fmt: skip


def test_a_column_that_is_declared_and_missing_stops_the_load_and_costs_nothing(  # type: ignore[no-untyped-def]
    world, make_event, make_question
) -> None:
    here = world(question=make_question(designs={"holdout": TrialDesign(strata=("new", "old"))}), assumed=True)
    events, groups = here.write([make_event("a", 1, "2024-02-21")]), here.groups([("a", "treated")])
    with pytest.raises(InputError, match=r"assignments: .* has no column 'stratum'"):
        here.publish(here.inputs(events, groups))
    assert read_charges(here.ledger).empty
