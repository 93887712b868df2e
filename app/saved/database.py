"""`state.sqlite`: what people saved. WAL, synchronous FULL, STRICT tables, 0600, with a schema version.

A scenario's head row is its name, status and newest version; its versions, with every planned cell and the outcome that
it was priced with, are never changed or deleted (triggers), so that an approval keeps pointing at what was approved.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from contracts.errors import WorkspaceError
from contracts.intervals import INTERVAL

WAIT_SECONDS = 10.0
_FIGURES = ", ".join(f"{name} REAL NOT NULL" for name in INTERVAL)


def _append_only(*tables: str) -> str:
    return "\n".join(
        f"CREATE TRIGGER {table}_no_{verb} BEFORE {verb.upper()} ON {table} "
        f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END;"
        for table in tables
        for verb in ("update", "delete")
    )


_SCENARIOS = f"""
CREATE TABLE scenarios (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 80),
    name_key TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('saved', 'archived')),
    version INTEGER NOT NULL CHECK (version >= 1),
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX one_name ON scenarios (name_key) WHERE status = 'saved';
CREATE TABLE scenario_versions (
    scenario_id TEXT NOT NULL REFERENCES scenarios (id),
    version INTEGER NOT NULL CHECK (version >= 1),
    name TEXT NOT NULL,
    note TEXT NOT NULL,
    author TEXT NOT NULL CHECK (length(author) >= 1),
    status TEXT NOT NULL CHECK (status IN ('saved', 'archived')),
    saved_at TEXT NOT NULL,
    currency TEXT NOT NULL,
    kpi TEXT NOT NULL,
    period_days INTEGER NOT NULL CHECK (period_days IN (1, 7)),
    period_start TEXT NOT NULL,
    period_end TEXT NOT NULL,
    run_id TEXT NOT NULL,
    release_id TEXT NOT NULL,
    model_version TEXT NOT NULL,
    evidence_ids TEXT NOT NULL,
    response_id TEXT NOT NULL,
    priced_at TEXT NOT NULL,
    budget REAL NOT NULL CHECK (budget >= 0),
    {_FIGURES},
    PRIMARY KEY (scenario_id, version)
) STRICT;
CREATE TABLE scenario_channels (
    scenario_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    channel TEXT NOT NULL,
    spend REAL NOT NULL CHECK (spend >= 0),
    spend_change REAL,
    {_FIGURES},
    PRIMARY KEY (scenario_id, version, channel),
    FOREIGN KEY (scenario_id, version) REFERENCES scenario_versions (scenario_id, version)
) STRICT;
CREATE TABLE scenario_cells (
    scenario_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    channel TEXT NOT NULL,
    period_start TEXT NOT NULL,
    period_end TEXT NOT NULL,
    geo TEXT NOT NULL,
    spend REAL NOT NULL CHECK (spend >= 0),
    {_FIGURES},
    PRIMARY KEY (scenario_id, version, channel, period_start, geo),
    FOREIGN KEY (scenario_id, version, channel) REFERENCES scenario_channels (scenario_id, version, channel)
) STRICT;
{_append_only("scenario_versions", "scenario_channels", "scenario_cells")}
CREATE TRIGGER scenarios_no_delete BEFORE DELETE ON scenarios
BEGIN SELECT RAISE(ABORT, 'scenarios are archived, never deleted'); END;
"""

_REMARKS = f"""
CREATE TABLE comments (
    id TEXT PRIMARY KEY,
    subject_kind TEXT NOT NULL CHECK (subject_kind IN ('scenario', 'channel', 'experiment', 'run')),
    subject_id TEXT NOT NULL CHECK (length(subject_id) >= 1),
    author TEXT NOT NULL CHECK (length(author) >= 1),
    text TEXT NOT NULL CHECK (length(text) >= 1),
    written_at TEXT NOT NULL
) STRICT;
CREATE INDEX comments_by_subject ON comments (subject_kind, subject_id, written_at);
CREATE TABLE approvals (
    id TEXT PRIMARY KEY,
    scenario_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    decision TEXT NOT NULL CHECK (decision IN ('approved', 'rejected')),
    reason TEXT NOT NULL CHECK (length(reason) >= 1),
    author TEXT NOT NULL CHECK (length(author) >= 1),
    decided_at TEXT NOT NULL,
    FOREIGN KEY (scenario_id, version) REFERENCES scenario_versions (scenario_id, version)
) STRICT;
CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL CHECK (length(name) >= 1),
    hash TEXT NOT NULL UNIQUE CHECK (length(hash) = 64),
    scopes TEXT NOT NULL CHECK (length(scopes) >= 1),
    created_at TEXT NOT NULL,
    revoked_at TEXT
) STRICT;
CREATE UNIQUE INDEX one_token_name ON tokens (name) WHERE revoked_at IS NULL;
{_append_only("comments", "approvals")}
"""

_PLANS = f"""
ALTER TABLE scenario_channels ADD COLUMN within REAL;
ALTER TABLE scenario_channels ADD COLUMN beyond REAL;
ALTER TABLE scenario_channels ADD COLUMN carried_in REAL;
ALTER TABLE scenario_channels ADD COLUMN extrapolated INTEGER CHECK (extrapolated IN (0, 1));
ALTER TABLE scenario_versions ADD COLUMN locked TEXT NOT NULL DEFAULT '[]';
CREATE TABLE plans_of_record (
    id TEXT PRIMARY KEY,
    scenario_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    reason TEXT NOT NULL CHECK (length(reason) >= 1),
    author TEXT NOT NULL CHECK (length(author) >= 1),
    set_at TEXT NOT NULL,
    FOREIGN KEY (scenario_id, version) REFERENCES scenario_versions (scenario_id, version)
) STRICT;
{_append_only("plans_of_record")}
"""

_EXPIRY = "ALTER TABLE tokens ADD COLUMN expires_at TEXT;"

# Script n brings a file of schema version n to version n + 1. A script that has been shipped is never edited.
MIGRATIONS: tuple[str, ...] = (_SCENARIOS, _REMARKS, _EXPIRY, _PLANS)


def utc_now() -> str:
    """The clock as it is stored: ISO 8601, UTC, milliseconds, no zone written."""
    return datetime.now(UTC).replace(tzinfo=None).isoformat(sep=" ", timespec="milliseconds")


def utc_after(days: int) -> str:
    """`days` from now, as `utc_now` writes it."""
    then = datetime.now(UTC).replace(tzinfo=None) + timedelta(days=days)
    return then.isoformat(sep=" ", timespec="milliseconds")


@contextmanager
def writing(path: Path) -> Iterator[sqlite3.Connection]:
    """One transaction on the file, which is made (0600) or migrated when need be; rolled back on any error.

    Raises WorkspaceError when the file is damaged, of a newer version, busy, on a full disk or not writable.
    """
    with _sentences(path):
        _touch_private(path)
        connection = _open(path)
        try:
            _migrate(connection, path, MIGRATIONS)
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
        finally:
            connection.close()


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """One consistent look at the file; an empty database where there is none, and nothing is created.

    Raises WorkspaceError as `writing` does.
    """
    with _sentences(path):
        connection = _open(path) if path.exists() else _open(None)
        try:
            _migrate(connection, path, MIGRATIONS)
            connection.execute("BEGIN")
            yield connection
            connection.execute("ROLLBACK")
        finally:
            connection.close()


def _touch_private(path: Path) -> None:
    """SQLite gives its -wal and -shm files the mode of the main file, so only that one has to be made."""
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


def _open(path: Path | None) -> sqlite3.Connection:
    connection = sqlite3.connect(path or ":memory:", timeout=WAIT_SECONDS, isolation_level=None)
    try:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()
        raise
    return connection


def _migrate(connection: sqlite3.Connection, path: Path, scripts: Sequence[str]) -> None:
    """Brings the file to the newest schema in one transaction; two processes that try at once do it once."""
    if _version(connection) == len(scripts):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _version(connection)
        if version > len(scripts):
            raise WorkspaceError(
                f"{path} was written by a newer Plumbline (schema {version}, this one knows {len(scripts)}); "
                "update Plumbline to read it. Nothing was changed."
            )
        for script in scripts[version:]:
            for statement in _statements(script):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(scripts)}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _statements(script: str) -> Iterator[str]:
    """Single statements of a script: `executescript` would commit the transaction that it runs in."""
    held = ""
    for line in script.splitlines():
        held += line + "\n"
        if sqlite3.complete_statement(held):
            yield held
            held = ""


@contextmanager
def _sentences(path: Path) -> Iterator[None]:
    """SQLite's own faults as sentences for the user."""
    try:
        yield
    except sqlite3.OperationalError as error:
        text = str(error)
        if "locked" in text or "busy" in text:
            raise WorkspaceError(f"{path} is busy: someone else is saving; try again.") from error
        if "full" in text:
            raise WorkspaceError(f"the disk of {path} is full: make room and save again. Nothing was saved.") from error
        raise WorkspaceError(f"{path} cannot be used ({text}); check that its folder is writable.") from error
    except sqlite3.IntegrityError:
        raise
    except sqlite3.DatabaseError as error:
        raise WorkspaceError(f"{path} is damaged ({error}); bring it back from a backup, or move it away.") from error
    except PermissionError as error:
        raise WorkspaceError(f"{path} is not writable ({error.strerror}); mend its permissions.") from error
