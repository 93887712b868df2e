"""Synthetic control on predictors, with their importance chosen so that the outcome before the test is followed best.

Abadie and Gardeazabal (2003): w(V) = argmin (X1 − X0 w)' V (X1 − X0 w) on the simplex, and V = argmin of the squared
gap of the outcome over the fitting periods. For panels with few long series and a table of predictors per geo.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize

from contracts.errors import ContractError
from lift.weights import simplex_weights


@dataclass(frozen=True, slots=True)
class PredictorFit:
    """Weights of donors (J,), importance of predictors (Q,) and the mean squared gap over the fitting periods."""

    weights: np.ndarray
    importance: np.ndarray
    loss: float


def predictor_weights(
    treated: np.ndarray, donors: np.ndarray, y: np.ndarray, x: np.ndarray, *, starts: int = 0, seed: int = 0
) -> PredictorFit:
    """`treated` (Q,), `donors` (Q, J) predictors; `y` (T,), `x` (J, T) outcome over the fitting periods.

    Predictors are scaled by their spread over all geos. The outer search (Powell) starts from equal importance, from
    regression importance and from `starts` random points: the published results are local, more starts look
    further. Raises ContractError for a predictor that is missing or never varies.
    """
    both = np.column_stack([treated, donors])
    if not np.isfinite(both).all():
        raise ContractError("a predictor has missing values for the treated geo or a donor; leave it or the geo out.")
    spread = both.std(axis=1, ddof=1)
    if (spread == 0).any():
        raise ContractError("a predictor is the same number in every geo; leave it out.")
    target, inside = treated / spread, donors / spread[:, None]

    def weights_at(logits: np.ndarray) -> np.ndarray:
        root = np.exp(0.5 * (logits - logits.max()))
        return simplex_weights(root * target, (root[:, None] * inside).T)

    def loss(logits: np.ndarray) -> float:
        return float(((y - weights_at(logits) @ x) ** 2).mean())

    rng = np.random.default_rng(seed)
    begin = [np.zeros(len(target)), _regression_importance(both / spread[:, None], np.vstack([y, x]))]
    begin += [2.0 * rng.standard_normal(len(target)) for _ in range(starts)]
    runs = [optimize.minimize(loss, b, method="Powell") for b in begin]
    best = min(runs, key=lambda r: float(r.fun))
    importance = np.exp(best.x - best.x.max())
    return PredictorFit(weights_at(best.x), importance / importance.sum(), float(best.fun))


def _regression_importance(predictors: np.ndarray, outcome: np.ndarray) -> np.ndarray:
    """Log importance (Q,) from the coefficients of the outcome (G, T) on the predictors (Q, G)."""
    design = np.column_stack([np.ones(predictors.shape[1]), predictors.T])
    coefficients = np.linalg.lstsq(design, outcome, rcond=None)[0][1:]
    size = (coefficients**2).sum(axis=1)
    return np.log(np.maximum(size / size.sum(), 1e-8))
