"""How precisely each of many thousand candidate sets would be read, and how often a look-back would have cried wolf.

| on paper | here | dims | unit |
|---|---|---|---|
| M | masks | set, geo | candidate treated sets |
| x[g,t] | kpi | geo, period | KPI units |
| m[g], v[g] | loadings, variances of the control factor | geo | KPI units, KPI units² |
| h | history weights of the readout's forecast | period | none |

A set's treated sum and its control factor are two matrix products of its mask with the panel, because the factor of all
geos less the set's (and its neighbours') share is the factor of the rest: loadings and variances are estimated once and
every set shares them. The forecast weights h depend on a set through the size of its movement only, so one vector per
set size serves all sets and the whole effect grid: an effect e adds e · n to the estimate and changes nothing else.
The readout itself is lift/gls.py; this is its plan.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lift.controls import ControlFactor, control_factor
from lift.gap import (
    DRIFT_SD,
    PHI,
    SLOPE_SD,
    WEEKDAY_SD,
    WHITE,
    MovementPrior,
    rotation,
    weekday_columns,
)
from lift.movement import movement_prior


@dataclass(frozen=True, slots=True)
class Candidates:
    """Sets to score. `masks` (S, G) treated; `barred` (S, G) not usable as control: treated, neighbours, excluded."""

    masks: np.ndarray
    barred: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """(S,) number of treated geos."""
        return self.masks.sum(axis=1).astype(int)


@dataclass(frozen=True, slots=True)
class Scores:
    """One cut: a history and the window after it. All in shares of the treated level, summed over the window."""

    placebo: np.ndarray  # (S,) estimate of an effect that is not there; NaN for a window in the future
    log_sigma: np.ndarray  # (S,) log size of the gap's movement
    unit_variance: np.ndarray  # (S,) variance of the estimate for sigma = 1
    slope_variance: np.ndarray  # (S,) from not knowing how the set answers to the factor; 0 for a future window
    noise: np.ndarray  # (S,) released variance of the estimate
    level: np.ndarray  # (S,) treated KPI per period


@dataclass(frozen=True, slots=True)
class _Gaps:
    gap: np.ndarray  # (S, T)
    factor: np.ndarray  # (S, T) control factor of each set
    level: np.ndarray  # (S,)
    factor_own: np.ndarray  # (S,) error variance of the factor: the donors' own movement
    factor_noise: np.ndarray  # (S,) and released noise
    noise: np.ndarray  # (S,) mean released variance of a period of the history
    window_noise: np.ndarray  # (S,) of one period of the window


def _gaps(
    kpi: np.ndarray, noise: np.ndarray, planned: np.ndarray, control: ControlFactor, sets: Candidates, pre: int
) -> _Gaps:
    """Gap of every set. `noise` (G,) mean of the history, `planned` (G,) of the window, per period."""
    weight = control.weights[:, 0]  # the same in every period, since no cell is missing
    loading = kpi[:, :pre] @ control.factor[:pre] / (control.factor[:pre] @ control.factor[:pre])
    left = 1.0 - sets.barred
    scale = left @ (weight * np.maximum(loading, 1e-12))  # (S,)
    factor = left @ (weight[:, None] * kpi)  # (S, T)
    factor /= scale[:, None]
    y = sets.masks @ kpi
    level = np.einsum("st,st->s", y[:, :pre], factor[:, :pre]) / np.einsum("st,st->s", factor[:, :pre], factor[:, :pre])
    y /= level[:, None]
    y -= factor
    own, before, after = ((left @ (weight**2 * v)) / scale**2 for v in (control.own_variance, noise, planned))
    treated = [(sets.masks @ v) / level**2 for v in (noise, planned)]
    return _Gaps(y, factor, level, own, before, treated[0] + before, treated[1] + after)


@dataclass(frozen=True, slots=True)
class _Common:
    """What every set of one size shares: forecast weights and the metric of its history."""

    weights: np.ndarray  # (T,) of the history in the forecast of the window's sum
    variance: float  # of the estimate at `sigma`, without the slope
    root: np.ndarray  # (T, T) root · root' is the inverse covariance with level, drift and weekdays taken out
    per_sigma2: float  # what movement of variance 1 adds to the quadratic form
    per_noise: float  # what released noise of variance 1 adds
    trace: float  # of the inverse correlation's share: how a factor error of variance 1 enters the slope


def _design(times: np.ndarray, centre: float, period_days: float) -> tuple[np.ndarray, np.ndarray]:
    """Level, drift and weekdays (T, C), and their prior precision (C,). The slope is each set's own."""
    years = (times - centre) * period_days / 365.25
    week = weekday_columns(times, period_days)
    return np.column_stack([np.ones(len(times)), years, week]), np.r_[
        0.0, DRIFT_SD**-2, np.full(week.shape[1], WEEKDAY_SD**-2)
    ]


def _common(pre: int, length: int, period_days: float, sigma: float, noise: float, movement: MovementPrior) -> _Common:
    """Averaged over the population's (phi, omega); the metric at its mean."""
    times, after = np.arange(pre), np.arange(pre, pre + length)
    (x, prior), (target, _) = (_design(t, float(times.mean()), period_days) for t in (times, after))
    weights, variance, mass = np.zeros(pre), 0.0, np.where(movement.mass >= 1e-4, movement.mass, 0.0)
    flat = np.full(pre, noise)
    for a, b in zip(*np.nonzero(mass), strict=True):
        phi, white = float(PHI[a]), float(WHITE[b])
        rotate, lam, _ = rotation(times, flat, phi, white)
        inverse = 1 / (sigma**2 + lam)
        cross = sigma**2 * (1 - white) * np.power(phi, np.abs(times[:, None] - after[None, :])).sum(axis=1)
        within = sigma**2 * ((1 - white) * np.power(phi, np.abs(after[:, None] - after)).sum() + white * length)
        rx, rc = rotate @ x, rotate @ cross
        solved = np.linalg.solve(rx.T @ (inverse[:, None] * rx) + np.diag(prior), target.sum(0) - rx.T @ (inverse * rc))
        h = rotate.T @ (inverse * (rc + rx @ solved))
        gradient = target.sum(0) - rx.T @ (inverse * rc)
        weights += mass[a, b] * h
        variance += mass[a, b] * float(within - rc @ (inverse * rc) + gradient @ solved)
    phi, white = round(float(mass.sum(1) @ PHI / mass.sum()), 3), float(mass.sum(0) @ WHITE / mass.sum())
    rotate, lam, _ = rotation(times, flat, phi, white)
    inverse = 1 / (sigma**2 + lam)
    rx = rotate @ x
    inner = rx.T @ (inverse[:, None] * rx) + np.diag(prior)
    form = np.diag(inverse) - (inverse[:, None] * rx) @ np.linalg.solve(inner, (inverse[:, None] * rx).T)
    values, vectors = np.linalg.eigh((form + form.T) / 2)
    root = (rotate.T @ vectors) * np.sqrt(np.maximum(values, 0.0))
    total = float(mass.sum())
    return _Common(
        weights / total, variance / total, root, float(np.trace(form)), float((root**2).sum()), float(inverse.sum())
    )


def learn_movement(
    kpi: np.ndarray, noise: np.ndarray, pre: int, period_days: float, donors: np.ndarray
) -> MovementPrior:
    """How geos move, from the first `pre` periods. Look-backs share the earliest's: it is in the past of each."""
    control = control_factor(kpi[:, :pre], noise[:, :pre], donors, np.arange(pre))
    return movement_prior(kpi[:, :pre], noise[:, :pre], control, np.arange(pre), period_days)


def score(
    kpi: np.ndarray,
    noise: np.ndarray,
    planned: np.ndarray,
    sets: Candidates,
    pre: int,
    length: int,
    period_days: float,
    donors: np.ndarray,
    movement: MovementPrior,
) -> Scores:
    """Scores of every set with a history of `pre` periods and a window of `length` after it.

    `kpi`, `noise` (G, T) without holes; `planned` (G,) released variance of a window's cell. The window may lie beyond
    the panel: then there is no placebo and no slope term. `donors` (J,): geos that may ever serve as control;
    `movement` from `learn_movement`.
    """
    end = min(pre + length, kpi.shape[1])
    seen = end - pre == length
    cut, known = kpi[:, : end if seen else pre], noise[:, : end if seen else pre]
    control = control_factor(cut, known, donors, np.arange(pre))
    full = ControlFactor(
        np.arange(len(kpi)), _spread(control.weights, donors, len(kpi)), control.factor,
        control.released_variance, _spread(control.own_variance[:, None], donors, len(kpi))[:, 0],
    )  # fmt: skip
    gaps = _gaps(cut, noise[:, :pre].mean(axis=1), planned, full, sets, pre)
    parts = [np.full(len(sets.masks), np.nan) for _ in range(5)]
    for size in np.unique(sets.sizes):
        here = sets.sizes == size
        typical = _typical(movement, gaps.gap[here, :pre], size)
        common = _common(pre, length, period_days, typical, float(gaps.noise[here].mean()), movement)
        for part, value in zip(parts, _size_scores(gaps, here, common, typical, pre, length, seen), strict=True):
            part[here] = value
    placebo, log_sigma, unit, slope, released = parts
    return Scores(placebo, log_sigma, unit, slope, released, gaps.level)


def _typical(movement: MovementPrior, gap: np.ndarray, size: int) -> float:
    """Sigma of a set of `size` geos before its own history is read (as lift.movement.for_sum, geos of one level)."""
    centre, spread = movement.log_sigma
    return float(np.exp(centre - 0.375 * np.log(size))) if np.isfinite(spread) else float(gap.std())


def _size_scores(
    gaps: _Gaps, here: np.ndarray, common: _Common, typical: float, pre: int, length: int, seen: bool
) -> tuple[np.ndarray, ...]:
    """placebo, log sigma, unit variance, slope variance, released noise of the sets `here` (all of one size)."""
    gap, factor = gaps.gap[here], gaps.factor[here]
    g, f = gap[:, :pre] @ common.root, factor[:, :pre] @ common.root
    information = (f**2).sum(axis=1)
    errors = gaps.factor_own[here] * common.trace + gaps.factor_noise[here] * common.per_noise
    correction = np.minimum(errors, 0.9 * information)
    precision = information - correction + SLOPE_SD**-2
    shared = (f * g).sum(axis=1)
    slope = (shared + correction) / precision
    quadratic = (g**2).sum(axis=1) - 2 * slope * shared + slope**2 * information
    own = (quadratic - common.per_noise * gaps.noise[here]) / common.per_sigma2
    log_sigma = 0.5 * np.log(np.maximum(own, 0.1 * quadratic / common.per_sigma2))
    inside = float((common.weights**2).sum())
    unit = max(common.variance - inside * float(gaps.noise[here].mean()), 0.0) / typical**2
    released = length * gaps.window_noise[here] + inside * gaps.noise[here]
    if not seen:
        nothing = np.full(len(gap), np.nan)
        return nothing, log_sigma, np.full(len(gap), unit), np.zeros(len(gap)), released
    shift = factor[:, pre:].sum(axis=1) - factor[:, :pre] @ common.weights
    placebo = gap[:, pre:].sum(axis=1) - gap[:, :pre] @ common.weights - slope * shift
    return placebo, log_sigma, np.full(len(gap), unit), shift**2 / precision, released


def _spread(values: np.ndarray, rows: np.ndarray, geos: int) -> np.ndarray:
    out = np.zeros((geos, values.shape[1]))
    out[rows] = values
    return out


def shrink(log_sigma: np.ndarray, error: float, sizes: np.ndarray) -> tuple[np.ndarray, float]:
    """Mean (S,) of log sigma given its estimate, and its sd, sets of one size being draws of one population.

    Of many sets the one that looks quietest was also lucky; what is shrunk towards the population's mean is not,
    however many sets were looked at (empirical Bayes; the correction of the winner's curse).
    """
    out, left = log_sigma.copy(), 0.0
    for size in np.unique(sizes):
        here = sizes == size
        mean, spread = float(log_sigma[here].mean()), float(log_sigma[here].var())
        keep = max(spread - error**2, 0.0) / spread if spread > 0 else 0.0
        out[here] = mean + keep * (log_sigma[here] - mean)
        left = max(left, float(np.sqrt(keep)) * error)
    return out, left
