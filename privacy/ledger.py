"""The ledger of privacy spent: SQLite, append-only, hash-chained, with its newest hash kept outside the database.

`entry` is the truth: a chain of events. The other tables are readings of it, kept so that SQLite itself refuses
overspending (`CHECK (spent_nano <= cap_nano)`); opening the ledger replays the chain and compares. The head file holds
the newest hash seen. A chain that does not hold it is an older copy, and nothing runs on that.

Local disks only: write-ahead logging is not safe on network file systems.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from contracts.errors import BudgetExceeded, LedgerError, PrivacyError, WorkspaceError
from contracts.release import NANO
from privacy.disk import sync_folder, write_private
from privacy.vectors import ReleasePlan

BUSY_SECONDS = 60.0
GENESIS = "0" * 64
_SCHEMA = """
CREATE TABLE IF NOT EXISTS entry (
    seq INTEGER PRIMARY KEY, kind TEXT NOT NULL CHECK (kind IN ('open', 'block', 'reserve', 'attempt', 'publish')),
    body TEXT NOT NULL, at TEXT NOT NULL, prev_hash TEXT NOT NULL UNIQUE, row_hash TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE IF NOT EXISTS block (
    id TEXT PRIMARY KEY, cap_nano INTEGER NOT NULL, spent_nano INTEGER NOT NULL DEFAULT 0,
    CHECK (spent_nano BETWEEN 0 AND cap_nano)) STRICT;
CREATE TABLE IF NOT EXISTS allotment (
    block_id TEXT NOT NULL REFERENCES block, measure TEXT NOT NULL, cap_nano INTEGER NOT NULL,
    spent_nano INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (block_id, measure),
    CHECK (spent_nano BETWEEN 0 AND cap_nano)) STRICT;
CREATE TABLE IF NOT EXISTS release (
    id TEXT PRIMARY KEY, measure TEXT NOT NULL, spec_hash TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('reserved', 'published')), out_hash TEXT, reserve_hash TEXT NOT NULL,
    CHECK ((state = 'published') = (out_hash IS NOT NULL))) STRICT;
CREATE TABLE IF NOT EXISTS charge (
    release_id TEXT NOT NULL REFERENCES release, block_id TEXT NOT NULL REFERENCES block,
    nano INTEGER NOT NULL CHECK (nano > 0), at TEXT NOT NULL, PRIMARY KEY (release_id, block_id)) STRICT;
CREATE TRIGGER IF NOT EXISTS entry_fixed BEFORE UPDATE ON entry BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS entry_kept BEFORE DELETE ON entry BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS charge_fixed BEFORE UPDATE ON charge BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS charge_kept BEFORE DELETE ON charge BEGIN SELECT RAISE(ABORT, 'append-only'); END;
"""
_READINGS = {
    "block": "SELECT id, cap_nano, spent_nano FROM block",
    "allotment": "SELECT block_id, measure, cap_nano, spent_nano FROM allotment",
    "release": "SELECT id, measure, spec_hash, state, out_hash, reserve_hash FROM release",
    "charge": "SELECT release_id, block_id, nano, at FROM charge",
}


@dataclass(frozen=True, slots=True)
class LedgerPaths:
    """Where the ledger lies, and the file outside the workspace that holds its newest hash (0600)."""

    db: Path
    head: Path


@dataclass(frozen=True, slots=True)
class ReleaseState:
    """What the ledger knows of one release."""

    state: str  # 'reserved' or 'published'
    out_hash: str | None
    reserve_hash: str  # hash of the entry that reserved it


@dataclass(frozen=True, slots=True)
class Grant:
    """Cap of one block and of each measure in it, nano-rho. The parts include the reserve."""

    cap_nano: int
    parts: Mapping[str, int]


def entry_hash(seq: int, kind: str, body: str, at: str, prev_hash: str) -> str:
    """SHA-256 that chains an entry to the one before it."""
    return hashlib.sha256(json.dumps([seq, kind, body, at, prev_hash]).encode()).hexdigest()


class Ledger:
    """An open, verified ledger. Every change is one immediate transaction that appends to the chain."""

    def __init__(self, connection: sqlite3.Connection, paths: LedgerPaths) -> None:
        self._db = connection
        self._paths = paths

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with _sqlite_errors(self._paths):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                if self._db.in_transaction:  # SQLite has rolled back by itself when the disk is full
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _append(self, kind: str, body: dict[str, Any], at: datetime) -> str:
        seq, prev = self._tip()
        text = json.dumps(body, sort_keys=True)
        row = entry_hash(seq + 1, kind, text, at.isoformat(), prev)
        self._db.execute(
            "INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?)", (seq + 1, kind, text, at.isoformat(), prev, row)
        )
        return row

    def _tip(self) -> tuple[int, str]:
        row = self._db.execute("SELECT seq, row_hash FROM entry ORDER BY seq DESC LIMIT 1").fetchone()
        return (int(row[0]), str(row[1])) if row else (-1, GENESIS)

    def _advance_head(self) -> None:
        """Writes the newest hash outside the database, under the write lock, so that it never goes back."""
        with self._writing():
            seq, row = self._tip()
            write_private(self._paths.head, json.dumps({"seq": seq, "hash": row}) + "\n")

    def state(self, release_id: str) -> ReleaseState | None:
        """State of a release, or None when the ledger has never seen it."""
        with _sqlite_errors(self._paths):
            row = self._db.execute(
                "SELECT state, out_hash, reserve_hash FROM release WHERE id = ?", (release_id,)
            ).fetchone()
        return ReleaseState(*row) if row else None

    def check_affordable(self, plans: tuple[ReleasePlan, ...], grant: Grant) -> None:
        """Raises BudgetExceeded or PrivacyError unless all plans together fit. Changes nothing."""
        with _sqlite_errors(self._paths):
            spent: dict[tuple[str, str], int] = {}
            for plan in plans:
                for charge in plan.charges:
                    self._same_grant(charge.block, grant)
                    key = (charge.block, plan.measure)
                    row = self._db.execute(
                        "SELECT spent_nano FROM allotment WHERE block_id = ? AND measure = ?", key
                    ).fetchone()
                    before = spent.get(key, int(row[0]) if row else 0)
                    if before + charge.nano_rho > grant.parts.get(plan.measure, 0):
                        raise self._exceeded(plan, charge.block, charge.nano_rho, before, grant)
                    spent[key] = before + charge.nano_rho

    def reserve(self, plan: ReleasePlan, grant: Grant, at: datetime) -> ReleaseState:
        """Charges every block of the plan, or none. A release that is already known is not charged again."""
        known = self.state(plan.release_id)
        if known is not None:
            return known
        with self._writing():
            known = self.state(plan.release_id)
            if known is not None:
                return known
            for charge in plan.charges:
                self._open_block(charge.block, grant, at)
                self._charge(plan, charge.block, charge.nano_rho, grant)
            body = {
                "release": plan.release_id,
                "measure": plan.measure,
                "spec_hash": plan.spec_hash,
                "charges": {c.block: c.nano_rho for c in plan.charges},
            }
            row = self._append("reserve", body, at)
            self._db.execute(
                "INSERT INTO release VALUES (?, ?, ?, 'reserved', NULL, ?)",
                (plan.release_id, plan.measure, plan.spec_hash, row),
            )
            self._db.executemany(
                "INSERT INTO charge VALUES (?, ?, ?, ?)",
                [(plan.release_id, c.block, c.nano_rho, at.isoformat()) for c in plan.charges],
            )
        self._advance_head()
        return ReleaseState("reserved", None, row)

    def _open_block(self, block: str, grant: Grant, at: datetime) -> None:
        if self._same_grant(block, grant):
            return
        self._append("block", {"block": block, "cap": grant.cap_nano, "parts": dict(grant.parts)}, at)
        self._db.execute("INSERT INTO block (id, cap_nano) VALUES (?, ?)", (block, grant.cap_nano))
        self._db.executemany(
            "INSERT INTO allotment (block_id, measure, cap_nano) VALUES (?, ?, ?)",
            [(block, name, nano) for name, nano in grant.parts.items()],
        )

    def _same_grant(self, block: str, grant: Grant) -> bool:
        """True when the block exists with this grant, False when it does not exist; else raises PrivacyError."""
        row = self._db.execute("SELECT cap_nano FROM block WHERE id = ?", (block,)).fetchone()
        if row is None:
            return False
        if int(row[0]) != grant.cap_nano:
            raise PrivacyError(
                f"{block} was opened with privacy.rho_per_user_quarter = {row[0] / NANO:g} and plumb.toml now says "
                f"{grant.cap_nano / NANO:g}; the grant of a quarter cannot change after its first release. Put it back."
            )
        parts = dict(
            self._db.execute("SELECT measure, cap_nano FROM allotment WHERE block_id = ?", (block,)).fetchall()
        )
        for name, nano in grant.parts.items():
            if parts.get(name) != nano:
                raise PrivacyError(
                    f"{block} was opened with a {name} grant of {parts.get(name, 0) / NANO:g} rho and plumb.toml now "
                    f"gives {nano / NANO:g}; privacy.shares cannot change after a quarter's first release. Put it back."
                )
        return True

    def _charge(self, plan: ReleasePlan, block: str, nano: int, grant: Grant) -> None:
        for table, column, where, key in (
            ("allotment", "spent_nano", "block_id = ? AND measure = ?", (block, plan.measure)),
            ("block", "spent_nano", "id = ?", (block,)),
        ):
            done = self._db.execute(
                f"UPDATE {table} SET {column} = {column} + ? WHERE {where} AND {column} + ? <= cap_nano",
                (nano, *key, nano),
            )
            if done.rowcount != 1:
                row = self._db.execute(f"SELECT {column} FROM {table} WHERE {where}", key).fetchone()
                raise self._exceeded(plan, block, nano, int(row[0]) if row else 0, grant)

    def _exceeded(self, plan: ReleasePlan, block: str, nano: int, spent: int, grant: Grant) -> BudgetExceeded:
        others = self._db.execute(
            "SELECT release.id FROM charge JOIN release ON release.id = charge.release_id "
            "WHERE charge.block_id = ? AND release.measure = ? ORDER BY release.id",
            (block, plan.measure),
        ).fetchall()
        cap = grant.parts.get(plan.measure, 0)
        reason = (
            f" It was spent by {', '.join(str(r[0]) for r in others)}: the declared question (geos, weeks, channels, "
            "experiments, bounds) has changed since. Put it back to read that release; nothing new can be released."
            if others
            else ""
        )
        return BudgetExceeded(
            f"release {plan.release_id} costs rho {nano / NANO:g} in {block}, where {plan.measure} has "
            f"{(cap - spent) / NANO:g} of {cap / NANO:g} left.{reason}"
        )

    def note_attempt(self, release_id: str, at: datetime) -> None:
        """Logs that a reserved release is drawn again under its own charge."""
        with self._writing():
            self._append("attempt", {"release": release_id}, at)
        self._advance_head()

    def publish(self, release_id: str, out_hash: str, at: datetime) -> None:
        """Commits the hash of the staged file. Raises LedgerError when another hash was committed before."""
        with self._writing():
            known = self.state(release_id)
            if known is None:
                raise LedgerError(f"release {release_id} cannot be published: it was never reserved.")
            if known.state == "published":
                if known.out_hash != out_hash:
                    raise LedgerError(f"release {release_id} is already published with another content.")
                return
            self._append("publish", {"release": release_id, "hash": out_hash}, at)
            self._db.execute(
                "UPDATE release SET state = 'published', out_hash = ? WHERE id = ?", (out_hash, release_id)
            )
        self._advance_head()

    def charges(self) -> pd.DataFrame:
        """One row per release x block, the columns of v_charges."""
        with _sqlite_errors(self._paths):
            rows = self._db.execute(
                "SELECT charge.release_id, release.measure, charge.block_id, charge.nano, block.spent_nano, "
                "block.cap_nano, charge.at FROM charge JOIN release ON release.id = charge.release_id "
                "JOIN block ON block.id = charge.block_id ORDER BY charge.block_id, charge.release_id"
            ).fetchall()
        return charge_frame(rows)

    def verify(self) -> None:
        """Replays the chain, compares it with the tables and with the head file. Raises LedgerError on any misfit."""
        with self._writing():
            chain = self._db.execute(
                "SELECT seq, kind, body, at, prev_hash, row_hash FROM entry ORDER BY seq"
            ).fetchall()
            known = _replay(chain, self._paths)
            for table, query in _READINGS.items():
                found = {tuple(r) for r in self._db.execute(query)}
                if found != known[table]:
                    raise LedgerError(
                        f"the ledger {self._paths.db} was edited: its table {table!r} does not follow from its "
                        "entries. Restore the newest untouched copy."
                    )
            self._compare_head([str(r[5]) for r in chain])

    def _compare_head(self, hashes: list[str]) -> None:
        """Refuses an older copy; moves the head forward when the ledger is ahead (a crash in between)."""
        paths = self._paths
        if paths.head.exists():
            stored = _read_head(paths)
            if stored not in hashes:
                raise LedgerError(
                    f"the ledger {paths.db} is an older or another copy: the newest entry recorded in {paths.head} "
                    "is not in it. Put the newest ledger back; running on an old one would forget what was spent."
                )
            if stored == hashes[-1]:
                return
        elif len(hashes) > 1:
            raise LedgerError(
                f"the file {paths.head}, which guards the ledger {paths.db} against older copies, is missing. "
                "Restore it (it belongs to the workspace's secrets); nothing is released without it."
            )
        write_private(paths.head, json.dumps({"seq": len(hashes) - 1, "hash": hashes[-1]}) + "\n")


def charge_frame(rows: list[Any]) -> pd.DataFrame:
    """Columns of v_charges from rows in nano-rho."""
    columns = ["release_id", "measure", "block", "rho", "block_spent", "block_cap", "charged_at"]
    frame = pd.DataFrame(rows, columns=columns)
    for name in ("rho", "block_spent", "block_cap"):
        frame[name] = frame[name].astype("int64") / NANO
    frame["charged_at"] = pd.to_datetime(frame["charged_at"], utc=True, format="ISO8601")
    return frame


def _read_head(paths: LedgerPaths) -> str:
    try:
        return str(json.loads(paths.head.read_text())["hash"])
    except (ValueError, KeyError, TypeError) as error:
        raise LedgerError(
            f"the file {paths.head} is damaged ({error}); restore it from the secrets' backup."
        ) from error


def _replay(chain: list[Any], paths: LedgerPaths) -> dict[str, set[tuple[Any, ...]]]:
    """What the tables must hold, from the entries alone. Raises LedgerError where the chain breaks."""
    blocks: dict[str, list[int]] = {}
    parts: dict[tuple[str, str], list[int]] = {}
    releases: dict[str, list[Any]] = {}
    charges: set[tuple[Any, ...]] = set()
    prev = GENESIS
    for i, (seq, kind, body, at, prev_hash, row_hash) in enumerate(chain):
        if seq != i or prev_hash != prev or entry_hash(seq, kind, body, at, prev_hash) != row_hash:
            raise LedgerError(
                f"the ledger {paths.db} was edited: entry {seq} does not follow from the one before it. "
                "Restore the newest untouched copy."
            )
        prev = row_hash
        data = json.loads(body)
        if kind == "block":
            blocks[data["block"]] = [data["cap"], 0]
            parts |= {(data["block"], name): [nano, 0] for name, nano in data["parts"].items()}
        elif kind == "reserve":
            releases[data["release"]] = [data["measure"], data["spec_hash"], "reserved", None, row_hash]
            for block, nano in data["charges"].items():
                blocks[block][1] += nano
                parts[block, data["measure"]][1] += nano
                charges.add((data["release"], block, nano, at))
        elif kind == "publish":
            releases[data["release"]][2:4] = ["published", data["hash"]]
    return {
        "block": {(k, *v) for k, v in blocks.items()},
        "allotment": {(*k, *v) for k, v in parts.items()},
        "release": {(k, *v) for k, v in releases.items()},
        "charge": charges,
    }


@contextmanager
def _sqlite_errors(paths: LedgerPaths) -> Iterator[None]:
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


@contextmanager
def open_ledger(paths: LedgerPaths, now: datetime) -> Iterator[Ledger]:
    """Opens (or, where neither it nor its head exists, creates) the ledger and verifies it whole.

    Raises LedgerError when it is missing, damaged, edited or an older copy, WorkspaceError when it is busy.
    """
    if not paths.db.exists() and paths.head.exists():
        raise LedgerError(
            f"the ledger {paths.db} is missing, but {paths.head} says that there was one. Put the newest ledger back; "
            "starting a new one would forget what was spent."
        )
    paths.db.parent.mkdir(parents=True, exist_ok=True)
    created = not paths.db.exists()
    with _sqlite_errors(paths):
        connection = sqlite3.connect(paths.db, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        ledger = Ledger(connection, paths)
        with _sqlite_errors(paths):
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.executescript(_SCHEMA)
        if created:
            os.chmod(paths.db, 0o600)
            sync_folder(paths.db.parent)
        with ledger._writing():
            if ledger._tip()[0] < 0:
                ledger._append("open", {"ledger": secrets.token_hex(16)}, now)
        ledger.verify()
        yield ledger
    finally:
        connection.close()
