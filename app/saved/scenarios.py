"""Saving scenarios: pure functions of an open transaction (`database.writing`). Every change makes a new version.

Whoever changes a scenario names the version that they saw; when it is no longer the newest, nothing is written and the
answer says who changed it (optimistic concurrency).
"""

from __future__ import annotations

import json
import sqlite3
import unicodedata
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from app.saved.database import utc_now
from contracts.errors import ContractError
from contracts.intervals import INTERVAL
from planning.scenarios import CURRENT, RECOMMENDED

MAX_NAME, MAX_AUTHOR, MAX_TEXT = 80, 80, 4_000  # characters
CENT_PER_PERIOD = 0.01  # a locked channel may move by rounding only
RESERVED = frozenset((CURRENT, RECOMMENDED))  # names of the job's own scenarios
CHANNEL_FIELDS = ("channel", "spend", "spend_change", *INTERVAL, "within", "beyond", "carried_in", "extrapolated")
CELL_FIELDS = ("channel", "period_start", "period_end", "geo", "spend", *INTERVAL)
FIGURES = ("spend", "spend_change", *INTERVAL, "within", "beyond", "carried_in")
_PRICING_FIELDS = (
    "currency", "kpi", "period_days", "period_start", "period_end", "run_id", "release_id", "model_version",
    "evidence_ids", "response_id", "priced_at", "budget",
)  # fmt: skip
_VERSION_FIELDS = (
    "scenario_id", "version", "name", "note", "author", "status", "saved_at", "locked", *_PRICING_FIELDS, *INTERVAL,
)  # fmt: skip


class StaleVersion(ContractError):
    """Somebody else made a newer version of the scenario meanwhile."""


@dataclass(frozen=True, slots=True)
class Pricing:
    """A plan and what it brings, on the draws of one fit. Outcomes are KPI units over the horizon (cells: a week)."""

    currency: str
    kpi: str
    period_days: int  # 7 weekly, 1 daily
    period_start: date
    period_end: date  # inclusive
    run_id: str
    release_id: str
    model_version: str
    evidence_ids: str
    response_id: str  # hash of the posterior draws
    priced_at: str
    budget: float  # currency per period, all channels
    total: Mapping[str, float]  # interval of the outcome of all channels
    channels: pd.DataFrame  # CHANNEL_FIELDS; spend over the horizon
    cells: pd.DataFrame  # CELL_FIELDS; spend of one week

    @property
    def periods(self) -> float:
        """Periods of the model in the horizon."""
        return ((self.period_end - self.period_start).days + 1) / self.period_days

    @property
    def plan(self) -> dict[str, float]:
        """Spend per channel, currency per period."""
        pairs = zip(self.channels["channel"], self.channels["spend"], strict=True)
        return {str(channel): float(spend) / self.periods for channel, spend in pairs}


@dataclass(frozen=True, slots=True)
class Saved:
    """One version of a saved scenario."""

    id: str
    version: int
    name: str
    note: str
    author: str
    status: str  # 'saved' or 'archived'
    saved_at: str  # UTC
    created_at: str  # UTC, of version 1
    pricing: Pricing
    locked: tuple[str, ...] = ()  # channels that may not be moved


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the list of saved scenarios: the newest version without its cells."""

    id: str
    version: int
    name: str
    note: str
    author: str
    saved_at: str  # UTC
    currency: str
    kpi: str
    period_days: int
    period_start: date
    period_end: date
    response_id: str
    model_version: str
    budget: float  # currency per period
    mean: float  # outcome of all channels over the horizon, KPI units
    p05: float
    p95: float
    comments: int  # how many


def create(con: sqlite3.Connection, name: str, author: str, note: str, pricing: Pricing) -> Saved:
    """Saves a new scenario. Raises ContractError for a name that is bad, reserved or taken, and for no author."""
    name, author, note = clean_name(name), clean_author(author), clean_text(note, "the note", needed=False)
    _refuse_taken(con, name)
    return _create(con, name, author, note, pricing)


def save(con: sqlite3.Connection, scenario_id: str, seen: int, author: str, note: str, pricing: Pricing) -> Saved:
    """A new version with another plan. Raises ContractError when `seen` is stale, or money or KPI of another kind."""
    old = _newest(con, scenario_id, seen)
    refuse_other_units(old, pricing.currency, pricing.kpi)
    for channel in old.locked:
        if abs(old.pricing.plan.get(channel, 0.0) - pricing.plan.get(channel, 0.0)) > CENT_PER_PERIOD:
            raise ContractError(f"channel {channel!r} of scenario {old.name!r} is locked; unlock it first.")
    note = clean_text(note, "the note", needed=False)
    return _add_version(con, old, author=clean_author(author), note=note, pricing=pricing)


def lock(con: sqlite3.Connection, scenario_id: str, seen: int, author: str, channels: Sequence[str]) -> Saved:
    """The same plan with these channels locked and no others. Raises ContractError for a channel that it lacks."""
    old = _newest(con, scenario_id, seen)
    if unknown := [c for c in channels if c not in old.pricing.plan]:
        known = ", ".join(old.pricing.plan)
        raise ContractError(f"scenario {old.name!r} has no channel {unknown[0]!r} to lock; it has {known}.")
    return _add_version(con, old, author=clean_author(author), locked=tuple(dict.fromkeys(channels)))


def by_name(con: sqlite3.Connection, name: str) -> Saved:
    """The newest version of the scenario of that name (or id). Raises ContractError that names the ones there are."""
    rows = con.execute("SELECT id, name, name_key FROM scenarios WHERE status = 'saved' ORDER BY name_key").fetchall()
    for row in rows:
        if name == row["id"] or _key(name.strip()) == row["name_key"]:
            return get(con, str(row["id"]))
    known = ", ".join(repr(r["name"]) for r in rows) or "none"
    raise ContractError(f"there is no saved scenario {name!r}; there are {known}.")


def rename(con: sqlite3.Connection, scenario_id: str, seen: int, author: str, name: str) -> Saved:
    """The same plan under another name. Raises ContractError as `create` and `save` do."""
    old, name = _newest(con, scenario_id, seen), clean_name(name)
    _refuse_taken(con, name, but=scenario_id)
    return _add_version(con, old, author=clean_author(author), name=name)


def archive(con: sqlite3.Connection, scenario_id: str, seen: int, author: str) -> Saved:
    """Takes a scenario off every list; its versions, comments and approvals stay in the file."""
    return _add_version(con, _newest(con, scenario_id, seen), author=clean_author(author), status="archived")


def duplicate(con: sqlite3.Connection, scenario_id: str, author: str) -> Saved:
    """A new scenario with the same plan and figures, named 'NAME (copy)', '(copy 2)' and so on."""
    old = get(con, scenario_id)
    taken = {_key(str(r["name"])) for r in con.execute("SELECT name FROM scenarios WHERE status = 'saved'")}
    number = 1
    while _key(name := _copy_name(old.name, number)) in taken:
        number += 1
    return _create(con, name, clean_author(author), old.note, old.pricing)


def get(con: sqlite3.Connection, scenario_id: str, version: int | None = None) -> Saved:
    """A version of a scenario, the newest by default. Raises ContractError when there is none, or it is deleted."""
    head = con.execute("SELECT * FROM scenarios WHERE id = ?", (scenario_id,)).fetchone()
    if head is None or (head["status"] == "archived" and version is None):
        raise ContractError("this scenario has been deleted meanwhile; nothing was changed.")
    key = (scenario_id, head["version"] if version is None else version)
    row = con.execute("SELECT * FROM scenario_versions WHERE scenario_id = ? AND version = ?", key).fetchone()
    if row is None:
        raise ContractError(f"scenario {head['name']!r} has no version {version}; its newest is {head['version']}.")
    channels = _frame(con, "scenario_channels", CHANNEL_FIELDS, key)
    cells = _frame(con, "scenario_cells", CELL_FIELDS, key)
    for name in ("period_start", "period_end"):
        cells[name] = [date.fromisoformat(text) for text in cells[name]]
    fields = {name: row[name] for name in _PRICING_FIELDS}
    fields |= {name: date.fromisoformat(row[name]) for name in ("period_start", "period_end")}
    pricing = Pricing(**fields, total={name: row[name] for name in INTERVAL}, channels=channels, cells=cells)
    return Saved(
        id=scenario_id, version=row["version"], name=row["name"], note=row["note"], author=row["author"],
        status=row["status"], saved_at=row["saved_at"], created_at=head["created_at"], pricing=pricing,
        locked=tuple(json.loads(row["locked"])),
    )  # fmt: skip


def every(con: sqlite3.Connection) -> tuple[Saved, ...]:
    """Newest version of every scenario that is not archived, by name."""
    ids = con.execute("SELECT id FROM scenarios WHERE status = 'saved' ORDER BY name_key, id")
    return tuple(get(con, str(row["id"])) for row in ids.fetchall())


def entries(con: sqlite3.Connection) -> tuple[Entry, ...]:
    """The list of saved scenarios, by name."""
    rows = con.execute(
        "SELECT v.*, s.id, (SELECT count(*) FROM comments c WHERE c.subject_kind = 'scenario' AND c.subject_id = s.id) "
        "AS comments FROM scenarios s JOIN scenario_versions v ON v.scenario_id = s.id AND v.version = s.version "
        "WHERE s.status = 'saved' ORDER BY s.name_key, s.id"
    )
    return tuple(_entry(row) for row in rows)


def _entry(row: sqlite3.Row) -> Entry:
    fields: dict[str, Any] = {name: row[name] for name in Entry.__dataclass_fields__}
    return Entry(**fields | {name: date.fromisoformat(row[name]) for name in ("period_start", "period_end")})


def refuse_other_units(saved: Saved, currency: str, kpi: str) -> None:
    """Raises ContractError when a scenario's money or KPI is not what the workspace counts in now."""
    for what, then, now in (("money", saved.pricing.currency, currency), ("outcome", saved.pricing.kpi, kpi)):
        if then != now:
            raise ContractError(
                f"the {what} of scenario {saved.name!r} is counted in {then}, the workspace counts in {now}; "
                "save the plan under a new name. Nothing was saved."
            )


def clean_name(name: str) -> str:
    """`name` as it is stored. Raises ContractError when it is empty, too long, reserved or not one line of text."""
    text = clean_text(name, "a scenario's name", most=MAX_NAME)
    if _key(text) in RESERVED:
        raise ContractError(f"the name {text!r} is kept for the scenario that `plumb plan` makes; choose another.")
    return text


def clean_author(author: str) -> str:
    """`author` as it is stored. Raises ContractError when it is empty or too long."""
    return clean_text(author, "the author", most=MAX_AUTHOR)


def clean_text(text: str, what: str, *, most: int = MAX_TEXT, needed: bool = True) -> str:
    """Trimmed text in Unicode's composed form. Raises ContractError when it is empty, too long or holds control
    characters (a line break is one, except in long texts)."""
    text = unicodedata.normalize("NFC", text).strip()
    if needed and not text:
        raise ContractError(f"{what} is empty; write at least one character.")
    if len(text) > most:
        raise ContractError(f"{what} has {len(text)} characters; the most is {most}.")
    allowed = "\n\t" if most == MAX_TEXT else ""
    if any(unicodedata.category(sign) in ("Cc", "Cs") and sign not in allowed for sign in text):
        raise ContractError(f"{what} holds a control character; use plain text.")
    return text


def _key(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def _copy_name(name: str, number: int) -> str:
    ending = " (copy)" if number == 1 else f" (copy {number})"
    return name[: MAX_NAME - len(ending)].rstrip() + ending


def _refuse_taken(con: sqlite3.Connection, name: str, but: str = "") -> None:
    row = con.execute(
        "SELECT v.name, v.author FROM scenarios s JOIN scenario_versions v ON v.scenario_id = s.id "
        "AND v.version = s.version WHERE s.name_key = ? AND s.status = 'saved' AND s.id <> ?",
        (_key(name), but),
    ).fetchone()
    if row is not None:
        raise ContractError(
            f"there is a scenario {row['name']!r} already (by {row['author']}); choose another name. Nothing was saved."
        )


def _newest(con: sqlite3.Connection, scenario_id: str, seen: int) -> Saved:
    saved = get(con, scenario_id)
    if saved.version != seen:
        raise StaleVersion(
            f"scenario {saved.name!r} was changed meanwhile by {saved.author} (version {saved.version}, "
            f"you saw {seen}); look at the new version and try again. Nothing was saved."
        )
    return saved


def _create(con: sqlite3.Connection, name: str, author: str, note: str, pricing: Pricing) -> Saved:
    scenario_id, now = f"sc-{uuid.uuid4().hex[:12]}", utc_now()
    head = (scenario_id, name, _key(name), "saved", 1, now, now)
    con.execute("INSERT INTO scenarios VALUES (?, ?, ?, ?, ?, ?, ?)", head)
    saved = Saved(scenario_id, 1, name, note, author, "saved", now, now, pricing)
    _write_version(con, saved)
    return saved


def _add_version(
    con: sqlite3.Connection,
    old: Saved,
    *,
    author: str,
    name: str | None = None,
    note: str | None = None,
    status: str = "saved",
    pricing: Pricing | None = None,
    locked: tuple[str, ...] | None = None,
) -> Saved:
    now = utc_now()
    new = Saved(
        id=old.id, version=old.version + 1, name=name or old.name, note=old.note if note is None else note,
        author=author, status=status, saved_at=now, created_at=old.created_at, pricing=pricing or old.pricing,
        locked=old.locked if locked is None else locked,
    )  # fmt: skip
    con.execute(
        "UPDATE scenarios SET name = ?, name_key = ?, status = ?, version = ?, updated_at = ? WHERE id = ?",
        (new.name, _key(new.name), new.status, new.version, now, new.id),
    )
    _write_version(con, new)
    return new


def _write_version(con: sqlite3.Connection, saved: Saved) -> None:
    pricing = saved.pricing
    row: dict[str, Any] = {name: getattr(pricing, name) for name in _PRICING_FIELDS}
    row |= {name: getattr(pricing, name).isoformat() for name in ("period_start", "period_end")}
    row |= {"scenario_id": saved.id, "version": saved.version, "name": saved.name, "note": saved.note}
    row |= {"author": saved.author, "status": saved.status, "saved_at": saved.saved_at}
    row |= {"locked": json.dumps(list(saved.locked))}
    row |= {name: float(pricing.total[name]) for name in INTERVAL}
    _insert(con, "scenario_versions", _VERSION_FIELDS, [tuple(row[name] for name in _VERSION_FIELDS)])
    key = (saved.id, saved.version)
    for table, fields, frame in (
        ("scenario_channels", CHANNEL_FIELDS, pricing.channels),
        ("scenario_cells", CELL_FIELDS, pricing.cells),
    ):
        columns = [[_plain(value) for value in frame[name]] for name in fields]
        rows = [(*key, *values) for values in zip(*columns, strict=True)]
        _insert(con, table, ("scenario_id", "version", *fields), rows)


def _plain(value: Any) -> Any:
    """A cell as SQLite holds it: an unknown figure is NULL, a day is its ISO text."""
    if isinstance(value, str):
        return value
    if isinstance(value, date):
        return value.isoformat()[:10]
    if pd.isna(value):
        return None
    return int(value) if isinstance(value, bool | np.bool_) else float(value)


def _insert(con: sqlite3.Connection, table: str, fields: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> None:
    places = ", ".join("?" * len(fields))
    con.executemany(f"INSERT INTO {table} ({', '.join(fields)}) VALUES ({places})", rows)


def _frame(con: sqlite3.Connection, table: str, fields: Sequence[str], key: tuple[Any, ...]) -> pd.DataFrame:
    sql = f"SELECT {', '.join(fields)} FROM {table} WHERE scenario_id = ? AND version = ? ORDER BY rowid"
    frame = pd.DataFrame([tuple(r) for r in con.execute(sql, key)], columns=list(fields))
    figures = [name for name in fields if name in FIGURES]
    frame[figures] = frame[figures].astype(float)
    if "extrapolated" in frame:  # NULL where an older version priced it
        frame["extrapolated"] = [None if value is None else bool(value) for value in frame["extrapolated"]]
    return frame
