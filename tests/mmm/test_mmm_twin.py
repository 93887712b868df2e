"""The collapsed engine and its PyMC twin draw from one posterior."""

from __future__ import annotations

import jax
import numpy as np
import pymc as pm
import pytest
from mmm_worlds import lift_term, make_panel

from mmm.design import build_design
from mmm.diagnostics import convergence
from mmm.fit import RunFlags, fit
from mmm.laplace import template
from mmm.model import model
from mmm.spec import ModelSpec
from mmm.twin import build_pymc

SPEC = ModelSpec(yearly_terms=1)


def test_the_twin_has_the_engine_s_sites():
    panel, _ = make_panel(geos=3, periods=40, channels=2, seed=2)
    with jax.enable_x64(True):
        design = build_design(panel, SPEC, (lift_term(panel),))
        ours = {k: v.shape for k, v in template(design, SPEC).items()}
    twin = build_pymc(design, SPEC)
    theirs = {v.name: tuple(v.type.shape) for v in twin.free_RVs}
    for name, shape in ours.items():
        assert name in theirs, name
        assert len(theirs[name]) == len(shape), name
    linear = set(theirs) - set(ours)
    assert linear == {"z_geo", "z_common", "z_shock", "z_local", "control"}
    assert callable(model)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_posterior_means_agree_within_monte_carlo_error():
    """Differences of 15 figures stay under 5 standard errors: false alarm under 1e-5."""
    panel, _ = make_panel(geos=3, periods=52, channels=2, seed=2)
    terms = (lift_term(panel),)
    ours = fit(panel, SPEC, terms, seed=3, flags=RunFlags(draws=1000, doublings=0)).posterior
    with jax.enable_x64(True):
        design = build_design(panel, SPEC, terms)
    with build_pymc(design, SPEC):
        theirs = pm.sample(1000, tune=1000, chains=4, cores=2, random_seed=5, progressbar=False, target_accept=0.95)
    for name in (
        "theta",
        "retention",
        "z_half_saturation",
        "z_slope",
        "r_geo_spread",
        "z_sigma",
        "r_shock_sd",
        "shock_correlation",
    ):
        a = np.log(ours.params["theta"]) if name == "theta" else ours.sampled[name]
        b = theirs.posterior[name].to_numpy()
        b = np.log(b) if name == "theta" else b
        a, b = (x.reshape(*x.shape[:2], -1) for x in (a, b))
        for i in range(a.shape[2]):
            x, y = a[..., i], b[..., i]
            se = np.sqrt(x.var() / convergence(x)[1] + y.var() / convergence(y)[1])
            assert abs(x.mean() - y.mean()) < 5 * se, (name, i, x.mean(), y.mean(), se)
