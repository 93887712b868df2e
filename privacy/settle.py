"""Second step of a load, one partition at a time: ids to persons, copies merged, consent applied. Raw ids end here.

Everything about one person lies in one partition, so each settles alone. Persons are numbered from 0 within it, which
serves for equality only, so what is asked of each person is an array with a place for each (`privacy.tally`). Expensive
exact comparisons are made where a 64-bit hash says that they may be needed: equal rows have equal hashes, so none is
missed, and a chance collision costs time and changes nothing. The keyed hash behind a number is made for the persons
who need one: all when an identity map or a list of forgotten people asks, else those with copies or ties in time, and
all once more where a measure orders cells by it (`keyed`).
"""

from __future__ import annotations

import duckdb
import numpy as np
import pyarrow as pa

from privacy import identity
from privacy.copies import merge_copies
from privacy.sources import query
from privacy.tally import Calendar, Rows, consent, homes, latest, presence, repeated

NOBODY, FORGOTTEN = -1, -2  # instead of a person's number
# columns of a settled partition as they are stored; measures see them as int64 (privacy.people.SCHEMAS)
_EVENT = {
    "person": pa.int32(), "block": pa.int16(), "week": pa.int16(), "day": pa.int32(), "kind": pa.int8(),
    "channel": pa.int16(), "geo": pa.int16(), "micros": pa.int64(), "seq": pa.int64(),
}  # fmt: skip
_ROW = "person, event_id, instant, day, kind, channel, geo, micros, agrees, counts"
_EVENT_KEY = "CAST(left(sha256(user_key || event_id), 32) AS UUID)"  # 128 bits; the person's key has a fixed length
# copies meet inside one block only, so that no row of one block changes what is released of another (privacy.crossing)
_COPY_KEY = "CAST(left(sha256(user_key || coalesce(block, -1) || ':' || event_id), 32) AS UUID)"
_SHAPES: dict[str, dict[str, pa.DataType]] = {
    "events": _EVENT,
    "presence": {"person": pa.int32(), "block": pa.int16(), "consenting": pa.int8(), "invalid": pa.int8()},
    "homes": {"person": pa.int32(), "block": pa.int16(), "geo": pa.int16(), "weeks": pa.int64()},
}


def settle(
    con: duckdb.DuckDBPyConnection,
    events: pa.Table | None,
    assignments: pa.Table | None,
    *,
    consent_assumed: bool,
    now_us: int,
    keyed: bool = True,
) -> dict[str, pa.Table]:
    """The tables of one partition, by name; malformed rows join `bad_events`, `bad_assignments`.

    Somebody who is assigned twice in one arm counts from the earlier entry, with the first of the strata and the larger
    covariate. Adds the rows of people who are not forgotten to `read_rows` (input, n). Without
    `keyed` there is no table `keys`, and a measure that asks for it fails.
    """
    calendar, elsewhere = Calendar.of(con), _number(con, "SELECT max(geo) FROM geos")
    people = _persons(con, events, assignments)
    rows = Rows.of(_clean(con), calendar, elsewhere)
    _groups(con)
    known, agrees = consent(rows, _refused(con, people, now_us), _group(con), consent_assumed)
    con.register("agreeing", pa.table({"person": np.flatnonzero(known & agrees).astype(np.int32)}))
    told = _told(con, rows, agrees, elsewhere)
    out = {
        "events": _table("events", told),
        "presence": _table("presence", presence(rows, agrees, calendar.blocks)),
        "homes": _table("homes", homes(told, people, calendar.blocks)),
        "assigned": query(
            con, "SELECT person, experiment, arm, min(stratum) AS stratum, min(entered) AS entered, "
            "max(exposed) AS exposed, max(covariate) AS covariate "
            "FROM grouped SEMI JOIN agreeing USING (person) WHERE reason IS NULL GROUP BY person, experiment, arm"
        ).to_arrow_table(),
    }  # fmt: skip
    if keyed:
        _learn_keys(con, "FROM agreeing")
        keys = "SELECT person, user_key FROM persons SEMI JOIN agreeing USING (person)"
        out["keys"] = query(con, keys).to_arrow_table()
    _forget(con)
    return out


def _forget(con: duckdb.DuckDBPyConnection) -> None:
    """Takes everything of a partition, its ids first of all, out of the engine."""
    con.abort()
    for name in ("names", "staged_events", "staged_assignments", "suspects", "agreeing", "tied"):
        con.unregister(name)
    con.execute("DROP VIEW clean")
    con.execute("DELETE FROM ids")
    for name in ("persons", "parsed", "merged", "grouped"):
        con.execute(f"DROP TABLE {name}")


def _table(name: str, columns: dict[str, np.ndarray]) -> pa.Table:
    return pa.table(
        {c: pa.array(columns[c].astype(kind.to_pandas_dtype(), copy=False)) for c, kind in _SHAPES[name].items()}
    )


def _number(con: duckdb.DuckDBPyConnection, statement: str) -> int:
    ((number,),) = con.execute(statement).fetchall()  # to its end, so that the engine is free for the next
    return int(number or 0)


def _ids(table: pa.Table | None) -> pa.Array:
    return pa.array([], pa.string()) if table is None else table["user_id"].combine_chunks()


def _persons(con: duckdb.DuckDBPyConnection, events: pa.Table | None, assignments: pa.Table | None) -> int:
    """Numbers the persons of the partition, registers its rows with that number in place of the id, and says how many
    there are.
    """
    ids = [_ids(events), _ids(assignments)]
    coded = pa.concat_arrays(ids).dictionary_encode()
    number, people = _numbers(con, coded.dictionary)
    lookup = np.append(number, np.int32(NOBODY))  # the last one is for rows without an id
    person = lookup[coded.indices.fill_null(len(number)).to_numpy(zero_copy_only=False)]
    split = len(ids[0])
    for name, table, numbers in (
        ("events", events, person[:split]),
        ("assignments", assignments, person[split:]),
    ):
        if table is None:
            table = _nothing(con, name)
        staged = table.drop_columns("user_id").append_column("person", pa.array(numbers))
        forgotten = numbers == FORGOTTEN
        if forgotten.any():
            staged = staged.filter(pa.array(~forgotten))
        con.register(f"staged_{name}", staged)
        con.execute("INSERT INTO read_rows VALUES (?, ?)", [name, staged.num_rows])
    return people


def _numbers(con: duckdb.DuckDBPyConnection, ids: pa.Array) -> tuple[np.ndarray, int]:
    """The person behind each distinct id, int32, and how many persons there are.

    Where no map joins ids and nobody is forgotten, an id is a person, whatever its keyed hash.
    """
    con.register("names", pa.table({"person": np.arange(len(ids), dtype=np.int32), "user_id": ids}))
    con.execute("CREATE TABLE persons (person INTEGER, user_key VARCHAR)")
    if not identity.asks(con):
        return np.arange(len(ids), dtype=np.int32), len(ids)
    identity.learn(con, "names", "user_id")
    con.execute(
        "INSERT INTO persons SELECT (row_number() OVER () - 1)::INTEGER, user_key "
        "FROM (SELECT DISTINCT user_key FROM ids WHERE user_key IS NOT NULL)"
    )
    found = con.execute(
        f"SELECT coalesce(persons.person, {FORGOTTEN})::INTEGER AS person FROM names JOIN ids USING (user_id) "
        "LEFT JOIN persons USING (user_key) ORDER BY names.person"
    ).fetchnumpy()["person"]
    con.unregister("names")
    con.register("names", pa.table({"person": pa.array([], pa.int32()), "user_id": pa.array([], pa.string())}))
    return np.asarray(found, dtype=np.int32), _number(con, "SELECT count(*) FROM persons")


def _learn_keys(con: duckdb.DuckDBPyConnection, wanted: str) -> None:
    """Makes the keyed hash of some persons, given as a statement with the column `person`, if it is not there yet."""
    con.execute(
        f"""INSERT INTO persons SELECT person, {identity.keyed("user_id")}
        FROM (FROM names SEMI JOIN ({wanted}) AS wanted USING (person) ANTI JOIN persons USING (person)), id_key"""
    )


_EMPTY = {
    "events": "0::INTEGER AS file, 0::BIGINT AS row, '' AS user_id, '' AS event_id, 0::BIGINT AS instant, "
    "0::INTEGER AS day, 0::TINYINT AS kind, 0::SMALLINT AS channel, 0::SMALLINT AS geo, 0::BIGINT AS micros, "
    "true AS agrees, true AS counts, 0::TINYINT AS source, '' AS reason, '' AS raw",
    "assignments": "0::INTEGER AS file, 0::BIGINT AS row, '' AS user_id, 0::SMALLINT AS experiment, "
    "0::SMALLINT AS arm, 0::SMALLINT AS stratum, 0::INTEGER AS entered, 0::TINYINT AS exposed, 0::BIGINT AS covariate, "
    "true AS agrees, '' AS reason, '' AS raw",
}


def _nothing(con: duckdb.DuckDBPyConnection, name: str) -> pa.Table:
    """An input without rows in this partition."""
    return query(con, f"SELECT {_EMPTY[name]} WHERE false").to_arrow_table()


def _clean(con: duckdb.DuckDBPyConnection) -> pa.Table:
    """Well-formed events, each once, which is the view `clean`, too. Copies, if any, are merged in `parsed`."""
    found = con.execute("SELECT hash(person, event_id) AS h FROM staged_events WHERE reason IS NULL").fetchnumpy()["h"]
    twice = repeated(np.asarray(found, dtype=np.uint64))
    con.register("suspects", pa.table({"h": twice}))
    suspect = "reason IS NULL AND hash(person, event_id) IN (FROM suspects)"
    if len(twice):
        _learn_keys(con, f"SELECT DISTINCT person FROM staged_events WHERE {suspect}")
    con.execute(
        f"""CREATE TABLE parsed AS SELECT staged_events.*, {_COPY_KEY} AS event_key
        FROM staged_events JOIN persons USING (person) LEFT JOIN days USING (day) WHERE {suspect}"""
    )
    merge_copies(con)
    alone = "AND hash(person, event_id) NOT IN (FROM suspects)" if len(twice) else ""
    both = f"UNION ALL SELECT {_ROW} FROM parsed WHERE reason IS NULL" if len(twice) else ""
    con.execute(f"CREATE VIEW clean AS SELECT {_ROW} FROM staged_events WHERE reason IS NULL {alone} {both}")
    for table in ("staged_events", "parsed"):
        con.execute(f"INSERT INTO bad_events SELECT file, row, reason, raw FROM {table} WHERE reason IS NOT NULL")
    return query(con, "SELECT * EXCLUDE event_id FROM clean").to_arrow_table()


def _groups(con: duckdb.DuckDBPyConnection) -> None:
    """The table `grouped`: who is in which arm; somebody in two arms of one experiment is in neither."""
    con.execute("CREATE TABLE grouped AS FROM staged_assignments")
    con.execute(
        """UPDATE grouped SET reason = 'the person is in two arms of this experiment' WHERE reason IS NULL AND
        (person, experiment) IN (SELECT (person, experiment) FROM grouped WHERE reason IS NULL
            GROUP BY person, experiment HAVING count(DISTINCT arm) > 1)"""
    )
    con.execute("INSERT INTO bad_assignments SELECT file, row, reason, raw FROM grouped WHERE reason IS NOT NULL")


def _refused(con: duckdb.DuckDBPyConnection, people: int, now_us: int) -> np.ndarray:
    """The time of each person's latest refusal, or `NEVER`.

    A refusal counts on a malformed row, too, which must not hide it (without a usable time, or from the future, it is
    one of now; copies count each).
    """
    found = con.execute(
        f"""SELECT person, coalesce(least(instant, {now_us}), {now_us}) AS at
        FROM staged_events WHERE NOT agrees AND person >= 0"""
    ).fetchnumpy()
    return latest(np.asarray(found["person"]), np.asarray(found["at"]), people)


def _group(con: duckdb.DuckDBPyConnection) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(person, agrees, says) of the assignments that tell of consent or of somebody's being there."""
    found = con.execute(
        """SELECT person, coalesce(agrees, false) AS agrees, agrees IS NOT NULL AS says FROM grouped
        WHERE reason IS NULL OR (NOT agrees AND person >= 0)"""
    ).fetchnumpy()
    return np.asarray(found["person"]), np.asarray(found["agrees"], bool), np.asarray(found["says"], bool)


def _told(con: duckdb.DuckDBPyConnection, rows: Rows, agrees: np.ndarray, elsewhere: int) -> dict[str, np.ndarray]:
    """Columns of `events`. `seq` orders the events of one person: by time, and where times tie, by keyed hash."""
    here = agrees[rows.person] & rows.counts & (rows.block >= 0)
    tied = rows.tied()
    if len(tied):
        here &= ~np.isin(rows.person, tied)
    out = {name: getattr(rows, "instant" if name == "seq" else name)[here] for name in _EVENT}
    if not len(tied):
        return out
    con.register("tied", pa.table({"person": tied[agrees[tied]]}))
    _learn_keys(con, "FROM tied")
    found = con.execute(
        f"""SELECT person, block, week, day, kind, coalesce(channel, -1) AS channel, coalesce(geo, {elsewhere}) AS geo,
            coalesce(micros, 0) AS micros, row_number() OVER (PARTITION BY person ORDER BY instant, {_EVENT_KEY}) AS seq
        FROM clean SEMI JOIN tied USING (person) JOIN days USING (day) JOIN persons USING (person) WHERE counts"""
    ).fetchnumpy()
    return {name: np.concatenate([out[name], np.asarray(found[name]).astype(out[name].dtype)]) for name in _EVENT}
