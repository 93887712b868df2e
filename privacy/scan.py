"""First step of a load: files to judged rows, in batches of Arrow, each row sent to the partition of its person.

One streaming pass over each file; nothing of the size of the file is held. What a Parquet file holds as a time or a
truth value is read as such, everything else goes through text, so that a row means the same in every format.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from privacy import contract
from privacy.inputs import FileSet, PeopleInputs
from privacy.people import KINDS
from privacy.sources import Source, query, quote, raw_json
from privacy.spool import Spool

BATCH = 200_000  # rows
_CONVERSION = quote(KINDS[-1])


def micros_of(now: datetime) -> int:
    """Microseconds since 1970 UTC."""
    return int((now - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1_000_000)


@dataclass(frozen=True, slots=True)
class Route:
    """Which partition a row belongs to. Every id of one person leads to the same one; which one changes no figure."""

    parts: int

    @property
    def join(self) -> str:
        """Ids that the identity map gives to somebody else follow that person."""
        return "LEFT JOIN routes ON routes.device = judged.user_id" if self.parts > 1 else ""

    @property
    def number(self) -> str:
        """SQL of the partition's number; rows without an id are the first one's."""
        if self.parts == 1:
            return "0::USMALLINT"
        return f"coalesce(coalesce(routes.route, hash(judged.user_id)) % {self.parts}, 0)::USMALLINT"


def columns_as_text(columns: dict[str, str | None]) -> str:
    """SQL of the raw row, for the quarantine."""
    return raw_json({name: name for name, sql in columns.items() if sql is not None})


def _typed(source: Source, files: FileSet, columns: dict[str, str | None]) -> dict[str, str | None]:
    """The columns, without the way through text where the file's own type says the same."""
    out = dict(columns)
    for ours in ("ts", "consent", "valid"):
        theirs = files.columns.get(ours, ours)
        if isinstance(theirs, str) and theirs in source.native and columns.get(ours) is not None:
            plain, kind = source.native[theirs]
            if ours == "ts" and _native_time(source, files):
                out[ours] = f"CASE WHEN {plain} IS NOT NULL THEN '' END"
            elif kind == "BOOLEAN":
                out[ours] = plain
    for ours in ("user_id", "event_id"):
        theirs = files.columns.get(ours, ours)
        if source.numbered and isinstance(theirs, str):
            out[ours] = _clean_id(source.text[theirs], str(columns[ours]))
    if source.numbered and columns.get("value") is not None:  # the contract reads the value of conversions alone
        money = _native_money(source, files)
        text = f"CASE WHEN {contract.double_micros(money)} IS NOT NULL THEN '' ELSE {columns['value']} END"
        value = text if money else columns["value"]
        out["value"] = f"CASE WHEN lower({columns['event']}) = {_CONVERSION} THEN {value} END"
    return out


def _clean_id(text: str, cleaned: str) -> str:
    """The cleaned id, without the work where there is nothing to clean: longer than 'null', and no space in it."""
    return f"CASE WHEN strlen({text}) > 4 AND NOT contains({text}, ' ') THEN {text} ELSE {cleaned} END"


def _flag(column: str, typed: str | None, source: Source) -> str:
    plain = {sql for sql, kind in source.native.values() if kind == "BOOLEAN"}
    return column if typed in plain else contract.boolean(column)


def _native_time(source: Source, files: FileSet) -> tuple[str, str] | None:
    theirs = files.columns.get("ts", "ts")
    found = source.native.get(theirs) if isinstance(theirs, str) else None
    return found if found and found[1].startswith(("TIMESTAMP", "DATE")) else None


def _native_money(source: Source, files: FileSet) -> str:
    """The column of the value where the file holds it as doubles, else ''."""
    theirs = files.columns.get("value", "value")
    found = source.native.get(theirs) if isinstance(theirs, str) else None
    return found[0] if found and found[1] == "DOUBLE" else ""


def event_sql(
    number: int, source: Source, columns: dict[str, str | None], inputs: PeopleInputs, now: datetime, route: Route
) -> str:
    """Judged rows of one file. `raw` is filled later where the columns are not text (see `privacy.load`)."""
    typed = _typed(source, inputs.events, columns)
    time = _native_time(source, inputs.events)
    money = _native_money(source, inputs.events)
    extra = (f", {time[0]} AS native_ts" if time else "") + (f", {money} AS native_value" if money else "")
    raw = "NULL::VARCHAR" if source.numbered else columns_as_text(columns)
    agrees, counts = (_flag(c, typed[c], source) for c in ("consent", "valid"))
    return f"""
    WITH text AS (
        SELECT {source.numbered or "row_number() OVER ()"} AS row, {source.broken} AS broken,
            {contract.text_of(typed)}{extra}
        FROM {source.relation}
    ), read AS (
        SELECT text.*, {contract.instant(inputs.time_zone, time and ("native_ts", time[1]))} AS instant,
            {contract.kind_case()} AS kind,
            {contract.money(money and contract.double_micros("native_value"))} AS amount,
            {agrees} AS agrees, {counts} AS counts,
            {contract.source_case()} AS source_rank, rates.rate, geos.geo AS geo_number,
            channels.channel AS channel_number
        FROM text LEFT JOIN rates ON rates.code = upper(text.currency) LEFT JOIN geos ON geos.name = text.geo
            LEFT JOIN channels ON channels.name = text.channel
    ), judged AS (
        SELECT *, {contract.event_reason(micros_of(now))} AS reason FROM read
    )
    SELECT {route.number} AS part, {number}::INTEGER AS file, row::BIGINT AS row, judged.user_id, event_id, instant,
        CASE WHEN reason IS NULL THEN {contract.local_day(inputs.time_zone)} END AS day, kind,
        channel_number AS channel, geo_number AS geo, CASE WHEN reason IS NULL THEN {contract.micros()} END AS micros,
        agrees, coalesce(counts, true) AS counts, source_rank AS source, reason,
        CASE WHEN reason IS NOT NULL THEN {raw} END AS raw
    FROM judged {route.join}"""


def assignment_sql(number: int, source: Source, columns: dict[str, str | None], route: Route) -> str:
    """Judged rows of one assignments file."""
    rules = (
        ("broken", "the row cannot be read"),
        ("user_id IS NULL", "user_id is empty"),
        ("experiment IS NULL", "experiment is empty"),
        ("arm IS NULL", "arm is empty"),
        ("experiment NOT IN (SELECT name FROM arms)", "experiment is not a declared user test"),
        ("arm_number IS NULL", "arm is not declared for this experiment"),
        ("consent IS NOT NULL AND agrees IS NULL", "consent is neither true nor false"),
        ("reads.strata AND read.stratum IS NULL", "stratum is empty"),
        ("reads.strata AND stratum_number IS NULL", "stratum is not declared for this experiment"),
        ("reads.entry AND entered_day IS NULL", "entered is not an ISO date"),
        ("reads.entry AND entered_day NOT BETWEEN reads.first_day AND reads.last_day", "entered lies outside the test"),
        ("reads.exposed AND read.exposed IS NOT NULL AND reached IS NULL", "exposed is neither true nor false"),
        ("reads.covariate AND read.covariate IS NOT NULL AND amount IS NULL", "covariate is not a number under 10^12"),
        ("reads.covariate AND amount < 0", "covariate is negative"),
    )
    reason = "CASE " + " ".join(f"WHEN {test} THEN {quote(text)}" for test, text in rules) + " END"
    return f"""
    WITH text AS (
        SELECT row_number() OVER () AS row, {source.broken} AS broken, {contract.text_of(columns)}
        FROM {source.relation}
    ), read AS (
        SELECT text.*, arms.experiment AS number, arms.arm AS arm_number, {contract.boolean("consent")} AS agrees,
            strata.stratum AS stratum_number, {contract.boolean("exposed")} AS reached, {contract.plain_day("entered")}
            AS entered_day, {contract.amount("covariate")} AS amount
        FROM text LEFT JOIN arms ON arms.name = text.experiment AND arms.arm_name = text.arm
            LEFT JOIN strata ON strata.name = text.experiment AND strata.stratum_name = text.stratum
    ), judged AS (
        SELECT read.*, {reason} AS reason FROM read LEFT JOIN designs AS reads ON reads.name = read.experiment
    )
    SELECT {route.number} AS part, {number}::INTEGER AS file, row, judged.user_id, number AS experiment,
        arm_number AS arm, coalesce(stratum_number, 0)::SMALLINT AS stratum,
        coalesce(entered_day, 0)::INTEGER AS entered,
        coalesce(reached, false)::TINYINT AS exposed, {contract.whole_micros("amount")} AS covariate,
        agrees, reason, CASE WHEN reason IS NOT NULL THEN {columns_as_text(columns)} END AS raw
    FROM judged {route.join}"""


def send(con: duckdb.DuckDBPyConnection, statement: str, name: str, spool: Spool) -> None:
    """Runs a statement with a column `part` and lays its rows on the shelves 'NAME PART'."""
    for batch in query(con, statement).to_arrow_reader(BATCH):
        for part, rows in _split(batch):
            spool.append(f"{name} {part}", rows)


def _split(batch: pa.RecordBatch) -> Iterator[tuple[int, pa.Table]]:
    parts = batch["part"].to_numpy()
    rows = pa.Table.from_batches([batch.drop_columns("part")])
    if len(parts) and (parts == parts[0]).all():
        yield int(parts[0]), rows
        return
    order = np.argsort(parts, kind="stable")
    at = pa.array(order)
    rows = pa.table({name: _taken(column, at) for name, column in zip(rows.column_names, rows.columns, strict=True)})
    numbers, starts = np.unique(parts[order], return_index=True)
    for number, start, end in zip(numbers, starts, [*starts[1:], len(parts)], strict=True):
        yield int(number), rows.slice(start, end - start)


def _taken(column: pa.ChunkedArray, at: pa.Array) -> pa.Array:
    """The column in another order. One without any value, such as the reasons of well-formed rows, stays as it is."""
    whole = column.combine_chunks()
    return whole if whole.null_count == len(whole) else pc.take(whole, at, boundscheck=False)
