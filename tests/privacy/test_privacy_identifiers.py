"""Columns that look like a direct identifier are refused by name or value, named by kind, and never quoted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import InputError
from privacy.identifiers import normal, refuse_identifiers
from privacy.load import LoadSettings, load_people
from privacy.room import FileSet, HashOf
from privacy.sources import engine, open_source

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECRET = b"a secret of thirty-two bytes, ok"

FOUND = [
    ("contact", ["eve@example.org"], "an e-mail address, by its values"),
    ("campaign", [*["spring"] * 50, "mail eve.b+x@sub.example.co.uk now"], "an e-mail address, by its values"),
    ("E-Mail", ["yes", "no"], "an e-mail address, by its name"),
    ("customerEmail", ["x"], "an e-mail address, by its name"),
    ("extra", ["+49 30 1234567", "", "+4915112345678"], "a phone number, by its values"),
    ("extra", ["(555) 123-4567", "555-123-4567"], "a phone number, by its values"),
    ("Phone Number", ["5"], "a phone number, by its name"),
    ("from", ["192.168.0.1", "10.0.0.7:443"], "an IP address, by its values"),
    ("from", ["2001:db8::8a2e:370:7334", "::1"], "an IP address, by its values"),
    ("clientIP", ["-"], "an IP address, by its name"),
    ("device", ["00:1B:44:11:3A:B7"], "a hardware address, by its values"),
    ("first_name", ["x"], "a person's name, by its name"),
    ("LastName", ["x"], "a person's name, by its name"),
    ("name", ["Ann Lee", "Bob B. M\u00fcller", "\u00c9ve O'Neil"], "a person's name, by its values"),
    ("date_of_birth", ["1990-01-01"], "a civil identifier, by its name"),
]
FINE = [
    ("campaign", ["Spring Sale", "Summer Sale"]), ("name", ["spring_sale", "purchase"]), ("other", []),
    ("started", ["2024-01-02T10:20:30", "10:20:30"]), ("order", ["20240102123456789", "4915112345678"]),
    ("price", ["1.234.567", "12.50"]), ("hash", ["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"]),
    ("at", ["@home", "a@b"]), ("id", ["0123-4567-89", "38400000-8cf0-11bd-b23e-10b96e40000d"]), ("event_name", ["x"]),
    ("ratio", ["1::1", "x"] * 0), ("emailing", ["1"]), ("shipping", ["ip"]), ("tz", ["Europe/Berlin"]),
]  # fmt: skip


def judge(tmp_path, column: str, values: list[str], files: FileSet | None = None, safe: frozenset[str] = frozenset(),
          kind: str = "parquet", user: str = "eve@example.org") -> None:  # type: ignore[no-untyped-def]  # fmt: skip
    path = tmp_path / f"f.{kind}"
    table = pa.table({"user_id": pa.array([user] * len(values), pa.string()),
                      column: pa.array(values, pa.string())})  # fmt: skip
    if kind == "parquet":
        pq.write_table(table, path)
    else:
        import csv

        with path.open("w", newline="", encoding="utf-8") as handle:
            csv.writer(handle).writerows([table.column_names, *zip(*table.to_pydict().values(), strict=True)])
    con = engine()
    source = open_source(con, "events", path)
    refuse_identifiers(con, "events", source, files or FileSet((path,)), safe)


@pytest.mark.parametrize(("column", "values", "what"), FOUND)
@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_identifiers_are_refused(tmp_path, column, values, what, kind) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError) as caught:
        judge(tmp_path, column, values, kind=kind)
    text = str(caught.value)
    assert f"column {column!r}" in text and what in text, text
    assert "Take it out of the file, or map it to user_id" in text and f'not_identifiers = ["{column}"]' in text
    assert not [v for v in values if len(v) > 3 and v in text], "no value in the message"


@pytest.mark.parametrize(("column", "values"), FINE)
def test_what_is_none_is_taken(tmp_path, column, values) -> None:  # type: ignore[no-untyped-def]
    judge(tmp_path, column, values)


def test_the_ways_out(tmp_path) -> None:  # type: ignore[no-untyped-def]
    values = ["eve@example.org"]
    path = tmp_path / "f.parquet"
    judge(tmp_path, "email", values, FileSet((path,), {"user_id": "email"}), user="7")
    judge(tmp_path, "email", values, FileSet((path,), {"user_id": HashOf(("email", "user_id"))}), frozenset())
    judge(tmp_path, "email", values, safe=frozenset(["email"]))
    with pytest.raises(InputError, match="column 'user_id'"):
        judge(tmp_path, "other", ["x"], FileSet((path,), {"user_id": "other"}))


def test_events_assignments_and_maps_are_looked_at_before_a_row_is_read(world, make_event) -> None:  # type: ignore[no-untyped-def]
    here = world(max_rejected=1.0)
    good = here.write([make_event("a", 1, "2024-02-06")], "good.csv")
    rows: list[dict[str, Any]] = [make_event("a", 1, "2024-02-06") | {"ip": "10.0.0.1"}]
    leaky = here.write(rows, "leaky.jsonl")
    groups = here.write([{"user_id": "a", "experiment": "holdout", "arm": "control", "mail": "a@example.org"}],
                        "groups.jsonl")  # fmt: skip
    fine = here.groups([("a", "control")])
    links = here.write([{"device_id": "x", "person_id": "a@example.org", "phone": "1"}], "map.jsonl")
    for inputs, what in (
        (here.inputs(leaky, fine), r"^events: column 'ip' of .*leaky\.jsonl looks like an IP address"),
        (here.inputs(good, groups), r"^assignments: column 'mail' of .*groups\.jsonl looks like an e-mail"),
        (here.inputs(good, fine, identity=FileSet((links,))), r"^identity: column 'phone' .* map it to person_id"),
    ):
        where = LoadSettings(NOW, here.root / "raw", SECRET)
        with pytest.raises(InputError, match=what), load_people(inputs, here.question, where):
            pass
    allowed = here.inputs(leaky, fine, not_identifiers=frozenset(["ip"]))
    with load_people(allowed, here.question, LoadSettings(NOW, here.root / "raw", SECRET)):
        pass


@settings(max_examples=60, deadline=timedelta(seconds=5))
@given(st.text(max_size=20))
def test_names_are_normalised_once(text: str) -> None:
    assert normal(normal(text)) == normal(text)
