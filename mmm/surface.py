"""The response in time for planning: the steady response with the draws' carry-over and what is already in flight."""

from __future__ import annotations

from contracts.panel import Panel
from contracts.surface import DynamicResponse
from mmm.design import build_design, revenue_rate
from mmm.effects import steady_response, thinned, thinned_params
from mmm.equivalent import carry_over_equivalent
from mmm.posterior import Posterior
from mmm.spec import ModelSpec


def dynamic_response(panel: Panel, spec: ModelSpec, posterior: Posterior, draws: int = 400) -> DynamicResponse:
    """Response in time of the panel's paid channels (see `contracts.surface`), on the draws of `steady_response`."""
    picked = thinned(posterior, draws)
    design = build_design(panel, spec)
    paid = [i for i in range(len(design.channels)) if design.paid[i]]
    retention, delay = carry_over_equivalent(design, thinned_params(posterior, picked))
    return DynamicResponse(
        steady=steady_response(panel, spec, posterior, draws),
        retention=retention[:, paid],
        delay=delay[:, paid],
        lags=design.lags,
        recent=design.exposure[:, design.shape[1] - design.lags + 1 :, paid],
        observed=design.exposure[:, :, paid].max(axis=1),
        population=panel.population,
        last_period=panel.weeks[-1],
        period_days=panel.period_days,
        currency=panel.currency,
        kpi_name=panel.kpi_name,
        revenue_per_kpi=revenue_rate(panel),
    )
