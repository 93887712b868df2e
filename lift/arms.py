"""Estimators of user-randomised lift, each a function of released arm totals (lift/totals.py).

| function | what it answers | totals it reads besides n |
|---|---|---|
| `intention_to_treat` | effect per person assigned, reached or not | y, y*y |
| `adjusted` | the same, less what the pre-period explains (CUPED, Deng et al. 2013) | + x, x*x, x*y |
| `stratified` | the same within strata, weighted by their people | per stratum |
| `ratio` | difference of sum(y) / sum(x) between arms (delta method) | y, x and their three products |
| `among_exposed` | effect among people who would be exposed, logged in both arms (ghost ads, PSA) | e, y*e, y*y*e |
| `complier_effect` | effect per person exposed, arm as instrument; exposure logged as it happened | y, e and products |

'exposed' (e) is 0 or 1 per person. Pairs are (treated, control). All keep released noise in both S and n.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from contracts.errors import ContractError
from lift.totals import Estimate, Joint, Points, Totals, estimate, joint, product, read_cell

ONE = np.ones(1)


def _differences(points: Points) -> np.ndarray:
    (n_t, s_t), (n_c, s_c) = points
    return s_t / n_t[..., None] - s_c / n_c[..., None]


def differences(treated: Totals, control: Totals, metrics: Sequence[str]) -> Joint:
    """Differences of the means per person of several metrics (..., k), jointly."""
    return joint(_differences, [read_cell(t, metrics) for t in (treated, control)])


def intention_to_treat(treated: Totals, control: Totals, metric: str) -> Estimate:
    """Difference of the means per person assigned. Raises ContractError when a total was not released."""
    return differences(treated, control, [metric]).contrast(ONE)


def incremental(treated: Totals, control: Totals, metric: str) -> Estimate:
    """Incremental outcome of the treated arm, S[T] − n[T] · mean[C], metric units."""

    def total(points: Points) -> np.ndarray:
        (n_t, s_t), (n_c, s_c) = points
        return s_t - n_t[..., None] * s_c / n_c[..., None]

    return joint(total, [read_cell(t, [metric]) for t in (treated, control)]).contrast(ONE)


def adjusted(treated: Totals, control: Totals, metric: str, before: str) -> Estimate:
    """CUPED: d(y) − theta d(x) with theta = Cov(dy, dx) / Var(dx), released noise counted in both.

    So a pre-period sum drowned in noise gets theta near 0. The difference d(x) has mean 0 by randomisation, whatever
    theta is. theta comes from noisy products with variance v; the apparent variance is then too small by 2 v / Var(dx)
    on average, which is added back to the sampling part.
    """
    both = differences(treated, control, [metric, before])
    covariance = both.sampling + both.released
    theta = covariance[..., 0, 1] / covariance[..., 1, 1]
    found = both.contrast(np.stack([np.ones_like(theta), -theta], -1))
    doubt = both.uncertainty(np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    direction = np.stack([np.ones_like(theta), -theta], -1)
    return estimate(
        found.value,
        found.sampling + 2 * doubt / covariance[..., 1, 1],
        found.released,
        both.uncertainty(direction, direction),
    )


def stratified(pairs: Mapping[str, tuple[Totals, Totals]], metric: str) -> Estimate:
    """Sum over strata of their differences, weighted by released people of both arms; weights' noise is counted.

    Raises ContractError when there is no stratum.
    """
    if not pairs:
        raise ContractError("a stratified lift needs at least one stratum with a treated and a control arm.")

    def weighted(points: Points) -> np.ndarray:
        weights = [points[i][0] + points[i + 1][0] for i in range(0, len(points), 2)]
        effects = [_differences(points[i : i + 2]) for i in range(0, len(points), 2)]
        total = sum(w[..., None] * d for w, d in zip(weights, effects, strict=True))
        return np.asarray(total / sum(weights)[..., None])  # type: ignore[index]

    cells = [read_cell(t, [metric]) for pair in pairs.values() for t in pair]
    return joint(weighted, cells).contrast(ONE)


def ratio(treated: Totals, control: Totals, numerator: str, denominator: str) -> Estimate:
    """Difference between arms of sum(numerator) / sum(denominator), such as revenue per visit.

    The people cancel, so noise of n enters only through the estimated spread. Raises ContractError when a denominator
    does not stand clear of its own noise and sampling (5 sd), because its ratio then has no normal reference.
    """
    cells = [read_cell(t, [numerator, denominator]) for t in (treated, control)]
    for totals, c in zip((treated, control), cells, strict=True):
        sd = np.sqrt(c.sums_noise[..., 1] + c.n * c.spread[..., 1, 1])
        if not (c.sums[..., 1] > 5 * sd).all():
            raise ContractError(
                f"arm {totals.arm!r}: the total of {denominator!r} is {float(np.min(c.sums[..., 1])):.4g}, within 5 sd "
                f"({float(np.max(sd)):.3g}) of zero, so nothing can be divided by it; give trials more rho or test the "
                f"difference of {numerator!r} per person."
            )

    def quotient(points: Points) -> np.ndarray:
        (_, t), (_, c) = points
        return t[..., :1] / t[..., 1:] - c[..., :1] / c[..., 1:]

    return joint(quotient, cells).contrast(ONE)


def among_exposed(treated: Totals, control: Totals, metric: str) -> Estimate:
    """Effect per would-be-exposed person, where exposure is logged in both arms alike: ghost ads or PSA arms.

    Johnson, Lewis and Nubbemeyer (2017). Valid only where logging itself does not depend on the arm; test the
    exposure rates with `exposure_balance` first.
    """
    return ratio(treated, control, product(metric, "exposed"), "exposed")


def exposure_balance(treated: Totals, control: Totals) -> Estimate:
    """Difference of logged exposure rates: must be zero for ghost ads and PSA arms."""
    return intention_to_treat(treated, control, "exposed")


@dataclass(frozen=True, slots=True)
class FiellerSet:
    """Effect per exposed person by instrument; interval by inversion of dy − tau dd, so that it agrees with `p_value`.

    `lower` and `upper` are −inf and inf where the difference of exposure does not stand clear of zero at this level:
    then every effect is compatible with the totals.
    """

    value: np.ndarray
    std_error: np.ndarray  # delta method, for display
    lower: np.ndarray
    upper: np.ndarray
    level: float
    p_value: np.ndarray  # of no effect: that of intention to treat
    noise_share: np.ndarray


def complier_effect(treated: Totals, control: Totals, metric: str, level: float = 0.95) -> FiellerSet:
    """Local average effect on people whom the assignment exposes, ITT / difference in exposure (Imbens and Angrist).

    Assumes that assignment acts only through exposure. Interval: Fieller / Anderson–Rubin set at `level`.
    """
    both = differences(treated, control, [metric, "exposed"])
    dy, dd = both.value[..., 0], both.value[..., 1]
    tau = dy / dd
    at = both.contrast(np.stack([np.ones_like(tau), -tau], -1))
    itt = both.contrast(np.array([1.0, 0.0]))
    v = both.sampling + both.released
    c2 = stats.t.ppf(0.5 + level / 2, np.minimum(at.dof, itt.dof)) ** 2
    a = dd**2 - c2 * v[..., 1, 1]
    b = dy * dd - c2 * v[..., 0, 1]
    c = dy**2 - c2 * v[..., 0, 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        root = np.sqrt(np.maximum(b**2 - a * c, 0.0))
        lower = np.where(a > 0, (b - root) / a, -np.inf)
        upper = np.where(a > 0, (b + root) / a, np.inf)
    p = 2 * stats.t.sf(np.abs(dy) / itt.std_error, np.minimum(at.dof, itt.dof))
    return FiellerSet(tau, at.std_error / np.abs(dd), lower, upper, level, np.asarray(p), at.noise_share)
