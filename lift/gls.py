"""The default geo estimator: treated geos against a control factor, serial correlation and released noise averaged in.

| on paper | here | unit |
|---|---|---|
| y[t] | treated KPI, summed over the treated geos | KPI units |
| f[t] | control factor, mean 1 before the test (lift/controls.py) | none |
| L | mean of y before the test | KPI units |
| g[t] = y[t] / L − f[t] | gap (lift/gap.py) | share of L |

Incremental outcome = L · Σ_window (g − forecast of g from the periods before the test). How a gap moves is learnt from
the treated history and from the donors (lift/movement.py). DESIGN section 5, decisions 0020 and 0140.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from contracts.errors import ContractError
from lift.controls import MIN_PRE, ControlFactor, control_factor
from lift.gap import (
    DRIFT_SD,
    SLOPE_SD,
    WEEKDAY_SD,
    History,
    SumEffect,
    Window,
    sum_effect,
    weekday_columns,
)
from lift.movement import for_sum, movement_prior
from lift.protocol import GeoResult, GeoTest, check_history, check_window, t_interval


@dataclass(frozen=True, slots=True)
class GlsControl:
    """Configuration of the default estimator. `slope_sd`, `drift_sd`: see lift/gap.py."""

    slope_sd: float = SLOPE_SD
    drift_sd: float = DRIFT_SD
    covariate_sd: float = 0.5  # of a covariate's coefficient: share of the level per standard deviation
    level: float = 0.95

    @property
    def name(self) -> str:
        """'gls_control'."""
        return "gls_control"

    def __call__(self, test: GeoTest, /) -> GeoResult:
        """Effect of one test. Raises ContractError for too little history, a constant or non-positive treated KPI."""
        seen = check_history(test, MIN_PRE)
        y, variance = test.treated_sum()
        control = control_factor(test.kpi, test.noise, test.donors, test.pre)
        usable = np.isfinite(y) & np.isfinite(control.factor)
        win = check_window(test, usable)
        pre = seen[usable[seen]]
        level = _level(test, y[pre], control.factor[pre])
        effect = self._gap(test, control, y, variance, level, pre, win)
        return _result(self, test, control, effect, y, level, pre, win)

    def _precision(self, covariates: int, columns: int) -> np.ndarray:
        """Prior precision (C,) of level, slope, drift, covariates and weekdays."""
        weekdays = np.full(columns - 3 - covariates, WEEKDAY_SD**-2)
        return np.r_[0.0, self.slope_sd**-2, self.drift_sd**-2, np.full(covariates, self.covariate_sd**-2), weekdays]

    def _gap(
        self,
        test: GeoTest,
        control: ControlFactor,
        y: np.ndarray,
        variance: np.ndarray,
        level: float,
        pre: np.ndarray,
        win: np.ndarray,
    ) -> SumEffect:
        gap = y / level - control.factor
        if np.ptp(gap[pre]) < 1e-12:
            raise ContractError(
                f"experiment {test.name!r}: treated and control KPI move in exact proportion before the test, which "
                "real outcomes do not; check that they are not copies of one series."
            )
        noise = variance / level**2 + control.released_variance
        own = float((control.weights[:, pre] ** 2 * control.own_variance[:, None]).sum(axis=0).mean())
        extra = _covariates(test, pre)
        design = [_columns(control.factor, t, float(pre.mean()), test.period_days, extra) for t in (pre, win)]
        learnt = movement_prior(test.kpi, test.noise, control, test.pre, test.period_days)
        return sum_effect(
            History(pre, gap[pre], design[0], noise[pre], own, control.released_variance[pre]),
            Window(win, gap[win], design[1], noise[win]),
            prior=self._precision(len(extra), design[0].shape[1]),
            movement=for_sum(learnt, np.nanmean(test.kpi[np.ix_(test.treated, pre)], axis=1)),
        )


def _level(test: GeoTest, y: np.ndarray, factor: np.ndarray) -> float:
    level = float(y @ factor / (factor @ factor))
    if level <= 0:
        raise ContractError(
            f"experiment {test.name!r}: the treated KPI before the test is {level:.3g} per period, which noise "
            "alone can give; a geo test needs treated geos with a clearly positive KPI."
        )
    return level


def _covariates(test: GeoTest, pre: np.ndarray) -> np.ndarray:
    """Covariates (C, T), centred and scaled by what they were before the test."""
    if test.covariates is None:
        return np.zeros((0, test.kpi.shape[1]))
    if not np.isfinite(test.covariates[:, np.r_[pre, test.window]]).all():
        raise ContractError(f"experiment {test.name!r}: a covariate has missing values; fill them or leave it out.")
    spread = test.covariates[:, pre].std(axis=1, keepdims=True)
    if (spread == 0).any():
        raise ContractError(f"experiment {test.name!r}: a covariate never changes before the test; leave it out.")
    return (test.covariates - test.covariates[:, pre].mean(axis=1, keepdims=True)) / spread


def _columns(factor: np.ndarray, times: np.ndarray, centre: float, period_days: float, extra: np.ndarray) -> np.ndarray:
    years = (times - centre) * period_days / 365.25
    week = weekday_columns(times, period_days)
    return np.column_stack([np.ones(len(times)), factor[times] - 1, years, extra[:, times].T, week])


def _result(
    config: GlsControl,
    test: GeoTest,
    control: ControlFactor,
    effect: SumEffect,
    y: np.ndarray,
    level: float,
    pre: np.ndarray,
    win: np.ndarray,
) -> GeoResult:
    # Periods of the window without a value are taken to have had the mean effect of the others.
    stretch = len(test.window) / len(win)
    mean, scale = level * stretch * effect.mean, level * stretch * effect.scale
    lower, upper, p_value = t_interval(mean, scale, effect.dof, config.level)
    weights = np.zeros(test.kpi.shape)
    for periods, sign in ((win, np.full(len(win), stretch)), (pre, -stretch * effect.history_weights)):
        weights[np.ix_(test.treated, periods)] = sign
        weights[np.ix_(test.donors, periods)] = -level * sign * control.weights[:, periods]
    own = np.zeros(len(test.kpi))
    own[test.donors] = control.own_variance
    path, path_sd = np.full(len(test.window), np.nan), np.full(len(test.window), np.nan)
    inside = np.isin(test.window, win)
    path[inside], path_sd[inside] = level * effect.path, level * effect.path_sd
    without = level * control.factor
    without[win] = y[win] - level * effect.path
    residual = y[pre] - without[pre]
    return GeoResult(
        estimator=config.name, inference="posterior t", mean=mean, path=path, path_sd=path_sd, std_error=scale,
        dof=effect.dof, level=config.level, lower=lower, upper=upper, p_value=p_value,
        noise_variance_share=min((level * stretch) ** 2 * effect.released_variance / scale**2, 1.0),
        cell_weights=weights, counterfactual=without,
        donor_weights=level * control.weights[:, test.pre].mean(axis=1), own_variance=own, phi=effect.phi,
        diagnostics={"level": level, "sigma": effect.sigma, "pre_rmse": float(np.sqrt((residual**2).mean()))},
    )  # fmt: skip
