"""[planning] of plumb.toml as the planning room reads it: the period's surface, and the problem to solve on it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

import numpy as np

from contracts.errors import ContractError
from contracts.surface import DynamicResponse
from planning.limits import Change, Fairness, Limit, MinimumCampaign, Rule
from planning.new_channel import NewChannel, with_new_channel
from planning.objective import Objective
from planning.optimise import Problem
from planning.scenarios import today
from planning.surface import Assumptions, Surface, build_surface
from workflow.config_planning import PlanChannel, Planning

KINDS = {"mean": "mean", "p10": "quantile", "cvar": "cvar", "probability": "probability"}


def with_new_channels(response: DynamicResponse, planning: Planning) -> DynamicResponse:
    """The response with the channels of [planning.new_channels]. Raises ContractError for one that is there."""
    for i, (name, new) in enumerate(planning.new_channels.items()):
        weekly = {k: getattr(new, k) * response.period_days / 7 for k in ("reference_spend", "half_at")}
        stated = NewChannel(
            name=name, return_low=new.return_low, return_high=new.return_high, retention=new.retention,
            source=new.source, **weekly,
        )  # fmt: skip
        response = with_new_channel(response, stated, seed=i)
    return response


def period_of(response: DynamicResponse, planning: Planning) -> tuple[date, int]:
    """First day and number of periods of the planning period."""
    start = planning.start or response.last_period + timedelta(days=response.period_days)
    return start, max(planning.horizon_weeks * 7 // response.period_days, 1)


def assumptions_of(response: DynamicResponse, planning: Planning) -> dict[str, Any]:
    """Keyword arguments of `Assumptions`, plain numbers and lists by period: what the explorer reads from the file."""
    per_week = max(7 // response.period_days, 1)
    out: dict[str, Any] = {"margin": planning.margin}
    for key in ("cost_index", "demand", "price"):
        value = getattr(planning, key)
        out[key] = [v for v in value for _ in range(per_week)] if isinstance(value, list) else value
    return out


def surface_for(response: DynamicResponse, planning: Planning) -> Surface:
    """The surface of the configured period. Raises ContractError for a period that starts before the data end."""
    start, periods = period_of(response, planning)
    return build_surface(response, start, periods, Assumptions(**assumptions_of(response, planning)))


def problem_for(surface: Surface, planning: Planning, objective: Mapping[str, Any] | None = None) -> Problem:
    """What `plumb plan` solves. Raises ContractError for a channel that is not there.

    `objective` overrides fields of the configured one.
    """
    known = surface.response.channels
    for where, names in (("channels", planning.channels), *((f"groups.{g}", v.channels)
                                                            for g, v in planning.groups.items())):  # fmt: skip
        for name in names:
            if name not in known:
                raise ContractError(f"[planning.{where}] names {name!r}; the model knows {', '.join(known)}.")
    given: dict[str, Any] = {
        "kind": KINDS[planning.objective], "unit": planning.unit, "target": planning.target, "hurdle": planning.hurdle,
        "tail": planning.after_horizon, "gain": planning.objective in ("p10", "cvar"), "caution": planning.caution,
    }  # fmt: skip
    return Problem(
        surface=surface,
        objective=Objective(**given | dict(objective or {})),
        decision=planning.decision,
        rules=(*_total(surface, planning), *_channels(surface, planning), *_others(surface, planning)),
        campaigns=tuple(
            MinimumCampaign(channel=c, amount=v.minimum_campaign)
            for c, v in planning.channels.items()
            if v.minimum_campaign is not None
        ),
    )


def weeks_of(surface: Surface) -> float:
    """Weeks of the planning period."""
    return surface.periods * surface.response.period_days / 7


def _total(surface: Surface, planning: Planning) -> tuple[Rule, ...]:
    weeks = weeks_of(surface)
    if planning.budget_range is not None:
        low, high = (round(x * weeks, 2) for x in planning.budget_range)
        return (Limit(name="budget_range", low=low, high=high),)
    total = float(today(surface).sum()) * surface.periods if planning.budget is None else planning.budget * weeks
    total = round(total, 2)
    return (Limit(name="budget", low=total, high=total),)


def _channels(surface: Surface, planning: Planning) -> tuple[Rule, ...]:
    """Every channel within max_change of its share of the budget, unless it has limits of its own."""
    weeks, now = weeks_of(surface), today(surface) * surface.periods
    budget = float(now.sum()) if planning.budget is None else planning.budget * weeks
    scale = budget / now.sum() if planning.budget_range is None and now.sum() > 0 else 1.0
    out: list[Rule] = []
    for channel, amount in zip(surface.response.channels, now, strict=True):
        own = planning.channels.get(channel, PlanChannel())
        if own.locked:
            out.append(Limit(name=f"lock of {channel}", low=_down(amount), high=_up(amount), channels=(channel,)))
            continue
        moved = scale * amount
        low, high = moved * max(0.0, 1 - planning.max_change), moved * (1 + planning.max_change)
        if channel in planning.new_channels or own.minimum_campaign is not None:
            low, high = 0.0, np.inf if channel in planning.new_channels else high
        low = own.least * weeks if own.least is not None else (0.0 if own.most is not None else low)
        high = own.most * weeks if own.most is not None else (np.inf if own.least is not None else high)
        out.append(Limit(name=f"limits of {channel}", low=_down(low), high=_up(high), channels=(channel,)))
    return tuple(out)


def _others(surface: Surface, planning: Planning) -> tuple[Rule, ...]:
    weeks = weeks_of(surface)
    out: list[Rule] = [
        Limit(name=f"group {name}", low=g.least * weeks, high=np.inf if g.most is None else g.most * weeks,
              channels=tuple(g.channels))
        for name, g in planning.groups.items()
    ]  # fmt: skip
    if planning.weekly_change is not None:
        out.append(Change(name="weekly_change", up=planning.weekly_change, down=planning.weekly_change))
    if planning.geo_fairness is not None:
        out.append(Fairness(name="geo_fairness", within=planning.geo_fairness))
    return tuple(out)


def _down(amount: float) -> float:
    """Whole cents, outwards, so that a channel held at today's spend stays feasible."""
    return float(np.floor(amount * 100 + 1e-6) / 100)


def _up(amount: float) -> float:
    return float(np.ceil(amount * 100 - 1e-6) / 100) if np.isfinite(amount) else amount
