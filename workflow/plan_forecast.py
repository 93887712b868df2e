"""The KPI over the planning period under a plan: demand without paid media, what is in flight, what the plan adds.

Demand comes from the same draws of the model as the response. Where a channel's total was carried to the reconciled one
by scaling (decision 0045), demand gives up what media took: the sum of the two at today's spend stays what was fitted.
The planning period's price, promotion and other controls are those of the same weeks a year before, or the mean of the
last 13 weeks where the data do not reach so far; this is an assumption.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from contracts.panel import Panel
from contracts.surface import DynamicResponse
from mmm.forecast import demand_forecast
from mmm.posterior import Posterior
from mmm.spec import ModelSpec
from planning.forecast import forecast_draws
from planning.summary import weighted_interval
from planning.surface import Surface, evaluate

COLUMNS = ("scenario", "period_start", "scope", "mean", "sd", "p05", "p10", "p50", "p90", "p95", "demand", "carried_in",
           "plan")  # fmt: skip
YEAR_WEEKS, RECENT_WEEKS = 52, 13


def planned_controls(panel: Panel, periods: int) -> np.ndarray:
    """Controls (G, periods, K) after the panel: a year before, or the mean of the last 13 weeks."""
    per_week, length = max(7 // panel.period_days, 1), len(panel.weeks)
    year, recent = YEAR_WEEKS * per_week, panel.controls[:, -RECENT_WEEKS * per_week :].mean(axis=1)
    out = np.empty((len(panel.geos), periods, len(panel.control_names)))
    for h in range(periods):
        at = length + h - year
        while at >= length:
            at -= year
        out[:, h] = panel.controls[:, at] if at >= 0 else recent
    return out


def demand_draws(
    panel: Panel, spec: ModelSpec, posterior: Posterior, response: DynamicResponse, at: np.ndarray,
    factor: np.ndarray | None, surface: Surface, seed: int,
) -> np.ndarray:  # fmt: skip
    """Demand without paid media (D, T) over all geos in the planning period, on the draws `at` of the posterior whose
    amplitudes were multiplied by `factor` (D, C); residual and released noise included."""
    gap = (surface.start - panel.weeks[-1]).days // panel.period_days - 1
    periods = gap + surface.periods
    demand = demand_forecast(
        panel, spec, posterior, periods, controls=planned_controls(panel, periods), draws=posterior.draws, seed=seed
    )
    total = demand.observed.sum(axis=1)[at][:, gap:]
    if factor is None:
        return total
    media = response.steady.evaluate(response.steady.current_spend).sum(axis=1)[:, : factor.shape[1]]  # (D, C)
    return total - (media * (1 - 1 / factor)).sum(axis=1)[:, None]


def forecast_rows(surface: Surface, plans: dict[str, np.ndarray], demand: np.ndarray) -> pd.DataFrame:
    """Rows of v_forecast: the KPI by week of the period and to date, with its expected parts; COLUMNS."""
    per_week = max(7 // surface.response.period_days, 1)
    at, weights = np.arange(0, surface.periods, per_week), surface.weights
    rows = []
    for name, spend in plans.items():
        found = evaluate(surface, spend)
        parts = {
            "demand": demand,
            "carried_in": found.in_flight[:, :, : surface.periods].sum(axis=0),
            "plan": found.plan[:, :, : surface.periods].sum(axis=0),
        }
        whole = np.add.reduceat(forecast_draws(surface, spend, demand), at, axis=1)
        means = {k: weights @ np.add.reduceat(v, at, axis=1) for k, v in parts.items()}
        for scope, draws in (("week", whole), ("to_date", np.cumsum(whole, axis=1))):
            for w, first in enumerate(at):
                expected = {k: float(v[w] if scope == "week" else v[: w + 1].sum()) for k, v in means.items()}
                key = {"scenario": name, "period_start": surface.dates()[int(first)], "scope": scope}
                rows.append(key | weighted_interval(draws[:, w], weights) | expected)
    return pd.DataFrame(rows, columns=list(COLUMNS))
