"""Reconciled totals reach the plan: by weights where they carry, by scaling where they do not."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest

from contracts.response import SteadyResponse
from contracts.surface import DynamicResponse
from workflow.codec import read_arrays, surface_arrays, surface_of, write_arrays
from workflow.pool_evidence import one_signed
from workflow.step_plan import carry, on_draws, resample


def response(totals: np.ndarray) -> DynamicResponse:
    """Linear in size: one geo, amplitude = total, half-saturation tells the draws apart."""
    d, c = totals.shape
    steady = SteadyResponse(
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
    return DynamicResponse(
        steady=steady,
        retention=np.arange(d * c).reshape(d, c) / (d * c),
        delay=np.zeros((d, c)),
        lags=3,
        recent=np.ones((1, 2, c)),
        observed=np.ones((1, c)),
        population=np.ones(1),
        last_period=date(2025, 1, 6),
        period_days=7,
        currency="EUR",
        kpi_name="conversions",
        revenue_per_kpi=None,
    )


def test_scaling_gives_exactly_the_reconciled_totals() -> None:
    rng = np.random.default_rng(1)
    totals = np.exp(rng.normal([3.0, 5.0], 0.5, (300, 2)))
    target = np.exp(rng.normal([4.0, 4.5], 0.1, (500, 2)))
    whole = response(totals)
    out = on_draws(whole, *carry(totals, target, draws=100))
    assert np.allclose(out.steady.amplitude[:, 0], target[np.linspace(0, 499, 100).astype(int)])
    pairs = {(*h, *r) for h, r in zip(whole.steady.half_saturation, whole.retention, strict=True)}
    # Shape and carry-over are whole draws of the model.
    assert {(*h, *r) for h, r in zip(out.steady.half_saturation, out.retention, strict=True)} <= pairs


def test_resampling_follows_the_weights() -> None:
    totals = np.array([[1.0], [2.0], [4.0]])
    out = on_draws(response(totals), resample(np.array([0.25, 0.0, 0.75]), draws=8)).steady
    assert out.amplitude.ravel().tolist() == [1, 1, 4, 4, 4, 4, 4, 4]
    assert out.weights.sum() == pytest.approx(1.0)


def test_a_response_in_time_survives_its_file(tmp_path: Path) -> None:
    whole = response(np.ones((4, 2)))
    write_arrays(surface_arrays(whole), tmp_path / "surface.npz")
    back = surface_of(read_arrays(tmp_path / "surface.npz"))
    assert back.last_period == whole.last_period and back.lags == 3 and back.revenue_per_kpi is None
    assert back.channels == whole.channels and np.array_equal(back.retention, whole.retention)
    assert np.array_equal(back.steady.half_saturation, whole.steady.half_saturation)


def test_lift_predictions_keep_one_sign() -> None:
    rare = np.where(np.arange(100) == 7, 0.5, -1.0)
    unsure = np.where(np.arange(100) < 40, -1.0, 1.0)
    keep, lifts = one_signed(np.stack([rare, unsure], axis=1))
    assert keep.sum() == 99 and not keep[7]
    assert np.isnan(lifts[:, 1]).all() and (lifts[keep, 0] < 0).all()
    keep, lifts = one_signed(np.zeros((5, 0)))
    assert keep.all() and lifts.shape == (5, 0)
