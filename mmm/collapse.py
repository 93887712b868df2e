"""The linear-Gaussian part of the model, integrated out exactly and drawn back afterwards.

Given carry-over, curve shape, effect sizes and noise scales, the model is linear in
- per geo g: b_g = (own intercept and slow trend, relative media deviations z_gc),
- shared: s = (common basis coefficients, weekly shocks, control coefficients),
all with Gaussian priors. Two sets of extra rows couple the geos: the lift tests, and the constraint
sum_g w_gc z_gc = 0 that makes theta_c the channel's total contribution exactly (w = share of the channel's response).

    y_g = mean_g + Z_g b_g + S_g s + e_g,   e_g ~ N(0, diag(sigma_g² + tau²_g,t))

The precision matrix is an arrow: blocks P_g = Z'WZ + V_b^-1, and after eliminating them the shared block
Lambda = sum_g S'(W − W Z P^-1 Z' W)S + V_s^-1. Rasmussen and Williams (2006), section 2.7, for the marginal
likelihood with explicit basis functions; Rue and Held (2005), section 2.3.3, for conditioning a draw on extra rows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve, solve_triangular

from mmm.design import Design
from mmm.media import Params, Response, media_response


class Arrow(NamedTuple):
    """Factorised posterior of the linear part given the panel's rows, and its log marginal likelihood."""

    chol_p: Any  # (G, B, B)
    v: Any  # (G, B, T) chol_p^-1 Z'W
    vx: Any  # (G, B, K) chol_p^-1 Z'W X
    vr: Any  # (G, B) chol_p^-1 Z'W r
    chol_s: Any  # (S, S)
    rhs: Any  # (S,)
    log_likelihood: Any  # ()


class Extra(NamedTuple):
    """Extra rows on the geo deviations: rows @ z = target + noise."""

    rows: Any  # (R, G, C)
    target: Any  # (R,)
    lift_covariance: Any  # (K, K); the constraints that follow are exact
    constraint_log_prior: Any  # () log prior density of the constraints, divided out


def _local_columns(design: Design, p: Params, unit: Any) -> tuple[Any, Any]:
    """Columns Z (G, T, B) of one geo's own coefficients and their prior variance (B,)."""
    g, t, c = design.shape
    fixed = jnp.broadcast_to(design.local, (g, t, design.local.shape[1]))
    media = unit * (p.theta * p.geo_spread) / design.level[:, None, None]
    scale = jnp.where(design.local_kind == 1, p.geo_trend_sd, 1.0) * design.local_sd
    return jnp.concatenate([fixed, media], axis=2), jnp.concatenate([scale**2, jnp.ones(c)])


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


def _stack_shared(design: Design, by_time: Any, by_control: Any) -> Any:
    """Rows of shared coefficients (basis, shocks, controls) from rows by period (T, n) and by control (K, n)."""
    parts = [design.common.T @ by_time]
    if design.shock:
        parts.append(by_time)
    return jnp.concatenate([*parts, by_control], axis=0)


def weights(design: Design, p: Params) -> Any:
    """Observation precision (G, T), 0 where the KPI is missing."""
    residual = p.sigma[:, None] ** 2 * design.scatter / p.cell_precision
    return jnp.where(design.observed, 1.0 / (residual + design.noise), 0.0)


def factorise(design: Design, p: Params, response: Response) -> Arrow:
    """Eliminates the linear part; `log_likelihood` is that of the panel's rows."""
    w = weights(design, p)
    z, local_var = _local_columns(design, p, response.unit)
    prior_mean = design.common @ design.common_mean
    media_mean = response.unit @ p.theta / design.level[:, None]
    r = design.outcome - prior_mean[None, :] - media_mean
    zw = jnp.swapaxes(z * w[..., None], 1, 2)  # (G, B, T)
    chol_p = jnp.linalg.cholesky(zw @ z + jnp.diag(1.0 / local_var))
    x = design.controls
    stacked = jnp.concatenate([zw, zw @ x, (zw @ r[..., None])], axis=2)
    solved = solve_triangular(chol_p, stacked, lower=True)
    t, k = design.shape[1], x.shape[2]
    v, vx, vr = solved[..., :t], solved[..., t : t + k], solved[..., -1]
    rows = v.shape[0] * v.shape[1]  # written out, because -1 cannot be told when there are no controls
    flat, flat_x, flat_r = v.reshape(rows, t), vx.reshape(rows, k), vr.reshape(rows)
    xw = x * w[..., None]
    time_time = jnp.diag(w.sum(axis=0)) - flat.T @ flat
    time_control = xw.sum(axis=0) - flat.T @ flat_x
    control_control = xw.reshape(x.shape[0] * t, k).T @ x.reshape(x.shape[0] * t, k) - flat_x.T @ flat_x
    rhs_time = (w * r).sum(axis=0) - flat.T @ flat_r
    rhs_control = xw.reshape(x.shape[0] * t, k).T @ r.reshape(-1) - flat_x.T @ flat_r
    left = _stack_shared(design, time_time, time_control.T)  # (S, T)
    right = _stack_shared(design, time_control, control_control)  # (S, K)
    half = [left @ design.common] + ([left] if design.shock else []) + [right]
    prior_precision, prior_log_det = _shared_prior(design, p)
    lam = jnp.concatenate(half, axis=1) + prior_precision
    chol_s = jnp.linalg.cholesky(lam)
    rhs = _stack_shared(design, rhs_time[:, None], rhs_control[:, None])[:, 0]
    u = solve_triangular(chol_s, rhs, lower=True)
    quad = (w * r**2).sum() - (vr**2).sum() - (u**2).sum()
    log_det = (
        2 * jnp.log(jnp.diagonal(chol_p, axis1=1, axis2=2)).sum()
        + design.shape[0] * jnp.log(local_var).sum()
        + 2 * jnp.log(jnp.diagonal(chol_s)).sum()
        + prior_log_det
        - jnp.log(jnp.where(design.observed, w, 1.0)).sum()
    )
    log_likelihood = -0.5 * (quad + log_det + design.observed.sum() * jnp.log(2 * jnp.pi))
    return Arrow(chol_p, v, vx, vr, chol_s, rhs, log_likelihood)


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


def _pull_back(design: Design, arrow: Arrow, extra: Extra) -> tuple[Any, Any, Any]:
    """Half-solves of the extra rows: local (G·B, R), shared (S, R), and their posterior mean (R,)."""
    r = extra.rows.shape[0]
    g, _, c = design.shape
    local = jnp.zeros((g, design.local.shape[1], r))
    full = jnp.concatenate([local, jnp.transpose(extra.rows, (1, 2, 0))], axis=1)  # (G, B, R)
    # joined over geos and coefficients: one matrix product each, where a contraction over two axes is a slow loop
    half = solve_triangular(arrow.chol_p, full, lower=True).reshape(-1, r)
    by_time = arrow.v.reshape(len(half), design.shape[1]).T @ half
    by_control = arrow.vx.reshape(len(half), design.controls.shape[2]).T @ half
    shared = solve_triangular(arrow.chol_s, _stack_shared(design, by_time, by_control), lower=True)
    u = solve_triangular(arrow.chol_s, arrow.rhs, lower=True)
    mean = half.T @ arrow.vr.reshape(-1) - shared.T @ u
    return half, shared, mean


def _extra_covariance(half: Any, shared: Any, extra: Extra) -> Any:
    """Predictive covariance (R, R) of the extra rows given the panel."""
    k = extra.lift_covariance.shape[0]
    cov = half.T @ half + shared.T @ shared
    return cov.at[:k, :k].add(extra.lift_covariance)


def log_density(design: Design, p: Params) -> Any:
    """Log of p(panel, lifts | nonlinear parameters), the linear part integrated out, the constraint conditioned on."""
    response = media_response(design, p)
    arrow = factorise(design, p, response)
    extra = extra_rows(design, p, response)
    half, shared, mean = _pull_back(design, arrow, extra)
    cov = _extra_covariance(half, shared, extra)
    chol = jnp.linalg.cholesky(cov)
    e = solve_triangular(chol, extra.target - mean, lower=True)
    r = extra.rows.shape[0]
    extra_log = -0.5 * (e**2).sum() - jnp.log(jnp.diagonal(chol)).sum() - 0.5 * r * jnp.log(2 * jnp.pi)
    jacobian = -jnp.log(design.lifts.std_error).sum()  # the lift rows were divided by their standard error
    return arrow.log_likelihood + extra_log + jacobian - extra.constraint_log_prior


def draw_linear(design: Design, p: Params, key: Any) -> tuple[Any, Any]:
    """One exact draw of the linear part: local (G, B) with z last, shared (S,) with its prior mean."""
    response = media_response(design, p)
    arrow = factorise(design, p, response)
    extra = extra_rows(design, p, response)
    k_local, k_shared, k_extra = jax.random.split(key, 3)
    g, b = arrow.vr.shape
    s = arrow.rhs.shape[0]
    u = solve_triangular(arrow.chol_s, arrow.rhs, lower=True)
    shared = solve_triangular(arrow.chol_s.T, u + jax.random.normal(k_shared, (s,)), lower=False)
    local = _back_substitute(design, arrow, shared, arrow.vr + jax.random.normal(k_local, (g, b)))
    half, half_s, _ = _pull_back(design, arrow, extra)
    cov = _extra_covariance(half, half_s, extra)
    c, k = design.shape[2], extra.lift_covariance.shape[0]
    noise = jnp.zeros(extra.rows.shape[0])
    if k:
        noise = noise.at[:k].set(jnp.linalg.cholesky(extra.lift_covariance) @ jax.random.normal(k_extra, (k,)))
    predicted = jnp.einsum("rgc,gc->r", extra.rows, local[:, b - c :])
    weight = cho_solve((jnp.linalg.cholesky(cov), True), extra.target + noise - predicted)
    step_s = solve_triangular(arrow.chol_s.T, -half_s @ weight, lower=False)
    step_l = _back_substitute(design, arrow, step_s, (half @ weight).reshape(g, b))
    p_common = design.common.shape[1]
    return local + step_l, (shared + step_s).at[:p_common].add(design.common_mean)


def _back_substitute(design: Design, arrow: Arrow, shared: Any, half: Any) -> Any:
    """Local coefficients chol_p^-T (half − chol_p^-1 Z'W S shared), shape (G, B)."""
    by_time, by_control = _shared_by_period(design, shared)
    pulled = jnp.einsum("gbt,t->gb", arrow.v, by_time) + jnp.einsum("gbk,k->gb", arrow.vx, by_control)
    return solve_triangular(jnp.swapaxes(arrow.chol_p, 1, 2), (half - pulled)[..., None], lower=False)[..., 0]


def _shared_by_period(design: Design, shared: Any) -> tuple[Any, Any]:
    """Shared coefficients as a path (T,) and control coefficients (K,)."""
    p, t = design.common.shape[1], design.shape[1]
    path = design.common @ shared[:p]
    if design.shock:
        path = path + shared[p : p + t]
    return path, shared[p + (t if design.shock else 0) :]


def baseline(design: Design, local: Any, shared: Any) -> Any:
    """Expected KPI without media (G, T), KPI units, of one draw of the linear part (shared with its prior mean)."""
    path, control = _shared_by_period(design, shared)
    own = local[:, : design.local.shape[1]] @ design.local.T
    return design.level[:, None] * (path[None] + own + design.controls @ control)
