"""Incremental return on ad spend: incremental outcome over spend change, with an interval."""

from __future__ import annotations

import math

from scipy import stats

from contracts.evidence import LiftEstimate


def iroas(estimate: LiftEstimate) -> dict[str, float]:
    """`iroas`, `iroas_p05`, `iroas_p95` in metric units per currency; NaN when the spend change is 0 or unknown.

    Known spend: the interval of the outcome divided by it. Uncertain spend: Fieller's set {r : |mean − r·spend| <=
    t·sqrt(se² + r²·spend_se²)}, which holds the ratio at its stated level. Where the spend change itself is not clear
    of 0 (|spend| <= t·spend_se) that set is unbounded and both ends are NaN.
    """
    nan = float("nan")
    spend, se_spend = estimate.spend_delta, estimate.spend_delta_se
    if math.isnan(spend) or spend == 0:
        return {"iroas": nan, "iroas_p05": nan, "iroas_p95": nan}
    ratio = estimate.mean / spend
    t = float(stats.t(estimate.dof).ppf(0.95) if math.isfinite(estimate.dof) else stats.norm.ppf(0.95))
    a = spend**2 - (t * se_spend) ** 2
    if a <= 0:
        return {"iroas": ratio, "iroas_p05": nan, "iroas_p95": nan}
    b = estimate.mean * spend
    c = estimate.mean**2 - (t * estimate.std_error) ** 2
    half = math.sqrt(max(b * b - a * c, 0.0))
    return {"iroas": ratio, "iroas_p05": (b - half) / a, "iroas_p95": (b + half) / a}
