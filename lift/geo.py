"""Geo lift of an experiment on a panel: the arrays are cut by lift/rows.py and read by one of the geo estimators."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from contracts.errors import ContractError
from contracts.evidence import Experiment, LiftEstimate
from contracts.intervals import QUANTILES
from contracts.panel import Panel
from lift.gls import GlsControl
from lift.protocol import GeoEstimator, GeoResult
from lift.rows import select_rows
from lift.spend import SpendDelta, spend_correlation

DEFAULT: GeoEstimator = GlsControl()


@dataclass(frozen=True, slots=True)
class GeoFit:
    """One geo estimate and the linear form behind it, which the library needs for the covariance of two tests."""

    estimate: LiftEstimate
    cell_weights: np.ndarray  # (G, T): incremental outcome is cell_weights · KPI, to first order
    own_variance: np.ndarray  # (G,) variance of each donor's own movement, KPI units²; 0 for geos not used
    result: GeoResult


def t_columns(mean: float, scale: float, dof: float) -> dict[str, float]:
    """p05 to p95 and the two-sided p-value of mean + scale · t(dof): one statistic for all, so that they agree."""
    reference = stats.t(dof) if np.isfinite(dof) else stats.norm()
    columns = {name: mean + scale * float(reference.ppf(q)) for name, q in QUANTILES.items()}
    columns["p_value"] = float(2 * reference.sf(abs(mean) / scale))
    return columns


def geo_fit(
    experiment: Experiment,
    panel: Panel,
    *,
    spend_delta: SpendDelta | None = None,
    exclude: Sequence[Experiment] = (),
    estimator: GeoEstimator = DEFAULT,
) -> GeoFit:
    """As `geo_lift`, with the linear form of the estimate. `estimator`: any of lift/registry.py with a t reference."""
    rows = select_rows(experiment, panel, exclude)
    result = estimator(rows)
    if math.isnan(result.dof):
        raise ContractError(
            f"estimator {result.estimator!r} has no t reference; the library of tests takes those that have one, such "
            f"as {DEFAULT.name!r}."
        )
    estimate = LiftEstimate(
        experiment=experiment.name, estimator=result.estimator, kind="geo", channel=experiment.channel, arm="",
        metric=panel.kpi_name, start=experiment.start, end=experiment.end, treated=experiment.treated,
        mean=result.mean, std_error=result.std_error, dof=result.dof,
        **t_columns(result.mean, result.std_error, result.dof),
        noise_variance_share=result.noise_variance_share,
        spend_delta=float("nan") if spend_delta is None else spend_delta.value,
        spend_delta_se=0.0 if spend_delta is None else spend_delta.se,
        evidence_ids=(f"experiment:{experiment.name}",),
        spend_correlation=0.0 if spend_delta is None else spend_correlation(
            spend_delta, (rows.treated_sum()[0] - result.counterfactual)[rows.pre]
        ),
    )  # fmt: skip
    return GeoFit(estimate, result.cell_weights, result.own_variance, result)


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
