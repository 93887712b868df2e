"""What the Scenarios page asks the planning room for: the best split of a budget, and the least budget for a target."""

from __future__ import annotations

import numpy as np

from planning.goals import least_budget
from planning.limits import Limit
from planning.optimise import Problem, optimise
from planning.surface import Surface


def best_spend(surface: Surface, budget: float, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Spend (C,), currency per period, with the highest expected outcome of the held plan, inside [low, high] and
    adding up to `budget`; what the plan works after its period counts.

    Raises ContractError for bounds that no split can meet.
    """
    total = round(budget * surface.periods, 2)
    rules = (Limit(name="budget", low=total, high=total), *_bounds(surface, low, high))
    return optimise(Problem(surface=surface, rules=rules)).spend.sum(axis=(0, 1)) / surface.periods


def least_spend(
    surface: Surface, target: float, probability: float, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, float]:
    """Spend (C,), currency per period, of the cheapest plan inside [low, high] that causes `target` KPI units per
    period with `probability`, and the probability with which it does.

    Raises ContractError where no plan inside the bounds reaches it.
    """
    problem = Problem(surface=surface, rules=_bounds(surface, low, high))
    most = float(high.sum()) * surface.periods + 1.0
    found = least_budget(problem, target * surface.periods, probability, most=most)
    return found.best.spend.sum(axis=(0, 1)) / surface.periods, found.probability


def _bounds(surface: Surface, low: np.ndarray, high: np.ndarray) -> tuple[Limit, ...]:
    """Outwards by a cent, so that a channel locked where it is stays feasible."""
    periods, channels = surface.periods, surface.response.channels
    return tuple(
        Limit(name=f"limits of {c}", low=max(a * periods - 0.01, 0.0), high=b * periods + 0.01, channels=(c,))
        for c, a, b in zip(channels, low, high, strict=True)
    )
