"""'Optimise the rest': the planning room's best plan, asked for from the screen."""

from __future__ import annotations

import numpy as np

from planning.limits import Limit
from planning.optimise import Problem, optimise
from planning.surface import Surface


def best_spend(surface: Surface, budget: float, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Spend (C,), currency per period, with the highest expected outcome of the held plan, inside [low, high] and
    adding up to `budget`; what the plan works after its period counts.

    Raises ContractError for bounds that no split can meet.
    """
    periods, total = surface.periods, round(budget * surface.periods, 2)
    rules = [Limit(name="budget", low=total, high=total)]
    for c, channel in enumerate(surface.response.channels):
        # Outwards by a cent, so that a channel locked where it is stays feasible.
        bounds = max(low[c] * periods - 0.01, 0.0), high[c] * periods + 0.01
        rules.append(Limit(name=f"limits of {channel}", low=bounds[0], high=bounds[1], channels=(channel,)))
    return optimise(Problem(surface=surface, rules=tuple(rules))).spend.sum(axis=(0, 1)) / periods
