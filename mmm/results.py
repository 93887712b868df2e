"""A fit's results as labelled arrays: contributions over time with their carry-over, returns, half-lives.

Everything is per draw and recomputed from the posterior; `draws` bounds the size. Figures are those of `mmm.effects`:
scaled back for clipping, with the specification's structural factor.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from contracts.panel import Panel
from mmm.design import Design, build_design, revenue_rate
from mmm.effects import contributions, thinned
from mmm.posterior import Posterior
from mmm.spec import ModelSpec


def results(panel: Panel, spec: ModelSpec, posterior: Posterior, draws: int = 200) -> xr.Dataset:
    """Dataset over (draw, channel, geo, period), paid channels with exposure only.

    | variable | dims | unit |
    |---|---|---|
    | contribution | draw, channel, geo, period | KPI |
    | carried_share | draw, channel, geo, period | share of the contribution that earlier periods' exposure brought |
    | half_life | draw, channel | periods until half of an exposure's effect has come |
    | roi, mroi | draw, channel | currency per currency; only where revenue per KPI is known |
    | cpa | draw, channel | currency per KPI unit |

    Where the curve bends, "brought by" splits a cell in proportion to what each period adds to its stock. A channel
    that saturates before it carries over, or of reach and frequency, has no such stock: its share is NaN.
    """
    design, picked = build_design(panel, spec), thinned(posterior, draws)
    parts = list(contributions(panel, spec, posterior, draws))
    where = [design.channels.index(part.channel) for part in parts]
    weights = _weights(design, posterior, picked)  # (D, lags, C)
    cells = np.stack([part.cells for part in parts], axis=1)
    spend = panel.spend[:, :, [part.index for part in parts]].sum(axis=(0, 1))
    totals = cells.sum(axis=(2, 3))
    with np.errstate(divide="ignore", invalid="ignore"):
        data = {
            "contribution": (("draw", "channel", "geo", "period"), cells, {"units": panel.kpi_name}),
            "carried_share": (
                ("draw", "channel", "geo", "period"),
                np.stack([_carried(design, weights, c) for c in where], axis=1),
                {"units": "1"},
            ),
            "half_life": (("draw", "channel"), half_life(weights)[:, where], {"units": "periods"}),
            "cpa": (("draw", "channel"), spend / totals, {"units": f"{panel.currency} per {panel.kpi_name}"}),
        }
        rate = revenue_rate(panel)
        if rate is not None:
            slope = np.stack([part.slope for part in parts], axis=1)
            per = {"units": f"{panel.currency} per {panel.currency}"}
            data["roi"] = (("draw", "channel"), totals * rate / spend, per)
            data["mroi"] = (("draw", "channel"), slope * rate / spend, per)
    coordinates = {
        "channel": [part.channel for part in parts],
        "geo": list(panel.geos),
        "period": np.array(panel.weeks, dtype="datetime64[ns]"),
    }
    return xr.Dataset(data, coordinates, {"seed": posterior.seed, "spec_hash": posterior.spec_hash})


def half_life(weights: np.ndarray) -> np.ndarray:
    """Periods until half of the effect has come, (..., C) from carry-over weights (..., lags, C) that sum to 1.

    Linear between periods; an effect of which half comes at once has 0.
    """
    come = np.cumsum(weights, axis=-2)
    at = np.argmax(come >= 0.5 - 1e-12, axis=-2)[..., None, :]
    now = np.take_along_axis(come, at, axis=-2)
    step = np.take_along_axis(weights, at, axis=-2)
    return np.where(at == 0, 0.0, at - (now - 0.5) / np.maximum(step, 1e-300))[..., 0, :]


def _weights(design: Design, posterior: Posterior, picked: np.ndarray) -> np.ndarray:
    """Carry-over weights of every picked draw, (D, lags, C)."""
    retention, delay = posterior.flat("retention")[picked], posterior.flat("delay")[picked]
    out = np.zeros((len(picked), design.lags, len(design.channels)))
    for group in design.curves.groups:
        for d in range(len(picked)):
            a, b = retention[d, group.members], delay[d, group.members]
            out[d][:, group.members] = group.adstock.weights(a, b, design.lags, np)
    return out


def _carried(design: Design, weights: np.ndarray, channel: int) -> np.ndarray:
    """Share of a channel's stock that is not this period's exposure, (D, G, T)."""
    g, t, _ = design.shape
    if design.curves.order[channel] != "adstock_first":
        return np.full((len(weights), g, t), np.nan)
    past = design.past[channel]
    stock = past @ weights[:, :, channel].T  # (G·T, D)
    now = past[:, :1] * weights[None, :, 0, channel]
    share = np.where(stock > 0, 1.0 - now / np.where(stock > 0, stock, 1.0), 0.0)
    return np.moveaxis(share.reshape(g, t, len(weights)), 2, 0)
