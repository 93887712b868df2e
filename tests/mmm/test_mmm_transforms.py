"""Laws of carry-over and saturation; NumPy and JAX agree."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import nbinom

from mmm.transforms import adstock, adstock_weights, hill, lagged

retentions = st.floats(0.01, 0.95)


@given(retentions, st.integers(1, 20))
def test_weights_fall_and_sum_to_one(retention: float, lags: int):
    weights = adstock_weights(np.array([retention]), np.zeros(1), lags)[:, 0]
    assert np.isclose(weights.sum(), 1.0)
    assert np.allclose(weights[1:], weights[:-1] * retention)


@given(retentions, st.floats(0, 8), st.integers(2, 20))
def test_delayed_weights_are_the_negative_binomial_s(retention: float, delay: float, lags: int):
    weights = adstock_weights(np.array([retention]), np.array([delay]), lags)[:, 0]
    exact = nbinom.pmf(np.arange(lags), 1 + delay, 1 - retention)
    assert np.allclose(weights, exact / exact.sum())


@given(retentions, st.integers(2, 12))
def test_adstock_equals_the_written_out_sum(retention: float, lags: int):
    x = np.random.default_rng(lags).random((2, 15, 1))
    delay = np.array([1.5])
    weights = adstock_weights(np.array([retention]), delay, lags)[:, 0]
    written = np.zeros_like(x)
    for t in range(15):
        for lag in range(min(lags, t + 1)):
            written[:, t] += weights[lag] * x[:, t - lag]
    assert np.allclose(adstock(x, np.array([retention]), delay, lags), written)


def test_a_steady_exposure_is_its_own_stock_after_the_longest_lag():
    stock = adstock(np.full((1, 20, 1), 3.0), np.array([0.6]), np.array([0.5]), 6)
    assert np.allclose(stock[0, 6:], 3.0)
    assert (stock[0, :5] < 3.0).all()


@given(st.floats(0.05, 20), st.floats(0.3, 3), st.floats(0, 50))
def test_hill_is_a_rising_share_and_half_at_half_saturation(half: float, slope: float, x: float):
    assert np.isclose(hill(np.array(half), half, slope), 0.5)
    low, high = hill(np.array(x), half, slope), hill(np.array(x + 1.0), half, slope)
    assert 0 <= low <= high <= 1


def test_numpy_and_jax_agree_and_gradients_are_finite_at_zero():
    x = np.array([[0.0, 0.5, 2.0]])
    with jax.enable_x64(True):
        ours = hill(jnp.asarray(x), 1.2, 1.4, jnp)
        slope = jax.grad(lambda n: hill(jnp.asarray(x), 1.2, n, jnp).sum())(1.4)
    assert np.allclose(ours, hill(x, 1.2, 1.4))
    assert np.isfinite(slope)


def test_lagged_holds_the_past_and_nothing_before_the_start():
    out = lagged(np.array([[1.0, 2.0, 3.0]]), 2)
    assert out.tolist() == [[[1.0, 0.0], [2.0, 1.0], [3.0, 2.0]]]
    assert lagged(np.ones((1, 2)), 4).shape == (1, 2, 4)
