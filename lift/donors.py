"""Estimators that forecast the treated geos by weighted donors: DiD, synthetic control, augmented, synthetic DiD.

All four are one line, forecast = intercept + weights · donors (lift/weights.py), so they share inference: placebos in
time (blocks left out of the fit), placebos in space (every donor in turn), or jackknife+ over blocks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from contracts.errors import ContractError
from lift.controls import MIN_PRE
from lift.inference import Reading, blocks, by_placebos, jackknife_plus, own_variance
from lift.protocol import GeoResult, GeoTest, check_history, check_window
from lift.weights import Forecast, difference_in_differences, ridge_augmented, synthetic_control, synthetic_did

Method = Literal["did", "synthetic_control", "augmented_sc", "sdid"]
Inference = Literal["block", "jackknife+", "space"]


@dataclass(frozen=True, slots=True)
class _Series:
    """Complete series of one test. `scale`: number of treated geos, which the weights sum to."""

    y: np.ndarray  # (T,) treated sum over history and window
    x: np.ndarray  # (J, T)
    y_noise: np.ndarray  # (T,)
    x_noise: np.ndarray  # (J, T)
    scale: float
    pre: np.ndarray  # (P,) positions in these series
    window: np.ndarray  # (n,)

    def noise_of_gaps(self, weights: np.ndarray) -> np.ndarray:
        """Released variance (T,) of treated − weights · donors."""
        return self.y_noise + weights**2 @ self.x_noise


@dataclass(frozen=True, slots=True)
class WeightedDonors:
    """Configuration. `penalty`: ridge of 'augmented_sc', None for cross-validation; `fixed_effect`: see GeoLift."""

    method: Method = "synthetic_control"
    inference: Inference = "block"
    level: float = 0.95
    fixed_effect: bool = True
    penalty: float | None = None
    sparse: bool = False  # sdid: the published algorithm, slow, instead of the exact minimum

    @property
    def name(self) -> str:
        """The method."""
        return self.method

    def __call__(self, test: GeoTest, /) -> GeoResult:
        """Effect of one test. Raises ContractError for too short a history, no complete donor, too few placebos."""
        series, periods, rows = _series(test)
        fit = self._fit(series, series.pre, series.window)
        if self.inference == "space":
            reading = self._space(series, test.name, fit)
        else:
            reading = self._time(series, test.name, fit)
        return _result(self, test, series, periods, rows, fit, reading)

    def _fit(self, s: _Series, train: np.ndarray, target: np.ndarray) -> Forecast:
        y, x = s.y[train], s.x[:, train]
        if self.method == "did":
            return difference_in_differences(y, x, s.scale)
        if self.method == "synthetic_control":
            return synthetic_control(y, x, s.scale, self.fixed_effect)
        if self.method == "augmented_sc":
            return ridge_augmented(y, x, s.scale, self.penalty)
        return synthetic_did(y, x, s.scale, s.x[:, target], self.sparse)

    def _time(self, s: _Series, name: str, fit: Forecast) -> Reading:
        """Blocks of the window's length, each forecast by a fit that has not seen it."""
        n = len(s.window)
        if len(s.pre) - n < MIN_PRE:
            raise ContractError(
                f"test {name!r} has {len(s.pre)} periods before a window of {n}; placebos in time need "
                f"{n + MIN_PRE} or more. Use a longer history, a shorter window, or inference 'space'."
            )
        settled = self._settled(s)
        runs = blocks(len(s.pre), n)
        sums, noise, totals, totals_noise = (np.empty(len(runs)) for _ in range(4))
        for b, run in enumerate(runs):
            block, train = s.pre[run], np.delete(s.pre, run)
            held = settled._fit(s, train, block)
            sums[b], noise[b] = _sum(s, held, train, block)
            totals[b], totals_noise[b] = _sum(s, held, train, s.window)
        total, total_noise = _sum(s, fit, s.pre, s.window)
        if self.inference == "jackknife+":
            return jackknife_plus(totals, totals_noise, sums, noise, self.level, name)
        return by_placebos(total, total_noise, sums, noise, own_variance(sums, noise), self.level, name)

    def _settled(self, s: _Series) -> WeightedDonors:
        """The same with the ridge chosen once, on the whole history."""
        if self.method != "augmented_sc" or self.penalty is not None:
            return self
        from lift.weights import ridge_by_cross_validation

        y, x = s.y[s.pre], s.x[:, s.pre]
        return replace(
            self, penalty=ridge_by_cross_validation((y - y.mean()) / s.scale, x - x.mean(axis=1, keepdims=True))
        )

    def _space(self, s: _Series, name: str, fit: Forecast) -> Reading:
        """Every donor in turn takes the treated geos' place; sums are divided by the spread before the test."""
        n = len(s.window)
        total, noise = _sum(s, fit, s.pre, s.window)
        own = [_own(s, fit, n)]
        sums, sums_noise = np.empty(len(s.x)), np.empty(len(s.x))
        settled = self._settled(s)
        for j in range(len(s.x)):
            others = np.delete(np.arange(len(s.x)), j)
            if not len(others):
                raise ContractError(f"test {name!r} has one control geo; placebos in space need more.")
            swapped = replace(s, y=s.x[j], x=s.x[others], y_noise=s.x_noise[j], x_noise=s.x_noise[others], scale=1.0)
            held = settled._fit(swapped, s.pre, s.window)
            sums[j], sums_noise[j] = _sum(swapped, held, s.pre, s.window)
            own.append(_own(swapped, held, n))
        return by_placebos(total, noise, sums, sums_noise, np.array(own), self.level, name)


def _own(s: _Series, fit: Forecast, n: int) -> float:
    """n times the mean squared gap before the test, less its released noise."""
    gaps = fit.gaps(s.y[s.pre], s.x[:, s.pre])
    return n * own_variance(gaps, s.noise_of_gaps(fit.weights)[s.pre])


def _sum(s: _Series, fit: Forecast, train: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """Sum of the gaps over `target` under a fit on `train`, and its released variance."""
    noise = s.noise_of_gaps(fit.weights)
    shared = len(target) ** 2 * float(fit.time_weights**2 @ noise[train]) if fit.intercept != 0 else 0.0
    return float(fit.gaps(s.y[target], s.x[:, target]).sum()), float(noise[target].sum()) + shared


def _series(test: GeoTest) -> tuple[_Series, np.ndarray, np.ndarray]:
    """Complete series, the panel's periods (T,) behind them, and the donors (J,) kept: those without a hole."""
    seen = check_history(test, MIN_PRE)
    y, variance = test.treated_sum()
    win = check_window(test, np.isfinite(y))
    periods = np.r_[seen, win]
    whole = np.isfinite(test.kpi[np.ix_(test.donors, periods)]).all(axis=1)
    moving = np.ptp(np.nan_to_num(test.kpi[np.ix_(test.donors, seen)]), axis=1) > 0
    rows = test.donors[whole & moving]
    if not len(rows):
        raise ContractError(
            f"test {test.name!r} has no control geo with a KPI in every period; fill the holes, or use 'gls_control', "
            "which reads donors with missing cells."
        )
    cut = np.ix_(rows, periods)
    series = _Series(
        y[periods], test.kpi[cut], variance[periods], test.noise[cut], float(len(test.treated)),
        np.arange(len(seen)), np.arange(len(seen), len(periods)),
    )  # fmt: skip
    return series, periods, rows


def _result(
    config: WeightedDonors,
    test: GeoTest,
    s: _Series,
    periods: np.ndarray,
    rows: np.ndarray,
    fit: Forecast,
    reading: Reading,
) -> GeoResult:
    stretch = len(test.window) / len(s.window)
    before, after = periods[s.pre], periods[s.window]
    shared = fit.time_weights * len(s.window) if fit.intercept != 0 else np.zeros(len(before))
    sign = np.zeros(test.kpi.shape[1])
    sign[after], sign[before] = stretch, -stretch * shared
    weights = np.zeros(test.kpi.shape)
    weights[test.treated] = sign
    weights[rows] = -np.outer(fit.weights, sign)
    released = float((weights**2 * np.where(weights != 0, test.noise, 0.0)).sum())
    gaps = fit.gaps(s.y, s.x)
    without = np.full(test.kpi.shape[1], np.nan)
    without[periods] = s.y - gaps
    path, path_sd = np.full(len(test.window), np.nan), np.full(len(test.window), np.nan)
    inside = np.isin(test.window, after)
    noise = s.noise_of_gaps(fit.weights)
    path[inside] = gaps[s.window]
    path_sd[inside] = np.sqrt(own_variance(gaps[s.pre], noise[s.pre]) + noise[s.window])
    donor_weights = np.zeros(len(test.donors))
    donor_weights[np.isin(test.donors, rows)] = fit.weights
    se = stretch * reading.std_error
    l2 = float(np.sqrt((gaps[s.pre] ** 2).sum())) / s.scale
    even = difference_in_differences(s.y[s.pre], s.x[:, s.pre], s.scale).gaps(s.y[s.pre], s.x[:, s.pre])
    return GeoResult(
        estimator=config.name, inference=config.inference, mean=stretch * reading.mean, path=path, path_sd=path_sd,
        std_error=se, dof=float("nan"), level=config.level, lower=stretch * reading.lower,
        upper=stretch * reading.upper, p_value=reading.p_value, noise_variance_share=min(released / se**2, 1.0),
        cell_weights=weights, counterfactual=without, donor_weights=donor_weights,
        own_variance=np.zeros(len(test.kpi)), phi=float("nan"), placebos=stretch * reading.placebos,
        diagnostics={"l2": l2, "scaled_l2": l2 * s.scale / max(float(np.sqrt((even**2).sum())), 1e-300)},
    )  # fmt: skip
