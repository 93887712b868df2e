"""What a posterior says in the units that people decide in: incremental outcome, ROI, curves, lift predictions.

Contributions are recomputed from the draws, a channel at a time, and never stored. All figures are about consenting
people and scaled back for clipping by the panel's factor, with its uncertainty.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import pandas as pd

from contracts.intervals import INTERVAL, summarise
from contracts.panel import Panel
from contracts.response import SteadyResponse
from mmm.collapse import baseline
from mmm.design import Design, build_design, revenue_rate
from mmm.equivalent import hill_equivalent
from mmm.lifts import LiftTerm
from mmm.media import Params, media_response
from mmm.posterior import Posterior
from mmm.spec import ModelSpec

CELL_DRAWS = 1000  # draws behind a cell's interval; its quantiles' Monte Carlo error is then under 3 % of the sd
CURRENT_PERIODS = 13
CURVE_POINTS = 41
CURVE_REACH = 2.0  # curves end at this multiple of the largest observed spend


@dataclass(frozen=True, slots=True)
class Contributions:
    """Draws of one paid channel, scaled back: incremental KPI per cell, and its derivative by log spend."""

    channel: str
    index: int  # position in the panel's channels
    cells: np.ndarray  # (D, G, T) KPI units
    slope: np.ndarray  # (D,) d total / d log spend, KPI units


def thinned(posterior: Posterior, draws: int) -> np.ndarray:
    """Positions of up to `draws` draws, evenly spread over the chains."""
    return np.linspace(0, posterior.draws - 1, min(draws, posterior.draws)).astype(int)


def _factors(panel: Panel, posterior: Posterior, structural_sd: float) -> np.ndarray:
    """What every draw of a channel's effect is multiplied by, (D, C): undone clipping, and structural uncertainty.

    The second is one factor per channel with mean 1. It stands for what the model's families of carry-over and curves
    get wrong, which the draws inside one family cannot show (decision 0005).
    """
    rng = np.random.default_rng(posterior.seed)
    clipping = _clipping(panel, posterior, rng)
    unit = rng.standard_normal((posterior.draws, len(posterior.channels)))
    return clipping[:, None] * np.exp(structural_sd * unit - structural_sd**2 / 2)


def scale_factor(panel: Panel, posterior: Posterior) -> np.ndarray:
    """What undoes the clipped mass, (D,): the same draws as in every effect."""
    return _clipping(panel, posterior, np.random.default_rng(posterior.seed))


def _clipping(panel: Panel, posterior: Posterior, rng: np.random.Generator) -> np.ndarray:
    mean, sd = panel.scale_back
    return np.maximum(rng.normal(mean, sd, posterior.draws), 1.0) if sd > 0 else np.full(posterior.draws, mean)


def thinned_params(posterior: Posterior, picked: np.ndarray) -> Params:
    """Nonlinear parameters of the draws at `picked`."""
    return Params(**{name: posterior.flat(name)[picked] for name in Params._fields})


def contributions(
    panel: Panel, spec: ModelSpec, posterior: Posterior, draws: int = CELL_DRAWS
) -> Iterator[Contributions]:
    """Yields each paid channel's draws in turn, so that no more than one channel's cells are in memory."""
    picked = thinned(posterior, draws)
    factor = _factors(panel, posterior, spec.structural_sd)[picked]
    design = build_design(panel, spec)
    deviations = posterior.deviations()[picked]
    with jax.enable_x64(True):
        respond = jax.jit(lambda p, c: _one_channel(design, p, c), static_argnums=1)
        for c, channel in enumerate(design.channels):
            if not design.paid[c]:
                continue
            unit, elasticity = jax.device_get(respond(thinned_params(posterior, picked), c))
            size = factor[:, c] * posterior.flat("theta")[picked][:, c]
            local = 1.0 + deviations[:, :, c]
            cells = size[:, None, None] * unit * local[:, :, None]
            slope = size * (elasticity * local).sum(axis=1)
            yield Contributions(channel, panel.channels.index(channel), cells, slope)


def _one_channel(design: Design, params: Params, c: int) -> tuple[Any, Any]:
    """Unit response (D, G, T) and elasticity by geo (D, G) of channel c."""

    def one(p: Params) -> tuple[Any, Any]:
        response = media_response(design, p)
        return response.unit[..., c], response.elasticity[..., c].sum(axis=1)

    return jax.lax.map(one, params, batch_size=50)


def total_draws(panel: Panel, posterior: Posterior, structural_sd: float = 0.0) -> np.ndarray:
    """Incremental KPI over all geos and periods, (D, C) in the order of the panel's channels, scaled back.

    Published figures take the specification's `structural_sd`; the pool takes 0, it has a bias term of its own. A
    channel without any exposure is 0.
    """
    effect = _factors(panel, posterior, structural_sd) * posterior.flat("theta")
    out = np.zeros((posterior.draws, len(panel.channels)))
    for i, channel in enumerate(panel.channels):
        if channel in posterior.channels:
            out[:, i] = effect[:, posterior.channels.index(channel)]
    return out


def geo_total_draws(panel: Panel, spec: ModelSpec, posterior: Posterior) -> np.ndarray:
    """Incremental KPI by geo and channel over all periods, (D, G, C) in the order of the posterior's channels, without
    structural uncertainty and not scaled back: what convergence of the published totals is judged on."""
    design, everything = build_design(panel, spec), np.arange(posterior.draws)

    def share(data: dict[str, Any], params: Params) -> Any:
        whole = dataclasses.replace(design, **data)
        return jax.lax.map(lambda p: media_response(whole, p).unit.sum(axis=1), params)

    with jax.enable_x64(True):
        by_geo = jax.device_get(jax.jit(share)({"past": design.past}, thinned_params(posterior, everything)))
    return posterior.flat("theta")[:, None, :] * np.asarray(by_geo) * (1.0 + posterior.deviations())


def lift_draws(panel: Panel, spec: ModelSpec, posterior: Posterior, terms: Sequence[LiftTerm]) -> np.ndarray:
    """The model's prediction of each lift, (D, K), KPI units as the test measured them (not scaled back)."""
    if not terms:
        return np.zeros((posterior.draws, 0))
    design = build_design(panel, spec, terms)
    everything = np.arange(posterior.draws)
    with jax.enable_x64(True):
        lift = jax.device_get(
            jax.jit(lambda p: jax.lax.map(lambda q: media_response(design, q).lift, p, batch_size=50))(
                thinned_params(posterior, everything)
            )
        )
    local = 1.0 + posterior.deviations()[:, :, design.lifts.channel]  # (D, G, P)
    parts = posterior.flat("theta")[:, design.lifts.channel] * np.einsum("dpg,dgp->dp", lift, local)
    return parts @ design.lifts.membership.T


def channel_effects(panel: Panel, spec: ModelSpec, posterior: Posterior) -> pd.DataFrame:
    """Rows of v_effects without their stamp: every scope × channel × metric, columns of `ChannelEffect`.

    share is of the observed KPI (scaled back) of the same scope; cells whose KPI is missing count with their mean.
    """
    rate = revenue_rate(panel)
    factor = panel.scale_back[0]
    kpi = np.where(np.isfinite(panel.kpi), panel.kpi, np.nanmean(panel.kpi, axis=1, keepdims=True)) * factor
    totals = total_draws(panel, posterior, spec.structural_sd)
    frames = []
    for part in contributions(panel, spec, posterior):
        spend = panel.spend[:, :, part.index]
        full = totals[:, part.index]
        ratio = part.slope / part.cells.sum(axis=(1, 2))
        frames.append(_scope(part.channel, "total", [None], [None], full[:, None], spend.sum()[None], kpi.sum()[None],
                             rate, full[thinned(posterior, CELL_DRAWS)][:, None] * ratio[:, None]))  # fmt: skip
        by_geo, by_week = part.cells.sum(axis=2), part.cells.sum(axis=1)
        frames.append(
            _scope(part.channel, "geo", panel.geos, [None] * len(panel.geos), by_geo, spend.sum(1), kpi.sum(1), rate)
        )
        frames.append(
            _scope(
                part.channel, "week", [None] * len(panel.weeks), panel.weeks, by_week, spend.sum(0), kpi.sum(0), rate
            )
        )
        geos = np.repeat(np.array(panel.geos, dtype=object), len(panel.weeks))
        weeks = np.tile(np.array(panel.weeks, dtype=object), len(panel.geos))
        flat = part.cells.reshape(len(part.cells), -1)
        frames.append(_scope(part.channel, "geo_week", geos, weeks, flat, None, None, rate))
    return pd.concat(frames, ignore_index=True)


def _scope(
    channel: str,
    scope: str,
    geos: Sequence[Any] | np.ndarray,
    weeks: Sequence[Any] | np.ndarray,
    draws: np.ndarray,
    spend: np.ndarray | None,
    kpi: np.ndarray | None,
    rate: float | None,
    slope: np.ndarray | None = None,
) -> pd.DataFrame:
    """Rows of one scope from draws (D, n); ratios are left out where their denominator is not positive."""
    metrics: list[tuple[str, np.ndarray, np.ndarray]] = [("incremental_kpi", draws, np.ones(draws.shape[1], bool))]
    if rate is not None:
        metrics.append(("incremental_revenue", draws * rate, np.ones(draws.shape[1], bool)))
    with np.errstate(divide="ignore", invalid="ignore"):
        if kpi is not None:
            metrics.append(("share", draws / kpi, kpi > 0))
        if spend is not None and rate is not None:
            metrics.append(("roi", draws * rate / spend, spend > 0))
            if slope is not None:
                metrics.append(("mroi", slope * rate / spend, spend > 0))
    frames = []
    for metric, values, keep in metrics:
        if not keep.any():
            continue
        table = pd.DataFrame(summarise(values[:, keep]))[list(INTERVAL)]
        table.insert(0, "metric", metric)
        table.insert(0, "channel", channel)
        table.insert(0, "week", pd.Series(list(np.array(weeks, dtype=object)[keep]), dtype=object))
        table.insert(0, "geo", pd.Series(list(np.array(geos, dtype=object)[keep]), dtype=object))
        table.insert(0, "scope", scope)
        frames.append(table)
    return pd.concat(frames, ignore_index=True)


def steady_response(panel: Panel, spec: ModelSpec, posterior: Posterior, draws: int = 400) -> SteadyResponse:
    """Steady response of the panel's paid channels for planning, equal weights (see `contracts.response`)."""
    picked = thinned(posterior, draws)
    design = build_design(panel, spec)
    paid = [i for i in range(len(design.channels)) if design.paid[i]]
    where = [panel.channels.index(design.channels[i]) for i in paid]
    spend = panel.spend[:, :, where]
    cost = spend.sum(axis=1)
    national = cost.sum(axis=0)
    if not (national > 0).all():
        names = [design.channels[i] for i, s in zip(paid, national, strict=True) if s <= 0]
        raise ValueError(f"channels without spend cannot be planned: {', '.join(names)}")
    media = panel.media[:, :, where].sum(axis=1)
    price = np.where(cost > 0, media / np.maximum(cost, 1e-300), media.sum(axis=0) / national)
    unit = price / design.size[:, None] / design.exposure_scale[paid]
    factor = _factors(panel, posterior, spec.structural_sd)[picked]
    with jax.enable_x64(True):
        norm = jax.device_get(
            jax.jit(lambda p: jax.lax.map(lambda q: media_response(design, q).norm, p, batch_size=50))(
                thinned_params(posterior, picked)
            )
        )
    gain, half, slope = hill_equivalent(design, thinned_params(posterior, picked))
    per_size = (factor * posterior.flat("theta")[picked] * gain / norm)[:, paid]  # KPI per unit of size at saturation
    local = 1.0 + posterior.deviations()[picked][:, :, paid]
    return SteadyResponse(
        channels=tuple(design.channels[i] for i in paid),
        geos=panel.geos,
        amplitude=per_size[:, None, :] * design.size[None, :, None] * local,
        unit=np.where(cost > 0, unit, 0.0),
        half_saturation=half[:, paid],
        slope=slope[:, paid],
        current_spend=spend[:, -CURRENT_PERIODS:].mean(axis=1),
        observed_max=spend.sum(axis=0).max(axis=0),
        weights=np.full(len(picked), 1.0 / len(picked)),
    )


def response_curves(response: SteadyResponse) -> pd.DataFrame:
    """Rows of v_curves without their stamp. Geos keep the current split of each channel's spend (equal if none)."""
    totals = response.current_spend.sum(axis=0)
    reachable = (response.unit > 0).astype(float)
    split = np.where(totals > 0, response.current_spend / np.maximum(totals, 1e-300), reachable / reachable.sum(axis=0))
    frames = []
    for c, channel in enumerate(response.channels):
        grid = np.linspace(0.0, CURVE_REACH * response.observed_max[c], CURVE_POINTS)
        draws = np.stack([response.evaluate(split * s)[:, :, c].sum(axis=1) for s in grid], axis=1)
        marginal = [
            (response.marginal(split * max(s, 1e-6 * grid[-1]))[:, :, c] * split[:, c]).sum(axis=1).mean() for s in grid
        ]
        table = pd.DataFrame(summarise(draws))[list(INTERVAL)]
        table.insert(0, "spend", grid)
        table.insert(0, "channel", channel)
        table["marginal"] = marginal
        table["observed"] = grid <= response.observed_max[c] * (1 + 1e-9)
        frames.append(table)
    return pd.concat(frames, ignore_index=True)


def fitted(panel: Panel, spec: ModelSpec, posterior: Posterior, draws: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Draws (D, G, T) of the expected baseline and of all media, KPI units, not scaled back: for checks of fit."""
    picked = thinned(posterior, draws)
    design = build_design(panel, spec)
    local = posterior.local.reshape(-1, *posterior.local.shape[2:])[picked]
    shared = posterior.shared.reshape(-1, posterior.shared.shape[2])[picked]
    with jax.enable_x64(True):
        base = jax.device_get(jax.vmap(lambda a, b: baseline(design, a, b))(local, shared))
        unit = jax.device_get(
            jax.lax.map(lambda p: media_response(design, p).unit, thinned_params(posterior, picked), batch_size=50)
        )
    media = np.einsum("dc,dgtc,dgc->dgt", posterior.flat("theta")[picked], unit, 1.0 + posterior.deviations()[picked])
    return np.asarray(base), media
