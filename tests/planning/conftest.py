"""Made-up responses."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import numpy as np
import pytest

from contracts.response import SteadyResponse
from contracts.surface import DynamicResponse
from planning.surface import Assumptions, Surface, build_surface


def response(
    seed: int, *, channels: int, geos: int = 3, draws: int = 200, slope: tuple[float, float] = (0.7, 1.0)
) -> SteadyResponse:
    """Random Hill curves; `slope` bounds the Hill slope of a channel, draws vary around it by 5 %."""
    rng = np.random.default_rng(seed)
    size = rng.uniform(0.5, 2.0, geos)
    spend = np.outer(size, rng.uniform(50, 500, channels)) * rng.uniform(0.8, 1.2, (geos, channels))
    height = size[:, None] * rng.uniform(20, 200, channels)
    weights = rng.dirichlet(np.full(draws, 5.0))
    return SteadyResponse(
        channels=tuple(f"c{i}" for i in range(channels)),
        geos=tuple(f"g{i}" for i in range(geos)),
        amplitude=height * np.exp(0.3 * rng.normal(size=(draws, 1, channels))),
        unit=1 / spend.mean(axis=0) * np.ones((geos, channels)),
        half_saturation=rng.uniform(0.5, 2.0, channels) * np.exp(0.2 * rng.normal(size=(draws, channels))),
        slope=rng.uniform(*slope, channels) * np.exp(0.05 * rng.normal(size=(draws, channels))),
        current_spend=spend,
        observed_max=spend.sum(axis=0) * 2,
        weights=weights,
    )


@pytest.fixture(scope="session")
def make_response() -> Callable[..., SteadyResponse]:
    """Factory of responses."""
    return response


def dynamic(
    seed: int,
    *,
    channels: int,
    geos: int = 2,
    draws: int = 40,
    lags: int = 5,
    slope: tuple[float, float] = (0.8, 1.3),
    price: float | None = 20.0,
) -> DynamicResponse:
    """Random response in time over weekly periods that ends on 6 January 2025, panel in EUR."""
    rng = np.random.default_rng(seed + 1000)
    steady = response(seed, channels=channels, geos=geos, draws=draws, slope=slope)
    today = steady.unit * steady.current_spend
    return DynamicResponse(
        steady=steady,
        retention=rng.uniform(0.2, 0.7, channels) * np.exp(0.1 * rng.normal(size=(draws, channels))).clip(0.7, 1.3),
        delay=rng.uniform(0.0, 2.0, channels) * np.ones((draws, channels)),
        lags=lags,
        recent=today[:, None, :] * rng.uniform(0.5, 1.5, (geos, lags - 1, channels)),
        observed=2.0 * today,
        population=rng.uniform(1.0, 3.0, geos) * 1000,
        last_period=date(2025, 1, 6),
        period_days=7,
        currency="EUR",
        kpi_name="conversions",
        revenue_per_kpi=price,
    )


START = date(2025, 1, 13)


@pytest.fixture(scope="session")
def make_dynamic() -> Callable[..., DynamicResponse]:
    """Factory of responses in time."""
    return dynamic


@pytest.fixture(scope="session")
def make_surface() -> Callable[..., Surface]:
    """Factory of surfaces: `periods` and `assumptions`, the rest as for `make_dynamic`."""

    def make(seed: int, *, periods: int = 6, assumptions: Assumptions | None = None, **more: Any) -> Surface:
        return build_surface(dynamic(seed, **more), START, periods, assumptions)

    return make
