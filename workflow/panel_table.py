"""The aggregate-only door: one wide table of KPI, spend, exposure and controls to `contracts.panel.Panel`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from contracts.errors import InputError
from contracts.panel import NATIONAL, Panel
from workflow.artifacts import digest_of, file_hash
from workflow.config import Config, PanelInput
from workflow.files_in import TextTable, dates, numbers, read_text, resolve, words
from workflow.tables_in import is_weekly

WEEK = 7
CELL = " / "  # joins the columns that make a cell, such as geo and segment


def from_panel(root: Path, config: Config) -> tuple[Panel, tuple[Path, ...]]:
    """Panel of the aggregate-only door and its files. Raises InputError."""
    section = config.inputs.panel
    if section is None:
        raise InputError("there is no [inputs.panel] in plumb.toml.")
    table = read_text(resolve(root, section.paths, "panel"), "panel", {}, {})
    if table.cells.empty:
        raise InputError(f"{table.files[0].name} holds no rows.")
    days, geo = dates(table, section.date), _cells(table, section)
    geos, weeks, period = _panel_axes(table, section, days, geo)
    at = _Grid(table, pd.MultiIndex.from_arrays([geo, days]), geos, weeks)
    channels = tuple(section.spend)
    spend = at.stack(list(section.spend.values()), minimum=0, absent=0.0)
    media, frequency = _media(section, at, spend)
    kpi = at.grid(section.kpi, empty=np.nan)
    variance = np.zeros(at.shape) if section.kpi_variance is None else at.grid(section.kpi_variance, empty=0, minimum=0)
    revenue = at.grid(section.revenue_per_kpi, minimum=0) if section.revenue_per_kpi else None
    if revenue is None and config.project.kpi == "revenue":
        revenue = np.ones(at.shape)
    people = np.ones(len(geos)) if section.population is None else _panel_population(table, section, geo, geos)
    named = (*section.controls, *(n for n in section.treatments if n not in section.controls))
    controls = at.stack(named, minimum=None)
    panel = Panel(
        geos=geos, weeks=weeks, channels=channels, kpi=kpi, kpi_variance=np.nan_to_num(variance, nan=0.0), media=media,
        spend=spend, population=people, controls=_filled(controls), control_names=named,
        organic=at.stack(section.organic, minimum=0, absent=0.0), organic_names=tuple(section.organic),
        revenue_per_kpi=None if revenue is None else _filled(revenue[:, :, None])[:, :, 0],
        kpi_name=config.project.kpi, currency=config.project.currency, period_days=period, scale_back=(1.0, 0.0),
        user_level=False, evidence_ids=(f"panel:{digest_of([file_hash(p) for p in table.files])[:12]}",),
        frequency=frequency, treatments=_baselines(section, named, controls),
    )  # fmt: skip
    return panel, table.files


def _cells(table: TextTable, section: PanelInput) -> pd.Series:
    """The geo of every row; several columns (geo and segment, say) make one cell together."""
    if section.geo is None:
        return pd.Series([NATIONAL] * len(table.cells))
    names = [section.geo] if isinstance(section.geo, str) else section.geo
    parts = [words(table, name) for name in names]
    joined = parts[0]
    for part in parts[1:]:
        joined = joined + CELL + part
    return joined


class _Grid:
    """Columns of the table as arrays by geo and period; a row that the table lacks is NaN, or `absent`."""

    def __init__(self, table: TextTable, index: pd.MultiIndex, geos: tuple[str, ...], weeks: tuple[date, ...]) -> None:
        self._table, self._index = table, index
        self._full = pd.MultiIndex.from_product([geos, weeks])
        self.shape = (len(geos), len(weeks))

    def grid(
        self, column: str, *, empty: float | None = None, minimum: float | None = None, absent: float = np.nan
    ) -> np.ndarray:
        series = pd.Series(numbers(self._table, column, empty=empty, minimum=minimum), index=self._index)
        return series.reindex(self._full, fill_value=absent).to_numpy(float).reshape(self.shape)

    def stack(self, columns: Sequence[str], *, minimum: float | None, absent: float = np.nan) -> np.ndarray:
        parts = [self.grid(c, minimum=minimum, absent=absent) for c in columns]
        return np.stack(parts, axis=-1) if parts else np.zeros((*self.shape, 0))


def _media(section: PanelInput, at: _Grid, spend: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Exposure of every channel (reach, its own column, or spend), and the frequency of those with reach."""
    media, frequency = spend.copy(), np.zeros_like(spend)
    for position, channel in enumerate(section.spend):
        column = section.reach.get(channel, section.exposure.get(channel))
        if column is not None:
            media[:, :, position] = at.grid(column, minimum=0, absent=0.0)
        if channel in section.reach:
            frequency[:, :, position] = at.grid(section.frequency[channel], minimum=0, absent=0.0)
    return media, frequency if section.reach else None


def _filled(values: np.ndarray) -> np.ndarray:
    """Cells of rows that the table lacks take the geo's mean: their KPI is missing, so that they carry nothing."""
    mean = np.nanmean(values, axis=1, keepdims=True) if values.size else values
    return np.where(np.isfinite(values), values, mean)


def _baselines(section: PanelInput, names: Sequence[str], controls: np.ndarray) -> dict[str, float]:
    """Baseline value of every non-media treatment; "min" and "max" are those of the table."""
    out = {}
    for name, value in section.treatments.items():
        column = controls[:, :, list(names).index(name)]
        ends = {"min": float(np.nanmin(column)), "max": float(np.nanmax(column))}
        out[name] = ends[value] if isinstance(value, str) else float(value)
    return out


def _panel_axes(
    table: TextTable, section: PanelInput, days: pd.Series, geo: pd.Series
) -> tuple[tuple[str, ...], tuple[date, ...], int]:
    """Geos, periods and the period's length in days. Raises InputError for repeats, gaps and missing rows."""
    periods = sorted(set(days))
    period = WEEK if is_weekly(periods) else 1
    if len(periods) < 2:
        raise InputError(f"{table.files[0].name} holds one date only; a panel needs a series of weeks or days.")
    repeated = pd.DataFrame({"g": geo, "d": days}).duplicated()
    table.fail(repeated, section.date, "that geo and date stand on an earlier row too; keep one row for each")
    for before, after in zip(periods, periods[1:], strict=False):
        if (after - before).days != period:
            raise InputError(
                f"{table.files[0].name} jumps from {before} to {after}; a panel needs one row per "
                f"{'week' if period == WEEK else 'day'} without gaps (leave the KPI empty where it is not known)."
            )
    geos = tuple(sorted(set(geo)))
    place = {day: i for i, day in enumerate(periods)}
    spans = pd.Series([place[d] for d in days]).groupby(geo.to_numpy()).agg(["min", "max", "size"])
    for name in geos:
        first, last, rows = (int(v) for v in spans.loc[name])
        if rows != last - first + 1:
            raise InputError(
                f"{table.files[0].name} has {rows} rows for geo {name!r} between {periods[first]} and {periods[last]}, "
                f"which are {last - first + 1} dates; a geo may begin late or end early, but give it a row for every "
                "date in between (leave the KPI empty where it is not known)."
            )
    return geos, tuple(periods), period


def _panel_population(table: TextTable, section: PanelInput, geo: pd.Series, geos: tuple[str, ...]) -> np.ndarray:
    assert section.population is not None
    people = numbers(table, section.population)
    table.fail(pd.Series(people <= 0), section.population, "write a number greater than 0")
    means = pd.Series(people).groupby(geo.to_numpy()).mean()
    return means.reindex(list(geos)).to_numpy(float)
