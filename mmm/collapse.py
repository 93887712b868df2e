"""The linear-Gaussian part of the model, integrated out exactly and drawn back afterwards.

Given carry-over, curve shape, effect sizes and noise scales, the model is linear in
- per geo g: b_g = (own intercept and slow trend, what the controls do there beyond elsewhere, relative media deviations
  z_gc),
- shared: s = (common basis coefficients, weekly shocks, control coefficients),
all with Gaussian priors. Two sets of extra rows couple the geos: the lift tests, and the constraint
sum_g w_gc z_gc = 0 that makes theta_c the channel's total contribution exactly (w = share of the channel's response).

`mmm.marginal` holds the algebra.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mmm.design import Design
from mmm.marginal import Basis, Terms, draw, log_marginal
from mmm.media import Params, Response, media_response


class Extra(NamedTuple):
    """Extra rows on the geo deviations: rows @ z = target + noise."""

    rows: Any  # (R, G, C)
    target: Any  # (R,)
    lift_covariance: Any  # (K, K); the constraints that follow are exact
    constraint_log_prior: Any  # () log prior density of the constraints, divided out


def _local_variance(design: Design, p: Params) -> Any:
    """Prior variance (B,) of one geo's own coefficients, relative media deviations last."""
    scale = jnp.where(design.local_kind == 1, p.geo_trend_sd, 1.0) * design.local_sd
    return jnp.concatenate([scale**2, p.control_spread**2, jnp.ones(design.shape[2])])


def _shared_prior(design: Design, p: Params) -> tuple[Any, Any]:
    """Prior precision (S, S) of the shared coefficients and the log determinant of their prior covariance.

    Weekly shocks are a stationary AR(1) with marginal sd `shock_sd`; its precision is tridiagonal.
    """
    scale = jnp.where(design.common_kind == 1, p.trend_sd, 1.0) * design.common_sd
    ends = (1.0 / scale**2, (design.control_sd * p.control_scale) ** -2.0)
    log_det = 2 * jnp.log(scale).sum() + 2 * jnp.log(design.control_sd * p.control_scale).sum()
    if not design.shock:
        return jnp.diag(jnp.concatenate(ends)), log_det
    t, rho = design.shape[1], p.shock_correlation
    factor = 1.0 / ((1.0 - rho**2) * p.shock_sd**2)
    inner = jnp.full(t, 1.0 + rho**2).at[jnp.array([0, t - 1])].set(1.0)
    precision = jnp.diag(jnp.concatenate([ends[0], factor * inner, ends[1]]))
    at = len(scale) + np.arange(t - 1)
    precision = precision.at[at, at + 1].set(-rho * factor).at[at + 1, at].set(-rho * factor)
    return precision, log_det + 2 * t * jnp.log(p.shock_sd) + (t - 1) * jnp.log1p(-(rho**2))


def weights(design: Design, p: Params) -> Any:
    """Observation precision (G, T), 0 where the KPI is missing."""
    residual = p.sigma[:, None] ** 2 * design.scatter / p.cell_precision
    return jnp.where(design.observed, 1.0 / (residual + design.noise), 0.0)


def extra_rows(design: Design, p: Params, response: Response) -> Extra:
    """Lift rows (scaled by their standard error) and the zero-sum constraints, in that order."""
    lifts = design.lifts
    share_by_geo = response.unit.sum(axis=1)  # (G, C)
    c = design.shape[2]
    if len(lifts.channel):
        gather = lifts.membership / lifts.std_error[:, None]  # (K, P)
        parts = p.theta[lifts.channel][:, None] * response.lift  # (P, G) KPI units
        spread_parts = (p.geo_spread[lifts.channel][:, None] * parts)[:, :, None] * np.eye(c)[lifts.channel][:, None, :]
        lift_rows = jnp.einsum("kp,pgc->kgc", gather, spread_parts)
        target = lifts.mean / lifts.std_error - gather @ parts.sum(axis=1)
    else:
        lift_rows, target = jnp.zeros((0, design.shape[0], c)), jnp.zeros(0)
    constraint = jnp.eye(c)[:, None, :] * share_by_geo[None]
    spread = jnp.sqrt(1.0 / p.lift_precision)
    noise = lifts.correlation * spread[:, None] * spread[None, :] + jnp.diag((lifts.bias_sd / lifts.std_error) ** 2)
    total = (share_by_geo**2).sum(axis=0)
    return Extra(
        rows=jnp.concatenate([lift_rows, constraint], axis=0),
        target=jnp.concatenate([target, jnp.zeros(c)]),
        lift_covariance=noise,
        constraint_log_prior=-0.5 * (jnp.log(2 * jnp.pi * total)).sum(),
    )


def own_columns(design: Design) -> Any:
    """Columns (G, T, Q) whose coefficients are each geo's own, media aside: intercept, slow trend, controls."""
    g, t, _ = design.shape
    every = jnp.broadcast_to(design.local, (g, t, design.local.shape[1]))
    return jnp.concatenate([every, design.controls], axis=2) if design.own_controls else every


def _basis(design: Design) -> Basis:
    return Basis(own_columns(design), design.common, design.controls, design.shock)


def linear_terms(design: Design, p: Params) -> tuple[Terms, Any]:
    """The linear part at `p`, and the constants that `mmm.marginal.log_marginal` leaves out of the log density."""
    response = media_response(design, p)
    extra = extra_rows(design, p, response)
    local_var = _local_variance(design, p)
    precision, shared_log_det = _shared_prior(design, p)
    prior_mean = design.common @ design.common_mean
    media_mean = response.unit @ p.theta / design.level[:, None]
    terms = Terms(
        weight=weights(design, p),
        media=response.unit * (p.theta * p.geo_spread) / design.level[:, None, None],
        residual=design.outcome - prior_mean[None, :] - media_mean,
        local_var=local_var,
        precision=precision,
        rows=extra.rows,
        target=extra.target,
        noise=extra.lift_covariance,
    )
    counted = design.observed.sum() + extra.rows.shape[0]
    log_det = design.shape[0] * jnp.log(local_var).sum() + shared_log_det + counted * jnp.log(2 * jnp.pi)
    jacobian = -jnp.log(design.lifts.std_error).sum()  # the lift rows were divided by their standard error
    return terms, -0.5 * log_det + jacobian - extra.constraint_log_prior


def log_density(design: Design, p: Params) -> Any:
    """Log of p(panel, lifts | nonlinear parameters), the linear part integrated out, the constraint conditioned on."""
    terms, constant = linear_terms(design, p)
    return log_marginal(_basis(design))(terms) + constant


def left_out(design: Design, p: Params) -> tuple[Any, Any]:
    """Mean and sd (G, T) of each cell given all the others (and the lifts), relative to the geo's level.

    From the log marginal likelihood's derivatives: K r by the residual, and K_ii = w − w² Var(fit | all) by the weight.
    A missing cell gets a mean of its outcome entry and an sd of 1.
    """
    terms, _ = linear_terms(design, p)
    slope = jax.grad(log_marginal(_basis(design)))(terms)
    w = jnp.where(terms.weight > 0, terms.weight, 1.0)
    error = -slope.residual / w
    fit_variance = 1.0 / w - 2.0 * slope.weight - error**2
    own = jnp.where(terms.weight > 0, w - w**2 * fit_variance, 1.0)
    return design.outcome + slope.residual / own, 1.0 / jnp.sqrt(own)


def draw_linear(design: Design, p: Params, key: Any) -> tuple[Any, Any]:
    """One exact draw of the linear part: local (G, B) with z last, shared (S,) with its prior mean."""
    terms, _ = linear_terms(design, p)
    local, shared = draw(_basis(design), terms, key)
    return local, shared.at[: design.common.shape[1]].add(design.common_mean)


def baseline(design: Design, local: Any, shared: Any) -> Any:
    """Expected KPI without media (G, T), KPI units, of one draw of the linear part (shared with its prior mean)."""
    path, control = _basis(design).path(shared[:, None])
    columns = own_columns(design)
    own = (columns @ local[:, : columns.shape[2], None])[..., 0]
    return design.level[:, None] * (path[:, 0][None] + own + design.controls @ control[:, 0])
