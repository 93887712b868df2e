"""Incremental return on ad spend: incremental outcome over spend change, with an interval."""

from __future__ import annotations

import math

from scipy import stats

from contracts.errors import ContractError
from contracts.evidence import LiftEstimate


def iroas(estimate: LiftEstimate) -> dict[str, float]:
    """`iroas`, `iroas_p05`, `iroas_p95` in metric units per currency; NaN when the spend change is 0 or unknown.

    Known spend: the interval of the outcome divided by it. Uncertain spend: Fieller's set {r : |mean − r·spend| <=
    t·sqrt(se² − 2 r c + r²·spend_se²)}, c = correlation · se · spend_se, which holds the ratio at its stated level.
    Where the spend change itself is not clear of 0 (|spend| <= t·spend_se) that set is unbounded and both ends are NaN.
    """
    nan = float("nan")
    spend, se_spend = estimate.spend_delta, estimate.spend_delta_se
    if math.isnan(spend) or spend == 0:
        return {"iroas": nan, "iroas_p05": nan, "iroas_p95": nan}
    ratio = estimate.mean / spend
    t = float(stats.t(estimate.dof).ppf(0.95) if math.isfinite(estimate.dof) else stats.norm.ppf(0.95))
    shared = estimate.spend_correlation * estimate.std_error * se_spend
    a = spend**2 - (t * se_spend) ** 2
    if a <= 0:
        return {"iroas": ratio, "iroas_p05": nan, "iroas_p95": nan}
    b = estimate.mean * spend - t**2 * shared
    c = estimate.mean**2 - (t * estimate.std_error) ** 2
    half = math.sqrt(max(b * b - a * c, 0.0))
    return {"iroas": ratio, "iroas_p05": (b - half) / a, "iroas_p95": (b + half) / a}


def require_iroas(estimate: LiftEstimate, *, dark: bool = False) -> dict[str, float]:
    """As `iroas`, for a caller who asked for a return. `dark`: the test was meant to cut spend.

    Raises ContractError where there is none to give: no spend change, one of the wrong sign, or one not clear of 0.
    """
    name, spend = estimate.experiment, estimate.spend_delta
    if math.isnan(spend):
        raise ContractError(f"experiment {name!r} has no spend change; give spend_delta or a spend table.")
    if spend == 0:
        raise ContractError(
            f"experiment {name!r} changed no spend (spend_delta is 0), so it has no return; check the channel and the "
            "treated geos in the spend table, or read the incremental outcome alone."
        )
    if (spend < 0) != dark:
        meant = "cut" if dark else "add"
        raise ContractError(
            f"experiment {name!r} was meant to {meant} spend, and its spend_delta is {spend:g}; correct its sign, or "
            f"say that it is {'not ' if dark else ''}a go-dark or holdback test."
        )
    found = iroas(estimate)
    if math.isnan(found["iroas_p05"]):
        raise ContractError(
            f"experiment {name!r}: its spend change of {spend:g} (se {estimate.spend_delta_se:g}) is not clear of 0, "
            "so its return has no bounded interval; declare spend_delta, or read the incremental outcome alone."
        )
    return found
