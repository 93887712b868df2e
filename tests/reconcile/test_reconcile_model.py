"""The model's parts against plain formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from scipy import stats

from reconcile.model import _effects, _innovations, layout, size, start, state
from reconcile.prepare import prepare
from reconcile.priors import PoolPriors

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def parts(make_world: Make) -> tuple[Any, Any]:
    """Arrays of a world, and a state away from the start."""
    data = prepare(make_world(2).inputs, PoolPriors()).arrays
    with jax.enable_x64(True):
        theta = start(data, PoolPriors()) + 0.3 * np.random.default_rng(1).standard_normal(size(layout(data)))
        return data, state(theta, data, PoolPriors())


def test_innovations_are_the_joint_normal_of_a_shared_shock(parts: tuple[Any, Any]) -> None:
    data, s = parts
    with jax.enable_x64(True):
        term = _innovations(s, data)
        found = float(np.sum(term.on * (-0.5 * term.residual**2 - 0.5 * np.log(2 * np.pi) - term.log_scale)))
    expected = 0.0
    for c in range(4):
        for t in range(3):
            rough = (data.credit_sd[:, c, t] / data.credit[:, c, t]) ** 2
            cov = np.diag(float(s.own[0]) ** 2 + rough) + float(s.shock[0]) ** 2
            expected += stats.multivariate_normal.logpdf(np.log(data.credit[:, c, t]), s.log_credit[:, c, t], cov)
    assert data.near.all()
    assert found == pytest.approx(expected, rel=1e-10)


def test_shares_sum_to_one_and_returns_never_grow(parts: tuple[Any, Any]) -> None:
    _, s = parts
    np.testing.assert_allclose(np.exp(s.share).sum(axis=1), 1.0)
    assert (np.asarray(s.kappa) < 0).all() and (np.asarray(s.kappa) > -1).all()


@pytest.mark.parametrize("ratio", [0.0, 0.5, 0.999, 1.001, 2.5])
def test_without_a_model_a_lift_is_the_secant_of_the_spend_curve(parts: tuple[Any, Any], ratio: float) -> None:
    """Response (s / S)^(1 + kappa) · I over a scope with a tenth of the spend, from usual to `ratio` x usual spend."""
    data, s = parts
    kappa = float(s.kappa[0])
    part = np.log(0.1 * abs(1 - ratio) * np.ones_like(data.lift_part))
    plain = data._replace(
        lift_by_model=np.zeros(2),
        lift_part=part,
        lift_ratio=np.full(2, ratio),
        lift_sign=np.full(2, np.sign(ratio - 1)),
    )
    with jax.enable_x64(True):
        effect = _effects(plain, s.level, s.share, np.zeros((4, 3)), s.kappa, np.zeros(2))
    period = np.exp(float(s.level[0]) + float(s.share[0, 1]))
    exact = 0.1 * period * (ratio ** (1 + kappa) - 1)
    assert float(effect[0]) == pytest.approx(exact, rel=0.02)
