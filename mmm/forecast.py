"""Demand without paid media after the panel ends, draw by draw, from the fitted baseline.

| part | after the panel |
|---|---|
| common and local trend | new random-walk steps with the draw's own trend scale, a knot as wide as in the panel |
| season, weekday, holidays, events | the same basis at the new dates |
| common shock | its AR(1) goes on from the last period's shock |
| controls (price, promotion, weather) | as supplied for the planning period, standardised as in the panel |
| organic media | the mean of its last 13 periods |
| noise | each geo's residual sd, and the last periods' mean noise variance of the released KPI |
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import jax
import numpy as np

from contracts.errors import ContractError
from contracts.panel import Panel
from mmm.design import Design, build_design
from mmm.effects import CURRENT_PERIODS, scale_factor, thinned, thinned_params
from mmm.media import media_response
from mmm.posterior import Posterior, control_effects
from mmm.seasons import seasons
from mmm.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class Demand:
    """Draws of demand without paid media, KPI units, scaled back for clipping."""

    geos: tuple[str, ...]
    weeks: tuple[date, ...]
    expected: np.ndarray  # (D, G, H)
    observed: np.ndarray  # (D, G, H) expected plus what a released figure would add: residual and release noise


def demand_forecast(
    panel: Panel,
    spec: ModelSpec,
    posterior: Posterior,
    periods: int,
    *,
    controls: np.ndarray | None = None,
    draws: int = 400,
    seed: int = 0,
) -> Demand:
    """Demand of the `periods` periods after the panel.

    `controls` (G, H, K) are the planning period's, in the panel's units and order (`panel.control_names`); a panel with
    controls needs them, because a price or a promotion is a decision and not a trend. Raises ContractError otherwise.
    """
    if periods < 1:
        raise ContractError(f"a forecast needs at least 1 period; got {periods}.")
    rng = np.random.default_rng(seed)
    picked, design = thinned(posterior, draws), build_design(panel, spec)
    weeks = tuple(panel.weeks[-1] + timedelta(days=panel.period_days * (h + 1)) for h in range(periods))
    local = posterior.local.reshape(-1, *posterior.local.shape[2:])[picked]
    shared = posterior.shared.reshape(-1, posterior.shared.shape[2])[picked]
    scales = {name: posterior.flat(name)[picked] for name in ("trend_sd", "geo_trend_sd", "shock_sd", "sigma")}
    path = _common(panel, spec, design, shared, scales["trend_sd"], weeks, rng)
    p, t = design.common.shape[1], design.shape[1]
    if design.shock:
        rho = posterior.flat("shock_correlation")[picked]
        path = path + _shocks(shared[:, p + t - 1], rho, scales["shock_sd"], periods, rng)
    effects = control_effects(design, posterior)[picked]
    standard = _controls(panel, controls, periods)
    own = _local(panel, spec, design, local, scales["geo_trend_sd"], periods, rng)
    relative = path[:, None, :] + own + np.einsum("ghk,dgk->dgh", standard, effects)
    expected = design.level[:, None] * relative + _organic(panel, design, posterior, picked)
    tau2 = panel.kpi_variance[:, -CURRENT_PERIODS:].mean(axis=1)
    factor = scale_factor(panel, posterior)[picked][:, None, None]
    observed = expected + _residual(spec, design, scales["sigma"], expected, tau2, rng)
    return Demand(panel.geos, weeks, factor * expected, factor * observed)


def _residual(
    spec: ModelSpec, design: Design, sigma: np.ndarray, expected: np.ndarray, tau2: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """What an observed figure adds to its expectation (D, G, H), KPI units, as the likelihood has it."""
    spread2 = np.broadcast_to(((design.level * sigma) ** 2)[:, :, None], expected.shape)
    if spec.likelihood == "student_t":
        half = spec.student_dof / 2
        spread2 = spread2 / rng.gamma(half, 1 / half, expected.shape)
    elif spec.likelihood == "negative_binomial":
        mu = np.maximum(expected, 0.1 * design.level[:, None])
        spread2 = (sigma[:, :, None] * mu) ** 2 + mu
    return np.sqrt(spread2 + tau2[:, None]) * rng.standard_normal(expected.shape)


def _common(
    panel: Panel,
    spec: ModelSpec,
    design: Design,
    shared: np.ndarray,
    trend_sd: np.ndarray,
    weeks: tuple[date, ...],
    rng: np.random.Generator,
) -> np.ndarray:
    """Intercept, trend, season and weekday (D, H)."""
    knots = int((design.common_kind == 1).sum())
    level = shared[:, 0] + shared[:, 1 : 1 + knots].sum(axis=1)
    trend = level[:, None] + _walk(len(panel.weeks), spec.knot_days / panel.period_days, trend_sd, len(weeks), rng)
    rest = shared[:, 1 + knots : design.common.shape[1]]
    return trend + rest @ seasons(weeks, panel.weeks, panel.period_days, spec).columns.T


def _walk(periods: int, spacing: float, sd: np.ndarray, ahead: int, rng: np.random.Generator) -> np.ndarray:
    """Piecewise-linear random walk (D, ahead) that starts from 0 at the panel's end, steps of the draw's sd."""
    knots = max(1, int(np.ceil((periods - 1) / spacing)))
    step = (periods - 1) / knots
    new = int(np.ceil(ahead / step))
    ramp = np.clip(np.arange(1, ahead + 1)[:, None] / step - np.arange(new)[None, :], 0.0, 1.0)
    return (sd[:, None] * rng.standard_normal((len(sd), new))) @ ramp.T


def _shocks(last: np.ndarray, rho: np.ndarray, sd: np.ndarray, ahead: int, rng: np.random.Generator) -> np.ndarray:
    out, now = np.empty((len(last), ahead)), last
    for h in range(ahead):
        now = rho * now + sd * np.sqrt(1 - rho**2) * rng.standard_normal(len(last))
        out[:, h] = now
    return out


def _local(
    panel: Panel,
    spec: ModelSpec,
    design: Design,
    local: np.ndarray,
    sd: np.ndarray,
    ahead: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Own intercept and slow trend of each geo (D, G, H)."""
    d, g = local.shape[:2]
    if design.local.shape[1] == 0:
        return np.zeros((d, g, ahead))
    end = np.einsum("dgq,q->dg", local[:, :, : design.local.shape[1]], design.local[-1])
    spacing = spec.geo_knot_days / panel.period_days
    steps = [_walk(len(panel.weeks), spacing, sd, ahead, rng) for _ in range(g)]
    return end[:, :, None] + np.stack(steps, axis=1)


def _controls(panel: Panel, controls: np.ndarray | None, ahead: int) -> np.ndarray:
    """The planning period's controls (G, H, K) on the panel's scale; constant ones carry nothing there either."""
    g, k = len(panel.geos), len(panel.control_names)
    if k == 0:
        return np.zeros((g, ahead, 0))
    if controls is None or controls.shape != (g, ahead, k) or not np.isfinite(controls).all():
        got = "nothing" if controls is None else f"shape {controls.shape}"
        raise ContractError(
            f"the forecast needs {', '.join(panel.control_names)} of the planning period, finite numbers by geo, "
            f"period and control {(g, ahead, k)}; got {got}."
        )
    mean, sd = panel.controls.mean(axis=(0, 1)), panel.controls.std(axis=(0, 1))
    keep = sd > 1e-9 * (1 + np.abs(mean))
    return (controls[:, :, keep] - mean[keep]) / sd[keep]


def _organic(panel: Panel, design: Design, posterior: Posterior, picked: np.ndarray) -> np.ndarray:
    """Mean contribution of organic media over the last periods (D, G, 1), KPI units."""
    at = np.flatnonzero(~design.paid)
    if len(at) == 0:
        return np.zeros((len(picked), len(panel.geos), 1))
    with jax.enable_x64(True):
        unit = jax.device_get(
            jax.lax.map(
                lambda p: media_response(design, p).unit[:, -CURRENT_PERIODS:, at].mean(axis=1),
                thinned_params(posterior, picked),
                batch_size=50,
            )
        )
    size = posterior.flat("theta")[picked][:, at]
    local = 1.0 + posterior.deviations()[picked][:, :, at]
    return np.einsum("dc,dgc,dgc->dg", size, np.asarray(unit), local)[:, :, None]
