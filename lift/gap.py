"""Forecast of a sum of gaps: AR(1) movement of unknown size, released noise of known size, all in one Gaussian.

| on paper | here | dims | unit |
|---|---|---|---|
| g[t] | gap | period | share of the treated level |
| X | design | period, coefficient | level, control slope − 1, drift per year |
| e[t] | AR(1) + white, sd sigma, correlation phi, white share omega | | share of level |
| n[t] | noise | period | variance of released noise, share² |

g = X theta + e + n. Given (sigma, phi, omega) the sum over the window is universal kriging; the three are not plugged
in but averaged over their restricted likelihood on a grid, so that not knowing them widens the answer. What the donors
say about the three enters as their prior (lift/movement.py). The mixture is then written as the one t distribution that
has its 95 % and 97.5 % quantiles. Decisions 0020 and 0140.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import optimize, special, stats

PHI = np.array([0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.87, 0.95])
WHITE = np.array([0.0, 0.2, 0.45, 0.7])
WHITE_PRIOR = np.array([0.7, 0.15, 0.1, 0.05])  # mostly AR(1) alone; long memory under white noise is the rarer case
SLOPE_SD = 0.25  # how far the treated geos' response to the common factor may differ from proportional
DRIFT_SD = 0.05  # how far a geo may drift from the controls in one year, share of its level
WEEKDAY_SD = 0.05  # how far a geo's week may be shaped otherwise than the controls', share of level per harmonic
DOF = np.geomspace(2.5, 1000.0, 200)
SIGMA = np.geomspace(0.06, 3.2, 16)  # times the residual sd of ordinary least squares


@dataclass(frozen=True, slots=True)
class History:
    """What was seen before the test. All in shares of the treated level."""

    times: np.ndarray  # (T,) integers, in periods; may have holes
    gap: np.ndarray  # (T,)
    design: np.ndarray  # (T, C); column 1 is the control factor less 1
    noise: np.ndarray  # (T,) released variance of the gap
    factor_own: float  # variance of the control factor's error from the donors' own movement, as correlated as the gap
    factor_noise: np.ndarray  # (T,) variance of the control factor from released noise


@dataclass(frozen=True, slots=True)
class Window:
    """The periods to forecast: `n` observed periods of the test."""

    times: np.ndarray  # (n,)
    gap: np.ndarray  # (n,)
    design: np.ndarray  # (n, C)
    noise: np.ndarray  # (n,)


@dataclass(frozen=True, slots=True)
class MovementPrior:
    """What is known of the movement before the treated history is read."""

    mass: np.ndarray  # (PHI, WHITE)
    log_sigma: tuple[float, float]  # mean and sd of log sigma, sigma in shares of level; sd inf: nothing is known


@dataclass(frozen=True, slots=True)
class SumEffect:
    """Sum of (gap − forecast) over the window, as mean + scale · t(dof); shares of the treated level."""

    mean: float
    scale: float
    dof: float
    path: np.ndarray  # (n,) gap − forecast of each period; its sum is `mean`
    path_sd: np.ndarray  # (n,)
    released_variance: float  # part of the variance that is released noise, of window and history
    history_weights: np.ndarray  # (T,): mean = sum(window gap) − history_weights @ history gap + small terms
    phi: float  # averaged over the grid
    sigma: float


def weighted_gram(weights: np.ndarray, x: np.ndarray) -> np.ndarray:
    """x' diag(w) x for every row of `weights` (..., T) and one `x` (T, C), as (..., C, C): one matrix product."""
    pairs = (x[:, :, None] * x[:, None, :]).reshape(len(x), -1)
    return (weights @ pairs).reshape(*weights.shape[:-1], x.shape[1], x.shape[1])


@dataclass(frozen=True, slots=True)
class Cells:
    """Forecasts at S sizes and one (phi, omega)."""

    log_weight: np.ndarray  # (S,)
    mean: np.ndarray  # (S, n) forecast of each period
    variance: np.ndarray  # (S,) of the sum, without the window's released noise
    path_variance: np.ndarray  # (S, n)
    weights: np.ndarray  # (S, T)


def vague_prior() -> MovementPrior:
    """Density (1 − phi²)^-1/2 in phi, sigma^-1/2 in sigma: what is taken where no donor can say anything."""
    mass = np.gradient(PHI) / np.sqrt(1 - PHI**2)
    return MovementPrior(np.outer(mass / mass.sum(), WHITE_PRIOR), (0.0, np.inf))


def weekday_columns(times: np.ndarray, period_days: float) -> np.ndarray:
    """(T, 6) harmonics of the week for daily periods, (T, 0) for longer ones."""
    if period_days != 1:
        return np.zeros((len(times), 0))
    angle = 2 * np.pi * np.outer(times, [1, 2, 3]) / 7
    return np.column_stack([np.cos(angle), np.sin(angle)])


@lru_cache(maxsize=256)
def _spectrum(times: bytes, phi: float) -> tuple[np.ndarray, np.ndarray]:
    t = np.frombuffer(times, dtype=np.int64)
    values, vectors = np.linalg.eigh(np.power(phi, np.abs(t[:, None] - t[None, :])))
    return np.maximum(values, 1e-10), vectors


def rotation(times: np.ndarray, noise: np.ndarray, phi: float, white: float) -> tuple[np.ndarray, np.ndarray, float]:
    """(rotate (T, T), lam (T,), log|C|): rotate maps cov(s²C + diag noise) to diag(s² + lam), C the correlation."""
    values, vectors = _spectrum(np.asarray(times, dtype=np.int64).tobytes(), float(phi))
    values = (1 - white) * values + white
    root = vectors / np.sqrt(values)  # (T, T); root.T C root = I
    logdet = float(np.log(values).sum())
    if np.ptp(noise) <= 1e-9 * noise.max():
        return root.T, noise[0] / values, logdet
    lam, turn = np.linalg.eigh((root * noise[:, None]).T @ root)
    return (root @ turn).T, np.maximum(lam, 0.0), logdet


def cells(history: History, window: Window, prior: np.ndarray, sigmas: np.ndarray, phi: float, white: float) -> Cells:
    """All sizes at one (phi, omega) from a single eigen-decomposition."""
    t, w = history.times, window.times
    rotate, lam, logdet = rotation(t, history.noise, phi, white)
    x, g = rotate @ history.design, rotate @ history.gap  # (T, C), (T,)
    cross = (1 - white) * np.power(phi, np.abs(t[:, None] - w[None, :]))  # (T, n)
    within = (1 - white) * np.power(phi, np.abs(w[:, None] - w[None, :])) + white * np.eye(len(w))
    s2 = sigmas**2  # (S,)
    inverse = 1 / (s2[:, None] + lam)  # (S, T)
    precision, correction = _precision(history, rotate, x, inverse, prior)
    right = (inverse * g) @ x  # (S, C)
    right[:, 1] += correction
    theta = np.linalg.solve(precision, right[:, :, None])[:, :, 0]  # (S, C)
    residual = g - theta @ x.T  # (S, T)
    kriged = s2[:, None, None] * inverse[:, :, None] * (rotate @ cross)  # (S, T, n)
    gradient = window.design.T[None] - x.T @ kriged  # (S, C, n)
    solved = np.linalg.solve(precision, gradient)  # (S, C, n)
    mean = theta @ window.design.T + (residual[:, None, :] @ kriged)[:, 0]
    k = s2[:, None, None] * (rotate @ cross)
    sums = (k.sum(2), kriged.sum(2), gradient.sum(2), solved.sum(2))
    variance = s2 * within.sum() - (sums[0] * sums[1]).sum(1) + (sums[2] * sums[3]).sum(1)
    path_variance = s2[:, None] * np.diag(within) - (k * kriged).sum(1) + (gradient * solved).sum(1)
    quadratic = (inverse * residual**2).sum(1) + (theta**2) @ prior
    log_weight = -0.5 * (logdet + np.log(s2[:, None] + lam).sum(1) + np.linalg.slogdet(precision)[1] + quadratic)
    weights = (sums[1] + inverse * (sums[3] @ x.T)) @ rotate
    return Cells(log_weight, mean, variance, path_variance, weights)


def _precision(
    history: History, rotate: np.ndarray, x: np.ndarray, inverse: np.ndarray, prior: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Precision (S, C, C) of the coefficients and the correction (S,) for errors in the control factor.

    The factor carries errors of its own. They inflate its sum of squares and pull the slope towards zero; both are
    taken out in expectation, but never more than nine tenths of the slope's information.
    """
    information = weighted_gram(inverse, x)
    rest = [c for c in range(x.shape[1]) if c != 1]
    partial = information[:, 1, 1].copy()
    inner = information[:, rest][:, :, rest] + np.diag(prior[rest])
    side = information[:, rest, 1]
    partial -= (side * np.linalg.solve(inner, side[:, :, None])[:, :, 0]).sum(1)
    spread = history.factor_own + (rotate**2) @ history.factor_noise
    correction = np.minimum(inverse @ spread, 0.9 * np.maximum(partial, 0.0))
    precision = information + np.diag(prior)
    precision[:, 1, 1] -= correction
    return precision, correction


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


def _grid_prior(sigmas: np.ndarray, movement: MovementPrior) -> np.ndarray:
    """Log prior (PHI, WHITE, S). In sigma: sigma^-1/2, times the donors' log-normal where they say something."""
    centre, spread = movement.log_sigma
    in_sigma = 0.5 * np.log(sigmas)  # sigma^-1/2 on a logarithmic grid
    if np.isfinite(spread):
        in_sigma = -0.5 * ((np.log(sigmas) - centre) / spread) ** 2
    with np.errstate(divide="ignore"):
        return np.log(movement.mass)[:, :, None] + in_sigma[None, None, :]


def sum_effect(history: History, window: Window, prior: np.ndarray, movement: MovementPrior | None = None) -> SumEffect:
    """Effect over the window as a t distribution. `prior` (C,) is the precision of each coefficient (0: flat).

    Draws nothing; the same input gives the same output.
    """
    movement = movement or vague_prior()
    c = history.design.shape[1]
    stacked = np.vstack([history.design, np.diag(np.sqrt(prior))])
    fit = np.linalg.lstsq(stacked, np.r_[history.gap, np.zeros(c)], rcond=None)
    residual = history.gap - history.design @ fit[0]
    sigmas = SIGMA * float(np.sqrt(residual @ residual / max(len(residual) - 2, 1)))
    grid = [cells(history, window, prior, sigmas, p, w) for p in PHI for w in WHITE]
    log_weight = np.concatenate([k.log_weight for k in grid]) + _grid_prior(sigmas, movement).ravel()
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    forecast = np.concatenate([k.mean for k in grid])  # (cells, n)
    sums = window.gap.sum() - forecast.sum(1)
    variances = np.concatenate([k.variance for k in grid]) + window.noise.sum()
    history_weights = np.concatenate([k.weights for k in grid])
    mean = float(weight @ sums)
    scale, dof = matching_t(weight, np.abs(sums - mean), np.sqrt(variances))
    path = window.gap - weight @ forecast
    path_variance = weight @ (
        np.concatenate([k.path_variance for k in grid]) + window.noise + (window.gap - forecast - path) ** 2
    )
    return SumEffect(
        mean=mean,
        scale=scale,
        dof=dof,
        path=path,
        path_sd=np.sqrt(path_variance),
        released_variance=float(window.noise.sum() + weight @ (history_weights**2 @ history.noise)),
        history_weights=weight @ history_weights,
        phi=float(weight @ np.repeat(PHI, len(WHITE) * len(sigmas))),
        sigma=float(weight @ np.tile(sigmas, len(grid))),
    )
