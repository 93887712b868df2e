"""Scenarios: what a plan brings over its period, by channel, and by week and geo, for tables and screens.

All figures come from the response in time (`planning.surface`): an outcome is what the plan adds to what earlier spend
still brings, what it works after its last period included (`beyond`). Draws are paired: two plans are compared on the
same posterior draw.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pandas as pd

from contracts.errors import ContractError
from contracts.intervals import INTERVAL
from planning.summary import weighted_interval
from planning.surface import Surface, by_geo, evaluate, extrapolated, held

CURRENT = "current"
RECOMMENDED = "recommended"
CHANNEL_COLUMNS = (
    "scenario", "channel", "period_start", "period_end", "spend", *INTERVAL, "spend_change", "within", "beyond",
    "carried_in", "extrapolated",
)  # fmt: skip
CELL_COLUMNS = ("scenario", "channel", "period_start", "period_end", "geo", "spend", *INTERVAL)
DUST = 1e-9  # share of a figure that is arithmetic and no difference


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A plan's outcome. Tables have the columns of v_scenarios and v_scenario_cells without stamp and without what
    people add; spend and outcome are totals over the period (cells: one week inside it)."""

    name: str
    surface: Surface
    spend: np.ndarray  # (T, G, C), plan currency per period
    channels: pd.DataFrame
    cells: pd.DataFrame
    draws: np.ndarray  # (D, C), KPI units: inside the period and after it
    weights: np.ndarray  # (D,), sum 1

    @property
    def total(self) -> dict[str, float]:
        """Interval of the outcome of all channels, KPI units."""
        return weighted_interval(self.draws.sum(axis=1), self.weights)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Second scenario minus first, KPI units, draw by draw."""

    interval: dict[str, float]
    probability: float  # that the difference is positive
    draws: np.ndarray  # (D,)


def last_day(surface: Surface) -> date:
    """Last day of the planning period, inclusive."""
    return surface.start + timedelta(days=surface.response.period_days * surface.periods - 1)


def today(surface: Surface) -> np.ndarray:
    """Today's spend (C,) over all geos, plan currency per period."""
    found: np.ndarray = surface.response.steady.current_spend.sum(axis=0) / surface.assumptions.rate
    return found


def steady_plan(surface: Surface, spend: Mapping[str, float]) -> np.ndarray:
    """Plan (T, G, C) that holds `spend` (plan currency per period, by channel), geos as today.

    Raises ContractError unless it names the model's channels with spends >= 0.
    """
    channels = surface.response.channels
    if unknown := sorted(set(spend) - set(channels)):
        raise ContractError(f"the plan names channel {unknown[0]!r}; the model knows {', '.join(channels)}.")
    if missing := [c for c in channels if c not in spend]:
        raise ContractError(f"the plan has no spend for channel {missing[0]!r}; write 0 for none.")
    for channel, amount in spend.items():
        if not (np.isfinite(amount) and amount >= 0):
            raise ContractError(f"spend of {channel!r} must be a number >= 0; got {amount}.")
    return held(surface, np.array([spend[c] for c in channels], dtype=float))


def evaluate_plan(surface: Surface, spend: np.ndarray, name: str) -> Evaluated:
    """What `spend` (T, G, C), plan currency per period, brings. Raises ContractError on a wrong shape or sign."""
    found = evaluate(surface, spend)
    draws, weights = found.within + found.beyond, surface.weights
    now, far = today(surface) * surface.periods, extrapolated(surface, spend)
    rows = []
    for c, channel in enumerate(surface.response.channels):
        amount = float(spend[:, :, c].sum())
        unchanged = abs(amount - now[c]) <= DUST * now[c]
        rows.append(
            {
                "scenario": name,
                "channel": channel,
                "period_start": surface.start,
                "period_end": last_day(surface),
                "spend": amount,
                "spend_change": (0.0 if unchanged else amount / now[c] - 1) if now[c] > 0 else _from_nothing(amount),
                "within": float(weights @ found.within[:, c]),
                "beyond": float(weights @ found.beyond[:, c]),
                "carried_in": float(weights @ found.carried_in[:, c]),
                "extrapolated": channel in far,
            }
            | weighted_interval(draws[:, c], weights)
        )
    channels = pd.DataFrame(rows, columns=list(CHANNEL_COLUMNS))
    return Evaluated(name, surface, spend, channels, _cells(surface, spend, name), draws, weights)


def _from_nothing(amount: float) -> float:
    return float("nan") if amount > 0 else 0.0


def _cells(surface: Surface, spend: np.ndarray, name: str) -> pd.DataFrame:
    """One row per channel × week × geo inside the period; days of a daily panel add up to weeks."""
    per_week = max(7 // surface.response.period_days, 1)
    days, weeks = surface.response.period_days * per_week, -(-surface.periods // per_week)
    starts = [surface.start + timedelta(days=days * w) for w in range(weeks)]
    at = np.arange(0, surface.periods, per_week)
    rows = []
    for c, channel in enumerate(surface.response.channels):
        money = np.add.reduceat(spend[:, :, c], at, axis=0)  # (W, G)
        brought = np.add.reduceat(by_geo(surface, spend, c)[:, : surface.periods], at, axis=1)  # (D, W, G)
        for w, start in enumerate(starts):
            end = min(start + timedelta(days=days - 1), last_day(surface))
            for g, geo in enumerate(surface.response.geos):
                cell = {"scenario": name, "channel": channel, "geo": geo, "period_start": start, "period_end": end}
                rows.append(cell | {"spend": money[w, g]} | weighted_interval(brought[:, w, g], surface.weights))
    return pd.DataFrame(rows, columns=list(CELL_COLUMNS))


def plan_of_cells(surface: Surface, cells: pd.DataFrame) -> np.ndarray:
    """Plan (T, G, C) of the rows of a cells table (channel, period_start, geo, spend); a week's money is spread evenly
    over the periods in it. Channels and geos that the table lacks spend nothing.

    Raises ContractError for a channel, geo or week that the surface does not have.
    """
    response, per_week = surface.response, max(7 // surface.response.period_days, 1)
    spend = np.zeros(surface.shape)
    weeks = {surface.start + timedelta(days=response.period_days * per_week * w): w * per_week
             for w in range(-(-surface.periods // per_week))}  # fmt: skip
    places = {"channel": response.channels, "geo": response.geos}
    for kind, known in places.items():
        if unknown := sorted(set(cells.loc[cells["spend"] > 0, kind]) - set(known)):
            raise ContractError(f"the plan spends in {kind} {unknown[0]!r}; the model knows {', '.join(known)}.")
    spent = cells[cells["spend"] > 0]
    for day, geo, channel, money in zip(
        spent["period_start"], spent["geo"], spent["channel"], spent["spend"].astype(float), strict=True
    ):
        if day not in weeks:
            raise ContractError(
                f"the plan spends in the week of {day}; the period is {surface.start} to {last_day(surface)}."
            )
        first, last = weeks[day], min(weeks[day] + per_week, surface.periods)
        spend[first:last, response.geos.index(geo), response.channels.index(channel)] += money / (last - first)
    return spend


def compare(base: Evaluated, other: Evaluated) -> Comparison:
    """`other` minus `base`, on the same draws. Raises ContractError where periods or draws differ."""
    periods = [(e.surface.start, e.surface.periods) for e in (base, other)]
    if periods[0] != periods[1]:
        raise ContractError(f"scenarios {base.name!r} and {other.name!r} must share one period to be compared.")
    if not np.array_equal(base.weights, other.weights):
        raise ContractError("scenarios can only be compared on the draws of one and the same response.")
    draws = other.draws.sum(axis=1) - base.draws.sum(axis=1)
    return Comparison(weighted_interval(draws, base.weights), float(base.weights @ (draws > 0)), draws)
