"""The collapsed engine and its PyMC twin draw from one posterior."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import numpyro
import pymc as pm
import pytest
from mmm_worlds import lift_term, make_panel

from contracts.panel import Panel
from mmm.adstock import ADSTOCKS, Delayed, Geometric
from mmm.collapse import log_density
from mmm.design import Design, build_design
from mmm.diagnostics import convergence
from mmm.fit import RunFlags, fit
from mmm.laplace import template
from mmm.model import model, sample_params
from mmm.saturation import SATURATIONS, Logistic, Root
from mmm.spec import ChannelSpec, EffectPrior, ModelSpec
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
    assert linear == {"z_geo", "z_common", "z_shock", "z_local", "control", "z_control"}
    assert callable(model)


def _both(design: Design, spec: ModelSpec) -> tuple[float, float]:
    """Log density of panel and lifts given the nonlinear parameters: the engine's, and the twin's, integrated exactly.

    Given those parameters the twin is a quadratic in its linear coefficients b: at any b0 with gradient d and Hessian
    −H the log of the integral is log p(b0) + d H⁻¹ d / 2 − log det H / 2 + n log(2 pi) / 2. No sampling, no error.
    """
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        sites = {k: v.shape for k, v in template(design, spec).items()}
        bounded = ("retention", "shock_correlation")
        values = {k: rng.uniform(0.3, 0.7, s) if k in bounded else
                  (rng.normal(0, 0.4, s) if k.startswith("z_") else rng.uniform(0.5, 1.5, s))
                  for k, s in sites.items()}  # fmt: skip
        fixed = numpyro.handlers.substitute(lambda: sample_params(design, spec), data=values)
        ours = float(log_density(design, fixed()))
    twin = pm.do(build_pymc(design, spec), values)
    names = [v.name for v in twin.free_RVs]
    point = twin.initial_point()
    shapes = [np.shape(point[n]) for n in names]
    # few evaluations: compiling would take longer than it saves
    value, gradient = twin.compile_logp(mode="FAST_COMPILE"), twin.compile_dlogp(mode="FAST_COMPILE")

    def at(b: np.ndarray) -> dict[str, np.ndarray]:
        cuts = np.cumsum([int(np.prod(s)) for s in shapes])[:-1]
        return {n: part.reshape(s) for n, part, s in zip(names, np.split(b, cuts), shapes, strict=True)}

    n = sum(int(np.prod(s)) for s in shapes)
    here = gradient(at(np.zeros(n)))
    hessian = np.stack([here - gradient(at(row)) for row in np.eye(n)])
    step = np.linalg.solve(hessian, here)
    theirs = float(value(at(np.zeros(n)))) + here @ step / 2 - np.linalg.slogdet(hessian)[1] / 2
    return ours, theirs + n * np.log(2 * np.pi) / 2


def _panel(seed: int = 2, **given: object) -> Panel:
    panel, _ = make_panel(geos=3, periods=37, channels=2, seed=seed, shares=(0.1, 0.05), controls=2)
    kpi = panel.kpi.copy()
    kpi[1, 4:7] = np.nan
    return dataclasses.replace(panel, kpi=kpi, **given)


SPECS = {
    **{f"adstock {k}": ModelSpec(yearly_terms=1, adstock=f()) for k, f in ADSTOCKS.items()},
    **{f"saturation {k}": ModelSpec(yearly_terms=1, saturation=f()) for k, f in SATURATIONS.items()},
    "saturate first": ModelSpec(saturate_first=True),
    "a family per channel": ModelSpec(channels={
        "c0": ChannelSpec(Geometric(), Root(), prior=EffectPrior("mroi", 0.1, 0.5)),
        "c1": ChannelSpec(Delayed(), Logistic(), True, EffectPrior("coefficient", -2.0, 0.7)),
    }),
    "student_t": ModelSpec(likelihood="student_t"),
    "negative_binomial": ModelSpec(likelihood="negative_binomial", shrink_controls_from=2),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", SPECS)
def test_engine_and_twin_have_one_density(name: str):
    panel, spec = _panel(), SPECS[name]
    with jax.enable_x64(True):
        design = build_design(panel, spec, (lift_term(panel),))
    ours, theirs = _both(design, spec)
    assert ours == pytest.approx(theirs, rel=1e-8)


@pytest.mark.slow
def test_engine_and_twin_have_one_density_with_reach_and_frequency():
    frequency = np.zeros(_panel().media.shape)
    frequency[:, :, 1] = np.random.default_rng(4).uniform(1.0, 5.0, frequency.shape[:2])
    panel = _panel(frequency=frequency)
    with jax.enable_x64(True):
        design = build_design(panel, ModelSpec(), (lift_term(panel, channel=1),))
    assert [g.order for g in design.curves.groups] == ["adstock_first", "reach_frequency"]
    ours, theirs = _both(design, ModelSpec())
    assert ours == pytest.approx(theirs, rel=1e-8)


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
        "z_geo_spread",
        "z_sigma",
        "z_shock_sd",
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
