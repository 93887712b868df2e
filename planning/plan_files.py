"""Plans to and from files: JSON keeps everything, CSV and XLSX hold one row per period, geo and channel.

Reading checks the whole file and raises one sentence that names the row or key; nothing is half read.
"""

from __future__ import annotations

import io
import json
from datetime import date, datetime
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from contracts.errors import InputError
from planning.plans import Approval, Plan

FORMAT = "plumbline-plan/1"
COLUMNS = ("plan", "period_start", "geo", "channel", "spend", "currency")
META = ("name", "author", "made", "note", "version", "currency", "start", "period_days", "model_version")
SHEET, ABOUT = "plan", "about"


def to_json(plan: Plan) -> str:
    """The plan with its versions' facts and approvals."""
    out: dict[str, Any] = {"format": FORMAT} | {k: getattr(plan, k) for k in META}
    out |= {"made": plan.made.isoformat(), "start": plan.start.isoformat(), "geos": list(plan.geos)}
    out |= {"channels": list(plan.channels), "locked": list(plan.locked), "copied_from": plan.copied_from}
    out |= {"of_record": plan.of_record, "spend": plan.spend.tolist()}
    out["approvals"] = [
        {"by": a.by, "at": a.at.isoformat(), "approved": a.approved, "reason": a.reason} for a in plan.approvals
    ]
    return json.dumps(out, indent=1, ensure_ascii=False)


def from_json(text: str, source: str = "the file") -> Plan:
    """Inverse of `to_json`. Raises InputError that names the key."""
    try:
        raw = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{source} is not JSON: {error.msg} in line {error.lineno}.") from None
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        found = raw.get("format") if isinstance(raw, dict) else type(raw).__name__
        raise InputError(f"{source} is not a plan of format {FORMAT!r}; got {found!r}.")
    lists = ("geos", "channels", "spend")
    if missing := [k for k in (*META, *lists) if k not in raw]:
        raise InputError(f"{source} has no key {missing[0]!r}; export the plan again.")
    try:
        approvals = tuple(
            Approval(a["by"], datetime.fromisoformat(a["at"]), bool(a["approved"]), a["reason"])
            for a in raw.get("approvals", [])
        )
        facts = {k: raw[k] for k in META}
        facts |= {"made": datetime.fromisoformat(raw["made"]), "start": date.fromisoformat(raw["start"])}
        return Plan(
            **facts,
            geos=tuple(raw["geos"]),
            channels=tuple(raw["channels"]),
            spend=np.array(raw["spend"], dtype=float),
            locked=tuple(raw.get("locked", ())),
            copied_from=raw.get("copied_from", ""),
            of_record=bool(raw.get("of_record", False)),
            approvals=approvals,
        )
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(f"{source} holds a value that cannot be read: {error}.") from None


def to_table(plan: Plan) -> pd.DataFrame:
    """One row per period, geo and channel; COLUMNS."""
    rows = [
        {"plan": plan.name, "period_start": day, "geo": geo, "channel": channel, "spend": float(plan.spend[t, g, c]),
         "currency": plan.currency}
        for t, day in enumerate(plan.dates())
        for g, geo in enumerate(plan.geos)
        for c, channel in enumerate(plan.channels)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS))


def from_table(table: pd.DataFrame, *, author: str, at: datetime, note: str, model_version: str = "",
               source: str = "the file") -> Plan:  # fmt: skip
    """A first version from rows; every period × geo × channel once, periods evenly spaced. Raises InputError."""
    if missing := [c for c in COLUMNS if c not in table.columns]:
        raise InputError(f"{source} has no column {missing[0]!r}; it has {', '.join(map(str, table.columns))}.")
    if table.empty:
        raise InputError(f"{source} holds no rows.")
    for column in ("plan", "currency"):
        if len(values := sorted(set(table[column].astype(str)))) > 1:
            raise InputError(f"{source} must hold one {column}; got {', '.join(values[:3])}.")
    days = _days(table["period_start"], source)
    spend = pd.to_numeric(table["spend"], errors="coerce").to_numpy(dtype=float)
    if bad := [i for i, x in enumerate(spend) if not (np.isfinite(x) and x >= 0)]:
        found = table["spend"].iloc[bad[0]]
        raise InputError(f"row {bad[0] + 2} of {source}: spend must be a number >= 0; got {found}.")
    rows = pd.DataFrame({"day": days, "geo": table["geo"].astype(str), "channel": table["channel"].astype(str)})
    if (twice := rows.duplicated()).any():
        at_row = int(np.flatnonzero(twice)[0])
        raise InputError(f"row {at_row + 2} of {source} is there twice: {' · '.join(map(str, rows.iloc[at_row]))}.")
    starts, geos, channels = (list(dict.fromkeys(rows[c])) for c in ("day", "geo", "channel"))
    starts.sort()
    cube = np.full((len(starts), len(geos), len(channels)), np.nan)
    for i, (day, geo, channel) in enumerate(rows.itertuples(index=False)):
        cube[starts.index(day), geos.index(geo), channels.index(channel)] = spend[i]
    if np.isnan(cube).any():
        t, g, c = np.argwhere(np.isnan(cube))[0]
        raise InputError(f"{source} has no row for {starts[t]}, {geos[g]}, {channels[c]}; write 0 for none.")
    steps = {(b - a).days for a, b in zip(starts, starts[1:], strict=False)} or {7}
    if len(steps) > 1:
        raise InputError(f"{source}: periods must be evenly spaced; got steps of {sorted(steps)} days.")
    name, currency = str(table["plan"].iloc[0]), str(table["currency"].iloc[0])
    return Plan(name=name, author=author, made=at, note=note, version=1, currency=currency, start=starts[0],
                period_days=steps.pop(), geos=tuple(geos), channels=tuple(channels), spend=cube,
                model_version=model_version)  # fmt: skip


def to_csv(plan: Plan) -> str:
    """Rows of `to_table` as CSV."""
    return to_table(plan).to_csv(index=False)


def from_csv(text: str, *, author: str, at: datetime, note: str, source: str = "the file") -> Plan:
    """Inverse of `to_csv`, as a first version of `author`."""
    try:
        table = pd.read_csv(io.StringIO(text), dtype={"plan": str, "geo": str, "channel": str, "currency": str})
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"{source} is not a table: {error}.") from None
    return from_table(table, author=author, at=at, note=note, source=source)


def to_xlsx(plan: Plan) -> bytes:
    """A workbook: sheet 'plan' as in `to_table`, sheet 'about' with the plan's facts. Needs openpyxl."""
    about = pd.DataFrame({"fact": META, "value": [str(getattr(plan, k)) for k in META]})
    out = io.BytesIO()
    with pd.ExcelWriter(out, engine="openpyxl") as book:
        to_table(plan).to_excel(book, sheet_name=SHEET, index=False)
        about.to_excel(book, sheet_name=ABOUT, index=False)
    return out.getvalue()


def from_xlsx(content: bytes, *, author: str, at: datetime, note: str, source: str = "the file") -> Plan:
    """Inverse of `to_xlsx`, as a first version of `author`. Needs openpyxl."""
    try:
        table = pd.read_excel(io.BytesIO(content), sheet_name=SHEET, engine="openpyxl")
    except (ValueError, KeyError, OSError, BadZipFile) as error:
        raise InputError(f"{source} has no readable sheet {SHEET!r}: {error}.") from None
    return from_table(table, author=author, at=at, note=note, source=source)


def _days(values: pd.Series, source: str) -> list[date]:
    out = []
    for i, value in enumerate(values):
        try:
            out.append(value.date() if isinstance(value, datetime) else date.fromisoformat(str(value)[:10]))
        except ValueError:
            raise InputError(
                f"row {i + 2} of {source}: period_start must be a date like 2025-01-13; got {value}."
            ) from None
    return out
