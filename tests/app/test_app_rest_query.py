"""Addresses into SQL: what is known is bound, what is unknown is refused by name."""

from __future__ import annotations

from datetime import date, datetime

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.rest.query import Query, filters, parse, statement, view_named
from contracts.errors import ContractError
from contracts.tables import VIEWS

EFFECTS = view_named("effects")


def test_a_view_has_two_names_and_nothing_else_has_one() -> None:
    assert view_named("v_effects") is EFFECTS
    with pytest.raises(ContractError, match="there is no view 'meta'; the views are v_approvals"):
        view_named("meta")


def test_every_parameter_reaches_the_query() -> None:
    asked = parse(
        EFFECTS,
        {"from": "2025-01-01", "to": "2025-02-01", "channel": "tv,search", "confidence": "0.8", "latest": "true",
         "columns": "channel,mean", "limit": "5", "offset": "10"},
    )  # fmt: skip
    assert (asked.first, asked.last) == (date(2025, 1, 1), date(2025, 2, 1))
    assert asked.values == {"channel": ("tv", "search")} and asked.columns == ("channel", "mean")
    assert (asked.confidence, asked.latest, asked.limit, asked.offset) == ("0.8", True, 5, 10)


def test_the_past_is_read_from_the_history_and_zones_are_brought_to_utc() -> None:
    asked = parse(EFFECTS, {"as_of": "2026-07-01T02:00:00+02:00"})
    assert asked.source == "v_effects_history" and asked.as_of == datetime(2026, 7, 1)
    assert parse(EFFECTS, {}).source == "v_effects"
    assert parse(view_named("curves"), {"as_of": "2026-07-01"}).source == "v_curves"


@pytest.mark.parametrize(
    ("view", "parameters", "message"),
    [
        ("effects", {"chanel": "tv"}, "v_effects knows no parameter 'chanel'; it knows from, to"),
        ("effects", {"from": "01/02/2025"}, "from is '01/02/2025'; write a day such as"),
        ("effects", {"to": "2025-02-30"}, "to is '2025-02-30'"),
        ("effects", {"limit": "0"}, "limit is '0'; write a whole number from 1 to 100000"),
        ("effects", {"limit": "1e3"}, "limit is '1e3'"),
        ("effects", {"offset": "-1"}, "offset is '-1'"),
        ("effects", {"confidence": "0.95"}, "confidence is '0.95'; use 0.8 or 0.9"),
        ("kpi", {"confidence": "0.9"}, "v_kpi has no intervals"),
        ("effects", {"latest": "yes"}, "latest is 'yes'; write true or false"),
        ("effects", {"columns": "mean,hash"}, "v_effects has no column 'hash'; it has run_id"),
        ("effects", {"as_of": "yesterday"}, "as_of is 'yesterday'"),
        ("checks", {"as_of": "2026-01-01"}, "v_checks has no column as_of"),
        ("checks", {"from": "2026-01-01"}, "v_checks has no column of time"),
        ("effects", {"channel": "tv\x00"}, "parameter 'channel' holds a NUL"),
        ("effects", {"channel": ",".join(map(str, range(300)))}, "channel names 300 values; the most is 200"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(view: str, parameters: dict[str, str], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        parse(view_named(view), parameters)


def test_latest_needs_something_to_choose_from() -> None:
    with pytest.raises(ContractError, match="v_checks holds one row per key already"):
        statement(parse(view_named("checks"), {"latest": "true"}))


@given(value=st.text(min_size=1, max_size=40).filter(lambda t: "\x00" not in t))
def test_a_value_is_never_part_of_the_sql(value: str) -> None:
    asked = parse(EFFECTS, {"channel": value, "geo": value})
    plain = parse(EFFECTS, {"channel": "x", "geo": "x"})
    same_number = Query(**{f: getattr(plain, f) for f in plain.__slots__} | {"values": asked.values})
    found = statement(asked)
    assert found.rows == statement(same_number).rows
    assert set(found.values) == set(value.split(","))


@pytest.mark.parametrize("view", VIEWS, ids=lambda v: v.name)
def test_every_view_answers_every_parameter_that_it_offers(view) -> None:  # type: ignore[no-untyped-def]
    con = duckdb.connect()
    for name in (view.name, f"{view.name}_history"):
        con.execute(f"CREATE TABLE {name} ({', '.join(f'"{c.name}" {c.type}' for c in view.columns)})")
    given = dict.fromkeys(filters(view), "x")
    stamped = "as_of" in view.names
    given |= {"latest": "true", "as_of": "2026-01-01"} if stamped else {}
    given |= {"confidence": "0.9"} if "p05" in view.names else {}
    timed = {"week", "period_start", "start", "published_at", "charged_at", "written_at", "decided_at", "started_at"}
    given |= {"from": "2026-01-01", "to": "2026-02-01"} if timed & set(view.names) else {}
    asked = statement(parse(view, given))
    assert con.execute(asked.count, asked.values).fetchall() == [(0,)]
    assert con.execute(asked.rows, [*asked.values, *asked.page]).fetchall() == []
