"""What a plan is worth in money: revenue, contribution after its cost, and when it has paid for itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planning.surface import Outcome, Surface, value_per_kpi


@dataclass(frozen=True, slots=True)
class Worth:
    """Money of one plan on the posterior draws, currency, carry-over after the period included."""

    revenue: np.ndarray  # (D,)
    contribution: np.ndarray | None  # (D,) margin × revenue − spend; None where the margin is not stated
    payback: np.ndarray | None  # (D,) weeks from the plan's first day until the contribution has covered all its spend
    weeks: float  # that were looked at; a payback later than that is inf


def worth(surface: Surface, outcome: Outcome, spend: float) -> Worth | None:
    """Money that an outcome brings against `spend` (currency); None where a KPI unit has no price."""
    if surface.price is None:
        return None
    brought = outcome.plan.sum(axis=0)  # (D, T + L − 1)
    week = surface.response.period_days / 7
    weeks = brought.shape[1] * week
    revenue = brought @ value_per_kpi(surface, "revenue")
    if surface.assumptions.margin is None:
        return Worth(revenue, None, None, weeks)
    earned = np.cumsum(brought * value_per_kpi(surface, "margin"), axis=1)
    return Worth(revenue, earned[:, -1] - spend, _first(earned >= spend) * week, weeks)


def _first(reached: np.ndarray) -> np.ndarray:
    """Number of the first period (D,), from 1, in which (D, T) holds; inf where it never does."""
    return np.where(reached.any(axis=1), reached.argmax(axis=1) + 1.0, np.inf)
