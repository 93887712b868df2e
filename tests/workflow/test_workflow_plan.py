"""Reconciled totals reach the plan: by weights where they carry, by scaling where they do not."""

from __future__ import annotations

import numpy as np
import pytest

from contracts.response import SteadyResponse
from workflow.step_plan import carry, resample
from workflow.step_reconcile import one_signed


def response(totals: np.ndarray) -> SteadyResponse:
    """Linear in size: one geo, amplitude = total, half-saturation tells the draws apart."""
    d, c = totals.shape
    return SteadyResponse(
        channels=tuple(f"c{i}" for i in range(c)),
        geos=("a",),
        amplitude=totals[:, None, :],
        unit=np.ones((1, c)),
        half_saturation=np.arange(1.0, d * c + 1).reshape(d, c),
        slope=np.ones((d, c)),
        current_spend=np.ones((1, c)),
        observed_max=np.ones(c),
        weights=np.full(d, 1 / d),
    )


def test_scaling_gives_exactly_the_reconciled_totals() -> None:
    rng = np.random.default_rng(1)
    totals = np.exp(rng.normal([3.0, 5.0], 0.5, (300, 2)))
    target = np.exp(rng.normal([4.0, 4.5], 0.1, (500, 2)))
    out = carry(response(totals), totals, target, draws=100)
    assert np.allclose(out.amplitude[:, 0], target[np.linspace(0, 499, 100).astype(int)])
    pairs = {tuple(row) for row in response(totals).half_saturation}
    assert {tuple(row) for row in out.half_saturation} <= pairs  # shapes are whole draws of the model


def test_resampling_follows_the_weights() -> None:
    totals = np.array([[1.0], [2.0], [4.0]])
    out = resample(response(totals), np.array([0.25, 0.0, 0.75]), draws=8)
    assert out.amplitude.ravel().tolist() == [1, 1, 4, 4, 4, 4, 4, 4]
    assert out.weights.sum() == pytest.approx(1.0)


def test_lift_predictions_keep_one_sign() -> None:
    rare = np.where(np.arange(100) == 7, 0.5, -1.0)
    unsure = np.where(np.arange(100) < 40, -1.0, 1.0)
    keep, lifts = one_signed(np.stack([rare, unsure], axis=1))
    assert keep.sum() == 99 and not keep[7]
    assert np.isnan(lifts[:, 1]).all() and (lifts[keep, 0] < 0).all()
    keep, lifts = one_signed(np.zeros((5, 0)))
    assert keep.all() and lifts.shape == (5, 0)
