"""Made-up responses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from contracts.response import SteadyResponse


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
