"""What every geo estimator takes and gives. A frozen configuration is called on one test and returns one result.

| on paper | here | dims | unit |
|---|---|---|---|
| Y[g,t] | kpi | geo, period | KPI units |
| tau²[g,t] | noise | geo, period | KPI units², known variance of released noise |
| T, C | treated, donors | positions of geos | |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from scipy import stats

from contracts.errors import ContractError


@dataclass(frozen=True, slots=True)
class GeoTest:
    """One test in arrays: which cells are treated, which may serve as history and as controls."""

    __test__ = False  # not a pytest class

    name: str
    kpi: np.ndarray  # (G, T) KPI units, NaN where missing or masked
    noise: np.ndarray  # (G, T) KPI units², 0 where the KPI is exact
    treated: np.ndarray  # (K,) positions of geos
    donors: np.ndarray  # (J,) positions of geos left alone
    pre: np.ndarray  # (P,) positions of periods before the test
    window: np.ndarray  # (n,) positions of the test's periods, cool-down included
    period_days: float  # 7 weekly, 1 daily
    covariates: np.ndarray | None = None  # (C, T) series of the treated scope that the test does not move

    def __post_init__(self) -> None:
        if self.kpi.shape != self.noise.shape:
            raise ContractError(f"test {self.name!r}: noise must have shape {self.kpi.shape}; got {self.noise.shape}.")
        if not len(self.treated):
            raise ContractError(f"test {self.name!r} names no treated geo.")
        if not len(self.donors):
            raise ContractError(
                f"test {self.name!r}: no control geo is left: a geo test needs at least one geo without a test in its "
                "periods."
            )

    def treated_sum(self) -> tuple[np.ndarray, np.ndarray]:
        """Treated KPI summed over geos (T,), NaN where any is missing, and its released variance (T,)."""
        return self.kpi[self.treated].sum(axis=0), self.noise[self.treated].sum(axis=0)


@dataclass(frozen=True, slots=True)
class GeoResult:
    """Incremental outcome of the treated geos over the window, in KPI units. `p_value` and interval share a statistic.

    `cell_weights` (G, T): the estimate is `cell_weights · KPI` (given the weights), which gives released noise and the
    covariance of two tests exactly.
    """

    estimator: str
    inference: str  # what the p-value and the interval rest on
    mean: float
    path: np.ndarray  # (n,) effect of each period of the window; NaN where it has no value
    path_sd: np.ndarray  # (n,)
    std_error: float
    dof: float  # NaN where the reference is no t
    level: float  # of the interval, e.g. 0.95
    lower: float
    upper: float
    p_value: float  # two-sided
    noise_variance_share: float
    cell_weights: np.ndarray  # (G, T)
    counterfactual: np.ndarray  # (T,) treated KPI without the test
    donor_weights: np.ndarray  # (J,)
    own_variance: np.ndarray  # (G,) variance of a donor's own movement, KPI units²; 0 for geos not used
    phi: float  # serial correlation used, NaN where none is
    placebos: np.ndarray = field(default_factory=lambda: np.zeros(0))  # (B,) the statistic's reference distribution
    diagnostics: Mapping[str, float] = field(default_factory=dict)


class GeoEstimator(Protocol):
    """A frozen configuration that reads one test. Draws nothing unless it carries a seed; writes nothing."""

    @property
    def name(self) -> str:
        """As in the column `estimator` of v_lift."""
        ...

    def __call__(self, test: GeoTest, /) -> GeoResult:
        """Raises ContractError with a sentence that says what to mend."""
        ...


def t_interval(mean: float, scale: float, dof: float, level: float) -> tuple[float, float, float]:
    """(lower, upper, two-sided p) of mean + scale · t(dof), all from one statistic."""
    reference = stats.t(dof) if np.isfinite(dof) else stats.norm()
    half = scale * float(reference.ppf(0.5 + level / 2))
    return mean - half, mean + half, float(2 * reference.sf(abs(mean) / scale))


def check_history(test: GeoTest, least: int) -> np.ndarray:
    """Positions of the periods before the test with a treated value. Raises ContractError when fewer than `least`."""
    y = test.treated_sum()[0]
    seen = test.pre[np.isfinite(y[test.pre])]
    if len(seen) < least:
        raise ContractError(
            f"experiment {test.name!r} has {len(seen)} periods before its start in which all treated geos have a KPI; "
            f"it needs at least {least}. Load a longer history or drop the geo that is missing."
        )
    if np.ptp(y[seen]) == 0:
        raise ContractError(
            f"experiment {test.name!r}: the treated KPI is the same number ({y[seen][0]:g}) in every period before the "
            "test, so its variation cannot be known; check that the KPI column is the right one."
        )
    return seen


MAX_MISSING = 0.5  # share of the window without a treated value above which a test is refused


def check_window(test: GeoTest, usable: np.ndarray) -> np.ndarray:
    """Positions of the window's periods with a value. `usable` (T,) bool. Raises ContractError when most have none."""
    missing = 1 - usable[test.window].mean()
    if missing > MAX_MISSING:
        raise ContractError(
            f"experiment {test.name!r}: {missing:.0%} of its periods lack a KPI for a treated geo or for all controls; "
            f"at most {MAX_MISSING:.0%} may be missing. Load the missing rows or shorten the window."
        )
    return test.window[usable[test.window]]
