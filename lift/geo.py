"""Geo lift: treated geos against a control factor, with serial correlation and released noise in the standard error.

| on paper | here | unit |
|---|---|---|
| y[t] | treated KPI, summed over the treated geos | KPI units |
| f[t] | control factor, mean 1 before the test (lift/controls.py) | none |
| L | mean of y before the test | KPI units |
| g[t] = y[t] / L − f[t] | gap (lift/gap.py) | share of L |

Incremental outcome = L · Σ_window (g − forecast of g from the periods before the test). DESIGN section 5, decision
0020.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from contracts.errors import ContractError
from contracts.evidence import Experiment, LiftEstimate
from contracts.intervals import QUANTILES
from contracts.panel import Panel
from lift.controls import MIN_PRE, ControlFactor, control_factor
from lift.gap import History, SumEffect, Window, sum_effect
from lift.rows import MAX_MISSING, TestRows, select_rows
from lift.spend import SpendDelta

ESTIMATOR = "gls_control"
SLOPE_SD = 0.25  # how far the treated geos' response to the common factor may differ from proportional
DRIFT_SD = 0.05  # how far the treated geos may drift from the controls in one year, share of their level


@dataclass(frozen=True, slots=True)
class GeoFit:
    """One geo estimate and the linear form behind it, which the library needs for the covariance of two tests."""

    estimate: LiftEstimate
    cell_weights: np.ndarray  # (G, T): incremental outcome is cell_weights · KPI, to first order
    own_variance: np.ndarray  # (G,) variance of each donor's own movement, KPI units²; 0 for geos not used


def t_columns(mean: float, scale: float, dof: float) -> dict[str, float]:
    """p05 to p95 and the two-sided p-value of mean + scale · t(dof): one statistic for all, so that they agree."""
    reference = stats.t(dof) if np.isfinite(dof) else stats.norm()
    columns = {name: mean + scale * float(reference.ppf(q)) for name, q in QUANTILES.items()}
    columns["p_value"] = float(2 * reference.sf(abs(mean) / scale))
    return columns


def _treated_series(rows: TestRows, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Sum (T,) of the treated KPI, NaN in a period where any treated geo is missing, and its released variance."""
    y = rows.kpi[rows.treated].sum(axis=0)
    before = y[rows.pre][np.isfinite(y[rows.pre])]
    if len(before) < MIN_PRE:
        raise ContractError(
            f"experiment {name!r} has {len(before)} periods before its start in which all treated geos have a KPI; "
            f"it needs at least {MIN_PRE}. Load a longer history or drop the geo that is missing."
        )
    if np.ptp(before) == 0:
        raise ContractError(
            f"experiment {name!r}: the treated KPI is the same number ({before[0]:g}) in every period before the test, "
            "so its variation cannot be known; check that the KPI column is the right one."
        )
    return y, rows.noise[rows.treated].sum(axis=0)


def _columns(factor: np.ndarray, times: np.ndarray, centre: float, period_days: int) -> np.ndarray:
    return np.column_stack([np.ones(len(times)), factor - 1, (times - centre) * period_days / 365.25])


def _fit_gap(
    name: str,
    rows: TestRows,
    control: ControlFactor,
    y: np.ndarray,
    variance: np.ndarray,
    level: float,
    period_days: int,
) -> tuple[SumEffect, np.ndarray, np.ndarray]:
    """The effect in shares of `level`, and the periods used before (P,) and during (n,) the test."""
    usable = np.isfinite(y) & np.isfinite(control.factor)
    pre, win = rows.pre[usable[rows.pre]], rows.window[usable[rows.window]]
    gap = y / level - control.factor
    if np.ptp(gap[pre]) < 1e-12:
        raise ContractError(
            f"experiment {name!r}: treated and control KPI move in exact proportion before the test, which real "
            "outcomes do not; check that they are not copies of one series."
        )
    noise = variance / level**2 + control.released_variance
    own = (control.weights**2 * control.own_variance[:, None]).sum(axis=0) + control.released_variance
    centre = float(pre.mean())
    design = [_columns(control.factor[t], t, centre, period_days) for t in (pre, win)]
    effect = sum_effect(
        History(pre, gap[pre], design[0], noise[pre], own[pre]),
        Window(win, gap[win], design[1], noise[win]),
        prior=np.array([0.0, SLOPE_SD**-2, DRIFT_SD**-2]),
    )
    return effect, pre, win


def _check_window(name: str, rows: TestRows, usable: np.ndarray) -> None:
    missing = 1 - usable[rows.window].mean()
    if missing > MAX_MISSING:
        raise ContractError(
            f"experiment {name!r}: {missing:.0%} of its periods lack a KPI for a treated geo or for all controls; at "
            f"most {MAX_MISSING:.0%} may be missing. Load the missing rows or shorten the window."
        )


def _cell_weights(
    rows: TestRows,
    control: ControlFactor,
    effect: SumEffect,
    pre: np.ndarray,
    win: np.ndarray,
    level: float,
    stretch: float,
) -> np.ndarray:
    weights = np.zeros(rows.kpi.shape)
    for periods, sign in ((win, np.full(len(win), stretch)), (pre, -stretch * effect.history_weights)):
        weights[np.ix_(rows.treated, periods)] = sign
        weights[np.ix_(rows.donors, periods)] = -level * sign * control.weights[:, periods]
    return weights


def geo_fit(
    experiment: Experiment, panel: Panel, *, spend_delta: SpendDelta | None = None, exclude: Sequence[Experiment] = ()
) -> GeoFit:
    """As `geo_lift`, with the linear form of the estimate."""
    rows = select_rows(experiment, panel, exclude)
    y, variance = _treated_series(rows, experiment.name)
    control = control_factor(rows.kpi, rows.noise, rows.donors, rows.pre)
    usable = np.isfinite(y) & np.isfinite(control.factor)
    _check_window(experiment.name, rows, usable)
    seen = rows.pre[usable[rows.pre]]
    level = float(y[seen] @ control.factor[seen] / (control.factor[seen] @ control.factor[seen]))
    if level <= 0:
        raise ContractError(
            f"experiment {experiment.name!r}: the treated KPI before the test is {level:.3g} per period, which noise "
            "alone can give; a geo test needs treated geos with a clearly positive KPI."
        )
    effect, pre, win = _fit_gap(experiment.name, rows, control, y, variance, level, panel.period_days)
    # Periods of the window without a value are taken to have had the mean effect of the others.
    stretch = len(rows.window) / len(win)
    mean, scale = level * stretch * effect.mean, level * stretch * effect.scale
    released = (level * stretch) ** 2 * effect.released_variance
    estimate = LiftEstimate(
        experiment=experiment.name, estimator=ESTIMATOR, kind="geo", channel=experiment.channel, arm="",
        metric=panel.kpi_name, start=experiment.start, end=experiment.end, treated=experiment.treated,
        mean=mean, std_error=scale, dof=effect.dof, **t_columns(mean, scale, effect.dof),
        noise_variance_share=min(released / scale**2, 1.0),
        spend_delta=float("nan") if spend_delta is None else spend_delta.value,
        spend_delta_se=0.0 if spend_delta is None else spend_delta.se,
        evidence_ids=(f"experiment:{experiment.name}",),
    )  # fmt: skip
    own = np.zeros(len(panel.geos))
    own[rows.donors] = control.own_variance
    return GeoFit(estimate, _cell_weights(rows, control, effect, pre, win, level, stretch), own)


def geo_lift(
    experiment: Experiment, panel: Panel, *, spend_delta: SpendDelta | None = None, exclude: Sequence[Experiment] = ()
) -> LiftEstimate:
    """Incremental KPI of a geo test over its treated geos and window, in released KPI units (not scaled back).

    A period that the window only touches counts whole. `exclude`: the other experiments; cells that another geo test
    touched are masked, and its geos are no donors while it overlaps the window. A window period without a treated value
    is taken to have had the mean effect of the others. `noise_variance_share` is the released variance over std_error².
    Raises ContractError for fewer than 8 periods of history, an unknown geo, no donor, a constant treated series, a
    window mostly without values, or treated geos that another test also treated in the window.
    """
    return geo_fit(experiment, panel, spend_delta=spend_delta, exclude=exclude).estimate
