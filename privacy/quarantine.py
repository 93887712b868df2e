"""Malformed rows: set aside with a reason, counted in the raw zone's log only, refused above the declared share.

They hold people's ids, so they are sealed (`privacy.vault`) batch by batch on their way out of the engine.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.csv as pa_csv

from contracts.errors import InputError
from privacy.rawzone import RawZone
from privacy.sources import Source, quote

BATCH = 10_000  # rows of a sealed chunk
HEADER = "file,row,reason,raw"
SHOWN = {"ts": "ts", "event": "event", "value": "value", "curre": "currency", "consent": "consent", "valid": "valid"}


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A line that the reader could not split into columns."""

    file: int
    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Rejects:
    """Malformed rows of one input so far; those with a reason of their own stand in its table."""

    name: str
    paths: tuple[Path, ...]
    unreadable: tuple[Unreadable, ...] = ()

    @property
    def lines(self) -> int:
        """Lines lost to unreadable rows; one open quote can swallow many."""
        return sum(1 + u.text.rstrip("\n").count("\n") for u in self.unreadable)

    def with_unreadable(self, con: duckdb.DuckDBPyConnection, file: int, source: Source) -> Rejects:
        """Adds what DuckDB's CSV reader rejected in one file."""
        if source.kind != "csv":
            return self
        rows = con.execute("SELECT DISTINCT line, csv_line FROM reject_errors ORDER BY line").fetchall()
        con.execute("DROP TABLE reject_errors")
        con.execute("DROP TABLE reject_scans")
        found = tuple(Unreadable(file, int(line), str(text)) for line, text in rows)
        return replace(self, unreadable=self.unreadable + found)


def finish(
    con: duckdb.DuckDBPyConnection,
    rejects: Rejects,
    max_rejected: float,
    zone: RawZone,
    now: datetime,
) -> None:
    """Writes the sealed quarantine and the log. Raises InputError when too large a share of the rows is malformed."""
    table = f"bad_{rejects.name}"
    counted = con.execute(
        f"SELECT (SELECT coalesce(sum(n), 0)::BIGINT FROM read_rows WHERE input = ?), (SELECT count(*) FROM {table})",
        [rejects.name],
    ).fetchone()
    assert counted is not None
    rows, bad = counted[0] + rejects.lines, counted[1] + rejects.lines
    reasons = dict(con.execute(f"SELECT reason, count(*) FROM {table} GROUP BY reason").fetchall())
    if rejects.unreadable:
        reasons["the row cannot be read"] = reasons.get("the row cannot be read", 0) + rejects.lines
    quarantine = zone.quarantine(rejects.name, now.date())
    zone.log(now, {"input": rejects.name, "rows": rows, "rejected": bad, "reasons": reasons})
    if rows == 0:
        raise InputError(f"{rejects.name}: {rejects.paths[0]} holds no row.")
    if not bad:
        if quarantine.exists():
            zone.delete(quarantine, "a later load of the day set nothing aside", now)
        return
    zone.vault.write(quarantine, _batches(con, rejects, table))
    if bad > max_rejected * rows:
        raise InputError(_sentence(con, rejects, table, max_rejected, reasons))


def _batches(con: duckdb.DuckDBPyConnection, rejects: Rejects, table: str) -> Iterator[bytes]:
    """The malformed rows as CSV, header first, in the order of files and rows."""
    con.execute("CREATE TEMP TABLE quarantined (file INTEGER, row BIGINT, reason VARCHAR, raw VARCHAR)")
    con.execute(f"INSERT INTO quarantined SELECT file, row, reason, raw FROM {table}")
    if rejects.unreadable:
        con.executemany(
            "INSERT INTO quarantined VALUES (?, ?, 'the row cannot be read', ?)",
            [(u.file, u.line, u.text) for u in rejects.unreadable],
        )
    names = ", ".join(f"({i}, {quote(str(p))})" for i, p in enumerate(rejects.paths))
    yield f"{HEADER}\n".encode()
    rows = con.sql(
        "SELECT names.path AS file, row, reason, raw FROM quarantined "
        f"JOIN (VALUES {names}) names(file, path) USING (file) ORDER BY quarantined.file, row"
    )
    for batch in rows.to_arrow_reader(BATCH):
        sink = pa.BufferOutputStream()
        pa_csv.write_csv(batch, sink, pa_csv.WriteOptions(include_header=False))
        yield sink.getvalue().to_pybytes()
    con.execute("DROP TABLE quarantined")


def _sentence(
    con: duckdb.DuckDBPyConnection,
    rejects: Rejects,
    table: str,
    limit: float,
    reasons: dict[str, int],
) -> str:
    """Names the most common reason and one row. Ids are never shown; other fields are, so that they can be found."""
    reason = max(sorted(reasons), key=lambda r: reasons[r])
    row = con.execute(
        f"SELECT file, row, raw FROM {table} WHERE reason = ? ORDER BY file, row LIMIT 1", [reason]
    ).fetchone()
    if row is None:
        first = rejects.unreadable[0]
        example = f"{rejects.paths[first.file]} line {first.line}"
    else:
        example = f"{rejects.paths[row[0]]} row {row[1]}"
        field = next((column for start, column in SHOWN.items() if reason.startswith(start)), None)
        value = json.loads(row[2]).get(field) if field and row[2] else None
        example += f" holds {value!r}" if value is not None else ""
    return (
        f"{rejects.name}: more than {limit:.3g} of the rows are malformed (inputs.max_rejected). Most often: {reason}; "
        f"{example}. See all of them with: plumb quarantine {rejects.name}. Correct the file, or raise "
        "inputs.max_rejected."
    )


def read_quarantine(raw_dir: Path, secret: bytes, name: str) -> Iterator[bytes]:
    """The newest quarantine of one input as CSV, chunk by chunk; nothing when no row is set aside.

    Raises WorkspaceError when others may open the raw zone, PrivacyError when the file does not open.
    """
    zone = RawZone.of(raw_dir, secret)
    for path in zone.quarantines(name)[-1:]:
        yield from zone.vault.read(path)
