"""[planning] of plumb.toml: the period, its assumptions, what is maximised and what a plan must keep to.

Money is in the project's currency, per week over all geos where a key does not say otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from contracts.errors import ConfigError
from workflow.config_base import Name, Section, Share
from workflow.config_errors import sentence

Positive = Annotated[float, Field(gt=0)]
Amount = Annotated[float, Field(ge=0)]
Objective = Literal["mean", "p10", "cvar", "probability"]
Decision = Literal["channel", "channel_period", "channel_geo", "cell"]


class PlanChannel(Section):
    """What one channel must keep to; `least` and `most` take the place of max_change."""

    least: Amount | None = None
    most: Amount | None = None
    locked: bool = False  # stays at today's spend
    minimum_campaign: Positive | None = None  # over the whole period: spends nothing or at least this

    @model_validator(mode="after")
    def _sane(self) -> PlanChannel:
        if self.least is not None and self.most is not None and self.least > self.most:
            raise ValueError(f"least {self.least:g} lies over most {self.most:g}; lower the first")
        if self.locked and not (self.least is self.most is self.minimum_campaign is None):
            raise ValueError("a locked channel keeps today's spend; remove its other limits or `locked`")
        return self


class PlanGroup(Section):
    """Channels that keep to a limit together."""

    channels: Annotated[list[Name], Field(min_length=1)]
    least: Amount = 0.0
    most: Amount | None = None


class NewChannelPlan(Section):
    """What is believed of a channel that never ran: see docs/planning.md."""

    return_low: Positive  # 80 % interval of KPI units per currency at reference_spend
    return_high: Positive
    reference_spend: Positive
    half_at: Positive  # spend at which half of its effect would be reached
    retention: Annotated[float, Field(gt=0, lt=1)] = 0.4
    source: Name  # where the belief comes from


class Planning(Section):
    """Defaults of `plumb plan`; `budget` is currency per week over all geos and channels, today's spend if absent."""

    start: date | None = None  # the day after the data end, where absent
    horizon_weeks: Annotated[int, Field(ge=1, le=104)] = 13
    budget: Positive | None = None
    budget_range: Annotated[list[Amount], Field(min_length=2, max_length=2)] | None = None  # free between the two
    max_change: Positive = 0.3
    objective: Objective = "mean"
    caution: Share = 0.5  # of p10 and cvar: share of that figure in a mix with the mean (docs/benchmarks.md says why)
    unit: Literal["kpi", "revenue", "margin"] = "kpi"
    decision: Decision = "channel"
    target: float | None = None  # of objective = "probability", over the whole period
    hurdle: Amount = 0.0  # worth that a unit of money must bring, where the budget is free
    after_horizon: bool = True  # counts what the plan still brings after its last week
    cost_index: Positive | list[Positive] = 1.0  # cost of an exposure against the data; one number or one a week
    demand: Positive | list[Positive] = 1.0  # media effect against the data's average week
    price: Positive | list[Positive] | None = None  # currency per KPI unit; the data's where absent
    margin: Annotated[float, Field(gt=0, le=1)] | None = None  # contribution before media as a share of revenue
    weekly_change: Share | None = None  # most that a channel may move from one week to the next
    geo_fairness: Share | None = None  # spend per head of every geo within this share of the average
    channels: dict[str, PlanChannel] = {}
    groups: dict[str, PlanGroup] = {}
    new_channels: dict[str, NewChannelPlan] = {}

    @model_validator(mode="after")
    def _sane(self) -> Planning:
        if self.budget is not None and self.budget_range is not None:
            raise ValueError("budget and budget_range are both given; keep one")
        if self.budget_range is not None and self.budget_range[0] > self.budget_range[1]:
            raise ValueError("budget_range must be [least, most]; swap them")
        if self.objective == "probability" and self.target is None:
            raise ValueError('objective = "probability" needs the target that is to be reached')
        if self.unit == "margin" and self.margin is None:
            raise ValueError('unit = "margin" needs margin, the share of revenue that is contribution')
        for key in ("cost_index", "demand", "price"):
            value = getattr(self, key)
            if isinstance(value, list) and len(value) != self.horizon_weeks:
                raise ValueError(f"{key} needs one number or one a week ({self.horizon_weeks}); got {len(value)}")
        return self


def changed_planning(
    planning: Planning, *, locked: Sequence[str] = (), budget: float | None = None, free_up_to: float | None = None,
    **changes: Any,
) -> Planning:  # fmt: skip
    """[planning] with what a command asks for instead, checked again. Raises ConfigError.

    `budget` fixes the total, `free_up_to` frees it between 0 and that, both per week.
    """
    values = planning.model_dump() | {k: v for k, v in changes.items() if v is not None}
    if budget is not None:
        values |= {"budget": budget, "budget_range": None}
    if free_up_to is not None:
        values |= {"budget": None, "budget_range": [0.0, free_up_to]}
    values["channels"] = values["channels"] | {c: {"locked": True} for c in locked}
    try:
        return Planning.model_validate(values)
    except ValidationError as error:
        found: list[Any] = [e | {"loc": ("planning", *e["loc"])} for e in error.errors()]
        raise ConfigError(f"{sentence('asked', Planning, found)} Nothing was saved.") from None
