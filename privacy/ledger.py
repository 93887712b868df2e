"""The ledger of privacy spent: SQLite, append-only, hash-chained, with its newest hash kept outside the database.

`entry` is the truth: a chain of events (`privacy.chain`). The other tables are readings of it, kept so that SQLite
itself refuses overspending (`CHECK (spent_nano <= cap_nano)`); opening the ledger replays the chain and compares. The
head file holds the newest hash seen. A chain that does not hold it is an older copy, or belongs to another workspace
with the same secrets, and nothing is written to it: every change takes the lock beside the head and compares first.

Local disks only: write-ahead logging is not safe on network file systems.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pandas as pd
from filelock import FileLock

from contracts.errors import LedgerError, PrivacyError
from privacy.chain import (
    GENESIS,
    Entry,
    LedgerPaths,
    canonical,
    entry_hash,
    follow,
    head_missing,
    other_copy,
    payer_of,
    read_head,
    tables_of,
    write_head,
)
from privacy.disk import private_folder, sync_folder
from privacy.grants import Grant, exceeded, same_grant, share_cap
from privacy.ledger_store import (
    BUSY_SECONDS,
    CHARGES,
    POLL_SECONDS,
    READINGS,
    charge_frame,
    held,
    prepare,
    sqlite_errors,
)
from privacy.vectors import ReleasePlan


@dataclass(frozen=True, slots=True)
class ReleaseState:
    """What the ledger knows of one release."""

    state: str  # 'reserved' or 'published'
    out_hash: str | None
    reserve_hash: str  # hash of the entry that reserved it
    drawn: bool = False  # noise was drawn for it, or was about to be


class Ledger:
    """An open, verified ledger. Every change is one immediate transaction that appends to the chain."""

    def __init__(self, connection: sqlite3.Connection, paths: LedgerPaths) -> None:
        self._db = connection
        self._paths = paths
        self._guard = FileLock(paths.lock, timeout=BUSY_SECONDS, mode=0o600, poll_interval=POLL_SECONDS)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One change: under the lock beside the head, on the chain that the head belongs to, and then the head."""
        with held(self._guard, self._paths), sqlite_errors(self._paths):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._require_head()
                yield
            except BaseException:
                if self._db.in_transaction:  # SQLite has rolled back by itself when the disk is full
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
            seq, row = self._tip()
            if read_head(self._paths) != row:
                write_head(self._paths, seq, row)

    def _require_head(self) -> None:
        """Raises LedgerError unless the newest hash kept outside is in this chain. It may lag behind after a crash."""
        stored, (seq, _) = read_head(self._paths), self._tip()
        if stored is None:
            if seq > 0:
                raise head_missing(self._paths)
        elif self._db.execute("SELECT 1 FROM entry WHERE row_hash = ?", (stored,)).fetchone() is None:
            raise other_copy(self._paths)

    def _append(self, kind: str, body: dict[str, Any], at: datetime) -> str:
        seq, prev = self._tip()
        text = canonical(body)
        row = entry_hash(seq + 1, kind, text, at.isoformat(), prev)
        self._db.execute(
            "INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?)", (seq + 1, kind, text, at.isoformat(), prev, row)
        )
        return row

    def _tip(self) -> tuple[int, str]:
        row = self._db.execute("SELECT seq, row_hash FROM entry ORDER BY seq DESC LIMIT 1").fetchone()
        return (int(row[0]), str(row[1])) if row else (-1, GENESIS)

    def begin(self, at: datetime) -> None:
        """Writes the first entry of a new ledger."""
        with self._writing():
            if self._tip()[0] < 0:
                self._append("open", {"ledger": secrets.token_hex(16)}, at)

    def state(self, release_id: str) -> ReleaseState | None:
        """State of a release, or None when it is charged nowhere: never seen, or voided."""
        with sqlite_errors(self._paths):
            row = self._db.execute(
                "SELECT state, out_hash, reserve_hash, drawn FROM release WHERE id = ? AND state <> 'void'",
                (release_id,),
            ).fetchone()
        return ReleaseState(row[0], row[1], row[2], bool(row[3])) if row else None

    def check_affordable(self, plans: tuple[ReleasePlan, ...], grant: Grant) -> None:
        """Raises BudgetExceeded or PrivacyError unless all plans together fit. Changes nothing."""
        with sqlite_errors(self._paths):
            spent: dict[tuple[str, str], int] = {}
            for plan in plans:
                for charge in plan.charges:
                    same_grant(self._db, charge.block, grant, plan.payer)
                    key = (charge.block, plan.payer)
                    row = self._db.execute(
                        "SELECT spent_nano FROM allotment WHERE block_id = ? AND measure = ?", key
                    ).fetchone()
                    before, cap = spent.get(key, int(row[0]) if row else 0), share_cap(self._db, *key, grant)
                    if before + charge.nano_rho > cap:
                        raise exceeded(self._db, plan, charge.block, charge.nano_rho, before, cap)
                    spent[key] = before + charge.nano_rho

    def reserve(self, plan: ReleasePlan, grant: Grant, at: datetime, by: str = "") -> ReleaseState:
        """Charges every block of the plan, or none. A release that is charged already is not charged again."""
        known = self.state(plan.release_id)
        if known is not None:
            return known
        with self._writing():
            known = self.state(plan.release_id)
            if known is not None:
                return known
            for charge in plan.charges:
                self._open_block(charge.block, grant, plan.payer, at)
                self._charge(plan, charge.block, charge.nano_rho, grant)
            body = {
                "release": plan.release_id,
                "measure": plan.measure,
                "spec_hash": plan.spec_hash,
                "charges": {c.block: c.nano_rho for c in plan.charges},
                "by": by,
            }
            if plan.payer != plan.measure:
                body["share"] = plan.payer
            row = self._append("reserve", body, at)
            self._db.execute(
                "INSERT INTO release VALUES (?, ?, ?, 'reserved', 0, NULL, ?) ON CONFLICT (id) DO UPDATE SET "
                "measure = excluded.measure, spec_hash = excluded.spec_hash, state = 'reserved', "
                "reserve_hash = excluded.reserve_hash WHERE state = 'void'",
                (plan.release_id, plan.measure, plan.spec_hash, row),
            )
            self._db.executemany(
                "INSERT INTO charge VALUES (?, ?, ?, ?, ?, ?)",
                [(row, plan.release_id, c.block, c.nano_rho, at.isoformat(), by) for c in plan.charges],
            )
        return ReleaseState("reserved", None, row)

    def _open_block(self, block: str, grant: Grant, payer: str, at: datetime) -> None:
        if same_grant(self._db, block, grant, payer):
            return
        calendar = dict(grant.calendar)
        body = {"block": block, "cap": grant.cap_nano, "parts": dict(grant.parts), "calendar": calendar}
        self._append("block", body, at)
        self._db.execute(
            "INSERT INTO block (id, cap_nano, calendar) VALUES (?, ?, ?)", (block, grant.cap_nano, canonical(calendar))
        )
        self._db.executemany(
            "INSERT INTO allotment (block_id, measure, cap_nano) VALUES (?, ?, ?)",
            [(block, name, nano) for name, nano in grant.parts.items()],
        )

    def _charge(self, plan: ReleasePlan, block: str, nano: int, grant: Grant) -> None:
        for table, column, where, key in (
            ("allotment", "spent_nano", "block_id = ? AND measure = ?", (block, plan.payer)),
            ("block", "spent_nano", "id = ?", (block,)),
        ):
            done = self._db.execute(
                f"UPDATE {table} SET {column} = {column} + ? WHERE {where} AND {column} + ? <= cap_nano",
                (nano, *key, nano),
            )
            if done.rowcount != 1:
                row = self._db.execute(f"SELECT {column} FROM {table} WHERE {where}", key).fetchone()
                cap = share_cap(self._db, block, plan.payer, grant)
                raise exceeded(self._db, plan, block, nano, int(row[0]) if row else 0, cap)

    def note_draw(self, release_id: str, reserve_hash: str, at: datetime, identity: str = "none") -> None:
        """Logs, before the noise is drawn, that it is about to be: from here on the charge stands for good.

        `identity` is the version of the identity map under which people were counted, 'none' without.

        Raises LedgerError when the reservation was voided meanwhile, so that nothing is drawn without a charge, and
        when the release is out, so that nothing is drawn twice.
        """
        with self._writing():
            known = self.state(release_id)
            if known is None or known.reserve_hash != reserve_hash:
                raise LedgerError(f"release {release_id} is not reserved any more: its charge was voided meanwhile.")
            if known.state == "published":
                raise LedgerError(f"release {release_id} is published already; it is never drawn again.")
            self._append("draw", {"release": release_id, "identity": identity}, at)
            self._db.execute("UPDATE release SET drawn = 1 WHERE id = ?", (release_id,))

    def note_attempt(self, release_id: str, at: datetime) -> None:
        """Logs that a reserved release is drawn again under its own charge."""
        with self._writing():
            self._append("attempt", {"release": release_id}, at)

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
            if not known.drawn:
                raise LedgerError(f"release {release_id} cannot be published: the ledger holds no draw for it.")
            self._append("publish", {"release": release_id, "hash": out_hash}, at)
            self._db.execute(
                "UPDATE release SET state = 'published', out_hash = ? WHERE id = ?", (out_hash, release_id)
            )

    def void(self, release_id: str, proof: Mapping[str, Any], at: datetime) -> int:
        """Takes back the charge of a reservation for which nothing was ever drawn; returns nano-rho per block.

        Raises PrivacyError for every other release. Callers check the files first (`privacy.void`).
        """
        with self._writing():
            known = self.state(release_id)
            if known is None:
                raise PrivacyError(f"release {release_id} is charged nowhere; there is nothing to void.")
            if known.state == "published":
                raise PrivacyError(f"release {release_id} is published: what people have seen cannot be unspent.")
            if known.drawn:
                raise PrivacyError(
                    f"release {release_id} cannot be voided: the ledger records that its noise was about to be drawn, "
                    "and nobody can prove that the draw was not seen. Run plumb release to finish it under its charge."
                )
            rows = self._db.execute(
                "SELECT block_id, nano FROM charge WHERE reserve_hash = ?", (known.reserve_hash,)
            ).fetchall()
            body = self._db.execute("SELECT body FROM entry WHERE row_hash = ?", (known.reserve_hash,)).fetchone()[0]
            payer = payer_of(json.loads(body))
            self._append("void", {"release": release_id, "reserve": known.reserve_hash} | dict(proof), at)
            self._db.execute("UPDATE release SET state = 'void' WHERE id = ?", (release_id,))
            for block, nano in rows:
                self._db.execute("UPDATE block SET spent_nano = spent_nano - ? WHERE id = ?", (nano, block))
                self._db.execute(
                    "UPDATE allotment SET spent_nano = spent_nano - ? WHERE block_id = ? AND measure = ?",
                    (nano, block, payer),
                )
        return int(rows[0][1])

    def charges(self) -> pd.DataFrame:
        """One row per release x block that is charged, the columns of v_charges."""
        with sqlite_errors(self._paths):
            return charge_frame(self._db.execute(CHARGES).fetchall())

    def entries(self) -> tuple[Entry, ...]:
        """The whole chain, oldest first."""
        with sqlite_errors(self._paths):
            rows = self._db.execute("SELECT seq, kind, body, at, prev_hash, row_hash FROM entry ORDER BY seq")
            return tuple(Entry(*row) for row in rows)

    def verify(self) -> None:
        """Replays the chain, compares it with the tables and with the head file. Raises LedgerError on any misfit."""
        with self._writing():
            chain = self.entries()
            follow(chain, self._paths.db)
            known = tables_of(chain)
            for table, query in READINGS.items():
                found = {tuple(r) for r in self._db.execute(query)}
                if found != known[table]:
                    raise LedgerError(
                        f"the ledger {self._paths.db} was edited: its table {table!r} does not follow from its "
                        "entries. Restore the newest untouched copy."
                    )


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
    if not paths.head.parent.exists():
        private_folder(paths.head.parent)
    created = not paths.db.exists()
    with sqlite_errors(paths):
        connection = sqlite3.connect(paths.db, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        ledger = Ledger(connection, paths)
        with held(ledger._guard, paths), sqlite_errors(paths):
            prepare(connection, paths)
        if created:
            os.chmod(paths.db, 0o600)
            sync_folder(paths.db.parent)
        ledger.begin(now)
        ledger.verify()
        yield ledger
    finally:
        connection.close()
