"""Scenarios: what a plan would bring over the weeks after the panel, against what today's spend would bring.

Assumption, stated wherever a scenario is shown: the response is the steady one. Spend is held for the whole horizon,
carry-over from before and beyond it is left out, and demand is that of the panel's average period. Draws are paired:
two plans are compared on the same posterior draw.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pandas as pd

from contracts.errors import ContractError
from contracts.intervals import INTERVAL
from contracts.response import SteadyResponse
from planning.allocate import Split, best_split, geo_shares, outcome_draws
from planning.summary import weighted_interval

CURRENT = "current"
RECOMMENDED = "recommended"
MAX_CHANGE = 0.3  # share by which a channel may move, unless the project says otherwise
CHANNEL_COLUMNS = ("scenario", "channel", "period_start", "period_end", "spend", *INTERVAL, "spend_change")
CELL_COLUMNS = ("scenario", "channel", "period_start", "period_end", "geo", "spend", *INTERVAL)


@dataclass(frozen=True, slots=True)
class Horizon:
    """The weeks a plan is for. `period_days` is that of the panel: 7 weekly, 1 daily."""

    start: date
    weeks: int
    period_days: int = 7

    def __post_init__(self) -> None:
        if self.weeks < 1:
            raise ContractError(f"a plan needs a horizon of at least 1 week; got {self.weeks}.")
        if self.period_days < 1 or 7 % self.period_days:
            raise ContractError(f"period_days must be 1 or 7; got {self.period_days}.")

    @property
    def end(self) -> date:
        """Last day, inclusive."""
        return self.start + timedelta(days=7 * self.weeks - 1)

    @property
    def periods_per_week(self) -> int:
        """Panel periods in a week."""
        return 7 // self.period_days


@dataclass(frozen=True, slots=True)
class Scenario:
    """A named plan: spend in currency per period over all geos, by channel, for every period of the horizon."""

    name: str
    spend: Mapping[str, float]
    horizon: Horizon
    note: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            raise ContractError("a scenario needs a name.")
        for channel, spend in self.spend.items():
            if not (np.isfinite(spend) and spend >= 0):
                raise ContractError(f"scenario {self.name!r}: spend of {channel!r} must be >= 0; got {spend}.")

    def vector(self, channels: tuple[str, ...]) -> np.ndarray:
        """Spend (C,) in the order of `channels`. Raises ContractError unless the two name the same channels."""
        if unknown := sorted(set(self.spend) - set(channels)):
            known = ", ".join(channels)
            raise ContractError(f"scenario {self.name!r} plans for channel {unknown[0]!r}; the model knows {known}.")
        if missing := [c for c in channels if c not in self.spend]:
            raise ContractError(f"scenario {self.name!r} has no spend for channel {missing[0]!r}; write 0 for none.")
        return np.array([self.spend[c] for c in channels], dtype=float)


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A scenario's outcome. Tables have the columns of v_scenarios and v_scenario_cells without the stamp; spend and
    outcome are totals over the horizon (cells: over one week of it)."""

    scenario: Scenario
    channels: pd.DataFrame
    cells: pd.DataFrame
    draws: np.ndarray  # (D, C), KPI units over the horizon
    weights: np.ndarray  # (D,), sum 1

    @property
    def total(self) -> dict[str, float]:
        """Interval of the outcome of all channels, KPI units over the horizon."""
        return weighted_interval(self.draws.sum(axis=1), self.weights)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Second scenario minus first, KPI units over the horizon, draw by draw."""

    interval: dict[str, float]
    probability: float  # that the difference is positive
    draws: np.ndarray  # (D,)


def current_scenario(response: SteadyResponse, horizon: Horizon) -> Scenario:
    """Today's spend, held."""
    spend = response.current_spend.sum(axis=0)
    named = {c: float(s) for c, s in zip(response.channels, spend, strict=True)}
    return Scenario(CURRENT, named, horizon, "mean spend of the last weeks, held")


def recommended_scenario(
    response: SteadyResponse,
    horizon: Horizon,
    *,
    budget: float | None = None,
    max_change: float = MAX_CHANGE,
    lower: Mapping[str, float] | None = None,
    upper: Mapping[str, float] | None = None,
) -> tuple[Scenario, Split]:
    """Best split of `budget` (currency per period; None: today's) with each channel within ± max_change of its share of
    the budget today. `lower` and `upper` (currency per period, by channel) replace those bounds where given.

    Raises ContractError for bounds that cannot be met or name an unknown channel.
    """
    if not max_change >= 0:
        raise ContractError(f"max_change must be >= 0; got {max_change}.")
    today = response.current_spend.sum(axis=0)
    if today.sum() <= 0:
        raise ContractError("nothing was spent in the last weeks of the panel, so there is no split to start from.")
    budget = float(today.sum()) if budget is None else budget
    scaled = today * budget / today.sum()
    low = _override(response, scaled * max(0.0, 1 - max_change), lower)
    high = _override(response, scaled * (1 + max_change), upper)
    split = best_split(response, budget, lower=low, upper=high)
    named = {c: float(s) for c, s in zip(response.channels, split.spend, strict=True)}
    note = f"best expected outcome for {budget:.2f} per period, channels within {max_change:.0%} of today's share"
    return Scenario(RECOMMENDED, named, horizon, note), split


def _override(response: SteadyResponse, bounds: np.ndarray, given: Mapping[str, float] | None) -> np.ndarray:
    bounds = bounds.copy()
    for channel, value in (given or {}).items():
        if channel not in response.channels:
            known = ", ".join(response.channels)
            raise ContractError(f"a bound names channel {channel!r}; the model knows {known}.")
        bounds[response.channels.index(channel)] = value
    return bounds


def evaluate(scenario: Scenario, response: SteadyResponse) -> Evaluated:
    """What `scenario` brings over its horizon under the steady response, the geo split within a channel as today."""
    spend = scenario.vector(response.channels)
    horizon = scenario.horizon
    weekly = outcome_draws(response, spend) * horizon.periods_per_week  # (D, G, C)
    draws = weekly.sum(axis=1) * horizon.weeks
    today = response.current_spend.sum(axis=0)
    rows = []
    for c, channel in enumerate(response.channels):
        rows.append(
            {
                "scenario": scenario.name,
                "channel": channel,
                "period_start": horizon.start,
                "period_end": horizon.end,
                "spend": spend[c] * horizon.periods_per_week * horizon.weeks,
                "spend_change": spend[c] / today[c] - 1 if today[c] > 0 else (np.nan if spend[c] > 0 else 0.0),
            }
            | weighted_interval(draws[:, c], response.weights)
        )
    channels = pd.DataFrame(rows, columns=list(CHANNEL_COLUMNS))
    return Evaluated(scenario, channels, _cells(scenario, response, spend, weekly), draws, response.weights)


def _cells(scenario: Scenario, response: SteadyResponse, spend: np.ndarray, weekly: np.ndarray) -> pd.DataFrame:
    """One row per channel × week × geo; a steady plan has the same row every week."""
    by_geo = geo_shares(response) * spend * scenario.horizon.periods_per_week  # (G, C), currency per week
    starts = [scenario.horizon.start + timedelta(weeks=w) for w in range(scenario.horizon.weeks)]
    rows = []
    for c, channel in enumerate(response.channels):
        for g, geo in enumerate(response.geos):
            cell = {"scenario": scenario.name, "channel": channel, "geo": geo, "spend": by_geo[g, c]}
            cell |= weighted_interval(weekly[:, g, c], response.weights)
            rows += [cell | {"period_start": s, "period_end": s + timedelta(days=6)} for s in starts]
    return pd.DataFrame(rows, columns=list(CELL_COLUMNS))


def compare(base: Evaluated, other: Evaluated) -> Comparison:
    """`other` minus `base`, on the same draws. Raises ContractError where horizons or draws differ."""
    if base.scenario.horizon != other.scenario.horizon:
        raise ContractError(
            f"scenarios {base.scenario.name!r} and {other.scenario.name!r} must share one horizon to be compared."
        )
    if not np.array_equal(base.weights, other.weights):
        raise ContractError("scenarios can only be compared on the draws of one and the same response.")
    draws = other.draws.sum(axis=1) - base.draws.sum(axis=1)
    return Comparison(weighted_interval(draws, base.weights), float(base.weights @ (draws > 0)), draws)
