"""One small fit, and everything that is read from it."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import numpy as np
import pytest
from mmm_worlds import lift_term, make_panel

from contracts.errors import ContractError
from mmm.design import build_design
from mmm.diagnostics import convergence
from mmm.effects import (
    channel_effects,
    contributions,
    fitted,
    geo_total_draws,
    lift_draws,
    response_curves,
    steady_response,
    total_draws,
)
from mmm.fit import RunFlags, fit
from mmm.health import health
from mmm.posterior import Posterior
from mmm.saturation import Hill
from mmm.spec import ChannelSpec, EffectPrior, ModelSpec
from mmm.surface import dynamic_response
from planning.surface import build_surface, evaluate

SPEC = ModelSpec(yearly_terms=1)
FLAGS = RunFlags(chains=2, warmup=100, pilot=100, draws=300, doublings=0)


@pytest.fixture(scope="module")
def world():
    panel, truth = make_panel(geos=4, periods=60, channels=2, seed=5, shares=(0.12, 0.08), revenue=40.0, noise_sd=3.0)
    panel = dataclasses.replace(panel, scale_back=(1.05, 0.01))
    terms = (lift_term(panel, mean=float(0.8 * truth[[0, 2]][:, 30:36, 0].sum()), se=10.0),)
    reports = []
    result = fit(panel, SPEC, terms, seed=7, flags=FLAGS, progress=lambda done, left: reports.append((done, left)))
    return panel, truth, terms, result, reports


def test_totals_lie_near_the_truth(world):
    """The world is not of the model's curve family; 0.35 on the log scale is over 3 posterior sd at this size."""
    panel, truth, _, result, _ = world
    means = total_draws(panel, result.posterior).mean(axis=0) / 1.05
    assert np.abs(np.log(means / truth.sum(axis=(0, 1)))).max() < 0.35


def test_progress_rises_to_one(world):
    reports = world[4]
    done = [d for d, _ in reports]
    assert done[-1] == 1.0
    assert all(0 < d <= 1 for d in done)
    assert all(left >= 0 for _, left in reports)


def test_effects_agree_with_each_other(world):
    panel, _, _, result, _ = world
    effects = channel_effects(panel, SPEC, result.posterior)
    kpi = effects[effects.metric == "incremental_kpi"].set_index(["scope", "channel"])
    for channel in panel.channels:
        total = kpi.loc[("total", channel)].iloc[0] if kpi.loc[[("total", channel)]].ndim > 1 else None
        total_mean = float(kpi.loc[[("total", channel)], "mean"].iloc[0])
        for scope in ("geo", "week", "geo_week"):
            # cells use a thinned set of the same draws
            assert kpi.loc[[(scope, channel)], "mean"].sum() == pytest.approx(total_mean, rel=0.03), (scope, total)
    wide = effects[effects.scope == "total"].pivot(index="channel", columns="metric", values="mean")
    spend = panel.spend.sum(axis=(0, 1))
    assert np.allclose(wide["incremental_revenue"], wide["incremental_kpi"] * 40.0)
    assert np.allclose(wide["roi"], wide["incremental_revenue"] / spend)
    assert (wide["mroi"] < wide["roi"]).all()  # the curves bend
    assert np.allclose(wide["share"], wide["incremental_kpi"] / (panel.kpi.sum() * 1.05))
    keys = effects[["scope", "geo", "week", "channel", "metric"]]
    assert not keys.duplicated().any()


def test_the_marginal_roi_is_the_derivative_of_the_curve(world):
    """One per cent more spend everywhere, computed from cells, against the analytic slope."""
    panel, _, _, result, _ = world
    more = dataclasses.replace(panel, media=panel.media * 1.01)
    design, bumped = build_design(panel, SPEC), build_design(more, SPEC)
    # the design rescales exposure, so the bump is applied on the first design's scale
    bumped = dataclasses.replace(bumped, past=design.past * 1.01)
    import jax

    from mmm.effects import thinned_params
    from mmm.media import media_response

    picked = np.array([3])
    with jax.enable_x64(True):
        params = jax.tree.map(lambda a: a[0], thinned_params(result.posterior, picked))
        base, up = media_response(design, params), media_response(bumped, params)
    numeric = (np.asarray(up.norm) / np.asarray(base.norm) - 1) / 0.01
    assert np.allclose(np.asarray(base.elasticity).sum(axis=(0, 1)), numeric, rtol=0.02)


def test_steady_response_equals_the_model_at_a_steady_spend(world):
    panel, _, _, result, _ = world
    response = steady_response(panel, SPEC, result.posterior, draws=50)
    spend = panel.spend.mean(axis=1)
    steady = dataclasses.replace(panel, spend=np.repeat(spend[:, None], 60, 1), media=np.repeat(spend[:, None], 60, 1))
    design, flat = build_design(panel, SPEC), build_design(steady, SPEC)
    scale = flat.exposure_scale / design.exposure_scale
    import jax

    from mmm.effects import thinned, thinned_params
    from mmm.media import media_response

    picked = thinned(result.posterior, 50)
    flat = dataclasses.replace(flat, past=flat.past * scale[:, None, None])
    with jax.enable_x64(True):
        one = jax.tree.map(lambda a: a[4], thinned_params(result.posterior, picked))
        there, here = jax.device_get((media_response(flat, one), media_response(design, one)))
    per_period = np.asarray(there.unit[:, -1] * there.norm / here.norm * one.theta)
    local = 1 + result.posterior.deviations()[picked][4]
    factor = response.evaluate(spend)[4] / (per_period * local)
    assert np.allclose(factor, factor[:1])  # what is left, clipping and structure, is one factor per channel
    blurred, plain = (total_draws(panel, result.posterior, sd)[picked][4] for sd in (SPEC.structural_sd, 0.0))
    clipping = plain / result.posterior.flat("theta")[picked][4]
    assert np.allclose(factor[0], blurred / plain * clipping)


def test_the_response_in_time_gives_the_fitted_media_back(world):
    """Fed with the panel's own last periods as a plan, and what was before as in flight, it is the model's fit."""
    panel, _, _, result, _ = world
    response = dynamic_response(panel, SPEC, result.posterior, draws=50)
    periods, design = 8, build_design(panel, SPEC)
    earlier = design.exposure[:, -periods - response.lags + 1 : -periods]
    assert np.allclose(response.recent, design.exposure[:, -response.lags + 1 :])
    start = panel.weeks[-1] + timedelta(days=panel.period_days)
    surface = build_surface(dataclasses.replace(response, recent=earlier), start, periods)
    found = evaluate(surface, panel.spend[:, -periods:].transpose(1, 0, 2))
    whole = (found.plan + found.in_flight)[:, :, :periods]
    for part in contributions(panel, SPEC, result.posterior, draws=50):
        c = response.channels.index(part.channel)
        assert np.allclose(whole[c], part.cells.sum(axis=1)[:, -periods:], rtol=1e-6)


def test_curves_rise_and_mark_what_was_observed(world):
    panel, _, _, result, _ = world
    curves = response_curves(steady_response(panel, SPEC, result.posterior))
    for _, rows in curves.groupby("channel"):
        assert rows["mean"].is_monotonic_increasing
        assert rows["mean"].iloc[0] == 0
        assert rows["observed"].sum() == 21
        assert (rows["p05"] <= rows["p95"]).all()
        assert (rows["marginal"] >= 0).all()


def test_lift_predictions_answer_the_test(world):
    panel, truth, terms, result, _ = world
    drawn = lift_draws(panel, SPEC, result.posterior, terms)
    assert drawn.shape == (600, 1)
    allowed = np.hypot(terms[0].std_error, SPEC.lift_bias * terms[0].mean)  # what the likelihood grants a test
    assert abs(drawn.mean() - terms[0].mean) < 2 * np.hypot(allowed, drawn.std())


def test_the_fit_explains_the_kpi(world):
    panel, _, _, result, _ = world
    base, media = fitted(panel, SPEC, result.posterior)
    expected = (base + media).mean(axis=0)
    assert np.corrcoef(expected.ravel(), panel.kpi.ravel())[0, 1] ** 2 > 0.9
    assert expected.sum() == pytest.approx(panel.kpi.sum(), rel=0.02)


def test_a_posterior_survives_its_arrays(world):
    posterior = world[3].posterior
    again = Posterior.from_arrays(posterior.to_arrays())
    assert again.channels == posterior.channels
    assert np.array_equal(again.local, posterior.local)
    assert {k: v.shape for k, v in again.params.items()} == {
        k: np.asarray(v).shape for k, v in posterior.params.items()
    }
    assert (again.divergences, again.seed, again.spec_hash) == (posterior.divergences, 7, SPEC.hash())


def test_the_same_seed_gives_the_same_draws_whatever_the_threads(world):
    panel, _, terms, result, _ = world
    again = fit(panel, SPEC, terms, seed=7, flags=dataclasses.replace(FLAGS, threads=1))
    assert np.array_equal(again.posterior.params["theta"], result.posterior.params["theta"])
    assert np.array_equal(again.posterior.local, result.posterior.local)


def test_contributions_sum_to_the_total(world):
    panel, _, _, result, _ = world
    for part in contributions(panel, SPEC, result.posterior, draws=20):
        assert part.cells.shape == (20, 4, 60)
        full = total_draws(panel, result.posterior, SPEC.structural_sd)[np.linspace(0, 599, 20).astype(int), part.index]
        assert np.allclose(part.cells.sum(axis=(1, 2)), full)


def test_the_gate_fails_on_chains_that_disagree():
    rng = np.random.default_rng(0)
    apart = rng.normal(size=(4, 500)) + np.array([0, 0, 0, 2.0])[:, None]
    rhat, ess = convergence(apart)
    assert rhat > 1.05
    assert ess < 400
    rhat, ess = convergence(rng.normal(size=(4, 500)))
    assert rhat < 1.01
    assert ess > 1000


def test_refusals_and_spec_hash():
    panel, _ = make_panel(geos=3, periods=20)
    with pytest.raises(ContractError, match="at least 26 periods of history; the panel holds 20"):
        build_design(panel, SPEC)
    panel, _ = make_panel(geos=3, periods=30)
    silent = dataclasses.replace(panel, media=panel.media * 0, spend=panel.spend * 0)
    with pytest.raises(ContractError, match="no paid channel of the panel has any exposure"):
        build_design(silent, SPEC)
    with pytest.raises(ContractError, match="half_scale must be a finite number > 0; got 0"):
        ModelSpec(saturation=Hill(half_scale=0.0))
    with pytest.raises(ContractError, match="likelihood must be one of .*; got 'gamma'"):
        ModelSpec(likelihood="gamma")
    assert ModelSpec().hash() != ModelSpec(channels={"tv": ChannelSpec(prior=EffectPrior("roi", 0.0, 0.5))}).hash()


def test_a_national_panel_and_a_channel_without_exposure():
    panel, _ = make_panel(geos=1, periods=60, channels=2, seed=1)
    media = panel.media.copy()
    media[:, :, 1] = 0.0
    panel = dataclasses.replace(panel, media=media, spend=media)
    posterior = fit(panel, SPEC, seed=1, flags=FLAGS).posterior
    assert posterior.channels == ("c0",)
    totals = total_draws(panel, posterior)
    assert (totals[:, 1] == 0).all()
    assert set(channel_effects(panel, SPEC, posterior).channel) == {"c0"}
    assert np.allclose(posterior.deviations(), 0.0, atol=1e-6)


def test_structural_uncertainty_widens_and_keeps_the_mean(world):
    panel, _, _, result, _ = world
    plain, blurred = (total_draws(panel, result.posterior, sd) for sd in (0.0, 0.25))
    ratio = np.log(blurred / plain)
    assert ratio.std(axis=0) == pytest.approx(0.25, rel=0.15)  # 600 draws: 5 standard errors
    assert blurred.mean(axis=0) == pytest.approx(plain.mean(axis=0), rel=0.06)


def test_health_names_every_channel_and_geo_and_speaks_in_sentences(world):
    panel, _, terms, result, _ = world
    checks = health(panel, build_design(panel, SPEC, terms), result.posterior)
    kinds = {c.name for c in checks}
    assert {"elpd", "predictive_coverage", "residual_autocorrelation", "contraction", "curve_reach", "units"} <= kinds
    assert {c.subject for c in checks if c.name == "predictive_coverage"} == set(panel.geos)
    assert {c.subject for c in checks if c.name == "contraction"} == set(panel.channels)
    assert all(c.text and c.status in ("pass", "warn") for c in checks)
    cover = [c.value for c in checks if c.name == "predictive_coverage"]
    assert 0.8 < np.mean(cover) < 0.98  # 240 cells at 90 %: five standard errors
    thousands = dataclasses.replace(panel, spend=panel.spend * 1000)
    assert [c.status for c in health(thousands, build_design(panel, SPEC), result.posterior) if c.name == "units"] == [
        "warn"
    ]


def test_geo_totals_add_up_to_the_channel_total(world):
    panel, _, _, result, _ = world
    by_geo = geo_total_draws(panel, SPEC, result.posterior)
    assert by_geo.shape == (600, 4, 2)
    assert np.allclose(by_geo.sum(axis=1), result.posterior.flat("theta"))


def test_a_refresh_begins_where_the_last_fit_learned_to_walk(world):
    panel, _, terms, result, _ = world
    again = fit(panel, SPEC, terms, seed=8, flags=dataclasses.replace(FLAGS, draws=100), start=result.start)
    assert again.posterior.params["theta"].shape[:2] == (2, 100)
    gap = np.log(again.posterior.flat("theta")).mean(0) - np.log(result.posterior.flat("theta")).mean(0)
    assert np.abs(gap).max() < 0.15  # Monte Carlo error only: sd 0.2 of the log total, at least 60 effective draws
