"""A plain panel file for `plumb design` and `plumb lift --panel`: one row per geo and period, no workspace needed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from contracts.errors import InputError
from workflow.files_in import TextTable, dates, file_format, header, numbers, read_text, words

ALIASES: dict[str, tuple[str, ...]] = {
    "date": ("date", "day", "week", "period"),
    "geo": ("geo", "location", "region", "market", "dma", "state", "city"),
    "kpi": ("kpi", "y", "conversions", "sales", "revenue", "orders"),
    "kpi_variance": ("kpi_variance", "variance"),
    "spend": ("spend", "cost"),
}


@dataclass(frozen=True, slots=True)
class PlainPanel:
    """Arrays of one file. Missing KPI cells are NaN."""

    path: Path
    geos: tuple[str, ...]
    periods: tuple[date, ...]
    kpi: np.ndarray  # (G, T)
    noise: np.ndarray  # (G, T) KPI units²; 0 without a variance column
    spend: np.ndarray | None  # (G, T) currency
    period_days: int


def _columns(path: Path, given: dict[str, str | None]) -> dict[str, str]:
    """Ours -> theirs: what was named, else the first alias that the file has."""
    names = header(path)
    lower = {n.strip().lower(): n for n in names}
    out: dict[str, str] = {}
    for ours, aliases in ALIASES.items():
        named = given.get(ours)
        if named is not None:
            if named not in names:
                raise InputError(f"{path.name} has no column {named!r}; it has {', '.join(names)}.")
            out[ours] = named
            continue
        hit = next((lower[a] for a in aliases if a in lower), None)
        if hit is not None:
            out[ours] = hit
        elif ours in ("date", "geo", "kpi"):
            raise InputError(
                f"{path.name} has no column that looks like the {ours} (tried {', '.join(aliases)}); it has "
                f"{', '.join(names)}. Name it with --{ours}."
            )
    return out


def _axis(path: Path, days: pd.Series) -> tuple[tuple[date, ...], int]:
    found = sorted(set(days))
    if len(found) < 2:
        raise InputError(f"{path.name} holds {len(found)} period; a panel needs a history.")
    steps = {(b - a).days for a, b in zip(found[:-1], found[1:], strict=True)}
    if len(steps) > 1:
        usual = min(steps)
        after = next(a for a, b in zip(found[:-1], found[1:], strict=True) if (b - a).days != usual)
        raise InputError(
            f"{path.name}: periods are not evenly spaced (steps of {', '.join(map(str, sorted(steps)))} days; the "
            f"first odd one follows {after}); add the missing periods, or give one row per day or per week."
        )
    return tuple(found), steps.pop()


def _grid(table: TextTable, ours: str, at: tuple[np.ndarray, np.ndarray], shape: tuple[int, int], empty: float | None,
          minimum: float | None) -> np.ndarray:  # fmt: skip
    out = np.full(shape, np.nan)
    out[at] = numbers(table, ours, empty=empty, minimum=minimum)
    return out


def read_panel_file(path: Path, columns: dict[str, str | None]) -> PlainPanel:
    """Reads one CSV, Parquet or JSON Lines file. `columns`: ours -> theirs or None to recognise it.

    Raises InputError for a missing file or column, a repeated geo and period, uneven periods, or a bad number.
    """
    if not path.is_file():
        raise InputError(f"there is no panel file at {path}; check the path.")
    if file_format(path) is None:
        raise InputError(f"{path.name} is neither Parquet (.parquet), CSV (.csv) nor JSON Lines (.jsonl); convert it.")
    mapped = _columns(path, columns)
    table = read_text([path], "panel", mapped, {})
    days, geo = dates(table, "date"), words(table, "geo")
    periods, step = _axis(path, days)
    geos = tuple(sorted(set(geo)))
    repeated = pd.DataFrame({"geo": geo, "day": days}).duplicated()
    if repeated.any():
        first = int(np.flatnonzero(repeated.to_numpy())[0])
        raise InputError(
            f"{table.place(first)}: geo {geo.iloc[first]!r} has a second row for {days.iloc[first]}; sum them."
        )
    row = geo.map({g: i for i, g in enumerate(geos)}).to_numpy(int)
    column = days.map({d: i for i, d in enumerate(periods)}).to_numpy(int)
    shape, at = (len(geos), len(periods)), (row, column)
    kpi = _grid(table, "kpi", at, shape, float("nan"), None)
    noise = _grid(table, "kpi_variance", at, shape, 0.0, 0.0) if table.has("kpi_variance") else np.zeros(shape)
    spend = np.nan_to_num(_grid(table, "spend", at, shape, 0.0, 0.0)) if table.has("spend") else None
    return PlainPanel(path, geos, periods, kpi, np.where(np.isfinite(kpi), np.nan_to_num(noise), 0.0), spend, step)
