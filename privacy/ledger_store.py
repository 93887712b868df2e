"""The SQLite file under the ledger: its tables, how it is opened, and its errors as sentences."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from contracts.errors import LedgerError, WorkspaceError
from contracts.release import NANO
from privacy.chain import LedgerPaths

BUSY_SECONDS = 60.0
POLL_SECONDS = 0.005
VERSION = 2  # of the tables; 1 had no record of draws, so nothing of it could be voided soundly
SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS entry (
    seq INTEGER PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('open', 'block', 'reserve', 'draw', 'attempt', 'publish', 'void')),
    body TEXT NOT NULL, at TEXT NOT NULL, prev_hash TEXT NOT NULL UNIQUE, row_hash TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE IF NOT EXISTS block (
    id TEXT PRIMARY KEY, cap_nano INTEGER NOT NULL, spent_nano INTEGER NOT NULL DEFAULT 0, calendar TEXT NOT NULL,
    CHECK (spent_nano BETWEEN 0 AND cap_nano)) STRICT;
CREATE TABLE IF NOT EXISTS allotment (
    block_id TEXT NOT NULL REFERENCES block, measure TEXT NOT NULL, cap_nano INTEGER NOT NULL,
    spent_nano INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (block_id, measure),
    CHECK (spent_nano BETWEEN 0 AND cap_nano)) STRICT;
CREATE TABLE IF NOT EXISTS release (
    id TEXT PRIMARY KEY, measure TEXT NOT NULL, spec_hash TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('reserved', 'published', 'void')),
    drawn INTEGER NOT NULL CHECK (drawn IN (0, 1)), out_hash TEXT, reserve_hash TEXT NOT NULL,
    CHECK ((state = 'published') = (out_hash IS NOT NULL)), CHECK (state <> 'void' OR drawn = 0)) STRICT;
CREATE TABLE IF NOT EXISTS charge (
    reserve_hash TEXT NOT NULL REFERENCES entry (row_hash), release_id TEXT NOT NULL REFERENCES release,
    block_id TEXT NOT NULL REFERENCES block, nano INTEGER NOT NULL CHECK (nano > 0), at TEXT NOT NULL,
    by TEXT NOT NULL, PRIMARY KEY (reserve_hash, block_id)) STRICT;
CREATE TRIGGER IF NOT EXISTS entry_fixed BEFORE UPDATE ON entry BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS entry_kept BEFORE DELETE ON entry BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS charge_fixed BEFORE UPDATE ON charge BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS charge_kept BEFORE DELETE ON charge BEGIN SELECT RAISE(ABORT, 'append-only'); END;
PRAGMA user_version = {VERSION};
COMMIT;
"""
READINGS = {
    "block": "SELECT id, cap_nano, spent_nano, calendar FROM block",
    "allotment": "SELECT block_id, measure, cap_nano, spent_nano FROM allotment",
    "release": "SELECT id, measure, spec_hash, state, drawn, out_hash, reserve_hash FROM release",
    "charge": "SELECT reserve_hash, release_id, block_id, nano, at, by FROM charge",
}
CHARGES = (  # one row per release x block that is charged now; a charge that was voided is history
    "SELECT charge.release_id, release.measure, charge.block_id, charge.nano, block.spent_nano, block.cap_nano, "
    "charge.at, coalesce(json_extract(entry.body, '$.share'), release.measure) FROM charge "
    "JOIN release ON release.reserve_hash = charge.reserve_hash AND release.state <> 'void' "
    "JOIN entry ON entry.row_hash = charge.reserve_hash JOIN block ON block.id = charge.block_id "
    "ORDER BY charge.block_id, charge.release_id"
)
# releases charged to one share of one block; a reservation names its share where it is not its measure's
SPENDERS = (
    "SELECT release.id FROM charge JOIN release ON release.reserve_hash = charge.reserve_hash "
    "JOIN entry ON entry.row_hash = charge.reserve_hash WHERE charge.block_id = ? AND release.state <> 'void' "
    "AND coalesce(json_extract(entry.body, '$.share'), release.measure) = ? ORDER BY release.id"
)


@contextmanager
def held(guard: FileLock, paths: LedgerPaths) -> Iterator[None]:
    """Holds the lock beside the head. Raises WorkspaceError when another process keeps it."""
    try:
        guard.acquire()
    except Timeout as error:
        raise WorkspaceError(f"the ledger {paths.db} is in use by another process; wait for it to end.") from error
    try:
        yield
    finally:
        guard.release()


@contextmanager
def sqlite_errors(paths: LedgerPaths) -> Iterator[None]:
    """Turns SQLite's errors into sentences."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if "full" in str(error) or "I/O" in str(error):
            raise WorkspaceError(f"the disk that holds {paths.db} is full; make room and run again.") from error
        if "locked" in str(error):
            raise WorkspaceError(f"the ledger {paths.db} is in use by another process; wait for it to end.") from error
        raise LedgerError(f"the ledger {paths.db} cannot be used ({error}).") from error
    except sqlite3.DatabaseError as error:
        raise LedgerError(f"the ledger {paths.db} is damaged ({error}). Restore the newest untouched copy.") from error


def prepare(connection: sqlite3.Connection, paths: LedgerPaths) -> None:
    """Settings and tables. Raises LedgerError for a ledger of another version."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == 0 and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
        connection.executescript(SCHEMA)
    elif version != VERSION:
        raise LedgerError(
            f"the ledger {paths.db} was made by another version of Plumbline (tables {version or 1}, here {VERSION}); "
            "go on with that version, or start a new workspace."
        )


def charge_frame(rows: list[Any]) -> pd.DataFrame:
    """Columns of v_charges from rows in nano-rho."""
    columns = ["release_id", "measure", "block", "rho", "block_spent", "block_cap", "charged_at", "paid_by"]
    frame = pd.DataFrame(rows, columns=columns)
    for name in ("rho", "block_spent", "block_cap"):
        frame[name] = frame[name].astype("int64") / NANO
    frame["charged_at"] = pd.to_datetime(frame["charged_at"], utc=True, format="ISO8601")
    return frame
