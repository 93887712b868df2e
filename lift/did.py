"""Difference in differences with geos as clusters.

d[g] = mean of the window − mean of the history, per geo; effect = K · n · (mean of d over treated − over controls).
The variance over geos is robust to any correlation in time and to released noise that differs between geos, but not to
few treated geos. 'cr2' is Bell and McCaffrey's correction, which in this design is Welch's two-sample variance and its
degrees of freedom; 'cr1' is what statsmodels calls cluster-robust.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from contracts.errors import ContractError
from lift.controls import MIN_PRE
from lift.protocol import GeoResult, GeoTest, check_history, check_window, t_interval


@dataclass(frozen=True, slots=True)
class DifferenceInDifferences:
    """Configuration. Needs two treated geos and two controls; with one, use WeightedDonors('did')."""

    variance: Literal["cr1", "cr2"] = "cr2"
    level: float = 0.95

    @property
    def name(self) -> str:
        """'did_cluster'."""
        return "did_cluster"

    def __call__(self, test: GeoTest, /) -> GeoResult:
        """Effect of one test. Raises ContractError with fewer than two geos on a side or too short a history."""
        pre = check_history(test, MIN_PRE)
        win = check_window(test, np.isfinite(test.treated_sum()[0]))
        whole = np.isfinite(test.kpi[np.ix_(test.donors, np.r_[pre, win])]).all(axis=1)
        donors = test.donors[whole]
        k, j = len(test.treated), len(donors)
        if k < 2 or j < 2:
            raise ContractError(
                f"test {test.name!r} has {k} treated and {j} complete control geos; clustered errors need two of each. "
                "Use 'did', whose interval rests on placebos."
            )
        change = test.kpi[:, win].mean(axis=1) - test.kpi[:, pre].mean(axis=1)
        a, b = change[test.treated], change[donors]
        variance, dof = self._variance(a, b, len(pre) + len(win))
        return _result(self, test, donors, pre, win, float(a.mean() - b.mean()), variance, dof)

    def _variance(self, a: np.ndarray, b: np.ndarray, periods: int) -> tuple[float, float]:
        """Variance of the difference of means and its degrees of freedom."""
        k, j = len(a), len(b)
        if self.variance == "cr2":
            va, vb = a.var(ddof=1) / k, b.var(ddof=1) / j
            return va + vb, (va + vb) ** 2 / (va**2 / (k - 1) + vb**2 / (j - 1))
        g, n = k + j, (k + j) * periods
        parameters = g + periods  # geo and period effects, less one, plus the effect
        small = g / (g - 1) * (n - 1) / (n - parameters)
        return small * (a.var() / k + b.var() / j), float(g - 1)


def _result(
    config: DifferenceInDifferences,
    test: GeoTest,
    donors: np.ndarray,
    pre: np.ndarray,
    win: np.ndarray,
    difference: float,
    variance: float,
    dof: float,
) -> GeoResult:
    k, j, n = len(test.treated), len(donors), len(test.window)
    sign = np.zeros(test.kpi.shape[1])
    sign[win], sign[pre] = n / len(win), -n / len(pre)
    weights = np.zeros(test.kpi.shape)
    weights[test.treated], weights[donors] = sign, -sign * k / j
    released = float((weights**2 * np.where(weights != 0, test.noise, 0.0)).sum())
    se = k * n * float(np.sqrt(max(variance, released / (k * n) ** 2)))
    mean = k * n * difference
    lower, upper, p_value = t_interval(mean, se, dof, config.level)
    treated, control = test.kpi[test.treated].sum(axis=0), k * test.kpi[donors].mean(axis=0)
    without = control + float((treated[pre] - control[pre]).mean())
    donor_weights = np.zeros(len(test.donors))
    donor_weights[np.isin(test.donors, donors)] = k / j
    path = (treated - without)[test.window]
    spread = float((treated - without)[pre].std(ddof=1))
    return GeoResult(
        estimator=config.name, inference=f"clusters ({config.variance})", mean=mean, path=path,
        path_sd=np.where(np.isfinite(path), spread, np.nan), std_error=se, dof=dof, level=config.level, lower=lower,
        upper=upper, p_value=p_value, noise_variance_share=min(released / se**2, 1.0), cell_weights=weights,
        counterfactual=without, donor_weights=donor_weights, own_variance=np.zeros(len(test.kpi)), phi=float("nan"),
    )  # fmt: skip
