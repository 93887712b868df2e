"""Demand that no advertisement made: season, trend, shocks, price and promotions, per geo and week.

log B[g,t] = level[g] + trend + season + shock[g,t] + e · log(price / mean price) + b · promo + noise[g,t]

`demand_index` = 100 · exp(trend + season + shock + measurement noise): what an analyst can observe of the first three.
All arrays run over HISTORY unobserved weeks and then the panel.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from simulate.params import HISTORY

LIST_PRICE = 25.0  # EUR


@dataclass(frozen=True, slots=True)
class Demand:
    """Shapes (geo, HISTORY + weeks)."""

    log_demand: np.ndarray  # season and shock: what spend plans follow; no trend
    log_base: np.ndarray  # everything that moves baseline conversions
    price: np.ndarray  # EUR
    promo: np.ndarray  # 0 or 1
    index: np.ndarray  # noisy, about 100


def ar1(rng: np.random.Generator, shape: tuple[int, int], correlation: float, sd: float) -> np.ndarray:
    """Stationary AR(1) series along the last axis with marginal standard deviation `sd`."""
    out = rng.standard_normal(shape)
    innovation = np.sqrt(1 - correlation**2)
    for t in range(1, shape[1]):
        out[:, t] = correlation * out[:, t - 1] + innovation * out[:, t]
    return sd * out


def season(rng: np.random.Generator, start: date, weeks: int, amplitude: float, december: float) -> np.ndarray:
    """Two yearly harmonics with random phases, and a peak before Christmas; log scale, shape (weeks,)."""
    day = np.array([(start + timedelta(weeks=t)).timetuple().tm_yday + 3 for t in range(weeks)]) / 365.25
    first, second = rng.uniform(0, 1, size=2)
    waves = np.cos(2 * np.pi * (day - first)) + 0.4 * np.cos(4 * np.pi * (day - second))
    distance = np.minimum(np.abs(day - 0.94), 1 - np.abs(day - 0.94))  # share of a year to 10 December
    return amplitude * waves + december * np.exp(-0.5 * (distance / 0.035) ** 2)


def _promotions(rng: np.random.Generator, geos: int, weeks: int) -> np.ndarray:
    """About one week in seven: half of the promotions are national, half are the geo's own."""
    national = rng.random(weeks) < 0.07
    own = rng.random((geos, weeks)) < 0.07
    return (national | own).astype(np.int64)


def make_demand(rng: np.random.Generator, scalars: dict[str, float], *, start: date, geos: int, weeks: int) -> Demand:
    """Draws the demand of every geo and week. `start` is the first panel week; history lies before it."""
    total = HISTORY + weeks
    first = start - timedelta(weeks=HISTORY)
    waves = season(rng, first, total, scalars["season_amplitude"], scalars["december_peak"])
    trend = scalars["trend_per_year"] * np.arange(total) / 52.18
    shock = ar1(rng, (1, total), 0.8, scalars["shock_sd"]) + ar1(rng, (geos, total), 0.8, scalars["geo_shock_sd"])
    promo = _promotions(rng, geos, total)
    drift = ar1(rng, (1, total), 0.95, 0.03) + ar1(rng, (geos, total), 0.9, 0.02)
    price = np.round(LIST_PRICE * np.exp(drift - 0.05 * promo), 2)
    noise = scalars["week_noise_sd"] * rng.standard_normal((1, total))
    noise = noise + scalars["geo_noise_sd"] * rng.standard_normal((geos, total))
    log_base = trend + waves + shock + scalars["price_elasticity"] * np.log(price / price.mean())
    level = scalars["geo_level_sd"] * rng.standard_normal((geos, 1))
    log_base = log_base + scalars["promo_effect"] * promo + noise + level
    shock_sd = np.hypot(scalars["shock_sd"], scalars["geo_shock_sd"])
    error = scalars["index_noise"] * shock_sd * rng.standard_normal((geos, total))
    return Demand(
        log_demand=waves + shock,
        log_base=log_base,
        price=price,
        promo=promo,
        index=np.round(100 * np.exp(trend + waves + shock + error), 2),
    )
