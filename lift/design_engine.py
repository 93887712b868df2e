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
    History,
    MovementPrior,
    Window,
    cells,
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
    log_sigma_error: float  # its sampling sd
    unit_variance: np.ndarray  # (S,) variance of the estimate for sigma = 1
    noise: np.ndarray  # (S,) released variance of the estimate
    level: np.ndarray  # (S,) treated KPI per period


@dataclass(frozen=True, slots=True)
class _Gaps:
    gap: np.ndarray  # (S, T)
    level: np.ndarray  # (S,)
    noise: np.ndarray  # (S,) mean released variance of a period of the history
    window_noise: np.ndarray  # (S,) of one period of the window


def _gaps(
    kpi: np.ndarray, noise: np.ndarray, planned: np.ndarray, control: ControlFactor, sets: Candidates, pre: int
) -> _Gaps:
    """Gap of every set. `noise` (G,) mean of the history, `planned` (G,) of the window, per period."""
    weight = control.weights[:, 0]  # the same in every period, since no cell is missing
    loading = kpi[:, :pre] @ control.factor[:pre] / (control.factor[:pre] @ control.factor[:pre])
    loading = np.maximum(loading, 1e-12)
    left = 1.0 - sets.barred
    factor = left @ (weight[:, None] * kpi)  # (S, T)
    scale = left @ (weight * loading)  # (S,)
    factor /= scale[:, None]
    y = sets.masks @ kpi
    level = np.einsum("st,st->s", y[:, :pre], factor[:, :pre]) / np.einsum("st,st->s", factor[:, :pre], factor[:, :pre])
    y /= level[:, None]
    y -= factor
    spread = [
        (sets.masks @ variance) / level**2 + (left @ (weight**2 * variance)) / scale**2 for variance in (noise, planned)
    ]
    return _Gaps(y, level, *spread)


def _design(factor: np.ndarray, times: np.ndarray, centre: float, period_days: float) -> np.ndarray:
    years = (times - centre) * period_days / 365.25
    return np.column_stack([np.ones(len(times)), factor - 1, years, weekday_columns(times, period_days)])


def _prior(columns: int) -> np.ndarray:
    return np.r_[0.0, SLOPE_SD**-2, DRIFT_SD**-2, np.full(columns - 3, WEEKDAY_SD**-2)]


def _forecast_weights(
    history: History, window: Window, sigmas: np.ndarray, movement: MovementPrior
) -> tuple[np.ndarray, np.ndarray]:
    """Weights (S, T) of the history in the forecast of the window's sum and variance (S,), averaged over (phi, omega)."""
    weights = np.zeros((len(sigmas), len(history.times)))
    variance = np.zeros(len(sigmas))
    prior = _prior(history.design.shape[1])
    for a, phi in enumerate(PHI):
        for b, white in enumerate(WHITE):
            if movement.mass[a, b] < 1e-4:
                continue
            cell = cells(history, window, prior, sigmas, float(phi), float(white))
            weights += movement.mass[a, b] * cell.weights
            variance += movement.mass[a, b] * cell.variance
    total = movement.mass[movement.mass >= 1e-4].sum()
    return weights / total, variance / total


def _log_sigma(
    gap: np.ndarray, noise: np.ndarray, times: np.ndarray, design: np.ndarray, typical: float, movement: MovementPrior
) -> np.ndarray:
    """(S,) log sigma from the whitened history, at the population's mean correlation."""
    phi = float(movement.mass.sum(axis=1) @ PHI)
    white = float(movement.mass.sum(axis=0) @ WHITE)
    rotate, _, _ = rotation(times, np.zeros(len(times)), round(phi, 3), white)
    x = rotate @ design
    inner = x.T @ x + typical**2 * np.diag(_prior(design.shape[1]))
    # Quadratic form of the marginal covariance: I − x (x'x + prior)^-1 x', as root · root'.
    form = np.eye(len(times)) - x @ np.linalg.solve(inner, x.T)
    values, vectors = np.linalg.eigh((form + form.T) / 2)
    root = (rotate.T @ vectors) * np.sqrt(np.maximum(values, 0.0))
    squares = ((gap @ root) ** 2).sum(axis=1) / (len(times) - 1)
    white_level = float((root**2).sum() / (len(times) - 1))  # what released noise of variance 1 adds to the square
    own = np.maximum(squares - white_level * noise, 0.1 * squares)
    return 0.5 * np.log(own)


def score(
    kpi: np.ndarray,
    noise: np.ndarray,
    planned: np.ndarray,
    sets: Candidates,
    pre: int,
    length: int,
    period_days: float,
    donors: np.ndarray,
) -> Scores:
    """Scores of every set with a history of `pre` periods and a window of `length` after it.

    `kpi`, `noise` (G, T) without holes; `planned` (G,) released variance of a window's cell. The window may lie beyond
    the panel: then there is no placebo. `donors` (J,): geos that may ever serve as control.
    """
    end = min(pre + length, kpi.shape[1])
    seen = end - pre == length
    cut = kpi[:, : end if seen else pre]
    control = control_factor(cut, noise[:, : cut.shape[1]], donors, np.arange(pre))
    full = ControlFactor(
        np.arange(len(kpi)), _spread(control.weights, donors, len(kpi)), control.factor,
        control.released_variance, _spread(control.own_variance[:, None], donors, len(kpi))[:, 0],
    )  # fmt: skip
    movement = movement_prior(cut, noise[:, : cut.shape[1]], control, np.arange(pre), period_days)
    gaps = _gaps(cut, noise[:, :pre].mean(axis=1), planned, full, sets, pre)
    times, after = np.arange(pre), np.arange(pre, pre + length)
    ahead = control.factor[pre:end] if seen else np.ones(length)
    design = [
        _design(f, t, float(times.mean()), period_days) for f, t in ((control.factor[:pre], times), (ahead, after))
    ]
    sizes = np.unique(sets.sizes)
    typical = np.exp(movement.log_sigma[0] - 0.375 * np.log(sizes)) if np.isfinite(movement.log_sigma[1]) else None
    if typical is None:
        typical = np.full(len(sizes), float(gaps.gap[:, :pre].std()))
    placebo, log_sigma, unit, released = (np.full(len(sets.masks), np.nan) for _ in range(4))
    for k, size in enumerate(sizes):
        here = sets.sizes == size
        mean_noise = np.full(pre, float(gaps.noise[here].mean()))
        history = History(times, np.zeros(pre), design[0], mean_noise, 0.0, np.zeros(pre))
        window = Window(after, np.zeros(length), design[1], np.zeros(length))
        weights, variance = _forecast_weights(history, window, typical[k : k + 1], movement)
        inside = float((weights[0] ** 2).sum())
        own = float(variance[0]) - inside * mean_noise[0]
        unit[here] = max(own, 0.0) / typical[k] ** 2
        released[here] = length * gaps.window_noise[here] + inside * gaps.noise[here]
        gap = gaps.gap[here]
        if seen:
            placebo[here] = gap[:, pre:].sum(axis=1) - gap[:, :pre] @ weights[0]
        log_sigma[here] = _log_sigma(gap[:, :pre], gaps.noise[here], times, design[0], float(typical[k]), movement)
    return Scores(placebo, log_sigma, 1 / np.sqrt(2 * (pre - 1)), unit, released, gaps.level)


def _spread(values: np.ndarray, rows: np.ndarray, geos: int) -> np.ndarray:
    out = np.zeros((geos, values.shape[1]))
    out[rows] = values
    return out


def shrink(log_sigma: np.ndarray, error: float, sizes: np.ndarray) -> tuple[np.ndarray, float]:
    """Mean (S,) of log sigma given its estimate, and its sd, sets of one size being draws of one population.

    Of many sets the one that looks quietest was also lucky; what is shrunk towards the population's mean is not, however
    many sets were looked at (empirical Bayes; the correction of the winner's curse).
    """
    out, left = log_sigma.copy(), 0.0
    for size in np.unique(sizes):
        here = sizes == size
        mean, spread = float(log_sigma[here].mean()), float(log_sigma[here].var())
        keep = max(spread - error**2, 0.0) / spread if spread > 0 else 0.0
        out[here] = mean + keep * (log_sigma[here] - mean)
        left = max(left, float(np.sqrt(keep)) * error)
    return out, left
