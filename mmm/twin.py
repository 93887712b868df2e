"""The same model in PyMC, nothing integrated out: to read, to extend, and to check the collapsed one against.

Every name is the one in `mmm.model` and `mmm.collapse`. The zero-sum constraint on the geo deviations is exact here
too: a standard normal vector conditioned on w'z = 0 is its projection z − w (w'z) / (w'w).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from mmm.design import Design
from mmm.spec import ModelSpec
from mmm.transforms import lagged


def build_pymc(design: Design, spec: ModelSpec) -> pm.Model:
    """PyMC model of one design; `pymc.sample` draws from the same posterior as `mmm.fit.fit`."""
    g, t, c = design.shape
    with pm.Model(coords={"geo": range(g), "period": range(t), "channel": design.channels}) as model:
        z_theta = pm.Normal("z_theta", 0, 1, dims="channel")
        theta = pm.Deterministic(
            "theta", pt.exp(design.effect_location + design.effect_scale * z_theta), dims="channel"
        )
        retention = pm.Beta("retention", spec.retention_a, spec.retention_b, dims="channel")
        half = spec.half_median * pt.exp(spec.half_scale * pm.Normal("z_half_saturation", 0, 1, dims="channel"))
        slope = spec.slope_median * pt.exp(spec.slope_scale * pm.Normal("z_slope", 0, 1, dims="channel"))
        delay = spec.delay * pm.HalfNormal("r_delay", 1.0, dims="channel")
        curve = _Curve(design, retention, delay, half, slope)
        sized = design.size[:, None, None] * curve.response(design.exposure)
        norm = sized.sum(axis=(0, 1))
        unit = sized / norm
        relative = _deviations(design, spec, unit)
        media = theta * unit * (1.0 + relative[:, None, :])
        mean = _baseline(design, spec) + media.sum(axis=2) / design.level[:, None]
        sd = pt.sqrt(_sigma(design, spec)[:, None] ** 2 + design.noise)
        seen = np.nonzero(design.observed)
        pm.Normal("kpi", mean[seen], sd[seen], observed=design.outcome[seen])
        if len(design.lifts.channel):
            _lift_likelihood(design, curve, theta, norm, relative)
    return model


class _Curve:
    """Adstock and Hill of all channels for a given set of parameters."""

    def __init__(self, design: Design, retention: Any, delay: Any, half: Any, slope: Any) -> None:
        lag = np.arange(1, design.lags)[:, None]
        steps = retention[None, :] * (1.0 + delay[None, :] / lag)
        weights = pt.cumprod(pt.concatenate([pt.ones((1, design.shape[2])), steps], axis=0), axis=0)
        self._weights = weights / weights.sum(axis=0)  # (lags, C)
        self._lags, self._half, self._slope = design.lags, half, slope

    def response(self, exposure: np.ndarray) -> Any:
        """Hill of the adstocked exposure (G, T, C)."""
        stock = pt.stack([self._stock(c, exposure[:, :, c]) for c in range(exposure.shape[2])], axis=2)
        return _hill(stock, self._half, self._slope)

    def response_of(self, channel: int, exposure: np.ndarray) -> Any:
        """Hill of one channel's adstocked exposure (G, T)."""
        return _hill(self._stock(channel, exposure), self._half[channel], self._slope[channel])

    def _stock(self, channel: int, exposure: np.ndarray) -> Any:
        return pt.dot(lagged(exposure, self._lags), self._weights[:, channel])


def _hill(stock: Any, half: Any, slope: Any) -> Any:
    safe = pt.switch(stock > 0, stock, 1.0)
    return pt.switch(stock > 0, 1.0 / (1.0 + (half / safe) ** slope), 0.0)


def _deviations(design: Design, spec: ModelSpec, unit: Any) -> Any:
    """Relative geo deviations (G, C) with spend-weighted mean 0."""
    g, _, c = design.shape
    if g == 1:
        return pt.zeros((1, c))
    spread = spec.geo_spread * pm.HalfNormal("r_geo_spread", 1.0, dims="channel")
    raw = pm.Normal("z_geo", 0, 1, shape=(g, c))
    weight = unit.sum(axis=1)
    return spread * (raw - weight * (weight * raw).sum(axis=0) / (weight**2).sum(axis=0))


def _sigma(design: Design, spec: ModelSpec) -> Any:
    g = design.shape[0]
    own = pm.Normal("z_sigma_geo", 0, 1, shape=g) if g > 1 else pt.zeros(1)
    by_size = np.sqrt(design.level.mean() / design.level)
    return (
        spec.sigma_median * pt.exp(spec.sigma_scale * pm.Normal("z_sigma", 0, 1) + spec.sigma_geo_scale * own) * by_size
    )


def _baseline(design: Design, spec: ModelSpec) -> Any:
    """Expected KPI without media relative to the level, (G, T)."""
    g, t, _ = design.shape
    trend_sd = spec.trend_scale * pm.HalfNormal("r_trend_sd", 1.0)
    common_sd = pt.switch(design.common_kind == 1, trend_sd, 1.0) * design.common_sd
    common = design.common_mean + common_sd * pm.Normal("z_common", 0, 1, shape=design.common.shape[1])
    path = pt.dot(design.common, common)
    if design.shock:
        path = path + _shocks(spec, t)
    base = path[None, :]
    if g > 1:
        geo_sd = spec.geo_trend_scale * pm.HalfNormal("r_geo_trend_sd", 1.0)
        local_sd = pt.switch(design.local_kind == 1, geo_sd, 1.0) * design.local_sd
        base = base + pt.dot(pm.Normal("z_local", 0, 1, shape=(g, design.local.shape[1])) * local_sd, design.local.T)
    if design.controls.shape[2]:
        gamma = pm.Normal("control", 0, design.control_sd, shape=design.controls.shape[2])
        base = base + pt.dot(design.controls, gamma)
    return base


def _shocks(spec: ModelSpec, periods: int) -> Any:
    """Stationary AR(1) path (T,) as the Cholesky factor of its covariance times independent normals."""
    sd = spec.shock_scale * pm.HalfNormal("r_shock_sd", 1.0)
    rho = pm.Beta("shock_correlation", *spec.shock_correlation)
    gap = np.arange(periods)[:, None] - np.arange(periods)[None, :]
    first = np.arange(periods)[None, :] == 0
    innovation = pt.switch(first, 1.0, pt.sqrt(1.0 - rho**2))
    root = pt.switch(gap >= 0, rho ** np.maximum(gap, 0), 0.0) * innovation
    return sd * pt.dot(root, pm.Normal("z_shock", 0, 1, shape=periods))


def _lift_likelihood(design: Design, curve: _Curve, theta: Any, norm: Any, relative: Any) -> None:
    lifts = design.lifts
    predicted, precision = [], pt.ones(len(lifts.channel))
    finite = np.flatnonzero(np.isfinite(lifts.dof))
    if len(finite):
        half_dof = lifts.dof[finite] / 2
        precision = pt.set_subtensor(
            precision[finite], pm.Gamma("lift_precision", half_dof, half_dof, shape=len(finite))
        )
    for k, c in enumerate(lifts.channel):
        gap = curve.response_of(c, lifts.exposure[k]) - curve.response_of(c, lifts.counterfactual[k])
        by_geo = (gap * lifts.weight[k]).sum(axis=1) * design.size / norm[c]
        predicted.append(theta[c] * (by_geo * (1.0 + relative[:, c])).sum())
    spread = lifts.std_error / pt.sqrt(precision)
    covariance = lifts.correlation * spread[:, None] * spread[None, :] + np.diag(lifts.bias_sd**2)
    pm.MvNormal("lift", pt.stack(predicted), cov=covariance, observed=lifts.mean)
