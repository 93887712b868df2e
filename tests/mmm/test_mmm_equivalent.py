"""Every family reads as a Hill curve and a negative-binomial carry-over, within the stated error."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from mmm_worlds import make_panel

from mmm.adstock import ADSTOCKS
from mmm.design import build_design
from mmm.equivalent import REACH, carry_over_equivalent, hill_equivalent
from mmm.media import Params
from mmm.saturation import SATURATIONS, Hill
from mmm.spec import ModelSpec

PANEL = make_panel(geos=2, periods=40, channels=2, shares=(0.1, 0.05))[0]


def params(**given: np.ndarray) -> Params:
    return Params(**(dict.fromkeys(Params._fields) | given))


@pytest.mark.parametrize("kind", sorted(SATURATIONS))
def test_the_hill_curve_lies_within_the_stated_error(kind: str):
    design = build_design(PANEL, ModelSpec(saturation=SATURATIONS[kind]()))
    half, slope = np.array([[0.2, 3.0], [1.5, 0.7]]), np.array([[0.5, 0.7], [0.9, 0.6]])
    gain, k, n = hill_equivalent(design, params(half_saturation=half, slope=slope))
    limit = {"hill": 1e-12, "michaelis_menten": 1e-12, "none": 1e-3, "root": 1e-3}.get(kind, 0.06)
    for c in range(2):
        stock = np.linspace(0, REACH * design.exposure[:, :, c].max(), 50)[1:, None]
        ours = gain[:, c] * Hill.share(stock, k[:, c], n[:, c])
        exact = SATURATIONS[kind].share(stock, half[:, c], slope[:, c])
        assert (np.abs(ours - exact) / exact[-1]).max() < limit


@pytest.mark.parametrize("kind", sorted(ADSTOCKS))
def test_the_mean_lag_is_kept(kind: str):
    design = build_design(PANEL, ModelSpec(adstock=ADSTOCKS[kind]()))
    retention, delay = np.array([[0.3, 0.5], [0.45, 0.2]]), np.array([[0.4, 1.5], [0.0, 2.5]])
    a, d = carry_over_equivalent(design, params(retention=retention, delay=delay))
    assert ((a > 0) & (a < 1) & (d >= 0)).all()
    lag = np.arange(200)[:, None]
    for c in range(2):
        exact = ADSTOCKS[kind].weights(retention[:, c], delay[:, c], design.lags)
        ours = ADSTOCKS["negative_binomial"].weights(a[:, c], d[:, c], 200)
        assert np.allclose((ours * lag).sum(axis=0), (exact * lag[: design.lags]).sum(axis=0), rtol=0.02, atol=1e-4)


def test_reach_and_frequency_is_straight_in_reach():
    frequency = np.zeros(PANEL.media.shape)
    frequency[:, :, 0] = 2.0
    design = build_design(dataclasses.replace(PANEL, frequency=frequency), ModelSpec())
    half, slope = np.array([[1.2, 1.0]]), np.array([[2.0, 1.1]])
    gain, k, n = hill_equivalent(design, params(half_saturation=half, slope=slope))
    felt = Hill.share(1.0, 1.2, 2.0)  # the frequency is its own mean
    assert np.allclose(
        gain[0, 0] * Hill.share(np.array([0.5, 3.0]), k[0, 0], n[0, 0]), felt * np.array([0.5, 3.0]), rtol=1e-3
    )
    assert (gain[0, 1], k[0, 1], n[0, 1]) == (1.0, 1.0, 1.1)
