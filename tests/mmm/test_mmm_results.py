"""Labelled results against what one can work out by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from mmm_worlds import make_panel

from mmm.design import build_design
from mmm.effects import scale_factor, total_draws
from mmm.media import Params
from mmm.posterior import Posterior
from mmm.results import half_life, results
from mmm.spec import ModelSpec

SPEC = ModelSpec(structural_sd=1e-9)


def steady():
    """Constant spend, two equal draws with retention 0.8 and no delay."""
    panel, _ = make_panel(geos=2, periods=60, channels=2, seed=3, noise_sd=0.0, shares=(0.1, 0.1), revenue=10.0)
    spend = np.broadcast_to(panel.spend.mean(axis=1, keepdims=True), panel.spend.shape).copy()
    panel = dataclasses.replace(panel, spend=spend, media=spend)
    design = build_design(panel, SPEC)
    sizes = {"theta": 2, "retention": 2, "delay": 2, "half_saturation": 2, "slope": 2, "geo_spread": 2, "sigma": 2}
    params = {name: np.ones((1, 2, sizes[name])) if name in sizes else np.ones((1, 2)) for name in Params._fields}
    params |= {"theta": np.full((1, 2, 2), 500.0), "retention": np.full((1, 2, 2), 0.8), "delay": np.zeros((1, 2, 2))}
    params |= {"lift_precision": np.ones((1, 2, 0)), "control_spread": np.ones((1, 2, 1))}
    local = np.zeros((1, 2, 2, design.local.shape[1] + 1 + 2))
    return panel, Posterior(design.channels, params, {}, local, np.zeros((1, 2, 1)), 0, 0.9, 1, SPEC.hash())


def test_contributions_returns_and_carry_over_of_a_steady_spend():
    panel, posterior = steady()
    found = results(panel, SPEC, posterior, draws=2)
    assert found["contribution"].dims == ("draw", "channel", "geo", "period")
    assert found["contribution"].sum(["geo", "period"]).values == pytest.approx(np.full((2, 2), 500.0))
    spend = panel.spend.sum(axis=(0, 1))
    assert found["roi"].values[0] == pytest.approx(500.0 * 10 / spend)
    assert found["cpa"].values[0] == pytest.approx(spend / 500.0)
    weights = 0.8 ** np.arange(13)
    assert found["carried_share"].isel(period=-1).values == pytest.approx(1 - 1 / weights.sum())
    assert found["carried_share"].isel(period=0).values == pytest.approx(0.0)
    assert found.sel(channel="c1", geo="g0")["contribution"].attrs["units"] == "conversions"


def test_what_was_clipped_scales_every_effect_and_widens_it():
    """Factor 1.5 with sd 0.1 on 4,000 equal draws: mean 750 (4 standard errors are 3.2) and sd 50, as assumed."""
    panel, posterior = steady()
    many = {name: np.repeat(v[:, :1], 4000, axis=1) for name, v in posterior.params.items()}
    local, shared = (np.repeat(v[:, :1], 4000, axis=1) for v in (posterior.local, posterior.shared))
    posterior = dataclasses.replace(posterior, params=many, local=local, shared=shared)
    assert total_draws(panel, posterior) == pytest.approx(np.full((4000, 2), 500.0))
    clipped = dataclasses.replace(panel, scale_back=(1.5, 0.1))
    found = total_draws(clipped, posterior)
    assert found.mean(axis=0) == pytest.approx([750.0, 750.0], abs=3.5)
    assert found.std(axis=0) == pytest.approx([50.0, 50.0], rel=0.06)
    assert found[:, 0] == pytest.approx(found[:, 1]), "one factor for all channels: it is the same people"
    assert scale_factor(clipped, posterior) * 500 == pytest.approx(found[:, 0])


def test_half_life_is_read_between_periods():
    weights = np.stack([[0.6, 0.4, 0.0], [0.25, 0.5, 0.25], [0.1, 0.2, 0.7]], axis=1)
    assert half_life(weights) == pytest.approx([0.0, 0.5, 1 + 2 / 7])
