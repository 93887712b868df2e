"""Plans as documents, compared on the same draws, in and out of files."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import pytest

from contracts.errors import ContractError, InputError
from planning.objective import Objective
from planning.plan_files import from_csv, from_json, from_xlsx, to_csv, to_json, to_xlsx
from planning.plans import Approval, compare, create, decide, duplicate, fitting, record, revise
from planning.surface import Assumptions, build_surface, held

Make = Callable[..., Any]
AT, LATER = datetime(2025, 1, 10, 9, tzinfo=UTC), datetime(2025, 1, 11, 9, tzinfo=UTC)
WHO: dict[str, Any] = {"author": "ana", "at": AT, "note": "imported"}


def made(surface: Any, factor: float = 1.0) -> Any:
    return create(surface, factor * held(surface), name="base", author="ana", at=AT, note="first", model_version="m1")


def test_versions_approval_and_the_plan_of_record(make_surface: Make) -> None:
    plan = made(make_surface(1, channels=2))
    locked = revise(plan, author="ben", at=LATER, note="lock tv", locked=("c0",))
    assert (locked.id, locked.author, locked.version, plan.locked) == ("base v2", "ben", 2, ())
    moved = locked.spend.copy()
    moved[..., 0] += 1
    with pytest.raises(ContractError, match="channel 'c0' of plan 'base' is locked; unlock it"):
        revise(locked, author="ben", at=LATER, note="more", spend=moved)
    free = revise(locked, author="ben", at=LATER, note="more", spend=moved, locked=())
    with pytest.raises(ContractError, match="'base v3' is not approved"):
        record([plan, free], "base v3")
    yes = decide(free, Approval("cfo", LATER, True, "inside the envelope"))
    plans = record([dataclasses.replace(plan, of_record=True), yes], "base v3")
    assert [p.of_record for p in plans] == [False, True] and yes.approved
    assert not decide(yes, Approval("cfo", LATER, False, "changed my mind")).approved
    assert revise(yes, author="ana", at=LATER, note="again").approvals == ()
    copy = duplicate(yes, name="bold", author="ana", at=LATER)
    assert (copy.id, copy.copied_from, copy.approvals) == ("bold v1", "base v3", ())


def test_documents_without_their_facts_are_refused(make_surface: Make) -> None:
    plan = made(make_surface(1, channels=2))
    with pytest.raises(ContractError, match="an approval needs a name and a reason"):
        Approval("cfo", AT, True, " ")
    with pytest.raises(ContractError, match="the time of plan 'base' must name its zone"):
        dataclasses.replace(plan, made=datetime(2025, 1, 1))
    with pytest.raises(ContractError, match="needs a note that says what changed"):
        revise(plan, author="ana", at=LATER, note="")
    with pytest.raises(ContractError, match="a later version cannot be from"):
        revise(plan, author="ana", at=datetime(2020, 1, 1, tzinfo=UTC), note="x")
    with pytest.raises(ContractError, match="a copy needs a name of its own"):
        duplicate(plan, name="base", author="ana", at=AT)
    with pytest.raises(ContractError, match="there is no plan 'x v1'; there are base v1"):
        record([plan], "x v1")
    with pytest.raises(ContractError, match="locks channel 'tv'"):
        dataclasses.replace(plan, locked=("tv",))
    with pytest.raises(ContractError, match="a plan needs a author"):
        dataclasses.replace(plan, author="")


def test_plans_are_compared_on_the_same_draws(make_surface: Make) -> None:
    surface = make_surface(1, channels=2, draws=200)
    base = made(surface)
    more = duplicate(base, name="more", author="ana", at=AT)
    more = dataclasses.replace(more, spend=1.2 * more.spend)
    found = compare(surface, [base, more], Objective(unit="revenue"))
    assert found["gain_mean"].iloc[0] == 0 and found["gain_sd"].iloc[0] == 0
    assert found["gain_mean"].iloc[1] == pytest.approx(found["mean"].iloc[1] - found["mean"].iloc[0])
    assert found["gain_sd"].iloc[1] < 0.5 * found["sd"].iloc[1]  # what both share cancels
    assert found["mean"].to_numpy() == pytest.approx((found["within"] + found["beyond"]).to_numpy())
    assert (found["cvar"] < found["p10"]).all() and found["gain_probability"].iloc[1] == 1.0
    with pytest.raises(ContractError, match="no plan to compare"):
        compare(surface, [])


@pytest.mark.parametrize("kind", ["json", "csv", "xlsx"])
def test_plans_survive_their_files(make_surface: Make, kind: str) -> None:
    surface = make_surface(1, channels=2)
    plan = decide(made(surface), Approval("cfo", LATER, True, "größer ist besser"))
    if kind == "json":
        back = from_json(to_json(plan))
        assert dataclasses.replace(back, spend=plan.spend) == plan
    elif kind == "csv":
        back = from_csv(to_csv(plan), **WHO)
    else:
        back = from_xlsx(to_xlsx(plan), **WHO)
    assert back.spend == pytest.approx(plan.spend, rel=1e-12)
    assert (back.start, back.geos, back.channels, back.currency) == (plan.start, plan.geos, plan.channels, "EUR")
    assert fitting(back, surface).spend == pytest.approx(plan.spend)


def test_a_file_in_another_order_is_the_same_plan(make_surface: Make) -> None:
    surface = make_surface(1, channels=3)
    head, *lines = to_csv(made(surface)).strip().split("\n")
    mixed = "\n".join([head, *reversed(lines)])
    assert fitting(from_csv(mixed, **WHO), surface).spend == pytest.approx(held(surface))


def test_a_plan_that_does_not_fit_the_model_is_refused(make_surface: Make) -> None:
    surface = make_surface(1, channels=2)
    plan = made(surface)
    dollars = dataclasses.replace(plan, currency="USD")
    with pytest.raises(ContractError, match="plan 'base' is in USD and this workspace plans in EUR: convert it"):
        fitting(dollars, surface)
    at_rate = build_surface(surface.response, surface.start, 6, Assumptions(currency="USD", rate=0.9))
    assert fitting(dollars, at_rate).currency == "USD"
    with pytest.raises(ContractError, match="names channel 'tv'; the model knows c0, c1"):
        fitting(dataclasses.replace(plan, channels=("tv", "c1")), surface)
    with pytest.raises(ContractError, match="has no spend for channel 'c1'; write 0 for none"):
        fitting(dataclasses.replace(plan, channels=("c0",), spend=plan.spend[..., :1]), surface)
    with pytest.raises(ContractError, match="starts on 2024-01-01, before the history ends; the first is 2025-01-13"):
        fitting(dataclasses.replace(plan, start=date(2024, 1, 1)), surface)
    with pytest.raises(ContractError, match="has 3 periods of 7 days from 2025-01-13; it is valued over 6"):
        fitting(dataclasses.replace(plan, spend=plan.spend[:3]), surface)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.replace(",spend,", ",money,"), "q2.csv has no column 'spend'; it has plan, period_start"),
        (lambda t: t.replace(",EUR\n", ",USD\n", 1), "q2.csv must hold one currency; got EUR, USD"),
        (lambda t: t.replace("2025-01-13", "13.01.25", 1), "row 2 of q2.csv: period_start must be a date like"),
        (lambda t: "\n".join(t.split("\n")[:-2]), "q2.csv has no row for 2025-02-17, g1, c1; write 0 for none"),
        (lambda t: t + t.split("\n")[1], "row 26 of q2.csv is there twice: 2025-01-13 · g0 · c0"),
        (lambda t: t.split("\n")[0], "q2.csv holds no rows"),
        (lambda t: "", "q2.csv is not a table"),
        (lambda t: t.replace("2025-02-17", "2025-02-18"), r"periods must be evenly spaced; got steps of \[7, 8\] days"),
    ],
)
def test_broken_files_are_refused_whole(make_surface: Make, change: Callable[[str], str], message: str) -> None:
    text = change(to_csv(made(make_surface(1, channels=2))))
    with pytest.raises(InputError, match=message):
        from_csv(text, source="q2.csv", **WHO)


def test_spend_that_is_no_spend_names_its_row(make_surface: Make) -> None:
    table = to_csv(made(make_surface(1, channels=2))).split("\n")
    table[3] = ",".join([*table[3].split(",")[:4], "-5", "EUR"])
    with pytest.raises(InputError, match="row 4 of q2.csv: spend must be a number >= 0; got -5"):
        from_csv("\n".join(table), source="q2.csv", **WHO)


def test_broken_json_and_workbooks_are_refused(make_surface: Make) -> None:
    good = json.loads(to_json(made(make_surface(1, channels=2))))
    with pytest.raises(InputError, match="plan.json is not JSON: .* in line 1"):
        from_json("{", "plan.json")
    with pytest.raises(InputError, match="is not a plan of format 'plumbline-plan/1'; got 'list'"):
        from_json("[]")
    with pytest.raises(InputError, match="has no key 'spend'"):
        from_json(json.dumps({k: v for k, v in good.items() if k != "spend"}))
    with pytest.raises(InputError, match="holds a value that cannot be read"):
        from_json(json.dumps(good | {"start": "soon"}))
    with pytest.raises(InputError, match="q2.xlsx has no readable sheet 'plan'"):
        from_xlsx(b"no workbook", source="q2.xlsx", **WHO)
