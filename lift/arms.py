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
from lift.totals import Cell, Estimate, Joint, Points, Totals, estimate, joint, product, read_cell

ONE = np.ones(1)
Pair = tuple[Totals, Totals]  # (treated, control)


def differences(pairs: Sequence[Pair], metrics: Sequence[str]) -> Joint:
    """Differences of the means per person of several metrics (..., k), jointly, over strata of (treated, control).

    Strata are weighted by their released people of both arms; the weights' noise is counted. Raises ContractError when
    there is no stratum or a total was not released.
    """
    if not pairs:
        raise ContractError("a lift needs at least one stratum with a treated and a control arm.")

    def weighted(points: Points) -> np.ndarray:
        return over_strata(points[::2], points[1::2])

    return joint(weighted, [read_cell(t, metrics) for pair in pairs for t in pair])


def over_strata(treated: Points, control: Points) -> np.ndarray:
    """Weighted mean (..., k) over strata of the differences of means per person."""
    weights = [n_t + n_c for (n_t, _), (n_c, _) in zip(treated, control, strict=True)]
    total = sum(
        w[..., None] * (s_t / n_t[..., None] - s_c / n_c[..., None])
        for w, (n_t, s_t), (n_c, s_c) in zip(weights, treated, control, strict=True)
    )
    return np.asarray(total / sum(weights)[..., None])  # type: ignore[index]


def intention_to_treat(treated: Totals, control: Totals, metric: str) -> Estimate:
    """Difference of the means per person assigned. Raises ContractError when a total was not released."""
    return differences([(treated, control)], [metric]).contrast(ONE)


def stratified(pairs: Mapping[str, Pair], metric: str) -> Estimate:
    """The same within strata. Raises ContractError when there is no stratum."""
    return differences(list(pairs.values()), [metric]).contrast(ONE)


def adjusted(treated: Totals, control: Totals, metric: str, before: str) -> Estimate:
    """CUPED: d(y) − theta d(x), see `without_before`."""
    both = differences([(treated, control)], [metric, before])
    direction, doubt = without_before(both, 0, 1)
    return uncertain(both, direction, doubt)


def without_before(figures: Joint, y: int, x: int) -> tuple[np.ndarray, np.ndarray]:
    """Direction (..., m) of y − theta x, and what the estimated theta adds to its sampling variance, (...).

    theta = Cov(y, x) / Var(x), released noise counted in both (Deng et al. 2013 without noise), so a pre-period sum
    drowned in noise gets theta near 0. The figure x has mean 0 by randomisation, whatever theta is. theta comes from
    noisy products with variance v; the apparent variance is then too small by 2 v / Var(x) on average.
    """
    covariance = figures.sampling + figures.released
    theta = covariance[..., y, x] / covariance[..., x, x]
    at = np.eye(figures.value.shape[-1])
    doubt = figures.uncertainty(at[y], at[x])
    return at[y] - theta[..., None] * at[x], 2 * doubt / covariance[..., x, x]


def uncertain(figures: Joint, direction: np.ndarray, doubt: np.ndarray) -> Estimate:
    """The contrast in a direction, its sampling variance raised by `doubt` (...)."""
    found = figures.contrast(direction)
    noise = figures.uncertainty(direction, direction)
    return estimate(found.value, found.sampling + doubt, found.released, noise)


def ratio(treated: Totals, control: Totals, numerator: str, denominator: str) -> Estimate:
    """Difference between arms of sum(numerator) / sum(denominator), such as revenue per visit.

    The people cancel, so noise of n enters only through the estimated spread. Raises ContractError when a denominator
    does not stand clear of its own noise and sampling (5 sd), because its ratio then has no normal reference.
    """
    cells = _divisible((treated, control), numerator, denominator)

    def quotient(points: Points) -> np.ndarray:
        (_, t), (_, c) = points
        return t[..., :1] / t[..., 1:] - c[..., :1] / c[..., 1:]

    return joint(quotient, cells).contrast(ONE)


def _divisible(arms: Pair, numerator: str, denominator: str) -> list[Cell]:
    """The cells of both arms. Raises ContractError where a denominator does not stand clear of zero."""
    cells = [read_cell(t, [numerator, denominator]) for t in arms]
    for totals, c in zip(arms, cells, strict=True):
        sd = np.sqrt(c.sums_noise[..., 1] + c.n * c.spread[..., 1, 1])
        if not (c.sums[..., 1] > 5 * sd).all():
            raise ContractError(
                f"arm {totals.arm!r}: the total of {denominator!r} is {float(np.min(c.sums[..., 1])):.4g}, within 5 sd "
                f"({float(np.max(sd)):.3g}) of zero, so nothing can be divided by it; give trials more rho or test the "
                f"difference of {numerator!r} per person."
            )
    return cells


def among_exposed(treated: Totals, control: Totals, metric: str) -> Estimate:
    """Effect per would-be-exposed person, where exposure is logged in both arms alike: ghost ads or PSA arms.

    Johnson, Lewis and Nubbemeyer (2017). Valid only where logging itself does not depend on the arm; test the
    exposure rates with `exposure_balance` first.
    """
    return ratio(treated, control, product(metric, "exposed"), "exposed")


def incremental_of_exposed(treated: Totals, control: Totals, metric: str) -> Estimate:
    """Incremental outcome of the treated arm, from its exposed people alone: S[T] − E[T] · S[C] / E[C], metric units.

    What unexposed people do adds to neither; else as `among_exposed`.
    """
    cells = _divisible((treated, control), product(metric, "exposed"), "exposed")

    def total(points: Points) -> np.ndarray:
        (_, t), (_, c) = points
        return t[..., :1] - t[..., 1:] * c[..., :1] / c[..., 1:]

    return joint(total, cells).contrast(ONE)


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
    both = differences([(treated, control)], [metric, "exposed"])
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
