"""'Optimise the rest': the planning room's best split, asked for from the screen."""

from __future__ import annotations

import numpy as np

from contracts.response import SteadyResponse
from planning.allocate import best_split


def best_spend(response: SteadyResponse, budget: float, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Spend (C,) in whole cents with the highest expected outcome, inside [low, high] and adding up to `budget`.

    Raises ContractError for bounds that no split can meet.
    """
    return best_split(response, budget, lower=low, upper=high).spend
