"""From exposure to response: orders, groups of families, and what a channel that begins late can do."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import numpyro
import pytest
from mmm_worlds import lift_term, make_panel

from contracts.errors import ContractError
from mmm.adstock import Delayed, Geometric
from mmm.design import Design, build_design
from mmm.laplace import template
from mmm.media import Params, lift_shape, media_response, response_shape
from mmm.model import sample_params
from mmm.saturation import Hill, Logistic, Root
from mmm.spec import ChannelSpec, EffectPrior, ModelSpec

PANEL = make_panel(geos=2, periods=40, channels=3)[0]


def params(c: int = 3) -> Params:
    values = {"retention": [0.3, 0.6, 0.5], "delay": [0.0, 1.5, 0.7], "half_saturation": [1.2, 0.8, 1.5],
              "slope": [1.1, 1.4, 0.6]}  # fmt: skip
    return Params(**(dict.fromkeys(Params._fields) | {k: np.array(v[:c]) for k, v in values.items()}))


def written_out(design: Design, p: Params, c: int) -> np.ndarray:
    """Response (G, T) of one channel, period by period."""
    group = next(g for g in design.curves.groups if c in g.members)
    w = group.adstock.weights(p.retention[[c]], p.delay[[c]], design.lags)[:, 0]
    x, out = design.exposure[:, :, c], np.zeros(design.exposure.shape[:2])

    def curve(a: np.ndarray) -> np.ndarray:
        return group.saturation.share(a, p.half_saturation[c], p.slope[c])

    for t in range(x.shape[1]):
        for lag in range(min(design.lags, t + 1)):
            inner = x[:, t - lag]
            if group.order == "saturate_first":
                inner = curve(inner)
            if group.order == "reach_frequency":
                inner = inner * curve(design.frequency[:, t - lag, c])
            out[:, t] += w[lag] * inner
    return curve(out) if group.order == "adstock_first" else out


MIXED = ModelSpec(channels={
    "c0": ChannelSpec(Geometric(), Root(), True),
    "c2": ChannelSpec(Delayed(), Logistic()),
})  # fmt: skip


def test_families_and_orders_side_by_side_are_each_channel_s_own():
    frequency = np.zeros(PANEL.media.shape)
    frequency[:, :, 1] = np.random.default_rng(0).uniform(1, 6, frequency.shape[:2])
    design = build_design(dataclasses.replace(PANEL, frequency=frequency), MIXED)
    assert [g.order for g in design.curves.groups] == ["saturate_first", "reach_frequency", "adstock_first"]
    value, _ = response_shape(design, params(), np)
    for c in range(3):
        assert np.allclose(value[:, :, c], written_out(design, params(), c)), c
    with jax.enable_x64(True):
        assert np.allclose(jax.jit(lambda p: response_shape(design, p)[0])(params()), value)


@pytest.mark.parametrize("spec", [ModelSpec(), MIXED])
def test_elasticity_is_the_answer_to_one_per_cent_more_everywhere(spec: ModelSpec):
    design = build_design(PANEL, spec)
    step = 1e-5
    up, down = (dataclasses.replace(design, past=design.past * np.exp(s)) for s in (step, -step))
    numeric = (response_shape(up, params(), np)[0] - response_shape(down, params(), np)[0]) / (2 * step)
    assert np.allclose(response_shape(design, params(), np)[1], numeric, rtol=1e-4, atol=1e-8)


def test_shares_sum_to_one_and_a_lift_of_everything_is_the_whole():
    term = lift_term(PANEL, geos=(0, 1))
    part = dataclasses.replace(term.parts[0], counterfactual=np.zeros_like(term.parts[0].factual))
    whole = dataclasses.replace(term, parts=(part,), window=np.arange(40), coverage=1.0)
    with jax.enable_x64(True):
        design = build_design(PANEL, ModelSpec(), (whole,))
        response = media_response(design, params())
        assert np.allclose(response.unit.sum(axis=(0, 1)), 1.0)
        assert np.allclose(lift_shape(design, params(), response.norm).sum(), 1.0)


def test_a_channel_that_begins_late_has_no_effect_before():
    media = PANEL.media.copy()
    media[:, :25, 2] = 0.0
    design = build_design(dataclasses.replace(PANEL, media=media, spend=media), ModelSpec())
    value, _ = response_shape(design, params(), np)
    assert (value[:, :25, 2] == 0).all()
    assert (value[:, 25:, 2] > 0).any()


@pytest.mark.parametrize("kind", ["roi", "mroi", "contribution", "coefficient"])
def test_a_prior_is_on_the_quantity_that_it_names(kind: str):
    """At z = 0 the quantity is the prior's median, whatever the curve."""
    panel = make_panel(geos=2, periods=40, channels=3, revenue=20.0)[0]
    prior = EffectPrior(kind, float(np.log(0.4)), 0.5)
    spec = ModelSpec(channels={"c1": ChannelSpec(prior=prior)}, saturation=Hill())
    with jax.enable_x64(True):
        design = build_design(panel, spec)
        zeros = {k: np.full(v.shape, 0.5 if k == "retention" else 0.0) for k, v in template(design, spec).items()}
        p = numpyro.handlers.substitute(lambda: sample_params(design, spec), data=zeros)()
        response = jax.device_get(media_response(design, p))
        theta_drawn = jax.device_get(p.theta)
    theta, spend = float(theta_drawn[1]), panel.spend[:, :, 1].sum()
    got = {
        "roi": 20.0 * theta / spend,
        "mroi": 20.0 * theta * float(response.elasticity[:, :, 1].sum()) / spend,
        "contribution": theta / panel.kpi.sum(),
        "coefficient": theta / float(response.norm[1]) / design.level.mean(),
    }
    assert got[kind] == pytest.approx(0.4)


def test_a_return_needs_spend():
    panel = dataclasses.replace(PANEL, spend=PANEL.spend * [1, 0, 1])
    spec = ModelSpec(channels={"c1": ChannelSpec(prior=EffectPrior("mroi", 0.0, 1.0))})
    with pytest.raises(ContractError, match="'c1' has a prior on mroi and no spend"):
        build_design(panel, spec)


def test_reach_without_frequency_is_refused():
    frequency = np.zeros(PANEL.media.shape)
    frequency[:, :20, 0] = 2.0
    with pytest.raises(ContractError, match="'c0' has reach without a frequency"):
        dataclasses.replace(PANEL, frequency=frequency)
