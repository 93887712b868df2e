"""The collapsed likelihood and its draws against a dense multivariate normal built by hand."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mmm_worlds import lift_term, make_panel
from scipy.linalg import block_diag
from scipy.stats import multivariate_normal

from mmm.collapse import baseline, draw_linear, left_out, log_density
from mmm.design import Design, build_design
from mmm.media import Params, media_response
from mmm.spec import ModelSpec


@pytest.fixture(scope="module")
def setup():
    panel, _ = make_panel(geos=4, periods=40, channels=2, seed=3)
    kpi = panel.kpi.copy()
    kpi[1, 5:8] = np.nan
    variance = panel.kpi_variance * (1 + np.arange(40) % 3)[None]
    panel = dataclasses.replace(panel, kpi=kpi, kpi_variance=variance)
    terms = (lift_term(panel, correlation=(1.0, 0.4)), lift_term(panel, "u", 1, (1, 2, 3), 25.0, 9.0, (0.4, 1.0)))
    with jax.enable_x64(True):
        design = build_design(panel, ModelSpec(), terms)
        params = Params(
            theta=jnp.array([500.0, 300.0]), retention=jnp.array([0.3, 0.6]), delay=jnp.array([0.0, 0.8]),
            half_saturation=jnp.array([1.2, 0.8]),
            slope=jnp.array([1.1, 1.3]), geo_spread=jnp.array([0.2, 0.4]), sigma=jnp.array([0.1, 0.08, 0.12, 0.1]),
            shock_sd=jnp.array(0.03),
            shock_correlation=jnp.array(0.6), trend_sd=jnp.array(0.1), geo_trend_sd=jnp.array(0.04),
            lift_precision=jnp.array([0.7, 1.3]), control_spread=jnp.array([0.07]),
        )  # fmt: skip
    return design, params


def _dense(design: Design, p: Params) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Observations (panel, lifts, constraints), mean, map from coefficients, prior covariance, noise."""
    with jax.enable_x64(True):
        response = jax.device_get(media_response(design, p))
    g, t, c = design.shape
    q, k, pc = design.local.shape[1], design.controls.shape[2], design.common.shape[1]
    theta, eta = np.asarray(p.theta), np.asarray(p.geo_spread)
    own = k if design.own_controls else 0
    n_local, n_shared = q + own + c, pc + t + k
    rows, mean, obs, noise = [], [], [], []
    for i in range(g):
        for j in range(t):
            if not design.observed[i, j]:
                continue
            row = np.zeros(g * n_local + n_shared)
            row[i * n_local : i * n_local + q] = design.local[j]
            row[i * n_local + q : i * n_local + q + own] = design.controls[i, j, :own]
            row[i * n_local + q + own : (i + 1) * n_local] = theta * eta * response.unit[i, j] / design.level[i]
            row[g * n_local : g * n_local + pc] = design.common[j]
            row[g * n_local + pc + j] = 1.0
            row[g * n_local + pc + t :] = design.controls[i, j]
            rows.append(row)
            mean.append(design.common[j] @ design.common_mean + theta @ response.unit[i, j] / design.level[i])
            obs.append(design.outcome[i, j])
            mixing = np.broadcast_to(np.asarray(p.cell_precision), (g, t))[i, j]
            noise.append(float(p.sigma[i]) ** 2 * design.scatter[i, j] / mixing + design.noise[i, j])
    lifts = design.lifts
    for n, channel in enumerate(lifts.channel):
        row = np.zeros(g * n_local + n_shared)
        for i in range(g):
            row[i * n_local + q + own + channel] = theta[channel] * eta[channel] * response.lift[n, i]
        rows.append(row)
        mean.append(theta[channel] * response.lift[n].sum())
        obs.append(lifts.mean[n])
    spread = lifts.std_error / np.sqrt(np.asarray(p.lift_precision))
    lift_cov = lifts.correlation * np.outer(spread, spread) + np.diag(lifts.bias_sd**2)
    for channel in range(c):
        row = np.zeros(g * n_local + n_shared)
        for i in range(g):
            row[i * n_local + q + own + channel] = response.unit[i, :, channel].sum()
        rows.append(row)
        mean.append(0.0)
        obs.append(0.0)
    local_var = np.concatenate(
        [
            (np.where(design.local_kind == 1, float(p.geo_trend_sd), 1.0) * design.local_sd) ** 2,
            np.asarray(p.control_spread) ** 2,
            np.ones(c),
        ]
    )
    common_var = (np.where(design.common_kind == 1, float(p.trend_sd), 1.0) * design.common_sd) ** 2
    before = np.diag(np.concatenate([np.tile(local_var, g), common_var]))
    lag = np.abs(np.arange(t)[:, None] - np.arange(t)[None, :])
    shocks = float(p.shock_sd) ** 2 * float(p.shock_correlation) ** lag
    var = block_diag(before, shocks, (design.control_sd * float(p.control_scale)) ** 2 * np.eye(k))
    n = len(noise)
    cov = np.zeros((len(rows), len(rows)))
    cov[np.arange(n), np.arange(n)] = noise
    cov[n : n + len(spread), n : n + len(spread)] = lift_cov
    return np.array(obs), np.array(mean), np.array(rows), var, cov


def test_log_density_equals_the_dense_normal(setup):
    design, params = setup
    obs, mean, rows, var, noise = _dense(design, params)
    full = rows @ var @ rows.T + noise
    c = design.shape[2]
    joint = multivariate_normal(mean, full, allow_singular=False).logpdf(obs)
    constraint = multivariate_normal(mean[-c:], full[-c:, -c:]).logpdf(obs[-c:])
    with jax.enable_x64(True):
        ours = float(log_density(design, params))
    assert ours == pytest.approx(joint - constraint, rel=1e-9)


@pytest.mark.parametrize("likelihood", ["student_t", "negative_binomial"])
def test_log_density_of_the_other_likelihoods_equals_the_dense_normal(setup, likelihood):
    panel, _ = make_panel(geos=3, periods=30, channels=2, controls=2, seed=3)
    with jax.enable_x64(True):
        design = build_design(panel, ModelSpec(likelihood=likelihood, shrink_controls_from=2), ())
        params = setup[1]._replace(
            sigma=jnp.array([0.1, 0.08, 0.12]),
            lift_precision=jnp.ones(0),
            control_scale=jnp.array(0.4),
            control_spread=jnp.array([0.05, 0.02]),
        )
        if likelihood == "student_t":
            mixing = np.random.default_rng(0).gamma(2.5, 1 / 2.5, (3, 30))
            params = params._replace(cell_precision=jnp.asarray(mixing))
    if likelihood == "negative_binomial":
        assert (design.noise > panel.kpi_variance / design.level[:, None] ** 2).all()
    obs, mean, rows, var, noise = _dense(design, params)
    full = rows @ var @ rows.T + noise
    joint = multivariate_normal(mean, full).logpdf(obs)
    constraint = multivariate_normal(mean[-2:], full[-2:, -2:]).logpdf(obs[-2:])
    with jax.enable_x64(True):
        assert float(log_density(design, params)) == pytest.approx(joint - constraint, rel=1e-9)


@pytest.mark.parametrize(("geos", "controls"), [(4, 0), (1, 2), (1, 0), (2, 1)])
def test_panels_without_controls_or_with_few_geos_have_a_finite_density_and_draw(geos, controls):
    panel, _ = make_panel(geos=geos, periods=40, channels=2, controls=controls, shares=(0.1, 0.05))
    with jax.enable_x64(True):
        design = build_design(panel, ModelSpec())
        params = Params(
            *(jnp.full(2, v) for v in (400.0, 0.4, 0.5, 1.0, 1.1, 0.2)), jnp.full(geos, 0.1),
            jnp.array(0.02), jnp.array(0.5), jnp.array(0.1), jnp.array(0.05), jnp.ones(0),
            control_spread=jnp.full(controls if geos > 1 else 0, 0.05),
        )  # fmt: skip
        assert np.isfinite(float(log_density(design, params)))
        local, shared = draw_linear(design, params, jax.random.key(0))
    assert np.isfinite(np.asarray(local)).all()
    assert np.isfinite(np.asarray(shared)).all()


def test_log_density_gradient_equals_finite_differences(setup):
    design, params = setup
    with jax.enable_x64(True):
        gradient = jax.grad(lambda p: log_density(design, p))(params)
        for name in ("theta", "retention", "delay", "slope", "sigma", "geo_spread", "control_spread"):
            value = getattr(params, name)
            step = 1e-5 * max(float(value[0]), 1.0)
            up, down = (params._replace(**{name: value.at[0].add(s)}) for s in (step, -step))
            numeric = (float(log_density(design, up)) - float(log_density(design, down))) / (2 * step)
            assert float(getattr(gradient, name)[0]) == pytest.approx(numeric, rel=1e-4), name


def test_draws_have_the_exact_conditional_moments(setup):
    design, params = setup
    obs, mean, rows, var, noise = _dense(design, params)
    gain = (var @ rows.T) @ np.linalg.inv(rows @ var @ rows.T + noise)
    expected = gain @ (obs - mean)
    covariance = var - gain @ rows @ var
    n = 4000
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), n)
        local, shared = jax.vmap(lambda k: draw_linear(design, params, k))(keys)
        local, shared = np.array(local), np.array(shared)
    shared[:, : design.common.shape[1]] -= design.common_mean
    drawn = np.concatenate([local.reshape(n, -1), shared], axis=1)
    sd = np.sqrt(np.maximum(np.diag(covariance), 1e-18))
    free = sd > 1e-8
    # each of about 100 means lies within 5 standard errors: a false alarm in fewer than 1 of 10,000 seeds
    assert np.abs((drawn.mean(0) - expected)[free] / sd[free] * np.sqrt(n)).max() < 5
    assert np.abs(drawn.std(0)[free] / sd[free] - 1).max() < 5 / np.sqrt(2 * n)


def test_the_baseline_is_what_all_share_and_what_is_a_geo_s_own(setup):
    """Basis, shock and control in common; intercept, trend and control of the geo's own; no media."""
    design, params = setup
    with jax.enable_x64(True):
        local, shared = (np.asarray(v) for v in draw_linear(design, params, jax.random.key(5)))
        found = np.asarray(baseline(design, local, shared))
    (_, t, _), p, q = design.shape, design.common.shape[1], design.local.shape[1]
    assert design.own_controls and design.controls.shape[2] == 1
    common = design.common @ shared[:p] + shared[p : p + t]
    control = design.controls[:, :, 0] * (shared[p + t] + local[:, q])[:, None]
    assert np.abs(local[:, q]).min() > 1e-4, "each geo has a part of its own"
    exact = design.level[:, None] * (common[None] + local[:, :q] @ design.local.T + control)
    assert np.allclose(found, exact, rtol=1e-10)


def test_deviations_sum_to_zero_in_every_draw(setup):
    design, params = setup
    with jax.enable_x64(True):
        unit = np.asarray(media_response(design, params).unit.sum(axis=1))
        local, _ = draw_linear(design, params, jax.random.key(4))
    z = np.asarray(local)[:, -design.shape[2] :]
    assert np.allclose((unit * z).sum(axis=0), 0.0, atol=1e-9)


def test_scalar_gradients_equal_finite_differences(setup):
    design, params = setup
    with jax.enable_x64(True):
        gradient = jax.grad(lambda p: log_density(design, p))(params)
        for name in ("shock_sd", "shock_correlation", "trend_sd", "geo_trend_sd"):
            value, step = getattr(params, name), 1e-6
            up, down = (float(log_density(design, params._replace(**{name: value + s}))) for s in (step, -step))
            assert float(getattr(gradient, name)) == pytest.approx((up - down) / (2 * step), rel=1e-4), name
        value = params.lift_precision
        up, down = (
            float(log_density(design, params._replace(lift_precision=value.at[1].add(s)))) for s in (1e-5, -1e-5)
        )
        assert float(gradient.lift_precision[1]) == pytest.approx((up - down) / 2e-5, rel=1e-4)


def test_left_out_cells_equal_the_dense_conditional(setup):
    design, params = setup
    obs, mean, rows, var, noise = _dense(design, params)
    full = rows @ var @ rows.T + noise
    precision = np.linalg.inv(full)
    cells = int(design.observed.sum())
    expected = obs - (precision @ (obs - mean)) / np.diag(precision)
    with jax.enable_x64(True):
        found, sd = (np.asarray(a)[design.observed] for a in left_out(design, params))
    assert np.allclose(found, expected[:cells], atol=1e-8)
    assert np.allclose(sd, 1 / np.sqrt(np.diag(precision)[:cells]), rtol=1e-7)
    one = 7  # and by the definition, once: the cell's distribution given all other rows
    others = np.arange(len(obs)) != one
    weight = np.linalg.solve(full[np.ix_(others, others)], full[others, one])
    assert found[one] == pytest.approx(mean[one] + weight @ (obs - mean)[others], rel=1e-8)
