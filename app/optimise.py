"""'Optimise the rest': the planning room's best split, asked for from the screen."""

from __future__ import annotations

import numpy as np
from planning.allocate import best_split

from contracts.response import SteadyResponse


def best_spend(response: SteadyResponse, budget: float, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Spend (C,) per channel with the highest expected outcome, inside [low, high] and adding up to `budget`."""
    return best_split(response, budget, low, high)
