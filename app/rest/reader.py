"""Rows of a view from the warehouse file: opened read-only for one question, with everything else switched off."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from app.rest.query import Query, statement
from app.store import opened
from contracts.errors import WorkspaceError

TYPES = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
    "arrow": "application/vnd.apache.arrow.stream",
}


@dataclass(frozen=True, slots=True)
class Page:
    """Rows of one page, and how many there are in all."""

    table: pa.Table
    total: int
    fingerprint: str  # of the file that they were read from


def read(warehouse: Path, query: Query) -> Page:
    """Runs a query. Raises WorkspaceError when the file is missing, damaged or of another version."""
    asked = statement(query)
    try:
        with opened(warehouse) as (con, mark):
            ((total,),) = con.execute(asked.count, asked.values).fetchall()
            table = con.sql(asked.rows, params=[*asked.values, *asked.page]).to_arrow_table()
    except duckdb.Error as error:
        first = str(error).strip().splitlines()[0]
        raise WorkspaceError(
            f"the warehouse could not be read ({first}); it may be of another version: run `plumb run`."
        ) from error
    return Page(table, int(total), mark)


def encode(table: pa.Table, form: str) -> bytes:
    """The table as CSV, Parquet or an Arrow stream."""
    sink = io.BytesIO()
    if form == "csv":
        pyarrow.csv.write_csv(table, sink)
    elif form == "parquet":
        pyarrow.parquet.write_table(table, sink)
    else:
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
    return sink.getvalue()


def rows(table: pa.Table) -> list[dict[str, object]]:
    """Rows for JSON: days and times in ISO form, NULL and NaN as null."""
    frame = table.to_pandas()
    text = frame.to_json(orient="records", date_format="iso", date_unit="ms", double_precision=15)
    found = json.loads(text or "[]")
    days = [f.name for f in table.schema if pa.types.is_date(f.type)]
    for row in found:
        for name in days:
            row[name] = row[name][:10] if row[name] else None
    return list(found)
