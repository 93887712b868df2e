"""The loader: every format reads alike, every malformed row has a reason, nobody's row changes another's."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.errors import ContractError, InputError, PrivacyError, UserError
from privacy.load import LoadSettings, load_people
from privacy.rawzone import RawZone
from privacy.room import FileSet, Fixed, HashOf, check_people
from privacy.sources import unreadable

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECRET = b"a secret of thirty-two bytes, ok"


@pytest.fixture
def here(world, make_question, no_trial):  # type: ignore[no-untyped-def]
    return world(question=make_question(**no_trial), max_rejected=1.0)


def loaded(here, inputs, table="events", secret=SECRET):  # type: ignore[no-untyped-def]
    with load_people(inputs, here.question, LoadSettings(NOW, here.root / "raw", secret)) as people:
        return people.con.execute(f"SELECT * FROM {table} ORDER BY ALL").df()


def reasons(here, name="events"):  # type: ignore[no-untyped-def]
    return here.quarantined(name)


BAD = [
    ({"user_id": ""}, "user_id is empty"),
    ({"user_id": "NaN"}, "user_id is empty"),
    ({"user_id": "   "}, "user_id is empty"),
    ({"event_id": ""}, "event_id is empty"),
    ({"event": "purchase"}, "event must be one of impression, click, visit, conversion"),
    ({"ts": "yesterday"}, "ts is not an ISO date or time"),
    ({"ts": "2024-02-30"}, "ts is not an ISO date or time"),
    ({"ts": "infinity"}, "ts is not an ISO date or time"),
    ({"ts": "01/02/2024"}, "ts is not an ISO date or time"),
    ({"ts": ""}, "ts is empty"),
    ({"ts": "2026-01-01T00:00:01Z"}, "ts lies in the future"),
    ({"ts": "1969-12-31"}, "ts lies before 1970"),
    ({"consent": "perhaps"}, "consent is neither true nor false"),
    ({"valid": "2.5"}, "valid is neither true nor false"),
    ({"event": "conversion", "value": "ten", "currency": "USD"}, "value is not a number under 10^12"),
    ({"event": "conversion", "value": "inf", "currency": "USD"}, "value is not a number under 10^12"),
    ({"event": "conversion", "value": "1e300", "currency": "USD"}, "value is not a number under 10^12"),
    ({"event": "conversion", "value": "-1", "currency": "USD"}, "value is negative; refunds are not part of revenue"),
    ({"event": "conversion", "value": "10"}, "value without a currency"),
    ({"event": "conversion", "value": "10", "currency": "dollars"}, "currency is not a code"),
]


def test_each_malformed_row_is_quarantined_with_its_reason(here, make_event) -> None:  # type: ignore[no-untyped-def]
    rows = [make_event("ann", i, "2024-01-02") | change for i, (change, _) in enumerate(BAD)]
    rows.append(make_event("bob", 1, "2024-01-02"))
    for name in ("events.csv", "events.jsonl"):
        assert len(loaded(here, here.inputs(here.write(rows, name)))) == 1
        assert [r for _, r in reasons(here)] == [reason for _, reason in BAD]
    quarantine = here.root / "raw" / "quarantine" / "events" / "2026-01-01.sealed"
    assert b"user_id" not in quarantine.read_bytes(), "what is set aside is sealed"
    assert stat.S_IMODE(quarantine.stat().st_mode) == 0o600
    assert stat.S_IMODE((here.root / "raw").stat().st_mode) == 0o700


GOOD = [
    {"ts": "2024-01-02"}, {"ts": "2024-01-02T10:00"}, {"ts": "2024-01-02 10:00:00.123456789"},
    {"ts": "2024-01-02T10:00:00+02:00"}, {"ts": "2024-01-02T10:00:00Z"}, {"event": "CLICK"}, {"valid": ""},
    {"event": "conversion"}, {"event": "conversion", "value": "0"},
    {"event": "conversion", "value": "1e2", "currency": "usd"},
    {"value": "junk on a visit is not read"}, {"channel": "never declared"}, {"geo": ""}, {"consent": "1.0"},
]  # fmt: skip


def test_rows_that_keep_the_contract_stay(here, make_event) -> None:  # type: ignore[no-untyped-def]
    rows = [make_event("ann", i, "2024-01-02") | change for i, change in enumerate(GOOD)]
    events = loaded(here, here.inputs(here.write(rows)))
    assert reasons(here) == []
    assert len(events) == len(GOOD)
    assert events["micros"].max() == 100_000_000
    assert (events["geo"] == 2).sum() == 1, "an empty geo belongs to 'other'"


def test_too_many_malformed_rows_stop_the_load_and_name_a_row(here, make_event) -> None:  # type: ignore[no-untyped-def]
    here.max_rejected = 0.01
    rows = [make_event("ann", i, "2024-01-02") for i in range(300)]

    def secretive(number: int) -> dict[str, str]:
        return make_event("eve@example.org", number, "tomorrow") | {"event_id": f"e{number}"}

    path = here.write([*rows, *(secretive(i) for i in range(3))])
    assert len(loaded(here, here.inputs(path))) == 300, "3 of 303 is under 1 %"
    path = here.write([*rows, *(secretive(i) for i in range(4))])
    with pytest.raises(
        InputError, match=r"more than 0\.01 of the rows.*ts is not an ISO.*row 301 holds 'tomorrow'"
    ) as e:
        loaded(here, here.inputs(path))
    assert "example.org" not in str(e.value), "ids never reach a message"
    log = RawZone.of(here.root / "raw", SECRET).logged()
    assert log[-1]["rejected"] == 4 and log[-1]["rows"] == 304


def test_copies_merge_and_contradictions_are_quarantined(here, make_event) -> None:  # type: ignore[no-untyped-def]
    one, two = make_event("ann", 1, "2024-01-02"), make_event("ann", 2, "2024-01-02")
    other = make_event("bob", 1, "2024-01-02") | {"event_id": "ann-1"}  # the same event_id of somebody else
    path = here.write([one, one, two, two | {"geo": "south"}, other])
    assert len(loaded(here, here.inputs(path))) == 2
    assert reasons(here) == [(r, "another row has the same user_id and event_id but different content") for r in (3, 4)]


def test_ids_made_to_collide_stay_apart(here, make_event) -> None:  # type: ignore[no-untyped-def]
    rows = [
        make_event("a", 1, "2024-01-02") | {"user_id": "a", "event_id": "\x1fb"},
        make_event("a", 1, "2024-01-02", "click") | {"user_id": "a\x1f", "event_id": "b"},
        make_event("ü", 1, "2024-01-02") | {"user_id": "u\u0308"},
        make_event("ü", 1, "2024-01-02") | {"user_id": "\u00fc"},
        make_event("'; DROP TABLE events; --", 1, "2024-01-02"),
    ]
    assert loaded(here, here.inputs(here.write(rows, "events.jsonl")))["person"].nunique() == 5


@pytest.mark.parametrize(
    ("statements", "counted"),
    [
        ([("2024-01-01", "true"), ("2024-01-05", "false")], False),
        ([("2024-01-05", "true"), ("2024-01-01", "false")], True),
        ([("2024-01-01", "true"), ("2024-01-05", "")], True),
        ([("2024-01-01", "true"), ("2024-01-01", "false")], False),  # a refusal wins a tie
        ([("2024-01-01", ""), ("2024-01-02", "")], False),
        ([("2024-01-01", "true"), ("2025-12-30", "false")], False),  # withdrawn after the calendar
    ],
)
def test_consent_is_the_latest_statement(here, make_event, statements, counted) -> None:  # type: ignore[no-untyped-def]
    rows = [make_event("ann", i, ts, consent=c) for i, (ts, c) in enumerate(statements)]
    path = here.write([*rows, make_event("bob", 1, "2024-01-01")])
    assert loaded(here, here.inputs(path))["person"].nunique() == 1 + counted
    assert len(loaded(here, here.inputs(path), "presence")) == 2
    here.assumed = True
    refused = any(c == "false" for _, c in statements)
    assert loaded(here, here.inputs(path))["person"].nunique() == 1 + (counted or not refused)


def test_formats_folders_globs_and_several_files_read_alike(here, make_event) -> None:  # type: ignore[no-untyped-def]
    rows = [make_event(str(i), i, f"2024-01-0{1 + i}T05:00:00Z", value="1.5", event="conversion", currency="USD")
            for i in range(6)]  # fmt: skip
    expected = loaded(here, here.inputs(here.write(rows)))
    columns = {k: pa.array([r.get(k) for r in rows]) for k in rows[0]}
    columns["ts"] = pa.array([datetime.fromisoformat(r["ts"]) for r in rows], pa.timestamp("ns", "UTC"))
    columns["user_id"] = pa.array([float(r["user_id"]) for r in rows])  # ids that went through a float column
    columns["value"] = pa.array([1.5] * 6)
    columns["consent"] = columns["valid"] = pa.array([True] * 6)
    folder = here.root / "many [1]*"
    folder.mkdir()
    here.write(rows[:2], "many [1]*/a.csv")
    here.write(rows[2:4], "many [1]*/b.jsonl")
    pq.write_table(pa.table(columns).slice(4), folder / "c.parquet")
    (folder / "notes.txt").write_text("not data")
    glob = here.root / "many ?1]*" / "*.[cjp]*"
    whole = here.root / "whole.parquet"
    pq.write_table(pa.table(columns), whole)
    for paths in ((folder,), (whole,), (glob,), (folder / "a.csv", folder / "b.jsonl", folder / "c.parquet")):
        found = loaded(here, here.inputs(FileSet(paths)))
        for column in ("block", "week", "day", "kind", "geo", "micros"):
            assert sorted(found[column]) == sorted(expected[column]), (paths, column)
    naive = pa.table(columns | {"ts": pa.array([date(2024, 1, 1 + i) for i in range(6)])})
    pq.write_table(naive, whole)
    assert sorted(loaded(here, here.inputs(whole))["day"]) == sorted(expected["day"])


def test_money_is_exact_and_converted(here, make_event) -> None:  # type: ignore[no-untyped-def]
    here.rates = {"eur": 1.1, "JPY": 0.0065}
    money = [("0.1", "USD"), ("19.99", "EUR"), ("3", "jpy"), ("999999999999.99", "EUR"), ("0.0000004", "USD")]
    rows = [make_event("a", i, "2024-01-02", "conversion", value=v, currency=c) for i, (v, c) in enumerate(money)]
    found = sorted(loaded(here, here.inputs(here.write(rows)))["micros"])
    assert found == sorted([100_000, 21_989_000, 19_500, 1_099_999_999_999_989_000, 0])


def test_a_currency_without_a_rate_stops(here, make_event) -> None:  # type: ignore[no-untyped-def]
    path = here.write([make_event("a", 1, "2024-01-02", "conversion", value="5", currency="CHF")])
    with pytest.raises(InputError, match=r"events\.csv row 1 is in CHF, and the project is in USD; add its rate"):
        loaded(here, here.inputs(path))


def test_columns_are_mapped_fixed_and_hashed(here) -> None:  # type: ignore[no-untyped-def]
    rows = [{"who": "a", "when": "2024-01-02", "what": "visit"}, {"who": "", "when": "2024-01-02", "what": "visit"}]
    path = here.write(rows, "log.csv", ("who", "when", "what"))
    here.assumed = True
    mapping = {"user_id": HashOf(("who",)), "ts": "when", "event": "what", "geo": Fixed("south"),
               "event_id": HashOf(("who", "when", "what"))}  # fmt: skip
    events = loaded(here, here.inputs(FileSet((path,), mapping)))
    assert list(events["geo"]) == [1]
    assert reasons(here) == [(2, "user_id is empty")], "a hash of nothing is nobody, not one big somebody"
    with pytest.raises(
        InputError, match=r"has no column 'nope', which inputs\.events\.columns\.ts names; it holds who"
    ):
        loaded(here, here.inputs(FileSet((path,), mapping | {"ts": "nope"})))
    with pytest.raises(InputError, match=r"inputs\.events\.columns\.usr is unknown"):
        loaded(here, here.inputs(FileSet((path,), {"usr": "who"})))


def test_file_level_faults(here, make_event, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=r"there is no file .*absent\.csv; correct inputs\.events\.path"):
        loaded(here, here.inputs(tmp_path / "absent.csv"))
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(InputError, match=r"empty\.csv is empty"):
        loaded(here, here.inputs(tmp_path / "empty.csv"))
    with pytest.raises(InputError, match="holds no row"):
        loaded(here, here.inputs(here.write([])))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(InputError, match=r"broken\.parquet cannot be read as Parquet"):
        loaded(here, here.inputs(tmp_path / "broken.parquet"))
    path = here.write(
        [make_event("a", 1, "2024-01-02")], "e.csv", ("event_id", "user_id", "ts", "event", "geo", "valid", "consent")
    )
    text = path.read_text()
    path.write_text(text.replace("user_id", "person"))
    with pytest.raises(InputError, match=r"e\.csv has no column 'user_id'; it holds event_id, person, ts"):
        loaded(here, here.inputs(path))
    path.write_text(text.replace("consent", "agreed"))
    with pytest.raises(InputError, match="has no column 'consent'; map it .* or state that everybody"):
        loaded(here, here.inputs(path))
    path.write_text(text.replace("geo", "ts", 1))
    with pytest.raises(InputError, match=r"repeats the column \['ts'\]"):
        loaded(here, here.inputs(path))
    with pytest.raises(InputError, match="is not a Parquet, CSV or JSON Lines file"):
        (tmp_path / "events.xlsx").write_text("x")
        loaded(here, here.inputs(tmp_path / "events.xlsx"))


def test_unreadable_lines_are_quarantined(here, make_event) -> None:  # type: ignore[no-untyped-def]
    path = here.write([make_event("a", 1, "2024-01-02")])
    with path.open("ab") as handle:
        handle.write(b'too,few\r\n1,b\xff,2024-01-02,visit,,north,,,true,true\r\n2,"open quote,2024\r\nx,y\r\n')
    assert len(loaded(here, here.inputs(path))) == 1
    assert [r for _, r in reasons(here)] == ["the row cannot be read"] * 3
    lines = here.root / "e.jsonl"
    lines.write_text(json.dumps(make_event("a", 1, "2024-01-02")) + "\nnot json\n[1, 2]\n")
    assert len(loaded(here, here.inputs(lines))) == 1
    assert [r for _, r in reasons(here)] == ["the row cannot be read"] * 2


def test_mixed_line_ends_are_named(here, make_event) -> None:  # type: ignore[no-untyped-def]
    path = here.write([make_event("a", 1, "2024-01-02")])
    path.write_bytes(path.read_bytes() + b"too,few\n")
    with pytest.raises(InputError, match="mixes line ends"):
        loaded(here, here.inputs(path))


def test_assignments_have_a_contract_too(world, make_event) -> None:  # type: ignore[no-untyped-def]
    here = world(max_rejected=1.0)
    path = here.write([make_event(p, 1, "2024-02-06") for p in "abcd"])
    groups = here.groups([("a", "control"), ("a", "control"), ("b", "control"), ("b", "treated"), ("", "control"),
                          ("c", "purple"), ("d", "treated"), ("silent", "treated")])  # fmt: skip
    assigned = loaded(here, here.inputs(path, groups), "assigned")
    assert len(assigned) == 2, "a and d; b is in two arms, and the silent person has no consent on record"
    assert [r for _, r in reasons(here, "assignments")] == [
        "the person is in two arms of this experiment", "the person is in two arms of this experiment",
        "user_id is empty", "arm is not declared for this experiment",
    ]  # fmt: skip
    here.assumed = True
    assert len(loaded(here, here.inputs(path, groups), "assigned")) == 3
    with pytest.raises(InputError, match="'holdout' is user-randomised and needs an assignments file"):
        loaded(here, here.inputs(path))


def test_a_silent_person_counts_when_the_assignments_state_consent(world, make_event) -> None:  # type: ignore[no-untyped-def]
    here = world(max_rejected=1.0)
    path = here.write([make_event("a", 1, "2024-02-06"), make_event("b", 1, "2024-02-06", consent="false")])
    rows = [{"user_id": p, "experiment": "holdout", "arm": "control", "consent": "true"} for p in ("a", "b", "silent")]
    groups = here.write(rows, "assignments.csv", ("user_id", "experiment", "arm", "consent"))
    assert len(loaded(here, here.inputs(path, groups), "assigned")) == 2, "events speak louder than the assignment"


def test_raw_ids_and_counts_do_not_leave(here, make_event) -> None:  # type: ignore[no-untyped-def]
    path = here.write([make_event("very-secret-person", 1, "2024-01-02")])
    one = loaded(here, here.inputs(path), "keys")
    two = loaded(here, here.inputs(path), "keys", secret=b"another secret of enough bytes..")
    assert one["user_key"][0] != two["user_key"][0] and len(one["user_key"][0]) == 32
    where = LoadSettings(NOW, here.root / "raw", SECRET)
    checked = check_people(here.inputs(path), here.policy, here.question, where)
    assert checked.passed
    assert all(not any(ch.isdigit() for ch in f.text.split(" releases")[0]) or f.check_name == "plan"
               for f in checked.figures)  # fmt: skip
    here.max_rejected = 0.5
    worse = here.write([make_event("very-secret-person", 1, "2024-01-02"), make_event("b", 1, "soon")])
    again = check_people(here.inputs(worse), here.policy, here.question, where)
    assert here.quarantined() and again == replace(
        checked, figures=tuple(replace(f, threshold=0.5) if f.threshold else f for f in checked.figures)
    ), "whether one person's row is malformed is nothing for the warehouse"
    with pytest.raises(PrivacyError, match="at least 16 bytes; got 3"):
        LoadSettings(NOW, here.root, b"abc")
    with pytest.raises(ContractError, match="must know its zone"):
        LoadSettings(NOW.replace(tzinfo=None), here.root, SECRET)


def test_reordering_rows_changes_nothing(here, make_event) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(5)
    kinds = ("impression", "click", "visit", "conversion")
    rows = [
        make_event(f"p{rng.integers(9)}", i, "2024-02-02", kinds[rng.integers(4)],
                   channel=("search", "video")[rng.integers(2)], geo=("north", "south")[rng.integers(2)])
        for i in range(200)
    ]  # fmt: skip
    first = here.exact(here.inputs(here.write(rows)))
    again = here.exact(here.inputs(here.write(rows[::-1])))
    for key, units in first.items():
        assert np.array_equal(units, again[key]), key


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)
FUZZ = st.fixed_dictionaries(
    {
        "event_id": TEXT,
        "user_id": TEXT | st.sampled_from(["a", "b"]),
        "ts": TEXT | st.dates(date(1960, 1, 1), date(2030, 1, 1)).map(str) | st.datetimes().map(str),
        "event": st.sampled_from(["visit", "conversion", "click", "", "x"]),
        "channel": TEXT | st.just("search"),
        "geo": TEXT,
        "value": TEXT | st.floats().map(str) | st.integers(-(10**30), 10**30).map(str),
        "currency": st.sampled_from(["USD", "", "usd", "??"]),
        "consent": st.sampled_from(["true", "false", "", "1", "maybe"]),
        "valid": st.sampled_from(["true", "0", "", "¿"]),
    }
)


@settings(max_examples=20, deadline=timedelta(seconds=20), suppress_health_check=list(HealthCheck))
@given(rows=st.lists(FUZZ, min_size=1, max_size=8), kind=st.sampled_from(["csv", "jsonl"]))
def test_no_row_whatever_it_holds_breaks_the_loader(here, rows, kind) -> None:  # type: ignore[no-untyped-def]
    inputs = replace(here.inputs(here.write(rows, f"events.{kind}")), max_rejected=1.0)
    try:
        events = loaded(here, inputs)
    except UserError as error:
        assert "holds no row" in str(error) or "cannot be read" in str(error), error  # noqa: PT017
        return
    assert len(events) <= len(rows)
    assert (events["micros"] >= 0).all()


def test_what_a_reader_quotes_stays_out_of_the_sentence(tmp_path: Path) -> None:
    error = duckdb.ConversionException("Could not convert string 'eve@example.org' to INT64 in column \"id\", or 'cut")
    said = str(unreadable("events", tmp_path / "e.csv", "csv", error))
    assert "example.org" not in said and "cut" not in said
    assert said.endswith("cannot be read as CSV (Could not convert string ... to INT64 in column ..., or ...).")
