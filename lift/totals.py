"""Released totals of user-randomised arms as arrays, and the delta method on them.

| on paper | here | dims | unit |
|---|---|---|---|
| n | Cell.n | batch | people, noisy |
| S[j] | Cell.sums | batch, metric | metric units |
| Sigma[j,k] | Cell.spread | batch, metric, metric | covariance between people, metric units² |
| tau² | n_noise, sums_noise, squares_noise | as the totals | known released-noise variance |

Every array may carry leading batch axes, so that a study runs 20,000 trials through the very code that reads one.

An estimator is a smooth function f of the cells' (n, S). With gradient g its variance has two parts: sampling,
sum over cells of n g_S' Sigma g_S (n given), and released, sum of g² tau². Gradients are complex-step derivatives
(Squire and Trapp 1998), exact to rounding for the rational functions used here. Noise of the released squares makes the
sampling part itself uncertain; that enters as Satterthwaite degrees of freedom, 2 V² / var(V). Decision 0150.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from contracts.errors import ContractError

INDICATORS = frozenset({"exposed"})  # 0 or 1 per person: its square is itself
BUYERS = {"revenue": "conversions", "pre_revenue": "pre_conversions"}  # who has money at all
MONEY = frozenset({*BUYERS, "covariate"})
MIN_DOF = 5.0
MAX_CORRELATION = 0.999
_STEP = 1e-30


@dataclass(frozen=True, slots=True)
class Totals:
    """Totals of one arm, or of one arm in one stratum. `value` and `variance` (..., C) follow `components`."""

    arm: str
    components: tuple[str, ...]  # 'n', a metric such as 'conversions', or a product such as 'conversions*revenue'
    value: np.ndarray
    variance: np.ndarray  # released noise, 0 where a total is exact
    stratum: str = ""

    def __post_init__(self) -> None:
        if self.value.shape != self.variance.shape or self.value.shape[-1:] != (len(self.components),):
            raise ContractError(
                f"totals of arm {self.arm!r}: {len(self.components)} components need values and variances of that "
                f"many columns; got shapes {self.value.shape} and {self.variance.shape}."
            )
        if not (np.isfinite(self.value).all() and (self.variance >= 0).all()):
            raise ContractError(f"totals of arm {self.arm!r} must be finite, with noise variances of 0 or more.")

    def of(self, component: str) -> tuple[np.ndarray, np.ndarray]:
        """(value, noise variance) of one component, each (...). Raises ContractError when it was not released."""
        if component not in self.components:
            raise ContractError(
                f"arm {self.arm!r} has no released total {component!r}; it holds {', '.join(self.components)}. "
                "Release the trials with that component, or choose an estimator that does not read it."
            )
        i = self.components.index(component)
        return self.value[..., i], self.variance[..., i]


def added(parts: Sequence[Totals]) -> Totals:
    """Sum of disjoint groups of people: totals and noise variances add."""
    value = np.sum([p.value for p in parts], axis=0)
    return Totals(parts[0].arm, parts[0].components, value, np.sum([p.variance for p in parts], axis=0))


def product(first: str, second: str) -> str:
    """Name of the component that sums the product of two: factors sorted, an indicator never twice."""
    factors = sorted(first.split("*") + second.split("*"))
    return "*".join(f for i, f in enumerate(factors) if f not in INDICATORS or f not in factors[:i])


@dataclass(frozen=True, slots=True)
class Cell:
    """One arm (in one stratum) read for a few metrics."""

    n: np.ndarray  # (...)
    sums: np.ndarray  # (..., k)
    spread: np.ndarray  # (..., k, k) covariance between people
    n_noise: np.ndarray  # (...)
    sums_noise: np.ndarray  # (..., k)
    squares_noise: np.ndarray  # (..., k, k)


def read_cell(totals: Totals, metrics: Sequence[str], *, unreleased_is_zero: bool = False) -> Cell:
    """Moments of `metrics` in one cell. Raises ContractError when a total is absent or no variance can be had.

    `unreleased_is_zero`: two metrics whose product was not released are taken as uncorrelated.
    """
    n, n_noise = totals.of("n")
    parts = [totals.of(m) for m in metrics]
    sums, noise = np.stack([v for v, _ in parts], -1), np.stack([s for _, s in parts], -1)

    def squared(i: int, j: int) -> tuple[np.ndarray, np.ndarray]:
        name = product(metrics[i], metrics[j])
        if i != j and unreleased_is_zero and name not in totals.components:
            return sums[..., i] * sums[..., j] / n, np.zeros_like(n)
        return totals.of(name)

    pairs = [[squared(i, j) for j in range(len(metrics))] for i in range(len(metrics))]
    squares = np.stack([np.stack([v for v, _ in row], -1) for row in pairs], -2)
    squares_noise = np.stack([np.stack([s for _, s in row], -1) for row in pairs], -2)
    own = np.eye(len(metrics)) * noise[..., None]  # a noisy sum's square is too large by its noise variance
    people = n[..., None, None]
    spread = (squares - (sums[..., :, None] * sums[..., None, :] - own) / people) / (people - 1)
    return Cell(n, sums, _possible(totals, metrics, sums / n[..., None], spread), n_noise, noise, squares_noise)


def _possible(totals: Totals, metrics: Sequence[str], mean: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Variances lifted to the least that the means allow, covariances kept inside the variances (decision 0021)."""
    spread = spread.copy()
    for j, metric in enumerate(metrics):
        spread[..., j, j] = np.maximum(spread[..., j, j], _least(totals, metric, mean[..., j]))
        if metric in INDICATORS:  # nobody exposed in an arm is a fact, not a fault
            spread[..., j, j] = np.maximum(spread[..., j, j], 0.0)
        elif not (spread[..., j, j] > 0).all():
            raise ContractError(
                f"arm {totals.arm!r}: the released squares of {metric!r} give a variance of "
                f"{float(np.min(spread[..., j, j])):.3g}, which is noise or a metric that never varies; give trials "
                f"more rho or leave {metric!r} out."
            )
    sd = np.sqrt(np.diagonal(spread, axis1=-2, axis2=-1))
    limit = MAX_CORRELATION * sd[..., :, None] * sd[..., None, :]
    inside = np.clip(spread, -limit, limit)
    same = np.eye(len(metrics), dtype=bool)
    return np.where(same, spread, inside)


def _least(totals: Totals, metric: str, mean: np.ndarray) -> np.ndarray:
    if not MONEY & set(metric.split("*")):
        part = mean % 1.0
        return part * (1 - part)
    buying = next((BUYERS[f] for f in metric.split("*") if f in BUYERS), "")
    if buying not in totals.components:
        return np.zeros_like(mean)
    n = totals.of("n")[0]
    buyers = np.clip(np.maximum(totals.of(buying)[0], 1.0) / n, None, 1.0)
    return mean**2 / buyers - mean**2


@dataclass(frozen=True, slots=True)
class Estimate:
    """Value with its variance in two parts and a t reference; all (...). p-value and interval share the statistic."""

    value: np.ndarray
    sampling: np.ndarray
    released: np.ndarray
    dof: np.ndarray

    @property
    def std_error(self) -> np.ndarray:
        """Square root of sampling plus released variance."""
        return np.sqrt(self.sampling + self.released)

    @property
    def noise_share(self) -> np.ndarray:
        """Part of the variance that is released noise."""
        return self.released / (self.sampling + self.released)

    def p_value(self, null: float = 0.0) -> np.ndarray:
        """Two-sided."""
        return np.asarray(2 * stats.t.sf(np.abs(self.value - null) / self.std_error, self.dof))

    def interval(self, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Limits of the two-sided interval: it holds exactly the nulls with p_value >= 1 − level."""
        half = stats.t.ppf(0.5 + level / 2, self.dof) * self.std_error
        return self.value - half, self.value + half


Points = Sequence[tuple[np.ndarray, np.ndarray]]  # per cell (n (...), S (..., k)), maybe complex
Function = Callable[[Points], np.ndarray]  # -> (..., m)


@dataclass(frozen=True, slots=True)
class Joint:
    """m figures of the same cells with their joint covariance."""

    cells: tuple[Cell, ...]
    value: np.ndarray  # (..., m)
    gradient_n: tuple[np.ndarray, ...]  # per cell (..., m)
    gradient_s: tuple[np.ndarray, ...]  # per cell (..., m, k)

    @property
    def sampling(self) -> np.ndarray:
        """(..., m, m)."""
        parts = [
            c.n[..., None, None] * np.einsum("...aj,...jk,...bk->...ab", g, c.spread, g)
            for c, g in zip(self.cells, self.gradient_s, strict=True)
        ]
        return np.asarray(sum(parts))

    @property
    def released(self) -> np.ndarray:
        """(..., m, m)."""
        parts = [
            np.einsum("...aj,...j,...bj->...ab", g, c.sums_noise, g)
            + c.n_noise[..., None, None] * h[..., :, None] * h[..., None, :]
            for c, g, h in zip(self.cells, self.gradient_s, self.gradient_n, strict=True)
        ]
        return np.asarray(sum(parts))

    def uncertainty(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Variance (...) that noise gives to the estimated sampling covariance of the contrasts a and b, each (..., m).

        That covariance is linear in the squares Q and has −S S'/n inside; both derivatives are taken.
        """
        total: np.ndarray = np.zeros(self.value.shape[:-1])
        for c, g in zip(self.cells, self.gradient_s, strict=True):
            p = np.einsum("...a,...aj->...j", np.broadcast_to(a, self.value.shape), g)
            q = np.einsum("...a,...aj->...j", np.broadcast_to(b, self.value.shape), g)
            both = p[..., :, None] * q[..., None, :]
            on_pair = both + np.swapaxes(both, -1, -2)  # each released product serves (j, k) and (k, j)
            weights = np.triu(on_pair, 1) ** 2 + np.eye(p.shape[-1]) * both**2
            mean = c.sums / c.n[..., None]
            on_sum = p * (q * mean).sum(-1)[..., None] + q * (p * mean).sum(-1)[..., None]
            total = total + (weights * c.squares_noise).sum((-1, -2)) + (on_sum**2 * c.sums_noise).sum(-1)
        return total

    def contrast(self, a: np.ndarray) -> Estimate:
        """The figure sum_i a[i] value[i], a (..., m) taken as known."""
        value = (a * self.value).sum(-1)
        sampling = np.maximum(np.einsum("...a,...ab,...b->...", a, self.sampling, a), 0.0)
        released = np.einsum("...a,...ab,...b->...", a, self.released, a)
        return estimate(value, sampling, released, self.uncertainty(a, a))


def estimate(value: np.ndarray, sampling: np.ndarray, released: np.ndarray, uncertain: np.ndarray) -> Estimate:
    """An Estimate with Satterthwaite degrees of freedom; `uncertain` is the variance of `sampling`, all (...)."""
    with np.errstate(divide="ignore"):
        dof = np.where(uncertain > 0, 2 * (sampling + released) ** 2 / uncertain, math.inf)
    return Estimate(value, sampling, released, np.maximum(dof, MIN_DOF))


def joint(f: Function, cells: Sequence[Cell]) -> Joint:
    """Figures f of some cells with everything needed for their covariance."""
    points = [(c.n, c.sums) for c in cells]
    value = np.asarray(f(points), float)
    by_n, by_s = [], []
    for i, (n, s) in enumerate(points):
        by_n.append(_slope(f, points, i, (n + 1j * _STEP, s.astype(complex))))
        columns = []
        for j in range(s.shape[-1]):
            moved = s.astype(complex)
            moved[..., j] += 1j * _STEP
            columns.append(_slope(f, points, i, (n.astype(complex), moved)))
        by_s.append(np.stack(columns, -1))
    return Joint(tuple(cells), value, tuple(by_n), tuple(by_s))


def _slope(f: Function, points: Points, i: int, moved: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return np.imag(f([moved if i == j else p for j, p in enumerate(points)])) / _STEP
