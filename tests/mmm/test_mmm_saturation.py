"""Laws of the curves: 0 at 0, rising, a share where there is a ceiling, and elasticity as the slope of the logs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import ContractError
from mmm.saturation import SATURATIONS, Hill

KINDS = st.sampled_from(sorted(SATURATIONS))
CEILING = ("hill", "michaelis_menten", "logistic", "tanh", "exponential")
HALF, SLOPE, STOCK = st.floats(0.05, 20), st.floats(0.3, 3), st.floats(1e-3, 50)


@given(KINDS, HALF, SLOPE, STOCK)
def test_curves_rise_from_zero(kind: str, half: float, slope: float, stock: float):
    family = SATURATIONS[kind]
    assert family.share(np.array(0.0), half, slope) == 0.0
    low, high = family.share(np.array(stock), half, slope), family.share(np.array(1.1 * stock), half, slope)
    assert 0 < low <= high
    if kind in CEILING:
        assert high <= 1.0
        assert np.isclose(family.share(np.array(half), half, slope), 0.5)
        assert np.isclose(family.share(np.array(1e12), half, slope), 1.0, atol=2e-3)


@given(KINDS, HALF, SLOPE, STOCK)
def test_elasticity_is_the_slope_of_the_logs(kind: str, half: float, slope: float, stock: float):
    family = SATURATIONS[kind]
    step = 1e-4  # a share near 0 or 1 has an absolute rounding error of 1e-16: the slope's is that over share × step
    up, down = (family.share(np.array(stock * np.exp(s)), half, slope) for s in (step, -step))
    rounding = 4 * np.finfo(float).eps / (float(down) * step)
    exact = family.elasticity(np.array(stock), half, slope)
    assert np.isclose(exact, (np.log(up) - np.log(down)) / (2 * step), rtol=1e-4, atol=1e-7 + rounding)
    assert family.elasticity(np.array(0.0), half, slope) == 0.0


def test_curves_are_their_formulas():
    x, k, n = np.array([0.2, 1.0, 5.0]), 1.7, 0.6
    r = np.log(3) / k
    written = {
        "hill": x**n / (x**n + k**n),
        "michaelis_menten": x / (x + k),
        "logistic": (1 - np.exp(-r * x)) / (1 + np.exp(-r * x)),
        "tanh": np.tanh(r * x / 2),
        "exponential": 1 - 2 ** (-x / k),
        "log": np.log(1 + x / k),
        "root": x**n,
        "none": x,
    }
    assert set(written) == set(SATURATIONS)
    for kind, value in written.items():
        assert np.allclose(SATURATIONS[kind].share(x, k, n), value), kind


@pytest.mark.parametrize("kind", sorted(SATURATIONS))
def test_numpy_and_jax_agree_and_gradients_are_finite_at_zero(kind: str):
    family, x = SATURATIONS[kind], np.array([0.0, 0.5, 2.0, 80.0])
    with jax.enable_x64(True):
        for of in (family.share, family.elasticity):
            assert np.allclose(of(jnp.asarray(x), 1.2, 1.4, jnp), of(x, 1.2, 1.4), rtol=1e-12)
        slope = jax.grad(lambda v: family.share(jnp.asarray(x), v[0], v[1], jnp).sum())(jnp.array([1.2, 1.4]))
    assert np.isfinite(np.asarray(slope)).all()


def test_priors_are_checked():
    with pytest.raises(ContractError, match="half_scale must be a finite number > 0"):
        Hill(half_scale=-1.0)
