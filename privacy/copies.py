"""One event, told more than once: copies of (user_id, event_id) become one row, the server's word first.

Works on the table `parsed` of `privacy.load`. event_key hashes the person's keyed hash (of fixed length) and the
event_id, so only rows of one person meet here, whatever characters their ids hold. The result does not depend on the
order of rows or files.
"""

from __future__ import annotations

import duckdb

CONTRADICTION = "another row has the same user_id and event_id but different content"
_FILLED = ("channel", "geo", "micros", "agrees")  # what a client may add where the server is silent
_CONTENT = "concat_ws('|', instant, kind, coalesce(channel, -1), coalesce(geo, -1), coalesce(micros, -1), \
coalesce(agrees::VARCHAR, '-'), counts)"


def merge_copies(con: duckdb.DuckDBPyConnection) -> None:
    """Keeps one row per event. Leaves the number of merged rows in `merged`.

    Rows of the best source decide; where they differ from each other, nothing says which is right and all copies of the
    event are malformed. A field that the server left empty is filled by the clients, if they agree on it.
    """
    con.execute(
        "CREATE TEMP TABLE twice AS SELECT event_key, min(source) AS best FROM parsed WHERE reason IS NULL "
        "GROUP BY event_key HAVING count(*) > 1"
    )
    con.execute(
        f"""CREATE TEMP TABLE copies AS
        SELECT parsed.rowid AS id, event_key, {", ".join(_FILLED)}, source = best AS heard, {_CONTENT} AS content
        FROM parsed JOIN twice USING (event_key) WHERE reason IS NULL"""
    )
    filled = ", ".join(
        f"coalesce(min({c}) FILTER (heard), CASE WHEN min({c}) = max({c}) THEN min({c}) END) AS {c}" for c in _FILLED
    )
    con.execute(
        f"""CREATE TEMP TABLE once AS
        SELECT event_key, min(id) FILTER (heard) AS id, {filled}, bool_and(heard) AS alike,
            count(DISTINCT content) FILTER (heard) > 1 AS contradict
        FROM copies GROUP BY event_key"""
    )
    con.execute(
        "CREATE TEMP TABLE spare AS SELECT copies.id FROM copies JOIN once USING (event_key) "
        "WHERE NOT contradict AND copies.id <> once.id"
    )
    con.execute("CREATE TABLE merged AS SELECT count(*) AS n FROM spare")
    con.execute(
        f"UPDATE parsed SET reason = '{CONTRADICTION}' WHERE rowid IN "
        "(SELECT copies.id FROM copies JOIN once USING (event_key) WHERE contradict)"
    )
    con.execute(
        f"UPDATE parsed SET {', '.join(f'{c} = once.{c}' for c in _FILLED)} FROM once "
        "WHERE parsed.rowid = once.id AND NOT contradict AND NOT alike"
    )
    con.execute("DELETE FROM parsed WHERE rowid IN (FROM spare)")
    for table in ("spare", "once", "copies", "twice"):
        con.execute(f"DROP TABLE {table}")
