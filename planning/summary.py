"""Interval columns of weighted posterior draws; with equal weights the same figures as `contracts.intervals`."""

from __future__ import annotations

import numpy as np

from contracts.errors import ContractError
from contracts.intervals import QUANTILES


def weighted_quantile(draws: np.ndarray, weights: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Quantiles (Q,) of draws (D,) with weights (D,), sum 1: linear between the centres of the sorted weights, which is
    numpy's default rule where weights are equal."""
    draws, weights = draws[weights > 0], weights[weights > 0]
    order = np.argsort(draws, kind="stable")
    mass = weights[order]
    centre = np.cumsum(mass) - mass / 2
    if len(draws) == 1 or centre[-1] <= centre[0]:
        return np.full(len(q), draws[order][-1])
    return np.interp(q, (centre - centre[0]) / (centre[-1] - centre[0]), draws[order])


def weighted_interval(draws: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    """mean, sd and p05 to p95 of draws (D,) under weights (D,), sum 1. Raises ContractError on a misfit."""
    if draws.shape != weights.shape or draws.ndim != 1:
        raise ContractError(f"draws and weights must be vectors of one length; got {draws.shape} and {weights.shape}.")
    mean = float(weights @ draws)
    freedom = 1.0 - float(weights @ weights)  # reliability weights: n - 1 over n where they are equal
    sd = float(np.sqrt(weights @ (draws - mean) ** 2 / freedom)) if freedom > 0 else 0.0
    quantiles = weighted_quantile(draws, weights, np.array(list(QUANTILES.values())))
    return {"mean": mean, "sd": sd} | {name: float(v) for name, v in zip(QUANTILES, quantiles, strict=True)}
