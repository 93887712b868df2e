"""Demand after the panel: each part of the baseline goes on as it should, on draws made by hand."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from mmm_worlds import make_panel

from contracts.errors import ContractError
from mmm.design import build_design
from mmm.forecast import demand_forecast
from mmm.posterior import Posterior
from mmm.spec import ModelSpec

SPEC = ModelSpec(yearly_terms=1)
DRAWS = 300


def by_hand(
    panel: Any, *, scales: float = 0.0, shared: dict[int, float] | None = None, shock: float = 0.0
) -> Posterior:
    """Equal draws: intercept 1, everything else 0 unless given; `scales` are all the random-walk and noise scales."""
    design = build_design(panel, SPEC)
    g, t, c = design.shape
    p, k = design.common.shape[1], design.controls.shape[2]
    coefficients = np.zeros((1, DRAWS, p + t + k))
    coefficients[..., 0] = 1.0
    for at, value in (shared or {}).items():
        coefficients[..., at] = value
    coefficients[..., p + t - 1] = shock
    one = np.ones((1, DRAWS))
    return Posterior(
        channels=design.channels,
        params={
            "theta": np.ones((1, DRAWS, c)), "retention": np.full((1, DRAWS, c), 0.3), "delay": np.zeros((1, DRAWS, c)),
            "half_saturation": np.ones((1, DRAWS, c)), "slope": np.ones((1, DRAWS, c)),
            "geo_spread": np.zeros((1, DRAWS, c)), "sigma": np.full((1, DRAWS, g), scales),
            "shock_sd": scales * one, "shock_correlation": 0.5 * one, "trend_sd": scales * one,
            "geo_trend_sd": scales * one, "lift_precision": np.ones((1, DRAWS, 0)),
            "control_spread": np.zeros((1, DRAWS, k)),
        },
        sampled={},
        local=np.zeros((1, DRAWS, g, design.local.shape[1] + k + c)),
        shared=coefficients,
        divergences=0,
        accept=0.9,
        seed=1,
        spec_hash=SPEC.hash(),
    )  # fmt: skip


def world(**more: Any) -> tuple[Any, np.ndarray]:
    panel, _ = make_panel(geos=4, periods=60, channels=2, seed=3, noise_sd=0.0, shares=(0.1, 0.1), **more)
    return panel, np.tile(panel.controls.mean(axis=(0, 1)), (4, 10, 1))


def test_a_level_without_anything_else_goes_on() -> None:
    panel, controls = world()
    found = demand_forecast(panel, SPEC, by_hand(panel), 10, controls=controls, draws=50)
    level = build_design(panel, SPEC).level
    assert found.expected == pytest.approx(np.broadcast_to(level[:, None], (50, 4, 10)))
    assert found.observed == pytest.approx(found.expected)
    assert found.weeks[0] == panel.weeks[-1] + timedelta(weeks=1) and len(found.weeks) == 10


def test_season_and_shock_go_on_by_their_own_rules() -> None:
    panel, controls = world()
    design = build_design(panel, SPEC)
    level, p = design.level[:, None], design.common.shape[1]
    sine = demand_forecast(panel, SPEC, by_hand(panel, shared={p - 2: 0.2}), 10, controls=controls, draws=2)

    def wave(days: Any) -> np.ndarray:
        return np.sin(2 * np.pi * np.array([d.toordinal() for d in days]) / 365.25)

    expected = level * (1 + 0.2 * (wave(sine.weeks) - wave(panel.weeks).mean()))
    assert sine.expected[0] == pytest.approx(expected)
    shock = demand_forecast(panel, SPEC, by_hand(panel, shock=0.1), 10, controls=controls, draws=2)
    assert shock.expected[0] == pytest.approx(level * (1 + 0.1 * 0.5 ** np.arange(1, 11)))


def test_controls_of_the_planning_period_count() -> None:
    panel, controls = world()
    design = build_design(panel, SPEC)
    dear = controls.copy()
    dear[:, 3:] += 2.0 * panel.controls.std()
    effect = {design.common.shape[1] + design.shape[1]: -0.05}
    found = demand_forecast(panel, SPEC, by_hand(panel, shared=effect), 10, controls=dear, draws=2)
    ratio = found.expected[0] / design.level[:, None]
    assert ratio[:, :3] == pytest.approx(np.ones((4, 3))) and ratio[:, 3:] == pytest.approx(np.full((4, 7), 0.9))


def test_uncertainty_grows_with_the_horizon_and_noise_comes_on_top() -> None:
    panel, controls = world()
    panel = dataclasses.replace(panel, kpi_variance=np.full(panel.kpi.shape, 25.0))
    found = demand_forecast(panel, SPEC, by_hand(panel, scales=0.05), 10, controls=controls, draws=DRAWS)
    shock_only = dataclasses.replace(
        by_hand(panel, scales=0.05),
        params=dict(by_hand(panel, scales=0.05).params)
        | {"trend_sd": np.zeros((1, DRAWS)), "geo_trend_sd": np.zeros((1, DRAWS))},
    )
    settled = demand_forecast(panel, SPEC, shock_only, 10, controls=controls, draws=DRAWS).expected
    relative = (settled / build_design(panel, SPEC).level[:, None])[:, 0, 5:].std()
    assert relative == pytest.approx(0.05, rel=0.15)  # the AR(1) keeps its marginal sd; 300 draws of 5 periods
    spread = found.expected.sum(axis=1).std(axis=0)
    assert spread[9] > 1.2 * spread[0] > 0
    noise = (found.observed - found.expected).std(axis=(0, 2))
    design = build_design(panel, SPEC)
    assert noise == pytest.approx(np.sqrt((0.05 * design.level) ** 2 + 25.0), rel=0.1)  # 3,000 draws each: 5 sd is 7 %


def test_what_is_not_known_of_the_period_is_asked_for() -> None:
    panel, controls = world()
    with pytest.raises(ContractError, match=r"needs z0 of the planning period, .* \(4, 10, 1\); got nothing"):
        demand_forecast(panel, SPEC, by_hand(panel), 10)
    with pytest.raises(ContractError, match=r"got shape \(4, 3, 1\)"):
        demand_forecast(panel, SPEC, by_hand(panel), 10, controls=controls[:, :3])
    with pytest.raises(ContractError, match="at least 1 period; got 0"):
        demand_forecast(panel, SPEC, by_hand(panel), 0, controls=controls)
