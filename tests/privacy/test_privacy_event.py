"""The declared contract (pydantic) and the SQL that reads files agree on every row; the documentation prints it."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from privacy import contract, event
from privacy.load import LoadSettings, load_people
from privacy.people import KINDS

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECRET = b"a secret of thirty-two bytes, ok"
ROOT = Path(__file__).resolve().parents[2]
SPACED = st.sampled_from(["", " ", "  "])
ABSENT = st.sampled_from(["", "nan", "NULL", "NaN", " "])


def padded(*words: str) -> st.SearchStrategy[str]:
    return st.tuples(SPACED, st.sampled_from(words), SPACED).map("".join)


DIGITS = st.text("0123456789", min_size=1, max_size=14)
NUMBERS = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True).map(str),
    st.integers(-(10**14), 10**14).map(str),
    st.decimals(-(10**13), 10**13, allow_nan=False, allow_infinity=False, places=7).map(str),
    st.tuples(DIGITS, st.sampled_from([".", "e", "_", "E+", "e-", ",", " "]), DIGITS).map("".join),
    padded("+5", "-0", ".5", "5.", "0x10", "1e400", "1e-400", "\u0663", "--1", "1.5f", "999999999999.9999996", "1_000"),
)
TIMES = st.one_of(
    st.dates(date(1969, 1, 1), date(2027, 1, 1)).map(str),
    st.datetimes(datetime(1969, 6, 1), datetime(2026, 6, 1)).map(str),
    st.datetimes(datetime(1969, 12, 30), datetime(2026, 1, 2), timezones=st.timezones()).map(lambda t: t.isoformat()),
    padded(
        "2024-02-30", "2024-01-02T24:00", "2024-01-02T23:60", "2024-01-02T10", "2024-01-02 10:00:00 Z",
        "2024-01-02 10:00:00.123456789", "2024-01-02T10:00+0230", "2024-01-02T10:00-03", "infinity", "now",
        "0000-01-01", "2024-13-01", "2024-1-2", "2024-01-02T10:00:00+15:00", "2024-01-02Z", "epoch", "9999-12-31",
        "2024-01-02t10:00",
    ),
)  # fmt: skip
CELLS: dict[str, st.SearchStrategy[str]] = {
    "user_id": padded("a", "b", "\u00fc") | ABSENT,
    "ts": TIMES | ABSENT,
    "event": padded(*KINDS, "CLICK", "purchase", "Conversion") | ABSENT,
    "geo": padded("north", "elsewhere") | ABSENT,
    "channel": padded("search", "??") | ABSENT,
    "value": NUMBERS | ABSENT,
    "currency": padded("USD", "usd", "dollars", "US", "\u00dc\u00dc\u00dc") | ABSENT,
    "consent": padded("true", "FALSE", "1", "0", "1.0", "yes", "N", "t", "maybe", "on", "2") | ABSENT,
    "valid": padded("true", "false", "0.0", "y", "-1") | ABSENT,
    "source": padded("server", "Client", "SERVER", "pixel") | ABSENT,
    "ad_id": padded("00000000-0000-0000-0000-000000000000", "38400000-8cf0-11bd-b23e-10b96e40000d") | ABSENT,
    "schema_version": padded("1", "1.0", "1.7", "2", "1.", "one", "01") | ABSENT,
}
USUAL = {
    "user_id": "a", "ts": "2024-01-02", "event": "visit", "geo": "north", "channel": "", "value": "", "currency": "USD",
    "consent": "true", "valid": "", "source": "", "ad_id": "", "schema_version": "1",
}  # fmt: skip


@st.composite
def rows(draw: st.DrawFn) -> list[dict[str, str]]:
    """Rows that are usual but for one to three cells, so that each rule is met alone and with others."""
    out = []
    for number in range(draw(st.integers(1, 25))):
        odd = draw(st.lists(st.sampled_from(sorted(CELLS)), min_size=1, max_size=3, unique=True))
        changed = {name: draw(CELLS[name]) for name in odd}
        if draw(st.booleans()):
            changed |= {"event": "conversion", "value": draw(CELLS["value"])}
        out.append({"event_id": f"e{number}"} | USUAL | changed)
    return out


def judged(row: dict[str, str], zone: str) -> str:
    """'' where the declared contract takes the row, else what it says."""
    try:
        event.EventRow.model_validate(row, context={"now": NOW, "time_zone": zone})
    except ValidationError as error:
        return str(error)
    return ""


@settings(max_examples=15, deadline=timedelta(seconds=30), suppress_health_check=list(HealthCheck))
@given(table=rows(), zone=st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns"]))
def test_the_declared_contract_and_the_sql_agree_on_every_row(world, make_question, no_trial, table, zone) -> None:  # type: ignore[no-untyped-def]
    here = world(question=make_question(**no_trial), max_rejected=1.0, zone=zone)
    inputs = here.inputs(here.write(table, "events.jsonl"))
    with load_people(inputs, here.question, LoadSettings(NOW, here.root / "raw", SECRET)):
        pass
    refused = dict(here.quarantined())
    for number, row in enumerate(table, 1):
        said = judged(row, zone)
        assert bool(said) == (number in refused), (row, refused.get(number), said)


AD_ID = {"ad_id": "38400000-8cf0-11bd-b23e-10b96e40000d"}
NEW_RULES = [
    (AD_ID | {"consent": "false"}, "an advertising identifier stands on a row whose consent is denied"),
    (AD_ID, ""),
    (AD_ID | {"consent": ""}, ""),
    ({"ad_id": "00000000-0000-0000-0000-000000000000", "consent": "false"}, ""),
    ({"ad_id": " nan ", "consent": "0"}, ""),
    ({"source": "pixel"}, "source is none of server, client"),
    ({"source": "SERVER"}, ""),
    ({"schema_version": "2"}, "schema_version is not 1 or 1.x"),
    ({"schema_version": "1."}, "schema_version is not 1 or 1.x"),
    ({"schema_version": "1.9"}, ""),
    ({"event": "conversion", "value": "1_000"}, "value is not a number under 10^12"),
    ({"ts": "2024-01-02T24:00"}, ""),
    ({"ts": "2024-01-02 24:00:00.0Z"}, ""),
    ({"ts": "2024-01-02T24:00:01"}, "ts is not an ISO date or time"),
    ({"ts": "2024-01-02T24:01"}, "ts is not an ISO date or time"),
    ({"event": "conversion", "value": "0e32768"}, "value is not a number under 10^12"),
    ({"event": "conversion", "value": "0e-32767"}, ""),
    ({"event": "conversion", "value": "1000000000000e-1"}, "value is not a number under 10^12"),
]


def test_rules_of_version_1_1(world, make_question, no_trial) -> None:  # type: ignore[no-untyped-def]
    here = world(question=make_question(**no_trial), max_rejected=1.0)
    table = [{"event_id": f"e{n}"} | USUAL | change for n, (change, _) in enumerate(NEW_RULES)]
    inputs = here.inputs(here.write(table, "events.jsonl"))
    with load_people(inputs, here.question, LoadSettings(NOW, here.root / "raw", SECRET)):
        pass
    assert here.quarantined() == [(n, reason) for n, (_, reason) in enumerate(NEW_RULES, 1) if reason]
    assert [bool(judged(row, "UTC")) for row in table] == [bool(reason) for _, reason in NEW_RULES]


def test_versions_are_additive() -> None:
    """What version 1.0 had is all there, under the same names, and nothing new is required."""
    first = {"event_id": True, "user_id": True, "ts": True, "event": True, "geo": True, "channel": False,
             "value": False, "currency": False, "consent": False, "valid": False, "campaign": False,
             "schema_version": False}  # fmt: skip
    for name, field in event.EventRow.model_fields.items():
        about: Any = field.json_schema_extra
        assert about["since"] in event.VERSIONS and about["since"] <= event.VERSION
        assert about["column"] is (first[name] if about["since"] == "1.0" else False), name
    assert {n for n, f in event.EventRow.model_fields.items() if f.json_schema_extra["since"] == "1.0"} == set(first)  # type: ignore[index]
    assert re.fullmatch(event.VERSION_PATTERN, event.VERSION)


def test_one_list_of_kinds_and_sources() -> None:
    kinds = get_args(event.EventRow.model_fields["event"].annotation)
    assert kinds == KINDS and len(event.SOURCES) == 2
    assert set(contract.EVENT_COLUMNS + contract.EVENT_OPTIONAL + contract.EVENT_CARRIED) == set(
        event.EventRow.model_fields
    )


@pytest.mark.parametrize("model", [event.EventRow, event.AssignmentRow, event.IdentityRow])
def test_the_documentation_prints_the_contract(model) -> None:  # type: ignore[no-untyped-def]
    text = (ROOT / "docs" / "inputs.md").read_text(encoding="utf-8")
    assert event.markdown(model) in text, "print it again: privacy.event.markdown"
