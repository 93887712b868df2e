"""Closed-form derivatives against JAX's automatic ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planning.derivatives import derivatives
from planning.surface import Assumptions, evaluate, held

Make = Callable[..., Any]


def worth_by_jax(surface: Any, q: np.ndarray, worth: np.ndarray, spend: Any) -> Any:
    """The weighted worth of plan and past, written again in JAX."""
    lags, t = surface.response.lags, surface.periods
    exposure = jnp.moveaxis(surface.per_spend * spend, 0, 1)
    g, c = exposure.shape[0], exposure.shape[2]
    series = jnp.concatenate([jnp.asarray(surface.before), exposure, jnp.zeros((g, lags - 1, c))], axis=1)
    at = np.arange(t + lags - 1)[:, None] + np.arange(lags)[::-1]
    stock = jnp.einsum("cdl,gtlc->dtgc", surface.lag_weights, series[:, at])
    share = jax.nn.sigmoid(surface.slope.T[:, None, None] * (jnp.log(stock) - surface.log_half.T[:, None, None]))
    seen = jnp.moveaxis(surface.seen_share, 0, 2)[:, None]
    share = jnp.where(stock > surface.seen.T, seen + surface.widen.T[:, None, None] * (share - seen), share)
    height = jnp.moveaxis(jnp.asarray(surface.amplitude), 0, 2)[:, None] * surface.demand[None, :, :, None]
    return jnp.einsum("d,t,dtgc->", q, worth, height * share)


@pytest.mark.parametrize(("geos", "periods"), [(1, 2), (2, 6)])
def test_gradient_and_curvature_match_jax(make_surface: Make, geos: int, periods: int) -> None:
    rng = np.random.default_rng(3)
    surface = make_surface(
        7,
        channels=3,
        geos=geos,
        draws=6,
        periods=periods,
        assumptions=Assumptions(demand=rng.uniform(0.5, 2.0, periods), cost_index=1.3),
    )
    spend = held(surface) * rng.uniform(0.3, 6.0, surface.shape)
    q, worth = rng.dirichlet(np.ones(6)), rng.uniform(0.5, 2.0, periods + 4)
    found = derivatives(surface, spend, q, worth, second=True)
    with jax.enable_x64(True):
        value = worth_by_jax(surface, q, worth, spend)
        gradient = jax.jit(jax.grad(lambda s: worth_by_jax(surface, q, worth, s)))(spend)
        curvature = jax.jit(jax.hessian(lambda s: worth_by_jax(surface, q, worth, s)))(spend)
    assert q @ (evaluate(surface, spend).plan + surface.in_flight).sum(axis=0) @ worth == pytest.approx(float(value))
    assert found.gradient == pytest.approx(np.asarray(gradient), rel=1e-9)
    assert found.blocks is not None
    for c in range(3):
        for g in range(geos):
            block = np.asarray(curvature)[:, g, c, :, g, c]
            assert found.blocks[c, g] == pytest.approx(block, rel=1e-8, abs=1e-12)
    assert np.asarray(curvature)[:, 0, 0, :, 0, 1] == pytest.approx(np.zeros((periods, periods)))
