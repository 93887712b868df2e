"""The KPI under a plan, with intervals, and how such forecasts did: coverage and CRPS by horizon.

Demand and media are added draw by draw: a draw with more media has less demand, and only the pair knows their sum.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from contracts.errors import ContractError
from planning.summary import weighted_interval
from planning.surface import Surface, evaluate


def forecast_draws(surface: Surface, spend: np.ndarray, demand: np.ndarray) -> np.ndarray:
    """KPI (D, T) over all geos under a plan (T, G, C): demand without paid media (D, T), what is in flight, the plan.

    `demand` must be of the surface's own draws, in their order. Raises ContractError on another shape.
    """
    shape = (surface.response.draws, surface.periods)
    if demand.shape != shape or not np.isfinite(demand).all():
        raise ContractError(f"demand must be finite numbers by draw and period {shape}; got shape {demand.shape}.")
    found = evaluate(surface, spend)
    return demand + (found.plan + found.in_flight)[:, :, : surface.periods].sum(axis=0)


def kpi_forecast(surface: Surface, spend: np.ndarray, demand: np.ndarray) -> pd.DataFrame:
    """The forecast by period, and cumulative from the start: period_start, scope ('period', 'to date'), mean, sd, p05
    to p95, KPI units."""
    draws = forecast_draws(surface, spend, demand)
    rows = []
    for scope, values in (("period", draws), ("to date", np.cumsum(draws, axis=1))):
        for day, column in zip(surface.dates(), values.T, strict=True):
            rows.append({"period_start": day, "scope": scope} | weighted_interval(column, surface.weights))
    return pd.DataFrame(rows)


def crps(draws: np.ndarray, weights: np.ndarray, actual: float) -> float:
    """Continuous ranked probability score of weighted draws (D,), in the unit of the draws; 0 is a sure hit.

    E|X − y| − E|X − X'| / 2 (Gneiting and Raftery, 2007, equation 21), the second term from the sorted draws.
    """
    order = np.argsort(draws)
    x, w = draws[order], weights[order]
    below = np.cumsum(w) - w / 2  # mass under each draw, half of its own
    spread = 2.0 * float(np.sum(w * x * (2.0 * below - 1.0)))
    return float(np.sum(w * np.abs(x - actual))) - spread / 2.0


def back_test(draws: np.ndarray, actual: np.ndarray, weights: np.ndarray | None = None) -> pd.DataFrame:
    """One past forecast against what came: draws (D, H), actual (H,), NaN where the KPI is missing.

    One row a horizon: horizon (1 is the first period), actual, mean, error (mean − actual), crps, inside80, inside90,
    rank (share of draws under the actual: uniform where forecasts are honest).
    """
    if draws.ndim != 2 or draws.shape[1] != len(actual):
        raise ContractError(f"forecast and actuals must have one horizon; got {draws.shape} and {actual.shape}.")
    w = np.full(len(draws), 1.0 / len(draws)) if weights is None else weights
    rows = []
    for h, (column, y) in enumerate(zip(draws.T, actual, strict=True)):
        if not np.isfinite(y):
            continue
        found = weighted_interval(column, w)
        rows.append(
            {
                "horizon": h + 1,
                "actual": float(y),
                "mean": found["mean"],
                "error": found["mean"] - float(y),
                "crps": crps(column, w, float(y)),
                "inside80": found["p10"] <= y <= found["p90"],
                "inside90": found["p05"] <= y <= found["p95"],
                "rank": float(w @ (column < y)),
            }
        )
    return pd.DataFrame(rows)


def by_horizon(tests: Sequence[pd.DataFrame], bins: Sequence[int] = (1, 4, 8, 13)) -> pd.DataFrame:
    """Back-tests together, by horizon up to each of `bins`: forecasts, coverage of the 80 % and 90 % intervals, mean
    CRPS and mean error, the last two relative to the mean actual."""
    if not tests or list(bins) != sorted(set(bins)):
        raise ContractError("a summary needs at least one back-test, and horizons that rise.")
    table = pd.concat(tests, ignore_index=True)
    edges, rows = [0, *bins], []
    for low, high in zip(edges, edges[1:], strict=False):
        part = table[(table["horizon"] > low) & (table["horizon"] <= high)]
        if part.empty:
            continue
        level = part["actual"].mean()
        rows.append(
            {
                "horizon": str(high) if high == low + 1 else f"{low + 1} to {high}",
                "forecasts": len(part),
                "covered80": part["inside80"].mean(),
                "covered90": part["inside90"].mean(),
                "crps": part["crps"].mean() / level,
                "error": part["error"].mean() / level,
            }
        )
    return pd.DataFrame(rows)
