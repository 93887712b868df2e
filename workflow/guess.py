"""What `plumb init` guesses from file names and headers; it is written into plumb.toml, where a person can mend it.

Only headers and public tables are read, and the arm names of the assignments file (docs/decisions/0041).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

from contracts.calendar import WEEKDAYS
from contracts.errors import InputError
from workflow.files_in import TextTable, dates, file_format, header, read_text, scan_sql
from workflow.tables_in import is_weekly

PEOPLE = ("events", "assignments", "identity")
PUBLIC = ("spend", "controls", "experiments")
BESIDE = {"platform_claims": "claims", "billing": "billing"}  # input -> the stem of its standard files
FORMATS = ("parquet", "csv", "json")  # preferred first when one stem exists in several
MOST_ARMS = 24

_FAMILIES = (  # first match wins
    ("retargeting", r"re-?target|re-?market"),
    ("affiliate", r"affiliat|partner|coupon|cashback"),
    ("email", r"e-?mail|newsletter|crm|sms|push"),
    ("offline", r"\btv\b|_tv|tv_|^tv|television|radio|ooh|outdoor|billboard|print|direct_?mail|offline|magazine"),
    ("brand_search", r"brand|search|\bsem\b|ppc|adwords|shopping"),
    ("prospecting", r"display|social|video|youtube|facebook|meta|instagram|tiktok|snap|pinterest|prospect|programm"),
)  # fmt: skip
_CONTROL_ARMS = r"^(control|holdout|hold_?out|none|no[ _-].*|placebo|baseline|reference)$"


def family_of(channel: str) -> str:
    """Family guessed from a channel's name. Generic search counts as demand capture, like brand search."""
    name = channel.lower()
    return next((family for family, pattern in _FAMILIES if re.search(pattern, name)), "other")


def standard_files(root: Path, name: str) -> list[str]:
    """Paths, relative to `root`, of `name.*` files and a folder `name/`; one format for each stem."""
    by_stem: dict[str, Path] = {}
    for path in sorted(root.iterdir()):
        kind = file_format(path) if path.is_file() else None
        if kind is None or path.name.split(".")[0].lower() != name:
            continue
        stem = re.sub(r"\.(parquet|pq|csv|tsv|jsonl|ndjson|json)(\.gz)?$", "", path.name, flags=re.IGNORECASE)
        held = by_stem.get(stem)
        if held is None or FORMATS.index(kind) < FORMATS.index(file_format(held) or "json"):
            by_stem[stem] = path
    found = [p.name for p in by_stem.values()]
    folder = root / name
    if folder.is_dir() and any(file_format(p) for p in folder.rglob("*") if p.is_file()):
        found.append(name)
    return found


def first_file(root: Path, paths: Iterable[str]) -> Path:
    """The first data file behind relative paths of files and folders."""
    for path in paths:
        place = root / path
        if place.is_file():
            return place
        for inner in sorted(place.rglob("*")):
            if inner.is_file() and file_format(inner):
                return inner
    raise InputError(f"no data file lies at {', '.join(paths)} in {root}.")


def text_of(root: Path, paths: Sequence[str], what: str, columns: dict[str, str]) -> TextTable:
    """All cells of a public table."""
    files = [
        p for path in paths for p in ([root / path] if (root / path).is_file() else sorted((root / path).rglob("*")))
    ]
    return read_text([f for f in files if f.is_file() and file_format(f)], what, columns, {})


@dataclass(frozen=True, slots=True)
class PublicGuess:
    """What the public tables say about the project."""

    channels: tuple[str, ...] = ()
    geos: tuple[str, ...] = ()
    currency: str | None = None
    week_start: str | None = None
    user_tests: tuple[str, ...] = ()


def public_guess(tables: dict[str, TextTable]) -> PublicGuess:
    """Channels, geos, currency, week start and user tests. A column that is missing guesses nothing."""
    spend, tests = tables.get("spend"), tables.get("experiments")
    channels = _distinct(spend, "channel") or (() if spend else _distinct(tests, "channel"))
    geos = tuple(sorted({*_distinct(spend, "geo"), *_distinct(tables.get("controls"), "geo")}))
    currencies = spend.cells["currency"].dropna() if spend is not None and spend.has("currency") else None
    currency = str(currencies.mode().iloc[0]) if currencies is not None and len(currencies) else None
    user_tests: tuple[str, ...] = ()
    if tests is not None and tests.has("experiment") and tests.has("kind"):
        user_tests = tuple(tests.cells.loc[tests.cells["kind"] == "user", "experiment"].dropna().unique())
    return PublicGuess(channels, geos, currency, _week_start(spend or tables.get("controls")), user_tests)


def _distinct(table: TextTable | None, column: str) -> tuple[str, ...]:
    if table is None or not table.has(column):
        return ()
    return tuple(sorted(str(v) for v in table.cells[column].dropna().unique()))


def _week_start(table: TextTable | None) -> str | None:
    """Weekday of a weekly table; None for a daily or unreadable one (`plumb check` will say what is wrong)."""
    if table is None or not table.has("date"):
        return None
    try:
        days = sorted(set(dates(table, "date")))
    except InputError:
        return None
    return WEEKDAYS[days[0].weekday()] if is_weekly(days) else None


def arms_of(path: Path, tests: Sequence[str], columns: dict[str, str]) -> dict[str, list[str]]:
    """Distinct arm names of each user test, sorted. An arm is the experimenter's design, not a person's attribute."""
    experiment, arm = columns.get("experiment", "experiment"), columns.get("arm", "arm")
    names = header(path)
    if experiment not in names or arm not in names:
        return {}
    quoted = [f'CAST("{c.replace(chr(34), chr(34) * 2)}" AS VARCHAR)' for c in (experiment, arm)]
    sql = (
        f"SELECT DISTINCT {quoted[0]} AS e, {quoted[1]} AS a FROM {scan_sql(path)} LIMIT {MOST_ARMS * (len(tests) + 1)}"
    )
    with duckdb.connect() as connection:
        rows = connection.execute(sql).fetchall()
    out: dict[str, list[str]] = {}
    for test in tests:
        arms = sorted({a for e, a in rows if e == test and a})
        if 1 < len(arms) <= MOST_ARMS:
            out[test] = arms
    return out


def control_arm_of(arms: Sequence[str]) -> str:
    """The arm that looks like a reference: named so, or the first one."""
    return next((a for a in arms if re.match(_CONTROL_ARMS, a, flags=re.IGNORECASE)), arms[0])


@dataclass(frozen=True, slots=True)
class PanelGuess:
    """Columns of a panel table by their role."""

    keys: dict[str, Any] = field(default_factory=dict)  # date, geo, kpi, population, revenue_per_kpi, organic, controls
    spend: dict[str, str] = field(default_factory=dict)
    exposure: dict[str, str] = field(default_factory=dict)
    kpi: str = "conversions"


_DATE = ("date", "time", "week", "day", "ds", "week_start")
_GEO = ("geo", "region", "dma", "state", "market", "city", "location")
_KPI = ("kpi", "conversions", "orders", "sales", "revenue", "y")
_REVENUE_PER = ("revenue_per_kpi", "revenue_per_conversion")
_SPEND = r"^(?P<a>.+?)_(spend|cost|S)$|^(spend|cost)_(?P<b>.+)$"
_EXPOSURE = r"^(?P<a>.+?)_(impressions?|clicks|grps?|I)$|^(impressions?|clicks)_(?P<b>.+)$"


def panel_guess(table: TextTable) -> PanelGuess:
    """Roles of a panel's columns, from their names; what is left is a control if numeric, or organic."""
    names = [str(c) for c in table.cells.columns]
    lower = {n.lower(): n for n in names}
    keys: dict[str, Any] = {}
    for key, options in (("date", _DATE), ("geo", _GEO), ("kpi", _KPI), ("kpi_variance", ("kpi_variance",)),
                         ("population", ("population",)), ("revenue_per_kpi", _REVENUE_PER)):  # fmt: skip
        hit = next((lower[o] for o in options if o in lower), None)
        if hit is not None:
            keys[key] = hit
    spend = {_stem(m): n for n in names if (m := re.match(_SPEND, n))}
    exposures = {_stem(m): n for n in names if (m := re.match(_EXPOSURE, n)) and n not in spend.values()}
    used = {*keys.values(), *spend.values(), *exposures.values(), *(lower[k] for k in _KPI if k in lower)}
    keys["organic"] = [n for stem, n in exposures.items() if stem not in spend]
    keys["controls"] = [n for n in names if n not in used and _is_control(table, n)]
    money = str(keys.get("kpi", "")).lower() == "revenue"
    return PanelGuess(
        keys, spend, {s: n for s, n in exposures.items() if s in spend}, "revenue" if money else "conversions"
    )


def _stem(match: re.Match[str]) -> str:
    return match["a"] or match["b"]


def _is_control(table: TextTable, name: str) -> bool:
    """Numeric, complete, not constant, and not a running row number."""
    values = pd.to_numeric(table.cells[name], errors="coerce")
    if values.isna().any() or values.nunique() < 2:
        return False
    return not (values.diff().dropna() == 1).all()
