"""Laws of the carry-over families, and each against its formula written out."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import nbinom, weibull_min

from contracts.errors import ContractError
from mmm.adstock import ADSTOCKS, Geometric

KINDS = st.sampled_from(sorted(ADSTOCKS))
RETENTION, DELAY, LAGS = st.floats(0.02, 0.98), st.floats(0.0, 8.0), st.integers(1, 20)


def weights(kind: str, retention: float, delay: float, lags: int) -> np.ndarray:
    return ADSTOCKS[kind].weights(np.array([retention]), np.array([delay]), lags)[:, 0]


@given(KINDS, RETENTION, DELAY, LAGS)
def test_weights_are_a_distribution_over_the_lags(kind: str, retention: float, delay: float, lags: int):
    w = weights(kind, retention, delay, lags)
    assert w.shape == (lags,)
    assert (w >= 0).all()
    assert np.isclose(w.sum(), 1.0)


WRITTEN = {
    "negative_binomial": lambda a, d, n: nbinom.pmf(np.arange(n), 1 + d, 1 - a),
    "geometric": lambda a, d, n: a ** np.arange(n),
    "delayed": lambda a, d, n: a ** ((np.arange(n) - d) ** 2),
    "binomial": lambda a, d, n: (1 - np.arange(n) / n) ** (1 / a - 1),
    "weibull_pdf": lambda a, d, n: weibull_min.pdf(np.arange(1, n + 1), 1 + d, scale=a * n),
    "weibull_cdf": lambda a, d, n: np.cumprod([1.0, *weibull_min.sf(np.arange(1, n), d, scale=a * n)]),
    "none": lambda a, d, n: np.eye(n)[0],
}


@pytest.mark.parametrize("kind", sorted(ADSTOCKS))
@pytest.mark.parametrize(("retention", "delay"), [(0.3, 0.7), (0.8, 2.5), (0.5, 1.0)])
def test_each_family_is_its_formula(kind: str, retention: float, delay: float):
    raw = WRITTEN[kind](retention, delay, 9)
    assert np.allclose(weights(kind, retention, delay, 9), raw / raw.sum(), rtol=1e-9)


def test_families_meet_where_their_formulas_do():
    assert np.allclose(weights("negative_binomial", 0.6, 0.0, 12), weights("geometric", 0.6, 0.0, 12))
    assert np.allclose(weights("geometric", 1e-9, 0.0, 12), weights("none", 0.5, 0.0, 12))
    assert np.allclose(weights("delayed", 1e-9, 3.0, 12), np.eye(12)[3])
    assert np.argmax(weights("delayed", 0.7, 4.0, 12)) == 4


@pytest.mark.parametrize("kind", sorted(ADSTOCKS))
def test_numpy_and_jax_agree_and_gradients_are_finite(kind: str):
    family = ADSTOCKS[kind]
    with jax.enable_x64(True):
        for r, d in ((0.02, 0.0), (0.98, 7.0)):
            ours = family.weights(jnp.array([r]), jnp.array([d]), 8, jnp)[:, 0]
            assert np.allclose(ours, weights(kind, r, d, 8), rtol=1e-12)
            got = jax.grad(lambda v: (family.weights(v[:1], v[1:], 8, jnp) * np.arange(8)[:, None]).sum())(
                jnp.array([r, d])
            )
            assert np.isfinite(np.asarray(got)).all()


def test_priors_are_checked():
    with pytest.raises(ContractError, match="retention_a must be a finite number > 0"):
        Geometric(retention_a=0.0)
