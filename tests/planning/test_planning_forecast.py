"""The KPI under a plan, and the scores of past forecasts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from contracts.errors import ContractError
from planning.forecast import back_test, by_horizon, crps, forecast_draws, kpi_forecast
from planning.surface import evaluate, held

Make = Callable[..., Any]


def test_a_forecast_is_demand_and_media_of_the_same_draw(make_surface: Make) -> None:
    surface = make_surface(1, channels=2)
    media = evaluate(surface, held(surface))
    whole = (media.plan + media.in_flight)[:, :, :6].sum(axis=0)
    sure = 1000.0 - whole  # whatever media brings in a draw, demand makes up for it
    assert forecast_draws(surface, held(surface), sure) == pytest.approx(np.full((40, 6), 1000.0))
    found = kpi_forecast(surface, held(surface), sure)
    assert found["sd"].max() < 1e-9 and len(found) == 12
    assert found[found["scope"] == "to date"]["mean"].to_numpy() == pytest.approx(1000.0 * np.arange(1, 7))
    more = kpi_forecast(surface, 1.5 * held(surface), sure)
    assert (more["mean"] > found["mean"]).all()
    with pytest.raises(ContractError, match=r"demand must be finite numbers by draw and period \(40, 6\)"):
        forecast_draws(surface, held(surface), sure[:10])


def test_crps_is_its_definition_and_known_for_the_normal() -> None:
    rng = np.random.default_rng(0)
    draws, weights = rng.normal(size=50), rng.dirichlet(np.ones(50))
    pairs = np.abs(draws[:, None] - draws[None, :])
    assert crps(draws, weights, 0.3) == pytest.approx(weights @ np.abs(draws - 0.3) - weights @ pairs @ weights / 2)
    many = rng.normal(size=100_000)  # exact at the centre: (sqrt 2 − 1) / sqrt pi; Monte Carlo sd under 0.003
    exact = (np.sqrt(2) - 1) / np.sqrt(np.pi)
    assert crps(many, np.full(100_000, 1e-5), 0.0) == pytest.approx(exact, abs=0.012)


def test_honest_forecasts_are_covered_and_dishonest_ones_are_not() -> None:
    """300 forecasts of 8 periods; the standard error of a coverage of 0.8 over 900 is 0.013, 5 of them allowed."""
    rng = np.random.default_rng(1)
    tests, narrow = [], []
    for _ in range(300):
        level = 100 + rng.normal()
        sd = 1 + np.arange(8) / 2
        draws = level + sd * rng.normal(size=(400, 8))
        actual = level + sd * rng.normal(size=8)
        tests.append(back_test(draws, actual))
        narrow.append(back_test(level + 0.4 * (draws - level), actual))
    good, bad = by_horizon(tests, (1, 4, 8)), by_horizon(narrow, (1, 4, 8))
    assert list(good["horizon"]) == ["1", "2 to 4", "5 to 8"]
    assert list(good["forecasts"]) == [300, 900, 1200]
    assert good["covered80"].iloc[1:].to_numpy() == pytest.approx([0.8, 0.8], abs=0.067)
    assert good["covered90"].iloc[1:].to_numpy() == pytest.approx([0.9, 0.9], abs=0.05)
    assert (bad["covered80"] < 0.55).all() and (bad["crps"] > good["crps"]).all()
    assert good["crps"].is_monotonic_increasing


def test_missing_periods_do_not_count_and_misfits_are_refused() -> None:
    draws = np.random.default_rng(0).normal(size=(50, 3))
    assert list(back_test(draws, np.array([0.0, np.nan, 0.0]))["horizon"]) == [1, 3]
    with pytest.raises(ContractError, match="must have one horizon"):
        back_test(draws, np.zeros(2))
    with pytest.raises(ContractError, match="at least one back-test"):
        by_horizon([])
