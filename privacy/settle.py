"""Second step of a load, one partition at a time: ids to persons, copies merged, consent applied. Raw ids end here.

Everything about one person lies in one partition, so each settles alone. Persons get a number, which serves for
equality only. Expensive exact comparisons are made where a 64-bit hash says that they may be needed: equal rows have
equal hashes, so none is missed, and a chance collision costs time and changes nothing.
"""

from __future__ import annotations

import duckdb
import numpy as np
import pyarrow as pa

from privacy import identity
from privacy.copies import merge_copies
from privacy.sources import query

NOBODY, FORGOTTEN = -1, -2  # instead of a person's number
# columns of a settled partition as they are stored; measures see them as int64 (privacy.people.SCHEMAS)
STORED = {
    "events": "person INTEGER, block SMALLINT, week SMALLINT, day INTEGER, kind TINYINT, channel SMALLINT, "
    "geo SMALLINT, micros BIGINT, seq BIGINT",
    "presence": "person INTEGER, block SMALLINT, consenting TINYINT, invalid TINYINT",
    "homes": "person INTEGER, block SMALLINT, geo SMALLINT, weeks BIGINT",
    "assigned": "person INTEGER, experiment SMALLINT, arm SMALLINT, stratum SMALLINT, entered INTEGER, "
    "exposed TINYINT, covariate BIGINT",
    "keys": "person INTEGER, user_key VARCHAR",
}
_ROW = "person, event_id, instant, day, kind, channel, geo, micros, agrees, counts"
_EVENT_KEY = "CAST(left(sha256(user_key || event_id), 32) AS UUID)"  # 128 bits; the person's key has a fixed length
# copies meet inside one block only, so that no row of one block changes what is released of another (privacy.crossing)
_COPY_KEY = "CAST(left(sha256(user_key || coalesce(block, -1) || ':' || event_id), 32) AS UUID)"


def repeated(values: np.ndarray) -> np.ndarray:
    """The values that occur more than once."""
    ordered = np.sort(values)
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])


def settle(
    con: duckdb.DuckDBPyConnection,
    events: pa.Table | None,
    assignments: pa.Table | None,
    *,
    consent_assumed: bool,
    now_us: int,
) -> None:
    """Fills the tables of `STORED` (named t_...) from one partition; malformed rows join `bad_events`,
    `bad_assignments`.

    Adds the rows of people who are not forgotten to `read_rows` (input, n).
    """
    _persons(con, events, assignments)
    _rows(con)
    _groups(con)
    _consent(con, consent_assumed, now_us)
    _tables(con)
    for name in ("staged_events", "staged_assignments", "suspects"):
        con.unregister(name)
    con.execute("DROP VIEW clean")
    con.execute("DELETE FROM ids")
    for name in ("persons", "parsed", "merged", "grouped", "seen", "refused", "consent"):
        con.execute(f"DROP TABLE {name}")


def _ids(table: pa.Table | None) -> pa.Array:
    return pa.array([], pa.string()) if table is None else table["user_id"].combine_chunks()


def _persons(con: duckdb.DuckDBPyConnection, events: pa.Table | None, assignments: pa.Table | None) -> None:
    """Numbers the persons of the partition and registers its rows with that number in place of the id."""
    ids = [_ids(events), _ids(assignments)]
    coded = pa.concat_arrays(ids).dictionary_encode()
    names = pa.table({"code": np.arange(len(coded.dictionary), dtype=np.int64), "user_id": coded.dictionary})
    con.register("names", names)
    identity.learn(con, "names", "user_id")
    con.execute(
        "CREATE TABLE persons AS SELECT (row_number() OVER () - 1)::INTEGER AS person, user_key "
        "FROM (SELECT DISTINCT user_key FROM ids WHERE user_key IS NOT NULL)"
    )
    found = con.execute(
        f"SELECT coalesce(person, {FORGOTTEN})::INTEGER AS person FROM names JOIN ids USING (user_id) "
        "LEFT JOIN persons USING (user_key) ORDER BY code"
    ).fetchnumpy()["person"]
    con.unregister("names")
    lookup = np.append(np.asarray(found, dtype=np.int32), np.int32(NOBODY))  # the last one is for rows without an id
    person = lookup[coded.indices.fill_null(len(found)).to_numpy(zero_copy_only=False)]
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


def _hashes(con: duckdb.DuckDBPyConnection, column: str, relation: str) -> np.ndarray:
    found = con.execute(f"SELECT hash(person, {column}) AS h FROM {relation}").fetchnumpy()["h"]
    return np.asarray(found, dtype=np.uint64)


def _rows(con: duckdb.DuckDBPyConnection) -> None:
    """The view `clean`: well-formed events, each once. Copies, if any, are merged in `parsed`."""
    twice = repeated(_hashes(con, "event_id", "staged_events WHERE reason IS NULL"))
    con.register("suspects", pa.table({"h": twice}))
    con.execute(
        f"""CREATE TABLE parsed AS SELECT staged_events.*, {_COPY_KEY} AS event_key
        FROM staged_events JOIN persons USING (person) LEFT JOIN days USING (day)
        WHERE reason IS NULL AND hash(person, event_id) IN (FROM suspects)"""
    )
    merge_copies(con)
    alone = "AND hash(person, event_id) NOT IN (FROM suspects)" if len(twice) else ""
    both = f"UNION ALL SELECT {_ROW} FROM parsed WHERE reason IS NULL" if len(twice) else ""
    con.execute(f"CREATE VIEW clean AS SELECT {_ROW} FROM staged_events WHERE reason IS NULL {alone} {both}")
    for table in ("staged_events", "parsed"):
        con.execute(f"INSERT INTO bad_events SELECT file, row, reason, raw FROM {table} WHERE reason IS NOT NULL")


def _groups(con: duckdb.DuckDBPyConnection) -> None:
    """The table `grouped`: who is in which arm; somebody in two arms of one experiment is in neither."""
    con.execute("CREATE TABLE grouped AS FROM staged_assignments")
    con.execute(
        """UPDATE grouped SET reason = 'the person is in two arms of this experiment' WHERE reason IS NULL AND
        (person, experiment) IN (SELECT (person, experiment) FROM grouped WHERE reason IS NULL
            GROUP BY person, experiment HAVING count(DISTINCT arm) > 1)"""
    )
    con.execute("INSERT INTO bad_assignments SELECT file, row, reason, raw FROM grouped WHERE reason IS NOT NULL")


def _consent(con: duckdb.DuckDBPyConnection, assumed: bool, now_us: int) -> None:
    """The tables `seen` (who was there in which block) and `consent`.

    A person's consent is their latest statement; a refusal wins a tie, and counts on a malformed row, too, which must
    not hide it (without a usable time, or from the future, it is one of now; copies count each). Without any statement
    it is what the workspace assumes.
    """
    con.execute(
        """CREATE TABLE seen AS
        SELECT person, block, max(instant) FILTER (agrees) AS granted, max((NOT counts)::TINYINT) AS invalid
        FROM clean LEFT JOIN days USING (day) GROUP BY person, block"""
    )
    con.execute(
        f"""CREATE TABLE refused AS
        SELECT person, max(coalesce(least(instant, {now_us}), {now_us})) AS at
        FROM staged_events WHERE NOT agrees AND person >= 0 GROUP BY person"""
    )
    con.execute(
        f"""CREATE TABLE consent AS
        WITH granted AS (SELECT person, max(granted) AS at FROM seen GROUP BY person HAVING max(granted) IS NOT NULL),
        stated AS (
            SELECT person, refused.at IS NULL OR coalesce(granted.at > refused.at, false) AS agrees
            FROM granted FULL JOIN refused USING (person)
        ), known AS (
            SELECT person, NULL::BOOLEAN AS agrees FROM seen
            UNION ALL SELECT person, agrees FROM grouped WHERE reason IS NULL OR (NOT agrees AND person >= 0)
        ), once AS (SELECT person, bool_and(agrees) AS agrees FROM known GROUP BY person)
        SELECT person, coalesce(stated.agrees, once.agrees, {str(assumed).lower()}) AS agrees
        FROM once LEFT JOIN stated USING (person)"""
    )


def _tables(con: duckdb.DuckDBPyConnection) -> None:
    """What the measures see. `seq` orders the events of one person: by time, and where times tie, by keyed hash.

    Somebody who is told of twice in one arm counts from the earlier entry, with the first of the strata and the larger
    covariate.
    """
    for name, columns in STORED.items():
        con.execute(f"CREATE TABLE t_{name} ({columns})")
    con.execute("INSERT INTO t_keys SELECT person, user_key FROM consent JOIN persons USING (person) WHERE agrees")
    con.execute(
        "INSERT INTO t_presence SELECT person, block, agrees::TINYINT, invalid FROM seen JOIN consent USING (person) "
        "WHERE block IS NOT NULL"
    )
    con.execute(
        "INSERT INTO t_assigned SELECT person, experiment, arm, min(stratum), min(entered), max(exposed), "
        "max(covariate) FROM grouped JOIN consent USING (person) WHERE reason IS NULL AND consent.agrees "
        "GROUP BY person, experiment, arm"
    )
    ties = repeated(_hashes(con, "instant", "clean"))
    con.register("ties", pa.table({"h": ties}))
    con.execute("CREATE TABLE tied AS SELECT DISTINCT person FROM clean WHERE hash(person, instant) IN (FROM ties)")
    columns = (
        "person, block, week, day, kind, coalesce(channel, -1), coalesce(geo, (SELECT max(geo) FROM geos)), "
        "coalesce(micros, 0)"
    )
    here = "FROM clean JOIN days USING (day) JOIN (SELECT person FROM consent WHERE agrees) USING (person)"
    con.execute(
        f"INSERT INTO t_events SELECT {columns}, instant {here} "
        "WHERE counts" + (" AND person NOT IN (FROM tied)" if len(ties) else "")
    )
    if len(ties):
        con.execute(
            f"""INSERT INTO t_events
            SELECT {columns}, row_number() OVER (PARTITION BY person ORDER BY instant, {_EVENT_KEY})
            {here} JOIN persons USING (person) WHERE counts AND person IN (FROM tied)"""
        )
    con.execute(
        "INSERT INTO t_homes SELECT person, block, arg_min(geo, seq), bit_or(1::BIGINT << week) FROM t_events "
        "GROUP BY person, block"
    )
    con.unregister("ties")
    con.execute("DROP TABLE tied")
