"""Planned against actual spend by day, with alerts: over or under pace, and how much of the budget is burnt."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pandas as pd

from contracts.checks import share
from contracts.errors import ContractError
from planning.surface import Surface

TOTAL = "total"
COLUMNS = ("channel", "planned", "actual", "deviation", "burnt", "elapsed", "projected", "over_plan", "alerts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """When a channel is called out. `deviation`: of actual from planned spend to date, as a share; `burn`: shares of
    the whole budget; `projected`: overspend that the current pace would end in, as a share."""

    deviation: float = 0.10
    burn: tuple[float, ...] = (0.50, 0.75, 0.90, 1.0)
    projected: float = 0.05

    def __post_init__(self) -> None:
        share(deviation=self.deviation, projected=self.projected)
        if list(self.burn) != sorted(set(self.burn)) or not all(b > 0 for b in self.burn):
            raise ContractError(f"burn thresholds must rise and be over 0; got {self.burn}.")


@dataclass(frozen=True, slots=True)
class Planned:
    """Money by period and channel, from `start` on."""

    start: date
    period_days: int
    channels: tuple[str, ...]
    spend: np.ndarray  # (T, C), plan currency

    def dates(self) -> tuple[date, ...]:
        """First day of each period."""
        return tuple(self.start + timedelta(days=self.period_days * t) for t in range(len(self.spend)))

    @property
    def last(self) -> date:
        """Last day, inclusive."""
        return self.start + timedelta(days=self.period_days * len(self.spend) - 1)


def planned(surface: Surface, spend: np.ndarray) -> Planned:
    """A plan (T, G, C) of a surface."""
    return Planned(surface.start, surface.response.period_days, surface.response.channels, spend.sum(axis=1))


def daily_plan(plan: Planned) -> pd.DataFrame:
    """The plan by day and channel, a period's money spread evenly over its days: date, channel, spend."""
    rows = [
        {"date": start + timedelta(days=d), "channel": channel, "spend": float(plan.spend[t, c]) / plan.period_days}
        for t, start in enumerate(plan.dates())
        for d in range(plan.period_days)
        for c, channel in enumerate(plan.channels)
    ]
    return pd.DataFrame(rows, columns=["date", "channel", "spend"])


def pacing(plan: Planned, actual: pd.DataFrame, as_of: date, thresholds: Thresholds | None = None) -> pd.DataFrame:
    """Where every channel and the total stand at the end of `as_of`; one row each, the total last.

    `actual` has date, channel, spend (plan currency; several rows a day add up). planned and actual are to date;
    deviation is actual / planned − 1; burnt and elapsed are shares of the channel's whole plan that are spent and were
    planned to be; projected is the end of the horizon at today's pace against plan; alerts are joined by "; ".
    Raises ContractError for an unknown channel, a day outside the plan, or a spend that is no number >= 0.
    """
    limits = thresholds or Thresholds()
    if not plan.start <= as_of <= plan.last:
        raise ContractError(f"pacing is asked for {as_of}, outside the plan's {plan.start} to {plan.last}.")
    _check(plan, actual)
    days = daily_plan(plan)
    past = days[days["date"] <= as_of].groupby("channel")["spend"].sum()
    spent = actual[pd.to_datetime(actual["date"]).dt.date <= as_of].groupby("channel")["spend"].sum()
    whole = days.groupby("channel")["spend"].sum()
    rows = [_row(c, float(past.get(c, 0.0)), float(spent.get(c, 0.0)), float(whole[c]), limits) for c in plan.channels]
    rows.append(_row(TOTAL, float(past.sum()), float(spent.sum()), float(whole.sum()), limits))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def by_period(plan: Planned, actual: pd.DataFrame) -> pd.DataFrame:
    """Planned and actual spend by period and channel: period_start, channel, planned, actual (NaN: no row)."""
    _check(plan, actual)
    day = pd.to_datetime(actual["date"]).dt.date
    period = np.array([(d - plan.start).days // plan.period_days for d in day], dtype=int)
    came = actual.assign(period=period).groupby(["period", "channel"])["spend"].sum()
    rows = [
        {
            "period_start": start,
            "channel": c,
            "planned": float(plan.spend[t, i]),
            "actual": float(came.get((t, c), np.nan)),
        }
        for t, start in enumerate(plan.dates())
        for i, c in enumerate(plan.channels)
    ]
    return pd.DataFrame(rows)


def _row(channel: str, planned: float, actual: float, whole: float, limits: Thresholds) -> dict[str, object]:
    deviation = actual / planned - 1 if planned > 0 else (np.inf if actual > 0 else 0.0)
    burnt = actual / whole if whole > 0 else (np.inf if actual > 0 else 0.0)
    elapsed = planned / whole if whole > 0 else 0.0
    projected = actual + (whole - planned) * (actual / planned if planned > 0 else 1.0)
    over = projected / whole - 1 if whole > 0 else (np.inf if projected > 0 else 0.0)
    alerts = []
    if abs(deviation) > limits.deviation:
        side = "over" if deviation > 0 else "under"
        size = f"{abs(deviation):.0%}" if np.isfinite(deviation) else "without any planned spend"
        alerts.append(f"{size} {side} plan to date" if np.isfinite(deviation) else size)
    crossed = [b for b in limits.burn if burnt >= b > elapsed]
    if crossed:
        alerts.append(f"{crossed[-1]:.0%} of the budget is spent where the plan has {elapsed:.0%}")
    if over > limits.projected and np.isfinite(over):
        alerts.append(f"at this pace {over:.0%} over budget at the end")
    return {
        "channel": channel, "planned": planned, "actual": actual, "deviation": deviation, "burnt": burnt,
        "elapsed": elapsed, "projected": projected, "over_plan": over, "alerts": "; ".join(alerts),
    }  # fmt: skip


def _check(plan: Planned, actual: pd.DataFrame) -> None:
    if missing := [c for c in ("date", "channel", "spend") if c not in actual.columns]:
        raise ContractError(
            f"actual spend needs the column {missing[0]!r}; it has {', '.join(map(str, actual.columns))}."
        )
    if unknown := sorted(set(actual["channel"]) - set(plan.channels)):
        known = ", ".join(plan.channels)
        raise ContractError(f"actual spend names channel {unknown[0]!r}; the plan knows {known}.")
    amounts = pd.to_numeric(actual["spend"], errors="coerce")
    if bad := [i for i, x in enumerate(amounts) if not (np.isfinite(x) and x >= 0)]:
        raise ContractError(
            f"actual spend in row {bad[0] + 1} must be a number >= 0; got {actual['spend'].iloc[bad[0]]}."
        )
    for i, day in enumerate(pd.to_datetime(actual["date"]).dt.date):
        if not plan.start <= day <= plan.last:
            raise ContractError(
                f"actual spend in row {i + 1} is of {day}, outside the plan's {plan.start} to {plan.last}."
            )
