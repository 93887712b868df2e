"""Readers of the public tables: spend, controls and experiments, each checked against DESIGN section 2.

Calendar, channels and geos come from here or from plumb.toml, never from people's rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from contracts.calendar import WEEKDAYS, week_of, weeks_between
from contracts.errors import InputError
from contracts.evidence import Experiment
from contracts.panel import OTHER_GEO
from workflow.config import ColumnMap, Config, FixedColumn, HashedColumn, TableInput
from workflow.files_in import TextTable, dates, known, numbers, read_text, resolve, words

RESERVED_CONTROLS = ("date", "geo", "population")


@dataclass(frozen=True, slots=True)
class Spend:
    """Spend in the project's currency. Columns of `rows`: day, geo, channel, spend, impressions (NaN where absent).

    Several rows of one day, geo and channel (one per campaign, say) add up.
    """

    rows: pd.DataFrame
    weekly: bool  # one row covers the week that starts on its date
    first: date
    last: date  # last day covered
    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Controls:
    """Controls per geo and day or week. Columns of `rows`: day, geo and one float column per name."""

    rows: pd.DataFrame
    names: tuple[str, ...]
    population: Mapping[str, float]  # geo -> people; empty when the table has no such column
    weekly: bool
    first: date
    last: date
    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class PublicTables:
    """Everything that is not about people, checked."""

    spend: Spend | None
    controls: Controls | None
    experiments: tuple[Experiment, ...]
    experiment_files: tuple[Path, ...]
    geos: tuple[str, ...]
    channels: tuple[str, ...]
    weeks: tuple[date, ...]


def split_columns(columns: ColumnMap, what: str) -> tuple[dict[str, str], dict[str, str]]:
    """(ours -> theirs, ours -> constant). A `hash` makes sense for events only."""
    mapped = {ours: theirs for ours, theirs in columns.items() if isinstance(theirs, str)}
    fixed = {ours: str(value.value) for ours, value in columns.items() if isinstance(value, FixedColumn)}
    hashed = [ours for ours, value in columns.items() if isinstance(value, HashedColumn)]
    if hashed:
        raise InputError(f"plumb.toml: [inputs.{what}.columns] {hashed[0]} is a hash; only events may use one.")
    return mapped, fixed


def read_input(root: Path, section: TableInput, what: str) -> TextTable:
    """Text cells of one public input."""
    mapped, fixed = split_columns(section.columns, what)
    table = read_text(resolve(root, section.paths, what), what, mapped, fixed)
    if table.cells.empty:
        raise InputError(f"{table.files[0].name} holds no rows; add some or take [inputs.{what}] out of plumb.toml.")
    return table


def is_weekly(days: Sequence[date]) -> bool:
    """True when all dates fall on one weekday and there is more than one of them."""
    distinct = set(days)
    return len(distinct) > 1 and len({d.weekday() for d in distinct}) == 1


def _covered(table: TextTable, days: pd.Series, week_start: str) -> tuple[bool, date, date]:
    """(weekly, first day covered, last day covered). A weekly table must start its weeks as the project does."""
    weekly = is_weekly(list(days))
    first, last = min(days), max(days)
    if weekly and WEEKDAYS[first.weekday()] != week_start:
        raise InputError(
            f"{table.files[0].name} is weekly and its weeks start on {WEEKDAYS[first.weekday()]}, but [project] "
            f'week_start is {week_start!r}; write week_start = "{WEEKDAYS[first.weekday()]}" in plumb.toml.'
        )
    return weekly, first, last + timedelta(days=6) if weekly else last


def read_spend(root: Path, config: Config) -> Spend | None:
    """Spend in the project's currency, or None when there is no such input. Raises InputError."""
    section = config.inputs.spend
    if section is None:
        return None
    table = read_input(root, section, "spend")
    days, geo, channel = dates(table, "date"), words(table, "geo"), words(table, "channel")
    amount = numbers(table, "spend", minimum=0)
    impressions = numbers(table, "impressions", empty=np.nan, minimum=0) if table.has("impressions") else np.nan
    if config.channels:
        known(table, "channel", config.channels, "mend the name or declare it as [channels.NAME] in plumb.toml")
    if config.project.geos:
        known(table, "geo", config.project.geos, "mend the name or add it to geos in [project] of plumb.toml")
    table.fail(geo == OTHER_GEO, "geo", "that name is kept for everything undeclared; rename the geo")
    rows = pd.DataFrame(
        {
            "day": days,
            "geo": geo,
            "channel": channel,
            "spend": amount * rates(table, config),
            "impressions": impressions,
        }
    )
    weekly, first, last = _covered(table, days, config.project.week_start)
    return Spend(rows, weekly, first, last, table.files)


def rates(table: TextTable, config: Config) -> np.ndarray:
    """Rate of each row into the project's currency."""
    own = config.project.currency
    if not table.has("currency"):
        return np.ones(len(table.cells))
    currency = table.column("currency").fillna(own)
    rates = {own: 1.0} | {k: v for k, v in config.rates.items() if k != own}
    bad = ~currency.isin(list(rates))
    table.fail(bad, "currency", f"it has no rate into {own}; add it to [rates] in plumb.toml, such as EUR = 1.08")
    return currency.map(rates).to_numpy(float)


def _refuse_repeats(table: TextTable, rows: pd.DataFrame, key: list[str]) -> None:
    repeated = rows.duplicated(key)
    if repeated.any():
        first = int(np.flatnonzero(repeated)[0])
        shown = ", ".join(str(rows[k].iloc[first]) for k in key)
        raise InputError(f"{table.place(first)} repeats {shown}; keep one row for each {' × '.join(key)}.")


def read_controls(root: Path, config: Config) -> Controls | None:
    """Controls and population, or None when there is no such input. Raises InputError."""
    section = config.inputs.controls
    if section is None:
        return None
    table = read_input(root, section, "controls")
    days, geo = dates(table, "date"), words(table, "geo")
    if config.project.geos:
        known(table, "geo", config.project.geos, "mend the name or add it to geos in [project] of plumb.toml")
    names = tuple(str(c) for c in table.cells.columns if c not in RESERVED_CONTROLS)
    rows = pd.DataFrame({"day": days, "geo": geo} | {name: numbers(table, name) for name in names})
    _refuse_repeats(table, rows, ["day", "geo"])
    population: dict[str, float] = {}
    if table.has("population"):
        people = numbers(table, "population")
        table.fail(pd.Series(people <= 0), "population", "write a number greater than 0")
        population = {str(g): float(v) for g, v in pd.Series(people).groupby(geo.to_numpy()).mean().items()}
    weekly, first, last = _covered(table, days, config.project.week_start)
    return Controls(rows, names, population, weekly, first, last, table.files)


def _known_test_channels(table: TextTable, kind: pd.Series, channel: pd.Series, channels: Sequence[str]) -> None:
    """Raises InputError for an undeclared channel; a geo test may name several, joined by ';'."""
    parts = channel.map(lambda text: [part.strip() for part in str(text).split(";")])
    undeclared = parts.map(lambda names: any(name not in channels for name in names))
    shown = ", ".join(list(channels)[:12]) + (", ..." if len(channels) > 12 else "")
    fix = "mend the name or declare it as [channels.NAME] in plumb.toml"
    table.fail(undeclared, "channel", f"it is not declared (declared: {shown}); {fix}")
    many = parts.map(len) > 1
    table.fail(many & (kind == "user"), "channel", "a user test takes away one channel; name one")
    table.fail(parts.map(lambda names: len(set(names)) < len(names)), "channel", "name every channel once")


def read_experiments(
    root: Path, config: Config, geos: Sequence[str], channels: Sequence[str]
) -> tuple[tuple[Experiment, ...], tuple[Path, ...]]:
    """Experiments and the files they came from. Raises InputError for an unknown geo or channel, or odd dates."""
    section = config.inputs.experiments
    if section is None:
        return (), ()
    table = read_input(root, section, "experiments")
    name, kind, channel = words(table, "experiment"), words(table, "kind"), words(table, "channel")
    table.fail(~kind.isin(["geo", "user"]), "kind", "write 'geo' or 'user'")
    _known_test_channels(table, kind, channel, channels)
    table.fail(name.duplicated(), "experiment", "the name stands on an earlier row too; keep one row per experiment")
    start, end = dates(table, "start"), dates(table, "end")
    table.fail(end < start, "end", "the test ends before it starts; swap start and end")
    delta = numbers(table, "spend_delta", empty=np.nan) if table.has("spend_delta") else np.full(len(name), np.nan)
    treated = table.column("treated") if table.has("treated") else pd.Series([None] * len(name), dtype=object)
    table_has_users = config.inputs.assignments is not None
    out = []
    for i in range(len(name)):
        named = tuple(g.strip() for g in str(treated.iloc[i] or "").split(";") if g.strip())
        _check_treated(table, i, kind.iloc[i], named, geos)
        if kind.iloc[i] == "user" and not table_has_users:
            raise InputError(
                f"{table.place(i)}: experiment {name.iloc[i]!r} is randomised by user, but there is no assignments "
                "table; add [inputs.assignments] to plumb.toml."
            )
        design = config.experiments.get(name.iloc[i])
        out.append(
            Experiment(
                name.iloc[i], kind.iloc[i], channel.iloc[i], start.iloc[i], end.iloc[i], named,
                None if np.isnan(delta[i]) else float(delta[i]), design.control_arm if design else "control",
            )
        )  # fmt: skip
    return tuple(out), table.files


def _check_treated(table: TextTable, i: int, kind: str, treated: tuple[str, ...], geos: Sequence[str]) -> None:
    if kind != "geo":
        return
    if not treated:
        raise InputError(f"{table.place(i)}: treated is empty; name the treated geos of a geo test, joined by ';'.")
    for geo in treated:
        if geo not in geos:
            shown = ", ".join(geos[:12]) + (", ..." if len(geos) > 12 else "")
            raise InputError(
                f"{table.place(i)}: treated names the geo {geo!r}, which is not declared (declared: {shown}); "
                "mend the name or add it to geos in [project] of plumb.toml."
            )


def calendar(
    config: Config, spend: Spend | None, controls: Controls | None, tests: Sequence[tuple[date, date]] = ()
) -> tuple[date, ...]:
    """Complete weeks of the project: plumb.toml first, then spend, then controls, then the weeks of the experiments.

    Raises InputError when nothing says which weeks are meant, or none is complete.
    """
    project = config.project
    covered = spend or controls
    first, last = project.calendar_start, project.calendar_end
    if covered is not None:
        first, last = first or covered.first, last or covered.last
    elif tests and not (first and last):
        opened = min(s for s, _ in tests)
        closed = week_of(max(e for _, e in tests), project.week_start) + timedelta(days=6)
        first, last = first or week_of(opened, project.week_start), last or closed
    if first is None or last is None:
        raise InputError(
            "nothing says which weeks to measure: add spend or controls, or calendar_start and calendar_end "
            "to [project] of plumb.toml."
        )
    start = week_of(first + timedelta(days=6), project.week_start)
    end = week_of(last - timedelta(days=6), project.week_start)
    if end < start:
        raise InputError(
            f"no complete week lies between {first} and {last}; add days or mend the calendar in plumb.toml."
        )
    return weeks_between(start, end)


def read_public(root: Path, config: Config) -> PublicTables:
    """All public tables of a workspace with user-level data. Raises InputError, ConfigError."""
    spend, controls = read_spend(root, config), read_controls(root, config)
    geos = _in_order(
        config.project.geos,
        spend.rows["geo"] if spend else (),
        controls.rows["geo"] if controls else (),
    )
    channels = _in_order(config.channels, spend.rows["channel"] if spend else ())
    experiments, files = read_experiments(root, config, geos, channels)
    weeks = calendar(config, spend, controls, [(e.start, e.end) for e in experiments])
    return PublicTables(spend, controls, experiments, files, geos, channels, weeks)


def _in_order(declared: Sequence[str] | Mapping[str, object], *found: Sequence[str] | pd.Series) -> tuple[str, ...]:
    """Declared names first and in their order, then what else the tables hold, sorted."""
    extra = sorted({str(name) for names in found for name in names} - set(declared))
    return (*declared, *extra)
