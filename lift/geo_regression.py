"""Geo-based regression (Vaver and Koehler 2011): iROAS from the spend differences of randomised geos.

y_test[g] = b0 + b1 y_pre[g] + b2 cost[g], weighted by y_pre[g]^-2; iROAS = b2. `cost` is the spend change that the test
made in geo g. Released noise of y_test adds to a geo's variance, so weights are (y_pre² · s² + noise)^-1, s² settled by
a few rounds; with exact data they are the published ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from contracts.errors import ContractError

_ROUNDS = 8


@dataclass(frozen=True, slots=True)
class ReturnOnSpend:
    """iROAS in KPI units per currency with its interval; `half_width` is the one-sided precision at `level`."""

    iroas: float
    std_error: float
    dof: float
    level: float
    lower: float
    upper: float
    p_value: float

    @property
    def half_width(self) -> float:
        """Distance from the estimate to its one-sided bound at `level`."""
        return self.std_error * float(stats.t(self.dof).ppf(self.level))


def geo_regression(
    before: np.ndarray, during: np.ndarray, cost: np.ndarray, *, noise: np.ndarray | None = None, level: float = 0.95
) -> ReturnOnSpend:
    """`before`, `during` (G,) KPI sums, `cost` (G,) spend change, `noise` (G,) released variance of `during`.

    Raises ContractError for fewer than 4 geos, a geo without KPI before the test, or the same cost everywhere.
    """
    if len(before) < 4:
        raise ContractError(f"geo regression needs at least 4 geos; got {len(before)}.")
    if not (before > 0).all():
        raise ContractError("geo regression weighs geos by their KPI before the test, which must be > 0 in every geo.")
    if np.ptp(cost) == 0:
        raise ContractError("the spend change is the same in every geo, so no return can be read from it; check spend.")
    design = np.column_stack([np.ones(len(before)), before, cost])
    dof, s2 = len(before) - 3, 1.0
    known = np.zeros(len(before)) if noise is None else noise
    for _ in range(_ROUNDS if known.any() else 1):
        weights = 1 / (before**2 + known / s2)
        inverse = np.linalg.inv(design.T @ (weights[:, None] * design))
        beta = inverse @ (design.T @ (weights * during))
        residual = during - design @ beta
        s2 = max(float(weights @ residual**2) / dof, 1e-12)
    estimate, se = float(beta[2]), float(np.sqrt(s2 * inverse[2, 2]))
    reference = stats.t(dof)
    half = se * float(reference.ppf(0.5 + level / 2))
    return ReturnOnSpend(
        estimate, se, dof, level, estimate - half, estimate + half, float(2 * reference.sf(abs(estimate) / se))
    )
