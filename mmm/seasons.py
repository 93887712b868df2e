"""What the date alone explains: season, month, weekday, holidays, events and changepoints, as columns of a basis.

| column | value in a period | coefficient |
|---|---|---|
| yearly, monthly | sine and cosine of the date, less their mean over the panel | share of the level |
| weekday (daily panels) | six contrasts against the mean day | share of the level |
| holiday | share of the window (days before to days after) that falls into the period | levels of one period |
| event | share of the period's days on which the event was on | share of the level while it is on |
| changepoint | 1 from its date on, 0 before | share of the level, for good |

Every column exists at any date, so that a forecast reads the same basis. Holidays are those of the `holidays` package.
"""

from __future__ import annotations

import calendar
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache

import holidays
import numpy as np

from contracts.errors import ContractError
from mmm.spec import ModelSpec

YEARLY_FROM_DAYS = 300  # a shorter panel cannot tell a season from a trend


@dataclass(frozen=True, slots=True)
class Seasons:
    """Columns (n, K) at some dates, their names and prior sds."""

    names: tuple[str, ...]
    columns: np.ndarray
    sd: np.ndarray


def check_country(code: str) -> None:
    """Raises ContractError for a country that the `holidays` package does not hold."""
    if code not in holidays.list_supported_countries():
        raise ContractError(f"holidays of {code!r} are not known; use a two-letter country code such as 'US' or 'DE'.")


def seasons(weeks: Sequence[date], panel_weeks: Sequence[date], period_days: int, spec: ModelSpec) -> Seasons:
    """Columns at the periods that begin at `weeks`; what there is to see is decided by the panel's periods."""
    parts: list[tuple[str, np.ndarray, float]] = []
    if len(panel_weeks) * period_days >= YEARLY_FROM_DAYS:
        parts += _fourier("year", weeks, panel_weeks, spec.yearly_terms, spec.seasonal_sd, _year_turn)
    parts += _fourier("month", weeks, panel_weeks, spec.monthly_terms, spec.seasonal_sd, _month_turn)
    if period_days == 1:
        parts += [(f"weekday {d}", _weekday(weeks, d), spec.seasonal_sd) for d in range(6)]
    for name, days in _holidays(panel_weeks, weeks, period_days, spec).items():
        parts.append((f"holiday {name}", _window_share(weeks, period_days, days, spec), spec.holiday_sd))
    for name in sorted({e.name for e in spec.events}):
        spans = [(e.start, e.end) for e in spec.events if e.name == name]
        if _days_on(panel_weeks, period_days, spans).any():
            parts.append((f"event {name}", _days_on(weeks, period_days, spans) / period_days, spec.event_sd))
    for change in sorted(spec.changepoints):
        if panel_weeks[0] < change <= panel_weeks[-1]:
            step = np.array([float(w >= change) for w in weeks])
            parts.append((f"changepoint {change}", step, spec.changepoint_sd))
    columns = np.stack([p[1] for p in parts], axis=1) if parts else np.zeros((len(weeks), 0))
    return Seasons(tuple(p[0] for p in parts), columns, np.array([p[2] for p in parts]))


def _year_turn(days: Sequence[date]) -> np.ndarray:
    return np.array([d.toordinal() for d in days], dtype=float) / 365.25


def _month_turn(days: Sequence[date]) -> np.ndarray:
    return np.array([(d.day - 1) / calendar.monthrange(d.year, d.month)[1] for d in days])


def _fourier(
    name: str, weeks: Sequence[date], panel_weeks: Sequence[date], terms: int, sd: float, turn: object
) -> list[tuple[str, np.ndarray, float]]:
    assert callable(turn)
    out = []
    for of, label in ((np.sin, "sin"), (np.cos, "cos")):
        for k in range(1, terms + 1):
            centre = of(2 * np.pi * k * turn(panel_weeks)).mean()
            out.append((f"{name} {label} {k}", of(2 * np.pi * k * turn(weeks)) - centre, sd))
    return out


def _weekday(days: Sequence[date], weekday: int) -> np.ndarray:
    return np.array([float(d.weekday() == weekday) - float(d.weekday() == 6) for d in days])


def _holidays(
    panel_weeks: Sequence[date], weeks: Sequence[date], period_days: int, spec: ModelSpec
) -> dict[str, list[date]]:
    """Dates of every holiday whose window meets the panel, by name, sorted; several countries share a name's column."""
    before, after = spec.holiday_window
    every = {*panel_weeks, *weeks}
    years = tuple(range(min(every).year - 1, max(every).year + 2))
    found: dict[str, set[date]] = {}
    for country in spec.holidays:
        for day, name in _country(country, years):
            found.setdefault(name, set()).add(day)
    first, last = panel_weeks[0], panel_weeks[-1] + timedelta(days=period_days - 1)

    def seen(day: date) -> bool:
        return day + timedelta(days=after) >= first and day - timedelta(days=before) <= last

    return {name: sorted(days) for name, days in sorted(found.items()) if any(seen(d) for d in days)}


@lru_cache(maxsize=64)
def _country(code: str, years: tuple[int, ...]) -> tuple[tuple[date, str], ...]:
    """(date, name) of a country's public holidays; an observed day counts under the holiday's own name."""
    check_country(code)
    listed = holidays.country_holidays(code, years=years)
    return tuple((d, part.split(" (")[0].strip()) for d in sorted(listed) for part in listed[d].split("; "))


def _window_share(weeks: Sequence[date], period_days: int, days: Sequence[date], spec: ModelSpec) -> np.ndarray:
    before, after = spec.holiday_window
    spans = [(d - timedelta(days=before), d + timedelta(days=after)) for d in days]
    return _days_on(weeks, period_days, spans) / (before + after + 1)


def _days_on(weeks: Sequence[date], period_days: int, spans: Sequence[tuple[date, date]]) -> np.ndarray:
    """Days of each period that lie in a span (both ends inclusive); spans that overlap count twice."""
    out = np.zeros(len(weeks))
    starts = np.array([w.toordinal() for w in weeks])
    for start, end in spans:
        low = np.maximum(starts, start.toordinal())
        high = np.minimum(starts + period_days - 1, end.toordinal())
        out += np.maximum(high - low + 1, 0)
    return out
