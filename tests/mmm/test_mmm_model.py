"""The priors: what NUTS moves is a standard normal, what the model reads has the distribution that is stated."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mmm.model import folded, half_student

Z = np.linspace(-6.0, 6.0, 41)


@pytest.mark.parametrize(("made", "stated"), [(folded, stats.halfnorm()), (half_student, stats.t(2))])
def test_a_scale_has_the_quantiles_of_its_distribution(made, stated):  # type: ignore[no-untyped-def]
    with jax.enable_x64(True):
        found = np.asarray(made(jnp.asarray(Z)))
    u = stats.norm.cdf(Z)
    wanted = stated.ppf(u) if made is folded else stated.ppf((1.0 + u) / 2.0)
    inside = Z < 5  # beyond, 1 − u is lost in scipy's argument
    assert found[inside] == pytest.approx(wanted[inside], rel=1e-6)
    assert (np.diff(found) > 0).all()


@pytest.mark.parametrize("made", [folded, half_student])
def test_a_scale_has_a_finite_slope_wherever_a_chain_may_go(made):  # type: ignore[no-untyped-def]
    with jax.enable_x64(True):
        slopes = np.asarray(jax.vmap(jax.grad(made))(jnp.asarray(Z)))
    assert np.isfinite(slopes).all() and (slopes > 0).all()
