"""What the model assumes: settings that change the answer. Settings that only change the speed are in `fit.RunFlags`.

| on paper | here | unit | prior |
|---|---|---|---|
| ROI_c | roi | currency per currency | LogNormal(roi_location, roi_scale) where revenue per KPI is known |
| q_c | contribution share | share of KPI | LogNormal around paid_share, split by spend, where it is not |
| eta_c | geo_spread | sd of a geo's relative effect | HalfNormal(geo_spread) |

Carry-over and curves, with their priors: `mmm.adstock`, `mmm.saturation`; one channel's own in `ChannelSpec`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from contracts.checks import finite, positive
from contracts.errors import ContractError
from mmm.adstock import Adstock, NegativeBinomial
from mmm.saturation import Hill, Saturation

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
    intercept_mean: float = 0.8
    intercept_sd: float = 0.4
    geo_intercept_sd: float = 0.3
    trend_scale: float = 0.1
    geo_trend_scale: float = 0.05
    seasonal_sd: float = 0.2
    control_sd: float = 0.2
    shock_scale: float = 0.05
    shock_correlation: tuple[float, float] = (2.0, 1.5)  # Beta prior: demand that all geos share persists
    sigma_median: float = 0.1
    sigma_scale: float = 1.0
    sigma_geo_scale: float = 0.3
    structural_sd: float = 0.25  # log-scale sd of what the curve families get wrong about a channel's total
    lift_bias: float = 0.1  # study bias of a lift test, sd as a share of the measured effect

    def __post_init__(self) -> None:
        named = {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if f.type in ("float", "int") and f.name not in ("yearly_terms", "lift_bias", "intercept_mean")
        }
        positive(**named)
        if not 0 <= self.yearly_terms <= 6:
            raise ContractError(f"yearly_terms must lie between 0 and 6; got {self.yearly_terms}.")
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
    return [_plain(v) for v in value] if isinstance(value, tuple) else value
