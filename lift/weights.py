"""Weights of donors, exactly: least squares on the simplex, ridge augmentation, the weights of synthetic DiD.

| on paper | here | dims |
|---|---|---|
| x1, X0 | target, donors | period ; donor, period |
| w | weights, >= 0, sum 1 (before augmentation) | donor |
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize

RIDGES = 21  # candidates of the ridge penalty, from sigma_max² down by 1e-8 (Ben-Michael et al. 2021, augsynth)


def simplex_weights(target: np.ndarray, donors: np.ndarray, penalty: float = 0.0) -> np.ndarray:
    """argmin ||target − donors.T w||² + penalty ||w||² over w >= 0, sum w = 1. `target` (T,), `donors` (J, T).

    The minimum of q(w) on the simplex is, up to scale, the non-negative v that minimises q(v) + (sum v − 1)²: for
    v = s·w the best s leaves q / (1 + q), which grows with q. So one exact active-set solve (NNLS) does it.
    """
    gaps = (donors - target).T  # (T, J); target − donors.T w = −gaps w
    rows = gaps if penalty == 0 else np.vstack([gaps, np.sqrt(penalty) * np.eye(len(donors))])
    scale = float(np.sqrt((rows**2).sum(axis=0).min()))
    if scale == 0:  # a donor that is a copy of the target takes all
        return np.eye(len(donors))[int((rows**2).sum(axis=0).argmin())]
    stacked = np.vstack([rows / scale, np.ones(len(donors))])
    v, _ = optimize.nnls(stacked, np.r_[np.zeros(len(rows)), 1.0], maxiter=50 * len(donors) + 100)
    return v / v.sum()


@dataclass(frozen=True, slots=True)
class Forecast:
    """Treated KPI without the test = intercept + weights · donors, whatever the period."""

    intercept: float
    weights: np.ndarray  # (J,)
    time_weights: np.ndarray  # (T,) weight of each period before the test in the intercept, sum 1

    def gaps(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """y − forecast, (T',). `y` (T',), `x` (J, T')."""
        return y - self.intercept - self.weights @ x


def _with_intercept(y: np.ndarray, x: np.ndarray, weights: np.ndarray, time_weights: np.ndarray) -> Forecast:
    return Forecast(float(time_weights @ (y - weights @ x)), weights, time_weights)


def even(n: int) -> np.ndarray:
    """(n,) equal weights that sum to 1."""
    return np.full(n, 1 / n)


def difference_in_differences(y: np.ndarray, x: np.ndarray, scale: float) -> Forecast:
    """Every donor alike; `scale` treated geos are compared with `scale` times the mean donor."""
    return _with_intercept(y, x, scale * even(len(x)), even(len(y)))


def synthetic_control(y: np.ndarray, x: np.ndarray, scale: float, fixed_effect: bool) -> Forecast:
    """Simplex weights times `scale`; `fixed_effect` takes each geo's own mean out first (GeoLift's default)."""
    if not fixed_effect:
        return Forecast(0.0, scale * simplex_weights(y / scale, x), even(len(y)))
    weights = simplex_weights((y - y.mean()) / scale, x - x.mean(axis=1, keepdims=True))
    return _with_intercept(y, x, scale * weights, even(len(y)))


def ridge_augmented(y: np.ndarray, x: np.ndarray, scale: float, penalty: float | None) -> Forecast:
    """Synthetic control plus a ridge step on what is left, w + X0 (X0'X0 + lambda I)^-1 (x1 − X0'w).

    Donors are centred by period. `penalty` None: the one-standard-error choice by leaving out one period at a time.
    """
    target, donors = (y - y.mean()) / scale, x - x.mean(axis=1, keepdims=True)
    weights = simplex_weights(target, donors)
    across = donors - donors.mean(axis=0)
    if penalty is None:
        penalty = ridge_by_cross_validation(target, donors)
    left = target - weights @ donors
    inner = np.linalg.solve(across.T @ across + penalty * np.eye(len(y)), left)
    return _with_intercept(y, x, scale * (weights + across @ inner), even(len(y)))


def ridge_by_cross_validation(target: np.ndarray, donors: np.ndarray) -> float:
    """Largest penalty whose held-out error is within one standard error of the least (augsynth's rule)."""
    across = donors - donors.mean(axis=0)
    top = float(np.linalg.norm(across, 2) ** 2)
    penalties = top * np.geomspace(1.0, 1e-8, RIDGES)
    errors = np.empty((len(target), RIDGES))
    for t in range(len(target)):
        keep = np.arange(len(target)) != t
        weights = simplex_weights(target[keep], donors[:, keep])
        values, vectors = np.linalg.eigh(across[:, keep] @ across[:, keep].T)  # (J, J): X (X'X + l)^-1 = (XX' + l)^-1 X
        right = vectors.T @ (across[:, keep] @ (target[keep] - weights @ donors[:, keep]))
        steps = vectors @ (right[:, None] / (np.maximum(values, 0.0)[:, None] + penalties))  # (J, RIDGES)
        errors[t] = (target[t] - (weights[:, None] + steps).T @ donors[:, t]) ** 2
    mean, se = errors.mean(axis=0), errors.std(axis=0, ddof=1) / np.sqrt(len(target))
    best = int(mean.argmin())
    return float(penalties[mean <= mean[best] + se[best]].max())


def _frank_wolfe(
    target: np.ndarray, donors: np.ndarray, penalty: float, weights: np.ndarray, least: float, rounds: int
) -> np.ndarray:
    """The reference implementation's solver, stopped where it stops: mean square falls by less than `least`²."""
    a, n, last = donors.T, len(target), np.inf
    for _ in range(rounds):
        fitted = a @ weights
        half = (fitted - target) @ a + penalty * weights
        i = int(half.argmin())
        step = -weights.copy()
        step[i] += 1.0
        if not step.any():
            break
        change = a[:, i] - fitted
        length = -(half @ step) / ((change**2).sum() + penalty * (step**2).sum())
        weights = weights + min(1.0, max(0.0, length)) * step
        value = (((a @ weights - target) ** 2).sum() + penalty * (weights**2).sum()) / n
        if last - value <= least**2:
            break
        last = value
    return weights


def _sparse_weights(target: np.ndarray, donors: np.ndarray, penalty: float, least: float) -> np.ndarray:
    """Frank-Wolfe for 100 rounds, weights under a quarter of the largest set to 0, then to convergence."""
    first = _frank_wolfe(target, donors, penalty, even(len(donors)), least, 100)
    kept = np.where(first <= first.max() / 4, 0.0, first)
    return _frank_wolfe(target, donors, penalty, kept / kept.sum(), least, 10_000)


def synthetic_did(y: np.ndarray, x: np.ndarray, scale: float, after: np.ndarray, sparse: bool = True) -> Forecast:
    """Arkhangelsky et al. (2021): simplex weights of donors (with a ridge) and of periods, then a double difference.

    `after` (J, n) donors in the window; zeta = (K n)^(1/4) sd of the donors' first differences, K = `scale`. `sparse`:
    the published algorithm, which sparsifies and stops early; otherwise the exact minimum of the same objective.
    """
    sd = float(np.diff(x, axis=1).std(ddof=1))
    mean = after.mean(axis=1)
    unit = ((y - y.mean()) / scale, x - x.mean(axis=1, keepdims=True), np.sqrt(scale * after.shape[1]) * sd**2 * len(y))
    time = (mean - mean.mean(), (x - x.mean(axis=0)).T, 1e-12 * sd**2 * len(x))
    if sparse:
        weights, periods = _sparse_weights(*unit, 1e-5 * sd), _sparse_weights(*time, 1e-5 * sd)
    else:
        weights, periods = simplex_weights(*unit), simplex_weights(*time)
    return _with_intercept(y, x, scale * weights, periods)
