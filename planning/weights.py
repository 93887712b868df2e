"""Calibrated draws, importance-weighted to the reconciled channel totals (DESIGN section 5).

log w[d] = log N(x[d]; m_rec, S_rec) − log N(x[d]; m_cal, S_cal), x[d] = log channel totals of calibrated draw d, both
normals fitted to draws of log totals; then Pareto-smoothed (Vehtari, Simpson, Gelman, Yao, Gabry 2024).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from arviz_stats.base.array import array_stats
from scipy.linalg import cholesky, solve_triangular

from contracts.errors import ContractError

MIN_ESS = 400.0  # under it the caller refits (DESIGN section 5)


@dataclass(frozen=True, slots=True)
class Weights:
    """Importance weights of the calibrated draws."""

    weights: np.ndarray  # (D,), sum 1
    ess: float  # 1 / sum of squares
    pareto_k: float  # shape of the tail: over 0.7 the weights cannot be trusted

    @property
    def enough(self) -> bool:
        """False when the effective sample size asks for a refit."""
        return self.ess >= MIN_ESS


def _log_normal_density(x: np.ndarray, fitted_to: np.ndarray) -> np.ndarray:
    """Log density (D,), up to a constant, of rows x (D, C) under the normal fitted to rows of `fitted_to` (S, C)."""
    mean = fitted_to.mean(axis=0)
    cov = np.atleast_2d(np.cov(fitted_to.T))
    root = cholesky(cov + 1e-10 * np.eye(len(cov)), lower=True)
    z = solve_triangular(root, (x - mean).T, lower=True)
    return -0.5 * np.sum(z**2, axis=0) - np.log(np.diag(root)).sum()


def importance_weights(calibrated_totals: np.ndarray, reconciled_totals: np.ndarray) -> Weights:
    """Weights of calibrated draws, totals (D, C), that carry them to the reconciled totals (S, C); KPI units, all > 0.

    Raises ContractError where shapes, signs or the number of draws do not allow it.
    """
    for name, totals in (("calibrated", calibrated_totals), ("reconciled", reconciled_totals)):
        if totals.ndim != 2 or not (np.isfinite(totals).all() and (totals > 0).all()):
            raise ContractError(f"{name} totals must be a table of finite numbers > 0, draws × channels.")
        if len(totals) <= 2 * totals.shape[1]:
            raise ContractError(f"{name} totals need more than {2 * totals.shape[1]} draws; got {len(totals)}.")
    if calibrated_totals.shape[1] != reconciled_totals.shape[1]:
        raise ContractError(
            f"calibrated and reconciled totals must hold the same channels; got {calibrated_totals.shape[1]} and "
            f"{reconciled_totals.shape[1]}."
        )
    x = np.log(calibrated_totals)
    ratio = _log_normal_density(x, np.log(reconciled_totals)) - _log_normal_density(x, x)
    # ArviZ takes log-likelihoods, the negative of log ratios, as in leave-one-out.
    smoothed, shape = array_stats.psislw(-ratio)
    weights = np.exp(smoothed - smoothed.max())
    weights = weights / weights.sum()
    return Weights(weights=weights, ess=float(1.0 / np.sum(weights**2)), pareto_k=float(shape))
