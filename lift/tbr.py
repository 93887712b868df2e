"""Time-based regression (Kerman, Wang and Vaver 2017): treated sum on control sum, with serial correlation handled.

y[t] = a + b x[t] + e[t] before the test; effect = Σ_window (y − a − b x). 'ar1' (default) forecasts with the averaged
AR(1) of lift/gap.py and knows the released noise; 'iid' is the published method, kept for comparison: on panels with
serial correlation its intervals are far too short.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from contracts.errors import ContractError
from lift.controls import MIN_PRE
from lift.gap import History, Window, sum_effect
from lift.protocol import GeoResult, GeoTest, check_history, check_window, t_interval


@dataclass(frozen=True, slots=True)
class TimeBasedRegression:
    """Configuration."""

    errors: Literal["ar1", "iid"] = "ar1"
    level: float = 0.95

    @property
    def name(self) -> str:
        """'tbr', or 'tbr_iid' for the published method."""
        return "tbr" if self.errors == "ar1" else "tbr_iid"

    def __call__(self, test: GeoTest, /) -> GeoResult:
        """Effect of one test. Raises ContractError for too short a history or a constant control sum."""
        pre = check_history(test, MIN_PRE)
        y, y_noise = test.treated_sum()
        win = check_window(test, np.isfinite(y))
        donors = test.donors[np.isfinite(test.kpi[np.ix_(test.donors, np.r_[pre, win])]).all(axis=1)]
        if not len(donors):
            raise ContractError(f"test {test.name!r} has no control geo with a KPI in every period; fill the holes.")
        x, x_noise = test.kpi[donors].sum(axis=0), test.noise[donors].sum(axis=0)
        if np.ptp(x[pre]) == 0:
            raise ContractError(f"test {test.name!r}: the control KPI never changes before the test; check its column.")
        read = _iid if self.errors == "iid" else _averaged
        total, se, dof, weights, path, path_sd = read(y, y_noise, x, x_noise, pre, win)
        return _result(self, test, donors, pre, win, y, x, total, se, dof, weights, path, path_sd)


_Read = tuple[float, float, float, np.ndarray, np.ndarray, np.ndarray]


def _iid(
    y: np.ndarray, y_noise: np.ndarray, x: np.ndarray, x_noise: np.ndarray, pre: np.ndarray, win: np.ndarray
) -> _Read:
    """Ordinary least squares. Released noise: known per cell, through the estimate's own weights on the history."""
    design = np.column_stack([np.ones(len(pre)), x[pre]])
    inverse = np.linalg.inv(design.T @ design)
    beta = inverse @ design.T @ y[pre]
    residual = y[pre] - design @ beta
    target = np.array([float(len(win)), x[win].sum()])
    weights = design @ inverse @ target  # (P,) of the forecast's sum on the history
    noise = y_noise + beta[1] ** 2 * x_noise
    dof = len(pre) - 2
    s2 = float(residual @ residual) / dof
    own = max(s2 - float(noise[pre].mean()), 0.01 * s2) if noise[pre].any() else s2
    variance = own * (float(weights @ weights) + len(win)) + float(weights**2 @ noise[pre] + noise[win].sum())
    path = y[win] - beta[0] - beta[1] * x[win]
    leverage = np.column_stack([np.ones(len(win)), x[win]])
    path_sd = np.sqrt(own * (1 + np.einsum("nc,cd,nd->n", leverage, inverse, leverage)) + noise[win])
    return float(path.sum()), float(np.sqrt(variance)), float(dof), weights, path, path_sd


def _averaged(
    y: np.ndarray, y_noise: np.ndarray, x: np.ndarray, x_noise: np.ndarray, pre: np.ndarray, win: np.ndarray
) -> _Read:
    """AR(1) of unknown size and correlation, averaged over; the released noise of x is a regressor's error."""
    size, level = float(x[pre].mean()), float(np.abs(y[pre]).mean())
    factor, gap = x / size, y / level - x / size
    design = np.column_stack([np.ones(len(x)), factor - 1])
    noise, factor_noise = y_noise / level**2 + x_noise / size**2, x_noise / size**2
    effect = sum_effect(
        History(pre, gap[pre], design[pre], noise[pre], 0.0, factor_noise[pre]),
        Window(win, gap[win], design[win], noise[win]),
        prior=np.array([0.0, 1e-6]),
    )
    return (
        level * effect.mean, level * effect.scale, effect.dof, effect.history_weights, level * effect.path,
        level * effect.path_sd,
    )  # fmt: skip


def _result(
    config: TimeBasedRegression,
    test: GeoTest,
    donors: np.ndarray,
    pre: np.ndarray,
    win: np.ndarray,
    y: np.ndarray,
    x: np.ndarray,
    total: float,
    se: float,
    dof: float,
    history: np.ndarray,
    path: np.ndarray,
    path_sd: np.ndarray,
) -> GeoResult:
    stretch = len(test.window) / len(win)
    lower, upper, p_value = t_interval(stretch * total, stretch * se, dof, config.level)
    design = np.column_stack([np.ones(len(pre)), x[pre]])
    slope = float(np.linalg.lstsq(design, y[pre], rcond=None)[0][1])
    sign = np.zeros(test.kpi.shape[1])
    sign[win], sign[pre] = stretch, -stretch * history
    weights = np.zeros(test.kpi.shape)
    weights[test.treated], weights[donors] = sign, -slope * sign
    released = float((weights**2 * np.where(weights != 0, test.noise, 0.0)).sum())
    without = float(y[pre].mean()) + slope * (x - float(x[pre].mean()))
    without[win] = y[win] - path
    inside = np.isin(test.window, win)
    full, full_sd = np.full(len(test.window), np.nan), np.full(len(test.window), np.nan)
    full[inside], full_sd[inside] = path, path_sd
    donor_weights = np.where(np.isin(test.donors, donors), slope, 0.0)
    return GeoResult(
        estimator=config.name, inference="t", mean=stretch * total, path=full, path_sd=full_sd,
        std_error=stretch * se, dof=dof, level=config.level, lower=lower, upper=upper, p_value=p_value,
        noise_variance_share=min(released / (stretch * se) ** 2, 1.0), cell_weights=weights, counterfactual=without,
        donor_weights=donor_weights, own_variance=np.zeros(len(test.kpi)), phi=float("nan"),
    )  # fmt: skip
