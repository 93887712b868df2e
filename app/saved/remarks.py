"""Comments, approvals and tokens in `state.sqlite`. Comments and approvals are append-only; tokens can be revoked.

A token's secret is shown once, when it is made. Only its SHA-256 is kept: 32 random bytes need no slow hash.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from app.access import PERMISSIONS
from app.saved.database import utc_after, utc_now
from app.saved.scenarios import MAX_NAME, StaleVersion, clean_author, clean_text
from contracts.errors import ContractError

SUBJECTS = ("scenario", "channel", "experiment", "run")
DECISIONS = ("approved", "rejected")
SECRET_BYTES = 32
PREFIX = "plumb_"
MAX_DAYS = 3_650


@dataclass(frozen=True, slots=True)
class Comment:
    """One remark on a scenario (by id), channel, experiment or run (by name)."""

    id: str
    subject_kind: str
    subject_id: str
    author: str
    text: str
    written_at: str  # UTC


@dataclass(frozen=True, slots=True)
class Approval:
    """One decision on one version of a scenario."""

    id: str
    scenario_id: str
    version: int
    decision: str  # 'approved' or 'rejected'
    reason: str
    author: str
    decided_at: str  # UTC


@dataclass(frozen=True, slots=True)
class OfRecord:
    """Which version of which scenario the money follows since when."""

    id: str
    scenario_id: str
    version: int
    reason: str
    author: str
    set_at: str  # UTC


@dataclass(frozen=True, slots=True)
class Token:
    """A key to the figures for a program. The secret itself is nowhere."""

    name: str
    scopes: tuple[str, ...]
    created_at: str  # UTC
    expires_at: str | None  # UTC
    revoked_at: str | None  # UTC


def comment(con: sqlite3.Connection, kind: str, subject: str, author: str, text: str) -> Comment:
    """Adds a comment. Raises ContractError for an unknown kind or scenario, and for an empty or too long text."""
    _refuse_unknown("a comment's subject", kind, SUBJECTS)
    subject = clean_text(subject, "the subject of a comment")
    if kind == "scenario" and not con.execute("SELECT 1 FROM scenarios WHERE id = ?", (subject,)).fetchone():
        raise ContractError(f"there is no scenario {subject!r} to comment on; nothing was saved.")
    new = Comment(_id("co"), kind, subject, clean_author(author), clean_text(text, "a comment"), utc_now())
    con.execute(
        "INSERT INTO comments VALUES (?, ?, ?, ?, ?, ?)",
        (new.id, new.subject_kind, new.subject_id, new.author, new.text, new.written_at),
    )
    return new


def comments(con: sqlite3.Connection, kind: str | None = None, subject: str | None = None) -> tuple[Comment, ...]:
    """Comments, oldest first; of one kind, or of one subject, or all."""
    found = con.execute(
        "SELECT * FROM comments WHERE (:kind IS NULL OR subject_kind = :kind) "
        "AND (:subject IS NULL OR subject_id = :subject) ORDER BY written_at, rowid",
        {"kind": kind, "subject": subject},
    )
    return tuple(Comment(**dict(row)) for row in found)


def decide(
    con: sqlite3.Connection, scenario_id: str, version: int, decision: str, reason: str, author: str
) -> Approval:
    """Approves or rejects the newest version of a scenario.

    Raises ContractError for an unknown decision, an empty reason, and a version that is not the newest: what was
    changed after it was read has not been read.
    """
    _refuse_unknown("a decision", decision, DECISIONS)
    reason = clean_text(reason, "the reason of a decision")
    head = con.execute("SELECT * FROM scenarios WHERE id = ? AND status = 'saved'", (scenario_id,)).fetchone()
    if head is None:
        raise ContractError(f"there is no saved scenario {scenario_id!r} to decide on; nothing was saved.")
    if head["version"] != version:
        raise StaleVersion(
            f"scenario {head['name']!r} was changed meanwhile (version {head['version']}, you saw {version}); "
            "read the new version and decide again. Nothing was saved."
        )
    new = Approval(_id("ap"), scenario_id, version, decision, reason, clean_author(author), utc_now())
    con.execute(
        "INSERT INTO approvals VALUES (?, ?, ?, ?, ?, ?, ?)",
        (new.id, scenario_id, version, decision, reason, new.author, new.decided_at),
    )
    return new


def approvals(con: sqlite3.Connection, scenario_id: str | None = None) -> tuple[Approval, ...]:
    """Decisions, oldest first; on one scenario, or all."""
    sql = "SELECT * FROM approvals WHERE :id IS NULL OR scenario_id = :id ORDER BY decided_at, rowid"
    return tuple(Approval(**dict(row)) for row in con.execute(sql, {"id": scenario_id}))


def record(con: sqlite3.Connection, scenario_id: str, version: int, reason: str, author: str) -> OfRecord:
    """Makes the newest version of a scenario the plan of record; the earlier one stays in the file.

    Raises ContractError unless the last decision on that version was a yes.
    """
    reason = clean_text(reason, "the reason")
    head = con.execute("SELECT * FROM scenarios WHERE id = ? AND status = 'saved'", (scenario_id,)).fetchone()
    if head is None:
        raise ContractError(f"there is no saved scenario {scenario_id!r}; nothing was saved.")
    said = [a for a in approvals(con, scenario_id) if a.version == version]
    if head["version"] != version or not said or said[-1].decision != "approved":
        raise ContractError(
            f"version {version} of scenario {head['name']!r} is not approved, or not the newest ({head['version']}); "
            "only an approved plan can be the plan of record. Nothing was saved."
        )
    new = OfRecord(_id("pr"), scenario_id, version, reason, clean_author(author), utc_now())
    con.execute(
        "INSERT INTO plans_of_record VALUES (?, ?, ?, ?, ?, ?)",
        (new.id, scenario_id, version, reason, new.author, new.set_at),
    )
    return new


def of_record(con: sqlite3.Connection) -> OfRecord | None:
    """The plan of record now; None before there was one."""
    row = con.execute("SELECT * FROM plans_of_record ORDER BY rowid DESC LIMIT 1").fetchone()
    return None if row is None else OfRecord(**dict(row))


def create_token(
    con: sqlite3.Connection, name: str, scopes: Iterable[str], days: int | None = None
) -> tuple[Token, str]:
    """A new token, which lives `days` (None: until it is revoked), and its secret, which cannot be shown again.

    Raises ContractError for a bad or used name, for scopes that are none or unknown, and for a life of no days.
    """
    if days is not None and not 1 <= days <= MAX_DAYS:
        raise ContractError(f"a token lives from 1 to {MAX_DAYS} days; got {days}.")
    name, wanted = clean_text(name, "a token's name", most=MAX_NAME), tuple(dict.fromkeys(scopes))
    if not wanted:
        raise ContractError(f"a token needs at least one scope of {', '.join(PERMISSIONS)}.")
    for scope in wanted:
        _refuse_unknown("a scope", scope, PERMISSIONS)
    if con.execute("SELECT 1 FROM tokens WHERE name = ? AND revoked_at IS NULL", (name,)).fetchone():
        raise ContractError(f"there is a token {name!r} already; revoke it or choose another name.")
    secret = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
    token = Token(name, wanted, utc_now(), None if days is None else utc_after(days), None)
    con.execute(
        "INSERT INTO tokens (id, name, hash, scopes, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?)",
        (_id("to"), name, _hash(secret), " ".join(wanted), token.created_at, token.expires_at),
    )
    return token, secret


def find_token(con: sqlite3.Connection, secret: str) -> Token | None:
    """The token of a secret; None when it is unknown, expired or revoked. Found by its hash: no secret is compared."""
    row = con.execute(
        "SELECT * FROM tokens WHERE hash = ? AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?)",
        (_hash(secret), utc_now()),
    ).fetchone()
    return None if row is None else _token(row)


def tokens(con: sqlite3.Connection) -> tuple[Token, ...]:
    """Every token ever made, oldest first."""
    return tuple(_token(row) for row in con.execute("SELECT * FROM tokens ORDER BY created_at, rowid"))


def revoke_token(con: sqlite3.Connection, name: str) -> None:
    """Ends a token at once. Raises ContractError when none of that name is alive."""
    done = con.execute("UPDATE tokens SET revoked_at = ? WHERE name = ? AND revoked_at IS NULL", (utc_now(), name))
    if done.rowcount == 0:
        raise ContractError(f"there is no token {name!r} to revoke.")


def _token(row: sqlite3.Row) -> Token:
    return Token(row["name"], tuple(row["scopes"].split()), row["created_at"], row["expires_at"], row["revoked_at"])


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _id(kind: str) -> str:
    return f"{kind}-{uuid.uuid4().hex[:12]}"


def _refuse_unknown(what: str, value: str, known: Iterable[str]) -> None:
    if value not in known:
        raise ContractError(f"{what} must be one of {', '.join(known)}; got {value!r}.")
