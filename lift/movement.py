"""What the donors say about how a geo moves around the common factor: a prior for the treated geos' gap.

| on paper | here | dims | unit |
|---|---|---|---|
| r[j,t] | donor KPI / loading − factor | donor, period | share of level |
| phi[j] | its correlation from one period to the next | donor | none |
| mu, s | mean and spread of atanh phi over geos | | none |

Each donor's gap before the test has a restricted likelihood on the same grid as the treated geos' (lift/gap.py). The
treated geos are one more draw from the population of geos, atanh phi ~ N(mu, s²), with mu and s averaged over what the
donors leave possible. Twenty short histories know the correlation far better than one. Decision 0140.
"""

from __future__ import annotations

import numpy as np
from scipy import special

from lift.controls import ControlFactor
from lift.gap import (
    DRIFT_SD,
    PHI,
    WEEKDAY_SD,
    WHITE,
    MovementPrior,
    rotation,
    vague_prior,
    weekday_columns,
    weighted_gram,
)

MIN_DONORS = 3  # fewer say nothing about a population
SPREAD = np.array([0.05, 0.15, 0.3, 0.6])  # of atanh phi over geos
SPREAD_PRIOR = np.array([0.3, 0.4, 0.2, 0.1])
WHITE_MIX = np.array([[0.85, 0.1, 0.04, 0.01], [0.4, 0.3, 0.2, 0.1], [0.1, 0.3, 0.3, 0.3]])  # of geos, on WHITE
WHITE_MIX_PRIOR = np.array([0.5, 0.3, 0.2])
SIZES = np.geomspace(0.1, 3.2, 10)  # sigma, in standard deviations of the donor's gap
SIGMA_FLOOR = 0.3  # least sd of log sigma between the treated geos and the donors


def _residuals(kpi: np.ndarray, noise: np.ndarray, control: ControlFactor, pre: np.ndarray) -> tuple[np.ndarray, ...]:
    """Gaps (J, T) of the donors that are present throughout, their mean released variance (J,) and periods (T,).

    A donor pulls the factor towards itself by its own weight; what that takes from its gap is given back.
    """
    x = kpi[np.ix_(control.donors, pre)]
    times = pre[np.isfinite(control.factor[pre])]
    x = kpi[np.ix_(control.donors, times)]
    whole = np.isfinite(x).all(axis=1)
    factor = control.factor[times]
    loading = x[whole] @ factor / (factor @ factor)
    pull = np.clip(control.weights[np.ix_(whole, times)].mean(axis=1) * loading, 0.0, 0.8)
    gap = (x[whole] / loading[:, None] - factor) / np.sqrt(1 - pull)[:, None]
    tau2 = noise[np.ix_(control.donors[whole], times)].mean(axis=1) / loading**2
    return gap, tau2, times


def _log_likelihood(
    gap: np.ndarray, tau2: np.ndarray, times: np.ndarray, design: np.ndarray, prior: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Restricted log likelihood (J, PHI, WHITE, S) and the sizes (J, S); released noise at its mean over time."""
    sizes = gap.std(axis=1, ddof=1)[:, None] * SIZES  # (J, S)
    out = np.empty((len(gap), len(PHI), len(WHITE), len(SIZES)))
    for a, phi in enumerate(PHI):
        for b, white in enumerate(WHITE):
            rotate, base, logdet = rotation(times, np.ones(len(times)), phi, white)
            x, g = rotate @ design, gap @ rotate.T  # (T, C), (J, T)
            total = sizes[:, :, None] ** 2 + tau2[:, None, None] * base  # (J, S, T)
            inverse = 1 / total
            root = np.linalg.cholesky(weighted_gram(inverse, x) + np.diag(prior))  # (J, S, C, C)
            right = (inverse * g[:, None, :]) @ x  # (J, S, C)
            solved = np.linalg.solve(root, right[..., None])[..., 0]
            quadratic = (inverse @ (g**2)[:, :, None])[..., 0] - (solved**2).sum(2)
            in_root = 2 * np.log(np.diagonal(root, axis1=2, axis2=3)).sum(2)
            out[:, a, b] = -0.5 * (logdet + np.log(total).sum(2) + in_root + quadratic)
    return out, sizes


def _population(log_lik: np.ndarray) -> np.ndarray:
    """Mass (PHI, WHITE) of the next geo, given the donors' log likelihoods (J, PHI, WHITE)."""
    z = np.arctanh(PHI)
    widths = np.gradient(z)
    mass = np.exp(-0.5 * ((z - z[:, None, None]) / SPREAD[None, :, None]) ** 2) * widths  # (mu, s, PHI)
    mass /= mass.sum(axis=2, keepdims=True)
    with np.errstate(divide="ignore"):
        in_phi = special.logsumexp(log_lik[:, None] + np.log(WHITE_MIX)[None, :, None, :], axis=3)  # (J, q, PHI)
        fit = special.logsumexp(in_phi[:, :, None, None, :] + np.log(mass), axis=4).sum(axis=0)  # (q, mu, s)
    posterior = fit + np.log(WHITE_MIX_PRIOR)[:, None, None] + np.log(widths)[:, None] + np.log(SPREAD_PRIOR)
    weight = np.exp(posterior - posterior.max())
    return np.einsum("qms,msp,qw->pw", weight / weight.sum(), mass, WHITE_MIX)


def movement_prior(
    kpi: np.ndarray, noise: np.ndarray, control: ControlFactor, pre: np.ndarray, period_days: float
) -> MovementPrior:
    """Prior of the treated gap's correlation and size from the donors; vague with fewer than `MIN_DONORS` of them.

    `kpi`, `noise` (G, T); `pre` (P,) the positions before the test. Only donors without a hole take part.
    """
    gap, tau2, times = _residuals(kpi, noise, control, pre)
    moving = gap.std(axis=1, ddof=1) > 1e-9
    gap, tau2 = gap[moving], tau2[moving]
    if len(gap) < MIN_DONORS:
        return vague_prior()
    years = (times - times.mean()) * period_days / 365.25
    week = weekday_columns(times, period_days)
    prior = np.r_[0.0, DRIFT_SD**-2, np.full(week.shape[1], WEEKDAY_SD**-2)]
    log_lik, sizes = _log_likelihood(gap, tau2, times, np.column_stack([np.ones(len(times)), years, week]), prior)
    mass = _population(special.logsumexp(log_lik, axis=3))
    posterior = log_lik + np.log(mass)[None, :, :, None]
    in_size = special.logsumexp(posterior, axis=(1, 2))  # (J, S)
    share = np.exp(in_size - in_size.max(axis=1, keepdims=True))
    share /= share.sum(axis=1, keepdims=True)
    logs = (share * np.log(sizes)).sum(axis=1)
    spread = float(np.sqrt(logs.var(ddof=1) + SIGMA_FLOOR**2))
    return MovementPrior(mass, (float(logs.mean()), spread))


def for_sum(prior: MovementPrior, levels: np.ndarray) -> MovementPrior:
    """The prior of a sum of geos with mean KPI `levels` (K,), from that of one geo.

    Geos that move apart average out: sigma falls by sqrt(sum of squared shares). Geos that move together do not. Which
    of the two holds is not known from the donors, so the centre leans to the first and the spread grows.
    """
    centre, spread = prior.log_sigma
    shares = np.maximum(levels, 0.0) / max(float(np.maximum(levels, 0.0).sum()), 1e-12)
    fall = 0.5 * float(np.log((shares**2).sum())) if shares.any() else 0.0
    return MovementPrior(prior.mass, (centre + 0.75 * fall, float(np.hypot(spread, 0.25 * fall))))
