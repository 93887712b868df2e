"""Forecast of a sum of gaps: AR(1) movement of unknown size, released noise of known size, all in one Gaussian.

| on paper | here | dims | unit |
|---|---|---|---|
| g[t] | gap | period | share of the treated level |
| X | design | period, coefficient | level, control slope − 1, drift per year |
| e[t] | AR(1) + white, sd sigma, correlation phi, white share omega | | share of level |
| n[t] | noise | period | variance of released noise, share² |

g = X theta + e + n. Given (sigma, phi, omega) the sum over the window is universal kriging; the three are not plugged
in but averaged over their restricted likelihood on a grid, so that not knowing them widens the answer. The mixture is
then written as the one t distribution that has its 95 % and 97.5 % quantiles. Decision 0020.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg, optimize, special, stats

PHI = np.array([0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.87, 0.95])
WHITE = np.array([0.0, 0.35, 0.7])
WHITE_PRIOR = np.array([0.8, 0.15, 0.05])  # mostly AR(1) alone; long memory under white noise is the rarer case
DOF = np.geomspace(2.5, 1000.0, 200)
SIGMA = np.geomspace(0.06, 3.2, 16)  # times the residual sd of ordinary least squares


@dataclass(frozen=True, slots=True)
class History:
    """What was seen before the test. All in shares of the treated level."""

    times: np.ndarray  # (T,) integers, in periods; may have holes
    gap: np.ndarray  # (T,)
    design: np.ndarray  # (T, 3)
    noise: np.ndarray  # (T,) released variance of the gap
    regressor_variance: np.ndarray  # (T,) error variance of the control factor (column 1 of the design)


@dataclass(frozen=True, slots=True)
class Window:
    """The sum to forecast: `n` observed periods of the test."""

    times: np.ndarray  # (n,)
    gap: np.ndarray  # (n,)
    design: np.ndarray  # (n, 3)
    noise: np.ndarray  # (n,)


@dataclass(frozen=True, slots=True)
class SumEffect:
    """Sum of (gap − forecast) over the window, as mean + scale · t(dof); shares of the treated level."""

    mean: float
    scale: float
    dof: float
    released_variance: float  # part of the variance that is released noise, of window and history
    history_weights: np.ndarray  # (T,): mean = sum(window gap) − history_weights @ history gap + small terms
    phi: float  # averaged over the grid
    sigma: float


def _cell(
    history: History, window: Window, prior: np.ndarray, sigmas: np.ndarray, phi: float, white: float
) -> tuple[np.ndarray, ...]:
    """All sigmas at one (phi, omega) from a single eigen-decomposition: log weight, mean, variance, weights."""
    t, w = history.times, window.times
    lags = np.abs(t[:, None] - t[None, :])
    corr = (1 - white) * np.power(phi, lags) + white * np.eye(len(t))
    lower = np.linalg.cholesky(corr)
    inner = linalg.solve_triangular(lower, np.diag(history.noise), lower=True)
    inner = linalg.solve_triangular(lower, inner.T, lower=True)
    lam, vectors = np.linalg.eigh((inner + inner.T) / 2)
    rotate = vectors.T @ linalg.solve_triangular(lower, np.eye(len(t)), lower=True)  # (T, T)
    x, g = rotate @ history.design, rotate @ history.gap
    cross = (1 - white) * np.power(phi, np.abs(t[:, None] - w[None, :])).sum(axis=1)
    within = ((1 - white) * np.power(phi, np.abs(w[:, None] - w[None, :]))).sum() + white * len(w)
    k, spread = rotate @ cross, (rotate**2) @ history.regressor_variance
    target = window.design.sum(axis=0)
    logdet = 2 * np.log(np.diag(lower)).sum()
    rows = [
        _forecast(s**2, np.maximum(lam, 0.0), x, g, k, within, spread, target, prior, rotate, logdet) for s in sigmas
    ]
    log_weight, forecast, variance, weights = (np.array(c) for c in zip(*rows, strict=True))
    return log_weight, window.gap.sum() - forecast, variance + window.noise.sum(), weights


def _forecast(
    s2: float,
    lam: np.ndarray,
    x: np.ndarray,
    g: np.ndarray,
    k: np.ndarray,
    within: float,
    spread: np.ndarray,
    target: np.ndarray,
    prior: np.ndarray,
    rotate: np.ndarray,
    logdet: float,
) -> tuple[float, float, float, np.ndarray]:
    """Kriging of the window sum at one sigma², in the rotated space where the covariance is diag(s2 + lam)."""
    inverse = 1 / (s2 + lam)
    xi = x * inverse[:, None]
    information = x.T @ xi
    # The control factor carries errors of its own. They inflate its sum of squares and pull the slope towards zero;
    # both are taken out in expectation, but never more than nine tenths of the slope's information.
    rest = [0, 2]
    cross = np.linalg.solve(information[np.ix_(rest, rest)] + np.diag(prior[rest]), information[rest, 1])
    partial = information[1, 1] - information[1, rest] @ cross
    correction = min(float((spread * inverse).sum()), 0.9 * max(float(partial), 0.0))
    precision = information + np.diag(prior)
    precision[1, 1] -= correction
    right = xi.T @ g
    right[1] += correction
    theta = np.linalg.solve(precision, right)
    residual = g - x @ theta
    k_scaled = s2 * k
    kriged = k_scaled * inverse
    gradient = target - xi.T @ k_scaled
    solved = np.linalg.solve(precision, gradient)
    variance = s2 * within - k_scaled @ kriged + gradient @ solved
    quadratic = residual @ (inverse * residual) + theta @ (prior * theta)
    log_weight = -0.5 * (logdet + np.log(s2 + lam).sum() + np.linalg.slogdet(precision)[1] + quadratic)
    weights = (kriged + xi @ solved) @ rotate
    return log_weight, float(target @ theta + kriged @ residual), float(variance), weights


def _tail_quantile(weight: np.ndarray, shift: np.ndarray, sd: np.ndarray, tail: float) -> float:
    """x with P(|X| > x) = 2 tail, X the mixture of normals (±shift, sd)."""

    def excess(x: float) -> float:
        return float(weight @ (special.ndtr((shift - x) / sd) + special.ndtr((-shift - x) / sd))) / 2 - tail

    high = float((shift + 10 * sd).max())
    return float(optimize.brentq(excess, 0.0, high, xtol=1e-10 * high))


def matching_t(weight: np.ndarray, shift: np.ndarray, sd: np.ndarray) -> tuple[float, float]:
    """Scale and degrees of freedom of the t whose 95 and 97.5 % quantiles are those of the mixture."""
    q95, q975 = (_tail_quantile(weight, shift, sd, tail) for tail in (0.05, 0.025))
    table = stats.t.ppf(0.975, DOF) / stats.t.ppf(0.95, DOF)  # falls as the degrees of freedom grow
    dof = float(np.interp(-q975 / q95, -table, DOF))
    return q95 / float(stats.t.ppf(0.95, dof)), dof


def sum_effect(history: History, window: Window, prior: np.ndarray) -> SumEffect:
    """Effect over the window as a t distribution. `prior` (3,) is the precision of each coefficient (0: flat).

    Draws nothing; the same input gives the same output.
    """
    fit = np.linalg.lstsq(np.vstack([history.design, np.diag(np.sqrt(prior))]), np.r_[history.gap, 0, 0, 0], rcond=None)
    residual = history.gap - history.design @ fit[0]
    sigmas = SIGMA * float(np.sqrt(residual @ residual / (len(residual) - 2)))
    cells = [(_cell(history, window, prior, sigmas, p, w), p) for p in PHI for w in WHITE]
    # Prior: (1 − phi²)^-1/2 in phi; sigma^-1/2 in sigma, which is + log(sigma) / 2 on a logarithmic grid.
    log_weight = np.concatenate([c[0] + 0.5 * np.log(sigmas) - 0.5 * np.log1p(-(p**2)) for c, p in cells])
    prior_mass = np.repeat(np.outer(np.gradient(PHI), WHITE_PRIOR).ravel(), len(sigmas))
    weight = prior_mass * np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    means = np.concatenate([c[1] for c, _ in cells])
    variances = np.concatenate([c[2] for c, _ in cells])
    history_weights = np.concatenate([c[3] for c, _ in cells])
    mean = float(weight @ means)
    scale, dof = matching_t(weight, np.abs(means - mean), np.sqrt(variances))
    released = float(window.noise.sum() + weight @ (history_weights**2 @ history.noise))
    return SumEffect(
        mean=mean,
        scale=scale,
        dof=dof,
        released_variance=released,
        history_weights=weight @ history_weights,
        phi=float(weight @ np.concatenate([np.full(len(sigmas), p) for _, p in cells])),
        sigma=float(weight @ np.tile(sigmas, len(cells))),
    )
