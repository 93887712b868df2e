"""The same model in PyMC, nothing integrated out: to read, to extend, and to check the collapsed one against.

Every name is the one in `mmm.model` and `mmm.collapse`. The zero-sum constraint on the geo deviations is exact here
too: a standard normal vector conditioned on w'z = 0 is its projection z − w (w'z) / (w'w).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from mmm.design import Design
from mmm.media import Params, lift_shape, response_shape
from mmm.spec import ModelSpec


def build_pymc(design: Design, spec: ModelSpec) -> pm.Model:
    """PyMC model of one design; `pymc.sample` draws from the same posterior as `mmm.fit.fit`."""
    g, t, c = design.shape
    with pm.Model(coords={"geo": range(g), "period": range(t), "channel": design.channels}) as model:
        params = _curve_params(design)
        sized = design.size[:, None, None] * response_shape(design, params, pt)[0]
        norm = sized.sum(axis=(0, 1))
        unit = sized / norm
        theta = pm.Deterministic("theta", _theta(design, params, norm), dims="channel")
        relative = _deviations(design, spec, unit)
        media = theta * unit * (1.0 + relative[:, None, :])
        mean = _baseline(design, spec) + media.sum(axis=2) / design.level[:, None]
        seen = np.nonzero(design.observed)
        residual = (_sigma(design, spec)[:, None] ** 2 * design.scatter)[seen]
        if spec.likelihood == "student_t":
            half = spec.student_dof / 2
            residual = residual / pm.Gamma("cell_precision", half, half, shape=len(seen[0]))
        pm.Normal("kpi", mean[seen], pt.sqrt(residual + design.noise[seen]), observed=design.outcome[seen])
        if len(design.lifts.channel):
            _lift_likelihood(design, theta, lift_shape(design, params, norm, pt), relative)
    return model


def _curve_params(design: Design) -> Params:
    """Carry-over and curve parameters (C,); the rest of `Params` is filled where it is used."""
    curves = design.curves
    c = len(curves.order)

    def slot(name: str, unused: float, draw: Callable[[np.ndarray], Any]) -> Any:
        at = curves.used(name)
        if len(at) == 0:
            return pt.full((c,), unused)
        drawn = draw(at)
        return drawn if len(at) == c else pt.set_subtensor(pt.full((c,), unused)[at], drawn)

    def log_normal(name: str, median: str, scale: str) -> Any:
        z = slot(name, 0.0, lambda at: pm.Normal(f"z_{name}", 0, 1, shape=len(at)))
        return curves.prior(median) * pt.exp(curves.prior(scale) * z)

    a, b = curves.prior("retention_a"), curves.prior("retention_b")
    nothing = dict.fromkeys(Params._fields)
    return Params(**nothing | {
        "retention": slot("retention", 0.5, lambda at: pm.Beta("retention", a[at], b[at], shape=len(at))),
        "delay": curves.prior("delay") * slot("delay", 0.0, lambda at: _folded("z_delay", shape=len(at))),
        "half_saturation": log_normal("half_saturation", "half_median", "half_scale"),
        "slope": log_normal("slope", "slope_median", "slope_scale"),
    })  # fmt: skip


def _probability(name: str, **shape: Any) -> Any:
    """Uniform(0, 1), moved by a standard normal."""
    return 0.5 * pt.erfc(-pm.Normal(name, 0, 1, **shape) / np.sqrt(2.0))


def _folded(name: str, **shape: Any) -> Any:
    """HalfNormal(1), moved by a standard normal."""
    return np.sqrt(2.0) * pt.erfinv(_probability(name, **shape))


def _theta(design: Design, params: Params, norm: Any) -> Any:
    """Total contribution (C,), from the quantity that carries the prior."""
    z = pm.Normal("z_theta", 0, 1, dims="channel")
    quantity = pt.exp(design.effect_location + design.effect_scale * z)
    if not design.effect_basis.any():
        return quantity
    slope = (design.size[:, None, None] * response_shape(design, params, pt)[1]).sum(axis=(0, 1)) / norm
    kind = design.effect_basis
    return quantity / pt.where(kind == 1, slope, pt.where(kind == 2, 1.0 / (norm * design.level.mean()), 1.0))


def _deviations(design: Design, spec: ModelSpec, unit: Any) -> Any:
    """Relative geo deviations (G, C) with spend-weighted mean 0."""
    g, _, c = design.shape
    if g == 1:
        return pt.zeros((1, c))
    spread = spec.geo_spread * _folded("z_geo_spread", dims="channel")
    raw = pm.Normal("z_geo", 0, 1, shape=(g, c))
    weight = unit.sum(axis=1)
    return spread * (raw - weight * (weight * raw).sum(axis=0) / (weight**2).sum(axis=0))


def _sigma(design: Design, spec: ModelSpec) -> Any:
    g = design.shape[0]
    own = pm.Normal("z_sigma_geo", 0, 1, shape=g) if g > 1 else pt.zeros(1)
    by_size = np.sqrt(design.level.mean() / design.level) if spec.likelihood != "negative_binomial" else 1.0
    return (
        spec.sigma_median * pt.exp(spec.sigma_scale * pm.Normal("z_sigma", 0, 1) + spec.sigma_geo_scale * own) * by_size
    )


def _baseline(design: Design, spec: ModelSpec) -> Any:
    """Expected KPI without media relative to the level, (G, T)."""
    g, t, _ = design.shape
    trend_sd = spec.trend_scale * _folded("z_trend_sd")
    common_sd = pt.switch(design.common_kind == 1, trend_sd, 1.0) * design.common_sd
    common = design.common_mean + common_sd * pm.Normal("z_common", 0, 1, shape=design.common.shape[1])
    path = pt.dot(design.common, common)
    if design.shock:
        path = path + _shocks(spec, t)
    base = path[None, :]
    if g > 1:
        geo_sd = spec.geo_trend_scale * _folded("z_geo_trend_sd")
        local_sd = pt.switch(design.local_kind == 1, geo_sd, 1.0) * design.local_sd
        base = base + pt.dot(pm.Normal("z_local", 0, 1, shape=(g, design.local.shape[1])) * local_sd, design.local.T)
    if design.controls.shape[2]:
        scale = pm.HalfNormal("r_control", 1.0) if design.shrink_controls else 1.0
        gamma = design.control_sd * scale * pm.Normal("control", 0, 1, shape=design.controls.shape[2])
        base = base + pt.dot(design.controls, gamma)
        if design.own_controls:
            u = _probability("z_control_spread", shape=design.controls.shape[2])
            spread = spec.control_geo_scale * np.sqrt(2.0) * u / pt.sqrt(1.0 - u**2)
            own = spread * pm.Normal("z_control", 0, 1, shape=(g, design.controls.shape[2]))
            base = base + (design.controls * own[:, None, :]).sum(axis=2)
    return base


def _shocks(spec: ModelSpec, periods: int) -> Any:
    """Stationary AR(1) path (T,) as the Cholesky factor of its covariance times independent normals."""
    sd = spec.shock_scale * _folded("z_shock_sd")
    rho = pm.Beta("shock_correlation", *spec.shock_correlation)
    gap = np.arange(periods)[:, None] - np.arange(periods)[None, :]
    first = np.arange(periods)[None, :] == 0
    innovation = pt.switch(first, 1.0, pt.sqrt(1.0 - rho**2))
    root = pt.switch(gap >= 0, rho ** np.maximum(gap, 0), 0.0) * innovation
    return sd * pt.dot(root, pm.Normal("z_shock", 0, 1, shape=periods))


def _lift_likelihood(design: Design, theta: Any, share: Any, relative: Any) -> None:
    lifts = design.lifts
    precision = pt.ones(len(lifts.mean))
    finite = np.flatnonzero(np.isfinite(lifts.dof))
    if len(finite):
        half_dof = lifts.dof[finite] / 2
        precision = pt.set_subtensor(
            precision[finite], pm.Gamma("lift_precision", half_dof, half_dof, shape=len(finite))
        )
    parts = theta[lifts.channel] * (share * (1.0 + relative[:, lifts.channel].T)).sum(axis=1)
    spread = lifts.std_error / pt.sqrt(precision)
    covariance = lifts.correlation * spread[:, None] * spread[None, :] + np.diag(lifts.bias_sd**2)
    pm.MvNormal("lift", pt.dot(lifts.membership, parts), cov=covariance, observed=lifts.mean)
