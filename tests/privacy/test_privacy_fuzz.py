"""Every loader of people's files on files that nobody meant: any bytes give people or one sentence, never a traceback.
And the reader of released files, which may come from elsewhere.

Three ways to break a file: headers of any text, bytes of a good file changed or cut, and types that Parquet can hold
and nobody expects. An accepted file gives tables that keep their schema (pandera).
"""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandera.pandas as pan
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.errors import UserError
from contracts.release import Release
from privacy.files import METADATA_KEY, encode, read_release
from privacy.load import LoadSettings, load_people
from privacy.room import FileSet, PeopleInputs

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECRET = b"a secret of thirty-two bytes, ok"
LOOSE = settings(max_examples=25, deadline=timedelta(seconds=30), suppress_health_check=list(HealthCheck))
NAMES = ("events", "assignments", "identity")
GOOD: dict[str, list[dict[str, Any]]] = {
    "events": [
        {"event_id": f"e{i}", "user_id": f"u{i % 3}", "ts": f"2024-02-0{1 + i}T10:00:00Z", "channel": "search",
         "event": ("visit", "conversion")[i % 2], "geo": "north", "value": "2.5", "currency": "USD", "consent": "true"}
        for i in range(6)
    ],
    "assignments": [
        {"user_id": f"u{i}", "experiment": "holdout", "arm": ("control", "treated")[i % 2]} for i in range(3)
    ],
    "identity": [{"device_id": "u2", "person_id": "u0"}],
}  # fmt: skip

whole = pan.Check.ge(0)
EVENTS = pan.DataFrameSchema(
    {
        "person": pan.Column(int, whole), "block": pan.Column(int, pan.Check.isin([0, 1])),
        "week": pan.Column(int, pan.Check.in_range(0, 13)), "day": pan.Column(int, whole),
        "kind": pan.Column(int, pan.Check.in_range(0, 3)), "channel": pan.Column(int, pan.Check.in_range(-1, 2)),
        "geo": pan.Column(int, pan.Check.in_range(0, 2)), "micros": pan.Column(int, pan.Check.in_range(0, 2**60)),
        "seq": pan.Column(int),
    },
    strict=True, coerce=False, unique=["person", "seq"],
)  # fmt: skip
PRESENCE = pan.DataFrameSchema(
    {"person": pan.Column(int), "block": pan.Column(int), "consenting": pan.Column(int, pan.Check.isin([0, 1])),
     "invalid": pan.Column(int, pan.Check.isin([0, 1]))}, strict=True, unique=["person", "block"],
)  # fmt: skip
ASSIGNED = pan.DataFrameSchema(
    {"person": pan.Column(int), "experiment": pan.Column(int, pan.Check.eq(0)),
     "arm": pan.Column(int, pan.Check.isin([0, 1])),
     **{c: pan.Column(int, pan.Check.eq(0)) for c in ("stratum", "entered", "exposed", "covariate")}},
    strict=True, unique=["person", "experiment"],
)  # fmt: skip


def encoded(rows: list[dict[str, Any]], kind: str) -> bytes:
    """Rows as a file of one format."""
    if kind == "jsonl":
        return "".join(json.dumps(r) + "\n" for r in rows).encode()
    table = pa.Table.from_pylist(rows)
    sink = io.BytesIO()
    if kind == "parquet":
        pq.write_table(table, sink)
    else:
        pa.csv.write_csv(table, sink)
    return sink.getvalue()


def outcome(here, files: dict[str, Path]) -> str:  # type: ignore[no-untyped-def]
    """'' where the files load, and then their tables keep their schema; else the sentence."""
    events, groups, links = (FileSet((files[n],)) for n in NAMES)
    inputs = PeopleInputs(events, groups, True, False, "UTC", "USD", {}, 1.0, links)
    try:
        with load_people(inputs, here.question, LoadSettings(NOW, here.root / "raw", SECRET)) as crowd:
            for name, schema in (("events", EVENTS), ("presence", PRESENCE), ("assigned", ASSIGNED)):
                schema.validate(crowd.con.execute(f"SELECT * FROM {name}").df())  # few rows: one partition
    except UserError as error:
        return str(error)
    return ""


def files_of(here, changed: str, content: bytes, kind: str) -> dict[str, Path]:  # type: ignore[no-untyped-def]
    out = {}
    for name in NAMES:
        path = here.root / f"{name}.{kind if name == changed else 'csv'}"
        path.write_bytes(content if name == changed else encoded(GOOD[name], "csv"))
        out[name] = path
    return out


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("name", NAMES)
def test_the_good_files_load(world, name, kind) -> None:  # type: ignore[no-untyped-def]
    here = world()
    assert outcome(here, files_of(here, name, encoded(GOOD[name], kind), kind)) == ""


@LOOSE
@given(data=st.data(), name=st.sampled_from(NAMES), kind=st.sampled_from(["csv", "jsonl", "parquet"]))
def test_damaged_bytes_give_people_or_a_sentence(world, data, name, kind) -> None:  # type: ignore[no-untyped-def]
    here = world()
    content = bytearray(encoded(GOOD[name], kind))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        how = data.draw(st.sampled_from(["change", "insert", "cut", "double"]))
        some = data.draw(
            st.binary(min_size=1, max_size=4) | st.sampled_from([b'"', b"\n", b"\r", b",", b"\x00", b"\xff"])
        )
        if how == "change":
            content[place : place + len(some)] = some
        elif how == "insert":
            content[place:place] = some
        elif how == "cut":
            del content[place : place + data.draw(st.integers(1, 40))]
        else:
            content += content[place:]
        content = content or bytearray(b"x")
    said = outcome(here, files_of(here, name, bytes(content), kind))
    assert said == "" or said.startswith(f"{name}: ") or "user-randomised" in said, said
    assert "\n" not in said and "Traceback" not in said


CELL = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(max_size=8), st.binary(max_size=4),
    st.dates(), st.datetimes(), st.decimals(-999, 999, allow_nan=False, allow_infinity=False, places=2),
    st.times(), st.timedeltas(timedelta(days=-9), timedelta(days=9)), st.lists(st.integers(0, 9), max_size=3),
    st.fixed_dictionaries({"a": st.integers(0, 9)}),
)  # fmt: skip


@LOOSE
@given(data=st.data(), name=st.sampled_from(NAMES))
def test_columns_of_any_type_give_people_or_a_sentence(world, data, name) -> None:  # type: ignore[no-untyped-def]
    """One or two columns of a good Parquet file become something else: dates, blobs, lists, structures, nothing."""
    here = world()
    table = pa.Table.from_pylist(GOOD[name])
    for column in data.draw(st.lists(st.sampled_from(table.column_names), min_size=1, max_size=2, unique=True)):
        kind = data.draw(st.integers(0, 12))
        cells = [data.draw(CELL.filter(lambda c: c is None) if kind == 0 else CELL)] * table.num_rows
        table = table.set_column(table.column_names.index(column), column, pa.array(cells))
    sink = io.BytesIO()
    try:
        pq.write_table(table, sink)
    except pa.ArrowException:
        return  # not a Parquet file at all
    said = outcome(here, files_of(here, name, sink.getvalue(), "parquet"))
    assert said == "" or said.startswith(f"{name}: "), said


@LOOSE
@given(header=st.lists(st.text(max_size=6) | st.sampled_from(["user_id", "ts", "event_id"]), max_size=6),
       name=st.sampled_from(NAMES), kind=st.sampled_from(["csv", "jsonl"]))  # fmt: skip
def test_headers_of_any_text_give_a_sentence(world, header, name, kind) -> None:  # type: ignore[no-untyped-def]
    here = world()
    if kind == "csv":
        content = ",".join(header).encode("utf-8", "surrogatepass") + b"\n" + b"x," * len(header) + b"\n"
    else:
        content = json.dumps(dict.fromkeys(header, "x")).encode() + b"\n"
    said = outcome(here, files_of(here, name, content, kind))
    assert said.startswith(f"{name}: "), said


META: dict[str, Any] = {
    "release_id": "kpi-1", "measure": "kpi", "blocks": ["quarter-2024-01-01"], "period_start": "2024-01-01",
    "period_end": "2024-03-31", "nano_rho": 7, "epsilon": 1.0, "delta": 1e-6,
    "vectors": [{"name": "conversions", "l2_bound": 2.0, "unit": 1e-6, "sigma": 5.0, "nano_rho": 7, "bounding": "l2"}],
}  # fmt: skip
CELLS_OF_A_RELEASE = pa.table(
    {"vector": ["conversions"], "metric": ["conversions"], "geo": ["north"], "units": [3], "value": [3e-6],
     "variance": [25.0]}
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=6), inner, max_size=2),
    max_leaves=3,
)


def read(content: bytes) -> Release | None:
    """What the room reads from the bytes of a released file; None where it says that they are none."""
    try:
        return read_release(Path("elsewhere.parquet"), content)
    except UserError as error:
        assert str(error).startswith("elsewhere.parquet is not a readable release file")
        return None


def test_a_sound_release_is_read() -> None:
    found = read(encode([CELLS_OF_A_RELEASE], META))
    assert found is not None and found.vectors[0].sigma == 5.0 and found.table["units"].tolist() == [3]


@LOOSE
@given(data=st.data())
def test_damaged_bytes_of_a_release_give_a_release_or_a_sentence(data) -> None:  # type: ignore[no-untyped-def]
    content = bytearray(encode([CELLS_OF_A_RELEASE], META))
    for _ in range(data.draw(st.integers(1, 4))):
        place, some = data.draw(st.integers(0, len(content) - 1)), data.draw(st.binary(min_size=1, max_size=4))
        if data.draw(st.booleans()):
            content[place : place + len(some)] = some
        else:
            del content[place : place + data.draw(st.integers(1, 40))]
        content = content or bytearray(b"x")
    read(bytes(content))


@LOOSE
@given(key=st.sampled_from([*META, *META["vectors"][0], ""]), value=JSON)
def test_any_value_in_the_metadata_of_a_release_gives_a_release_or_a_sentence(key, value) -> None:  # type: ignore[no-untyped-def]
    meta: Any = json.loads(json.dumps(META))
    if key in meta:
        meta[key] = value
    elif key:
        meta["vectors"][0][key] = value
    else:
        meta = value
    sink = io.BytesIO()
    pq.write_table(CELLS_OF_A_RELEASE.replace_schema_metadata({METADATA_KEY: json.dumps(meta).encode()}), sink)
    read(sink.getvalue())
