"""What a plan in time needs of a fitted model: the steady response, and how its effect is spread over later periods.

| on paper | here | dims | unit |
|---|---|---|---|
| alpha[d,c] | retention | draw, channel | share carried to the next period |
| delta[d,c] | delay | draw, channel | none, >= 0; 0 is geometric |
| L | lags | | periods over which one period's exposure works |
| x[g,l,c] | recent | geo, period, channel | saturation units: exposure of the last L − 1 periods, oldest first |
| m[g,c] | observed | geo, channel | saturation units: largest exposure of one period that the model has seen |

Exposure of a planned spend s is `steady.unit · s`. Its stock in period t is `sum_l w_l x[t − l]`, w the normalised
negative-binomial weights of the model (`mmm.transforms.adstock_weights`), and the outcome is the Hill curve of the
stock times `steady.amplitude`: at a spend held for L periods this is `SteadyResponse.evaluate`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np

from contracts.checks import positive
from contracts.errors import ContractError
from contracts.response import SteadyResponse


@dataclass(frozen=True, slots=True)
class DynamicResponse:
    """Posterior draws of the response in time. Raises ContractError on any misfit."""

    steady: SteadyResponse
    retention: np.ndarray  # (D, C), [0, 1)
    delay: np.ndarray  # (D, C), >= 0
    lags: int
    recent: np.ndarray  # (G, lags − 1, C), >= 0
    observed: np.ndarray  # (G, C), >= 0
    population: np.ndarray  # (G,), > 0
    last_period: date  # first day of the last period of the panel
    period_days: int  # 7 weekly, 1 daily
    currency: str  # of every amount of money here
    kpi_name: str
    revenue_per_kpi: float | None  # currency per KPI unit over the panel; None where unknown

    def __post_init__(self) -> None:
        d, c = self.steady.half_saturation.shape
        g = len(self.steady.geos)
        shapes = {"retention": (d, c), "delay": (d, c), "recent": (g, self.lags - 1, c), "observed": (g, c),
                  "population": (g,)}  # fmt: skip
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value.shape != shape:
                raise ContractError(f"response {name} must have shape {shape}; got {value.shape}.")
            if not (np.isfinite(value).all() and (value >= 0).all()):
                raise ContractError(f"response {name} must hold finite numbers >= 0.")
        if not (self.retention < 1).all():
            raise ContractError(f"response retention must be under 1; got {self.retention.max()}.")
        positive(lags=self.lags, period_days=self.period_days, population=float(self.population.min()))

    @property
    def channels(self) -> tuple[str, ...]:
        """Paid channels, in the order of every C axis."""
        return self.steady.channels

    @property
    def geos(self) -> tuple[str, ...]:
        """Geos, in the order of every G axis."""
        return self.steady.geos

    @property
    def draws(self) -> int:
        """D."""
        return len(self.steady.weights)
