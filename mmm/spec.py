"""What the model assumes: settings that change the answer. Settings that only change the speed are in `fit.RunFlags`.

| on paper | here | unit | prior |
|---|---|---|---|
| ROI_c | roi | currency per currency | LogNormal(roi_location, roi_scale) where revenue per KPI is known |
| q_c | contribution share | share of KPI | LogNormal around paid_share, split by spend, where it is not |
| eta_c | geo_spread | sd of a geo's relative effect | HalfNormal(geo_spread) |
| omega_k | control_geo_scale | sd of a geo's own part of a control's coefficient | that times HalfStudentT(2) |

| likelihood | variance of a cell, over the squared level | |
|---|---|---|
| normal | sigma² + tau² | |
| student_t | sigma² / lambda + tau², lambda ~ Gamma(dof / 2, dof / 2) | a scale mixture: normal given lambda |
| negative_binomial | sigma² mu² + mu / L + tau² | mu: the KPI's running mean; sigma² is the overdispersion |

The last matches the variance of counts and keeps the mean's likelihood normal (quasi-likelihood, Wedderburn, 1974).

Carry-over and curves, with their priors: `mmm.adstock`, `mmm.saturation`; one channel's own in `ChannelSpec`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date

from contracts.checks import finite, positive
from contracts.errors import ContractError
from mmm.adstock import Adstock, NegativeBinomial
from mmm.saturation import Hill, Saturation

MAY_BE_ZERO = ("yearly_terms", "monthly_terms", "lift_bias", "intercept_mean")
LIKELIHOODS = ("normal", "student_t", "negative_binomial")
EFFECTS = ("roi", "mroi", "contribution", "coefficient")


@dataclass(frozen=True, slots=True)
class LogNormalPrior:
    """LogNormal(location, scale): log of the quantity is Normal(location, scale)."""

    location: float
    scale: float

    def __post_init__(self) -> None:
        positive(scale=self.scale)


@dataclass(frozen=True, slots=True)
class EffectPrior:
    """What is believed about one channel's effect, on the scale that a person knows it: LogNormal(location, scale).

    | kind | quantity | unit |
    |---|---|---|
    | roi | revenue caused ÷ spend; KPI caused ÷ spend where revenue per KPI is unknown | currency or KPI per currency |
    | mroi | the same of one more unit of currency at today's spend | as roi |
    | contribution | share of the whole KPI | none |
    | coefficient | effect per period where the curve's h is 1, over the mean KPI of an average geo | none |
    """

    kind: str
    location: float
    scale: float

    def __post_init__(self) -> None:
        if self.kind not in EFFECTS:
            raise ContractError(f"an effect prior is on one of {', '.join(EFFECTS)}; got {self.kind!r}.")
        finite(location=self.location)
        positive(scale=self.scale)


@dataclass(frozen=True, slots=True)
class ChannelSpec:
    """What one channel has of its own; None means the specification's default."""

    adstock: Adstock | None = None
    saturation: Saturation | None = None
    saturate_first: bool | None = None  # True: carry-over of the saturated exposure
    prior: EffectPrior | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """A span of days that the KPI may answer to; events of one name share a coefficient."""

    name: str
    start: date
    end: date  # inclusive

    def __post_init__(self) -> None:
        if self.end < self.start:
            raise ContractError(f"event {self.name!r} ends ({self.end}) before it starts ({self.start}).")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """The whole specification. Baseline scales are relative to a geo's mean KPI (1 = its level)."""

    roi: LogNormalPrior = LogNormalPrior(0.2, 0.9)  # Meridian's documented default
    channels: Mapping[str, ChannelSpec] = field(default_factory=dict)
    adstock: Adstock = NegativeBinomial()
    saturation: Saturation = Hill()
    saturate_first: bool = False
    reach_frequency: Saturation = Hill(half_median=1.0, slope_median=2.0, slope_scale=0.4)  # of the frequency
    paid_share: float = 0.3  # expected share of the KPI that paid media cause, where revenue is unknown
    share_scale: float = 1.0
    organic_share: float = 0.03
    geo_spread: float = 0.25
    max_lag_days: int = 91
    knot_days: int = 91
    geo_knot_days: int = 182
    yearly_terms: int = 2
    monthly_terms: int = 0
    holidays: tuple[str, ...] = ()  # countries, two-letter codes
    holiday_window: tuple[int, int] = (0, 0)  # days before and after that belong to a holiday
    holiday_sd: float = 0.2
    events: tuple[Event, ...] = ()
    event_sd: float = 0.2
    changepoints: tuple[date, ...] = ()  # from each of these days on the level is another
    changepoint_sd: float = 0.3
    intercept_mean: float = 0.8
    intercept_sd: float = 0.4
    geo_intercept_sd: float = 0.3
    trend_scale: float = 0.1
    geo_trend_scale: float = 0.05
    seasonal_sd: float = 0.2
    control_sd: float = 0.2
    control_geo_scale: float = 0.05
    shrink_controls_from: int = 5  # so many controls share a learned scale, so that idle ones shrink together
    shock_scale: float = 0.05
    shock_correlation: tuple[float, float] = (2.0, 1.5)  # Beta prior: demand that all geos share persists
    likelihood: str = "normal"  # see LIKELIHOODS
    student_dof: float = 5.0
    sigma_median: float = 0.1
    sigma_scale: float = 1.0
    sigma_geo_scale: float = 0.3
    structural_sd: float = 0.25  # log-scale sd of what the curve families get wrong about a channel's total
    lift_bias: float = 0.1  # study bias of a lift test, sd as a share of the measured effect

    def __post_init__(self) -> None:
        named = {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if f.type in ("float", "int") and f.name not in MAY_BE_ZERO
        }
        positive(**named)
        for name in ("yearly_terms", "monthly_terms"):
            if not 0 <= getattr(self, name) <= 6:
                raise ContractError(f"{name} must lie between 0 and 6; got {getattr(self, name)}.")
        if self.likelihood not in LIKELIHOODS:
            raise ContractError(f"likelihood must be one of {', '.join(LIKELIHOODS)}; got {self.likelihood!r}.")
        if min(self.holiday_window) < 0:
            raise ContractError(f"holiday_window must be days before and after, >= 0; got {self.holiday_window}.")
        if self.lift_bias < 0:
            raise ContractError(f"lift_bias must be >= 0; got {self.lift_bias}.")

    def hash(self) -> str:
        """Twelve hex digits that name this specification."""
        text = json.dumps(_plain(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _plain(value: object) -> object:
    """Nested dictionaries that name the class of every part, so that two families with equal priors differ."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"is": type(value).__name__, **parts}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, date):
        return value.isoformat()
    return [_plain(v) for v in value] if isinstance(value, tuple) else value
