"""Estimates that pass between rooms, each with the ids of the evidence it rests on.

Pooling refuses to count one `evidence_id` twice (DESIGN section 5).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Literal

import numpy as np

from contracts.checks import finite, non_negative, positive
from contracts.errors import ContractError


@dataclass(frozen=True, slots=True)
class Experiment:
    """One row of the experiments table, checked. `treated` is empty for a user-randomised test."""

    name: str
    kind: Literal["geo", "user"]
    channel: str  # several channels that changed at once are joined by ';'
    start: date
    end: date  # inclusive
    treated: tuple[str, ...]
    spend_delta: float | None  # currency, signed; None: from the spend table (DESIGN section 2)
    control_arm: str = "control"

    def __post_init__(self) -> None:
        if self.kind not in ("geo", "user"):
            raise ContractError(f"experiment {self.name!r}: kind must be 'geo' or 'user'; got {self.kind!r}.")
        if self.end < self.start:
            raise ContractError(f"experiment {self.name!r} ends ({self.end}) before it starts ({self.start}).")
        if self.kind == "geo" and not self.treated:
            raise ContractError(f"experiment {self.name!r} is a geo test and names no treated geos.")

    @property
    def channels(self) -> tuple[str, ...]:
        """The tested channels, one or several."""
        return tuple(name.strip() for name in self.channel.split(";"))


@dataclass(frozen=True, slots=True)
class LiftEstimate:
    """What one experiment showed. Signed: incremental and spend_delta are both negative for a go-dark test."""

    experiment: str
    estimator: str
    kind: Literal["geo", "user"]
    channel: str
    arm: str  # the treated arm of a user test; '' for a geo test
    metric: str  # 'conversions', 'revenue', 'visits' or the project's KPI
    start: date
    end: date  # inclusive
    treated: tuple[str, ...]
    mean: float  # incremental outcome over the treated scope and window, metric units
    std_error: float  # includes the released noise
    dof: float  # degrees of freedom of the t reference; inf for a normal one
    p05: float  # quantiles of the same t statistic that gives p_value
    p10: float
    p50: float
    p90: float
    p95: float
    p_value: float  # two-sided
    noise_variance_share: float  # released-noise variance / std_error²
    spend_delta: float  # currency, signed; NaN when unknown
    spend_delta_se: float  # currency
    evidence_ids: tuple[str, ...]
    arm_ratio: float = math.nan  # people in the treated arm / people in the control arm; NaN for a geo test
    spend_correlation: float = 0.0  # of the errors of `mean` and `spend_delta`; 0 where spend_delta_se is 0

    def __post_init__(self) -> None:
        positive(std_error=self.std_error)
        finite(mean=self.mean)
        non_negative(spend_delta_se=self.spend_delta_se)
        if not -1 <= self.spend_correlation <= 1:
            raise ContractError(
                f"spend_correlation of {self.experiment!r} must lie in [-1, 1]; got {self.spend_correlation}."
            )
        for name in ("p_value", "noise_variance_share"):
            if not 0 <= getattr(self, name) <= 1 + 1e-9:
                raise ContractError(f"{name} of {self.experiment!r} must lie in [0, 1]; got {getattr(self, name)}.")


@dataclass(frozen=True, slots=True)
class LiftLibrary:
    """Lift estimates and their joint covariance; cells that share controls are correlated."""

    estimates: tuple[LiftEstimate, ...]
    covariance: np.ndarray  # (K, K), metric units²; its diagonal is std_error²

    def __post_init__(self) -> None:
        k = len(self.estimates)
        if self.covariance.shape != (k, k):
            raise ContractError(f"lift covariance must have shape {(k, k)}; got {self.covariance.shape}.")
        se2 = np.array([e.std_error**2 for e in self.estimates])
        if k and not np.allclose(np.diag(self.covariance), se2, rtol=1e-6):
            raise ContractError("the diagonal of the lift covariance must be std_error².")


@dataclass(frozen=True, slots=True)
class ChannelEffect:
    """One row of v_effects before it is stamped with its run: an estimate of one figure of one channel."""

    scope: Literal["total", "geo", "week", "geo_week"]
    geo: str | None
    week: date | None
    channel: str
    metric: Literal["incremental_kpi", "incremental_revenue", "share", "roi", "mroi"]
    mean: float
    sd: float
    p05: float
    p10: float
    p50: float
    p90: float
    p95: float


@dataclass(frozen=True, slots=True)
class Credit:
    """Credit of one channel under one attribution model in one period, with the released noise in its interval."""

    model: str
    channel: str  # a channel, or 'unattributed'
    metric: Literal["conversions", "revenue"]
    period_start: date
    period_end: date
    mean: float
    sd: float
    p05: float
    p10: float
    p50: float
    p90: float
    p95: float
    evidence_ids: tuple[str, ...]


def refuse_double_use(groups: Iterable[tuple[str, Iterable[str]]]) -> None:
    """Raises ContractError when two sources, given as (name, evidence_ids), rest on one and the same evidence id."""
    seen: dict[str, str] = {}
    for name, ids in groups:
        for evidence in set(ids):
            if evidence in seen:
                raise ContractError(
                    f"evidence {evidence!r} would be counted twice: in {seen[evidence]!r} and in {name!r}. "
                    "Pool the uncalibrated model with the lifts, or use the lifts as a check only."
                )
            seen[evidence] = name
