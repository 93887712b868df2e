"""What the model assumes: settings that change the answer. Settings that only change the speed are in `fit.RunFlags`.

| on paper | here | unit | prior |
|---|---|---|---|
| ROI_c | roi | currency per currency | LogNormal(roi_location, roi_scale) where revenue per KPI is known |
| q_c | contribution share | share of KPI | LogNormal around paid_share, split by spend, where it is not |
| alpha_c | retention | share carried to the next period | Beta(retention_a, retention_b) |
| delta_c | delay | none; 0 is geometric adstock | HalfNormal(delay) |
| k_c | half_saturation | mean positive exposure per head | LogNormal(log half_median, half_scale) |
| n_c | slope | none | LogNormal(log slope_median, slope_scale) |
| eta_c | geo_spread | sd of a geo's relative effect | HalfNormal(geo_spread) |
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from contracts.checks import positive
from contracts.errors import ContractError


@dataclass(frozen=True, slots=True)
class LogNormalPrior:
    """LogNormal(location, scale): log of the quantity is Normal(location, scale)."""

    location: float
    scale: float

    def __post_init__(self) -> None:
        positive(scale=self.scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """The whole specification. Baseline scales are relative to a geo's mean KPI (1 = its level)."""

    roi: LogNormalPrior = LogNormalPrior(0.2, 0.9)  # Meridian's documented default
    roi_by_channel: Mapping[str, LogNormalPrior] = field(default_factory=dict)
    paid_share: float = 0.3  # expected share of the KPI that paid media cause, where revenue is unknown
    share_scale: float = 1.0
    organic_share: float = 0.03
    retention_a: float = 2.0
    retention_b: float = 3.0
    delay: float = 1.5
    half_median: float = 1.5
    half_scale: float = 0.6
    slope_median: float = 1.1
    slope_scale: float = 0.25
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
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]
