"""[channels] and [model] of plumb.toml: what the model assumes about each channel, and how it is sampled."""

from __future__ import annotations

import math
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from contracts.errors import ContractError
from mmm.adstock import ADSTOCKS, Adstock
from mmm.saturation import SATURATIONS, Saturation
from mmm.seasons import check_country
from mmm.spec import ChannelSpec, EffectPrior, Event, LogNormalPrior, ModelSpec
from workflow.config_base import Name, Section

Family = Literal["prospecting", "retargeting", "brand_search", "affiliate", "email", "offline", "other"]
Positive = Annotated[float, Field(gt=0)]
Days = Annotated[int, Field(ge=0, le=60)]
DEFAULT = ModelSpec()  # the defaults have one owner: the model


class AdstockTable(Section):
    """A carry-over family and, where given, the priors of its parameters."""

    kind: Literal["negative_binomial", "geometric", "delayed", "binomial", "weibull_pdf", "weibull_cdf", "none"]
    retention: tuple[Positive, Positive] | None = None  # Beta(a, b)
    delay: Positive | None = None  # HalfNormal(sd)

    @model_validator(mode="after")
    def _own(self) -> AdstockTable:
        _own_parameters(self, ADSTOCKS[self.kind].uses, {"retention": "retention", "delay": "delay"})
        return self

    def family(self) -> Adstock:
        """As the model reads it."""
        a, b = self.retention or (None, None)
        return ADSTOCKS[self.kind](**_given(retention_a=a, retention_b=b, delay=self.delay))


class SaturationTable(Section):
    """A curve and, where given, the priors of its parameters: median and log-scale sd."""

    kind: Literal["hill", "michaelis_menten", "logistic", "tanh", "exponential", "log", "root", "none"]
    half: tuple[Positive, Positive] | None = None
    slope: tuple[Positive, Positive] | None = None

    @model_validator(mode="after")
    def _own(self) -> SaturationTable:
        _own_parameters(self, SATURATIONS[self.kind].uses, {"half": "half_saturation", "slope": "slope"})
        return self

    def family(self) -> Saturation:
        """As the model reads it."""
        (half, half_scale), (slope, slope_scale) = self.half or (None, None), self.slope or (None, None)
        return SATURATIONS[self.kind](
            **_given(half_median=half, half_scale=half_scale, slope_median=slope, slope_scale=slope_scale)
        )


def _given(**values: float | None) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}


def _own_parameters(table: Any, uses: tuple[str, ...], slots: dict[str, str]) -> None:
    for key, slot in slots.items():
        if getattr(table, key) is not None and slot not in uses:
            raise ValueError(f"{key} is no parameter of {table.kind!r}; remove it")


def _as_table(value: object) -> object:
    """A family may be written as its name alone."""
    return {"kind": value} if isinstance(value, str) else value


class PriorTable(Section):
    """What is believed about a channel's effect before looking: a log-normal with this mean and sd."""

    on: Literal["roi", "mroi", "contribution", "coefficient"]
    mean: Positive
    sd: Positive

    def prior(self) -> EffectPrior:
        """As the model reads it."""
        return EffectPrior(self.on, *log_normal(self.mean, self.sd))


def log_normal(mean: float, sd: float) -> tuple[float, float]:
    """Location and scale of the log-normal with this mean and sd."""
    scale2 = math.log1p((sd / mean) ** 2)
    return math.log(mean) - scale2 / 2, math.sqrt(scale2)


class Curves(Section):
    """Families that a channel, or the whole model, may choose."""

    adstock: AdstockTable | None = None
    saturation: SaturationTable | None = None
    saturate_first: bool | None = None

    @field_validator("adstock", "saturation", mode="before")
    @classmethod
    def _by_name(cls, value: object) -> object:
        return _as_table(value)


class Channel(Curves):
    """A channel: its family, and what is believed about its return and its curve before looking (optional)."""

    family: Family = "other"
    roi_mean: Positive | None = None  # short for prior = { on = "roi", mean, sd }
    roi_sd: Positive | None = None
    prior: PriorTable | None = None

    @model_validator(mode="after")
    def _one_prior(self) -> Channel:
        if self.prior is not None and (self.roi_mean is not None or self.roi_sd is not None):
            raise ValueError("both prior and roi_mean are given; keep one of them")
        return self

    def spec(self) -> ChannelSpec:
        """As the model reads it."""
        prior = self.prior.prior() if self.prior is not None else None
        if self.roi_mean is not None:
            sd = self.roi_sd if self.roi_sd is not None else self.roi_mean
            prior = EffectPrior("roi", *log_normal(self.roi_mean, sd))
        return ChannelSpec(
            adstock=None if self.adstock is None else self.adstock.family(),
            saturation=None if self.saturation is None else self.saturation.family(),
            saturate_first=self.saturate_first,
            prior=prior,
        )


class EventTable(Section):
    """A span of days that the KPI may answer to; events of one name share a coefficient."""

    name: Name
    start: date
    end: date

    @model_validator(mode="after")
    def _order(self) -> EventTable:
        if self.end < self.start:
            raise ValueError("end lies before start; swap them")
        return self


class Model(Curves):
    """What the model assumes for every channel that says nothing else, its baseline, and the sampling."""

    seed: int = 1
    chains: Annotated[int, Field(ge=1, le=16)] = 4
    warmup: Annotated[int, Field(ge=50)] = 75
    draws: Annotated[int, Field(ge=50)] = 500
    doublings: Annotated[int, Field(ge=0, le=5)] = 3
    roi: tuple[Positive, Positive] | None = None  # mean and sd of every paid channel's return
    paid_share: Annotated[float, Field(gt=0, lt=1)] = DEFAULT.paid_share
    max_lag_days: Annotated[int, Field(ge=1, le=730)] = DEFAULT.max_lag_days
    knot_days: Annotated[int, Field(ge=7)] = DEFAULT.knot_days
    yearly_terms: Annotated[int, Field(ge=0, le=6)] = DEFAULT.yearly_terms
    monthly_terms: Annotated[int, Field(ge=0, le=6)] = DEFAULT.monthly_terms
    likelihood: Literal["normal", "student_t", "negative_binomial"] = "normal"
    holidays: list[str] = []
    holiday_window: tuple[Days, Days] = DEFAULT.holiday_window
    events: list[EventTable] = []
    changepoints: list[date] = []

    @field_validator("holidays")
    @classmethod
    def _countries(cls, value: list[str]) -> list[str]:
        for code in value:
            try:
                check_country(code)
            except ContractError as error:
                raise ValueError(str(error).rstrip(".")) from None
        return value

    def spec(self, channels: dict[str, Channel]) -> ModelSpec:
        """The model's specification."""
        own = {name: channel.spec() for name, channel in channels.items()}
        same = (
            "paid_share",
            "max_lag_days",
            "knot_days",
            "yearly_terms",
            "monthly_terms",
            "holiday_window",
            "likelihood",
        )
        chosen: dict[str, Any] = {name: getattr(self, name) for name in same}
        chosen |= {"holidays": tuple(self.holidays), "changepoints": tuple(self.changepoints)}
        chosen["events"] = tuple(Event(e.name, e.start, e.end) for e in self.events)
        if self.adstock is not None:
            chosen["adstock"] = self.adstock.family()
        if self.saturation is not None:
            chosen["saturation"] = self.saturation.family()
        if self.saturate_first is not None:
            chosen["saturate_first"] = self.saturate_first
        if self.roi is not None:
            chosen["roi"] = LogNormalPrior(*log_normal(*self.roi))
        return ModelSpec(channels={k: v for k, v in own.items() if v != ChannelSpec()}, **chosen)
