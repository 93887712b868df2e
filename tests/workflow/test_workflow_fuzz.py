"""Every loader of public files, and of plumb.toml, on content that nobody meant: a table or one sentence."""

from __future__ import annotations

import io
import json
import tomllib
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.errors import InputError, UserError
from workflow.claims_in import read_billing, read_claims
from workflow.config import load, parse
from workflow.files_in import header
from workflow.init import initialise
from workflow.panel_build import check_public
from workflow.panel_table import from_panel
from workflow.tables_in import read_public

LOOSE = settings(max_examples=25, deadline=timedelta(seconds=30), suppress_health_check=list(HealthCheck))
WEEKS = [date(2025, 1, 6) + timedelta(weeks=i) for i in range(4)]
GOOD: dict[str, list[dict[str, Any]]] = {
    "spend": [{"date": str(w), "geo": g, "channel": "tv", "spend": "10", "currency": "USD", "impressions": "5"}
              for w in WEEKS for g in ("north", "south")],
    "controls": [{"date": str(w), "geo": g, "price": "2.5"} for w in WEEKS for g in ("north", "south")],
    "experiments": [{"experiment": "up", "kind": "geo", "channel": "tv", "start": "2025-01-13", "end": "2025-01-26",
                     "treated": "north", "spend_delta": "3"}],
    "platform_claims": [{"date": str(w), "channel": "tv", "conversions": "3", "revenue": "9.5", "spend": "2",
                         "currency": "USD", "campaign": "c", "as_of": "2025-03-01"} for w in WEEKS],
    "billing": [{"start": str(w), "end": str(w + timedelta(days=6)), "conversions": "3", "revenue": "9.5"}
                for w in WEEKS],
    "panel": [{"date": str(w), "geo": "north", "kpi": "7", "tv_spend": "1"} for w in WEEKS],
}  # fmt: skip
PEOPLE = {"project": {"id": "abcd"}, "inputs": {"events": {"path": "events.csv"}}}
PANEL = {"path": "panel.csv", "spend": {"tv": "tv_spend"}, "geo": "geo"}


def encoded(rows: list[dict[str, Any]], kind: str) -> bytes:
    """Rows as a file of one format."""
    if kind == "jsonl":
        return "".join(json.dumps(r) + "\n" for r in rows).encode()
    sink = io.BytesIO()
    (pq.write_table if kind == "parquet" else pa_csv.write_csv)(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def outcome(root: Path, changed: str, content: bytes, kind: str) -> str:
    """'' where the files read, else the sentence."""
    paths = {}
    for name, rows in GOOD.items():
        path = root / f"{name}.{kind if name == changed else 'csv'}"
        path.write_bytes(content if name == changed else encoded(rows, "csv"))
        paths[name] = path.name
    try:
        if changed == "panel":
            config = parse({"project": {"id": "abcd"}, "inputs": {"panel": PANEL | {"path": paths["panel"]}}})
            from_panel(root, config)
        else:
            public = {n: {"path": paths[n]} for n in GOOD if n != "panel"}
            config = parse(PEOPLE | {"inputs": PEOPLE["inputs"] | public})  # type: ignore[operator]
            public_tables = read_public(root, config)
            check_public(config, public_tables)
            read_claims(root, config, public_tables.channels)
            read_billing(root, config)
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("name", sorted(GOOD))
def test_the_good_files_read(tmp_path: Path, name: str, kind: str) -> None:
    assert outcome(tmp_path, name, encoded(GOOD[name], kind), kind) == ""


@LOOSE
@given(data=st.data(), name=st.sampled_from(sorted(GOOD)), kind=st.sampled_from(["csv", "jsonl", "parquet"]))
def test_damaged_bytes_give_a_table_or_a_sentence(tmp_path: Path, data: st.DataObject, name: str, kind: str) -> None:
    content = bytearray(encoded(GOOD[name], kind))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        some = data.draw(
            st.binary(min_size=1, max_size=4) | st.sampled_from([b'"', b"\n", b"\r", b",", b"\x00", b"\xff"])
        )
        if data.draw(st.booleans()):
            content[place : place + len(some)] = some
        else:
            del content[place : place + data.draw(st.integers(1, 40))]
        content = content or bytearray(b"x")
    said = outcome(tmp_path, name, bytes(content), kind)
    assert "Traceback" not in said


def test_a_column_name_that_is_no_unicode_is_a_sentence(tmp_path: Path) -> None:
    content = encoded(GOOD["experiments"], "parquet").replace(b"channel", b"chan\x80el")
    assert "cannot be read: Invalid Input Error: Invalid unicode" in outcome(
        tmp_path, "experiments", content, "parquet"
    )
    (tmp_path / "bad.parquet").write_bytes(content)
    with pytest.raises(InputError, match=r"bad.parquet cannot be read: Invalid Input Error: Invalid unicode"):
        header(tmp_path / "bad.parquet")


CELL = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(max_size=8), st.binary(max_size=4),
    st.dates(), st.datetimes(), st.decimals(-999, 999, allow_nan=False, allow_infinity=False, places=2),
    st.lists(st.integers(0, 9), max_size=3),
    st.sampled_from(["NaN", "1e999", "-1", "\u0661", "2025-02-30", "1,5", "tv"]),
)  # fmt: skip


@LOOSE
@given(data=st.data(), name=st.sampled_from(sorted(GOOD)))
def test_cells_of_any_type_give_a_table_or_a_sentence(tmp_path: Path, data: st.DataObject, name: str) -> None:
    table = pa.Table.from_pylist(GOOD[name])
    column = data.draw(st.sampled_from(table.column_names))
    cells: list[Any] = [data.draw(CELL)] * table.num_rows
    if data.draw(st.booleans()):  # one odd cell among good ones, as text
        cells = [*(str(c) for c in table[column].to_pylist()[1:]), str(cells[0])]
    table = table.set_column(table.column_names.index(column), column, pa.array(cells))
    sink = io.BytesIO()
    try:
        pq.write_table(table, sink)
    except pa.ArrowException:
        return
    outcome(tmp_path, name, sink.getvalue(), "parquet")


VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=6), inner, max_size=2),
    max_leaves=4,
)
PLACES = [
    ("project", "id"), ("project", "geos"), ("project", "calendar_start"), ("inputs", "max_rejected"),
    ("inputs", "identity"), ("inputs", "not_identifiers"), ("inputs", "spend"), ("inputs", "panel"),
    ("privacy", "retention_days"),
    ("privacy", "close_lag_days"), ("privacy", "shares"), ("privacy", "kpi"), ("privacy", "delta"), ("channels", "tv"),
    ("rates", "EUR"), ("model", "draws"), ("experiments", "up"), ("planning", "budget"), ("nothing", "here"),
]  # fmt: skip


@LOOSE
@given(place=st.sampled_from(PLACES), value=VALUE)
def test_any_value_in_any_key_gives_a_configuration_or_a_sentence(place: tuple[str, str], value: Any) -> None:
    section, key = place
    document: dict[str, Any] = {"project": {"id": "abcd"}, "inputs": {"events": {"path": "e.csv"}}}
    document[section] = document.get(section, {}) | {key: value}
    try:
        parse(document).privacy.policy()
    except UserError as error:
        assert str(error).startswith("plumb.toml") or "privacy" in str(error), error


@LOOSE
@given(content=st.binary(max_size=80) | st.text(max_size=80).map(str.encode))
def test_any_bytes_as_plumb_toml_give_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "plumb.toml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"^plumb\.toml"):
        load(path)


@LOOSE
@given(
    content=st.binary(min_size=1, max_size=60),
    name=st.sampled_from(["events.csv", "spend.csv", "x.parquet", "y.jsonl"]),
)
def test_init_recognises_or_says_why_not(tmp_path: Path, content: bytes, name: str) -> None:
    """`plumb init` looks at every file of a folder."""
    for old in tmp_path.iterdir():
        old.unlink()
    (tmp_path / name).write_bytes(content)
    try:
        initialise(tmp_path)
    except UserError as error:
        assert "\n" not in str(error), error
    written = tmp_path / "plumb.toml"
    if written.exists():
        tomllib.loads(written.read_text(encoding="utf-8"))
