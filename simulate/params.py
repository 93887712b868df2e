"""What is drawn once per seed, and the ranges it is drawn from.

| on paper | here | unit |
|---|---|---|
| s_c | ChannelDraw.share | share of all expected conversions that channel c causes |
| R_c | ChannelDraw.roi | incremental revenue / spend, all people |
| alpha_c, theta_c | retention, peak | share carried to the next week; weeks until the delayed kernel peaks |
| k_c, n_c | half, slope | curve scale, relative to the channel's mean adstocked spend; shape |
| phi_c | follow | elasticity of planned spend to demand |
| kappa_c | credit_targets | intended last-touch credit / true effect |

The ranges are what published practice calls ordinary: an order rate of 2 % a week among known customers, channels
that cause a few per cent of orders each, returns around break-even with a wide spread, carry-over of days for search
and of weeks for television. They were set before any model was run on the world.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

ONLINE: tuple[str, ...] = ("search", "retargeting", "social", "video")
CHANNELS: tuple[str, ...] = (*ONLINE, "tv")
SEARCH, RETARGETING, SOCIAL, VIDEO, TV = range(5)
POPULATION_PER_PERSON = 25  # market population per observed customer
HISTORY = 13  # unobserved weeks of spend before the panel, and the longest carry-over, in weeks

# Bounds of uniform draws, unless a comment says otherwise. Written to truth/world.json as they stand.
RANGES: dict[str, tuple[float, float]] = {
    "conversions_per_person_week": (0.018, 0.022),
    "share": (0.02, 0.12),  # clip of a lognormal around the channel's median, log-sd 0.4
    "share_sum": (0.0, 0.42),  # shares are scaled down together above this
    "roi": (0.3, 5.0),  # clip of a lognormal around 1.2, log-sd 0.6
    "order_value": (40.0, 80.0),  # mean, EUR; orders are lognormal with log-sd 0.6
    "geo_level_sd": (0.08, 0.2),  # log-sd of baseline conversions a person between geos
    "geo_size_ratio": (4.0, 6.0),  # largest geo / smallest
    "half": (0.8, 2.5),
    "hill_slope": (0.8, 1.8),
    "power": (0.5, 0.85),
    "follow": (0.3, 1.2),  # common strength, multiplied by the channel's own
    "season_amplitude": (0.06, 0.2),  # log scale
    "december_peak": (0.1, 0.35),  # log scale
    "trend_per_year": (-0.1, 0.2),  # log scale
    "shock_sd": (0.04, 0.1),  # common demand shock, log scale, AR(1) with 0.8
    "geo_shock_sd": (0.03, 0.07),  # the geo's own demand shock, log scale, AR(1) with 0.8
    "week_noise_sd": (0.01, 0.03),  # common weekly shock that no control sees
    "geo_noise_sd": (0.02, 0.04),  # geo-week shock that no control sees
    "index_noise": (0.5, 1.0),  # sd of the noise in demand_index / sd of the demand shock
    "price_elasticity": (-1.8, -0.8),
    "promo_effect": (0.08, 0.2),  # log scale
    "intent_shape": (0.7, 1.3),  # gamma shape of personal intent, mean 1
    "geo_effect_sd": (0.08, 0.2),  # log-sd of a channel's effect between geos
    "consent": (0.82, 0.88),
    "consent_intent_correlation": (0.05, 0.2),
    "credited": (0.38, 0.62),  # share of conversions that last touch gives to search and retargeting together
    "credit_ratio": (2.8, 5.2),  # mean last-touch credit / true effect of those two
    "intercepted": (0.6, 0.8),  # social and video conversions whose last touch is search or retargeting
    "prospecting_ratio": (0.4, 0.65),  # intended last-touch credit / true effect of social and video
    "background_share": (0.15, 0.3),  # addressable people's conversions with no touch just before them
    "touches_per_person_week": (0.31, 0.35),
}


@dataclass(frozen=True, slots=True)
class Traits:
    """What is fixed about a channel in every world."""

    share_median: float
    retention: tuple[float, float]  # range, share carried to the next week
    peak: tuple[float, float]  # range, weeks
    delayed_probability: float  # that the carry-over is delayed instead of geometric
    follow: float  # its own multiple of the common strength
    block_weeks: tuple[int, int]  # length of one flight, range, inclusive
    off_probability: float  # that a geo's flight is off
    national_sd: float  # log-sd of the part of the flighting that all geos share
    national_off: float  # probability that a national flight is off
    cpm: float  # EUR per thousand impressions
    intent_exponent: float  # exposure is proportional to intent to this power
    susceptibility_exponent: float  # the same for the causal response
    event_mix: tuple[float, float, float]  # impression, click, visit; zeros for an offline channel


TRAITS: tuple[Traits, ...] = (
    Traits(0.065, (0.0, 0.3), (0.2, 0.8), 0.15, 1.0, (3, 8), 0.05, 0.15, 0.0, 25.0, 1.0, 0.5, (0.0, 0.85, 0.15)),
    Traits(0.055, (0.05, 0.35), (0.2, 0.8), 0.15, 0.8, (3, 8), 0.08, 0.15, 0.0, 4.0, 1.0, 0.5, (0.85, 0.15, 0.0)),
    Traits(0.05, (0.2, 0.5), (0.5, 1.5), 0.5, 0.5, (2, 6), 0.35, 0.2, 0.0, 7.0, -0.4, 0.2, (0.8, 0.15, 0.05)),
    Traits(0.045, (0.3, 0.65), (0.5, 2.0), 0.5, 0.3, (2, 6), 0.4, 0.25, 0.0, 9.0, -0.4, 0.2, (0.92, 0.08, 0.0)),
    Traits(0.06, (0.5, 0.8), (0.5, 2.5), 0.5, 0.3, (3, 7), 0.3, 0.3, 0.2, 12.0, 0.0, 0.2, (0.0, 0.0, 0.0)),
)


@dataclass(frozen=True, slots=True)
class ChannelDraw:
    """One channel of one world."""

    name: str
    share: float
    roi: float
    adstock: Literal["geometric", "delayed"]
    retention: float
    peak: float  # weeks; 0 for the geometric family
    curve: Literal["hill", "exponential", "power"]
    half: float  # relative to mean adstocked spend; 1 for the power family
    slope: float  # Hill slope or power; 1 for the exponential family
    follow: float


@dataclass(frozen=True, slots=True)
class WorldDraw:
    """Every scalar that is drawn for one world; `scalars` has one entry per remaining name in RANGES."""

    channels: tuple[ChannelDraw, ...]
    scalars: dict[str, float]
    heavy_channel: Literal["social", "tv"]
    credit_targets: tuple[float, float]  # intended last-touch credit / true effect: search, retargeting


def check_sizes(people: int, geos: int, weeks: int, seed: int) -> None:
    """Raises ValueError, with a sentence that names the argument, for a world too small to hold its experiments."""
    for name, value, least, most in (
        ("geos", geos, 4, 500),
        ("people", people, 500, 20_000_000),
        ("weeks", weeks, 26, 520),
        ("seed", seed, 0, 2**63),
    ):
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise ValueError(f"{name} must be a whole number; got {value!r}.")
        if not least <= value <= most:
            raise ValueError(f"{name} must lie between {least} and {most}; got {value}.")
    if people < 50 * geos:
        raise ValueError(f"people must be at least 50 per geo, here {50 * geos} for {geos} geos; got {people}.")


def _uniform(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    return float(rng.uniform(*bounds))


def _lognormal(rng: np.random.Generator, median: float, sd: float, bounds: tuple[float, float]) -> float:
    return float(np.clip(median * math.exp(sd * rng.standard_normal()), *bounds))


def _draw_curve(rng: np.random.Generator) -> tuple[Literal["hill", "exponential", "power"], float, float]:
    family = int(rng.integers(3))
    half = _uniform(rng, RANGES["half"])
    slope, power = _uniform(rng, RANGES["hill_slope"]), _uniform(rng, RANGES["power"])
    if family == 0:
        return "hill", half, slope
    if family == 1:
        return "exponential", half, 1.0
    return "power", 1.0, power


def _draw_channel(rng: np.random.Generator, index: int, share: float, strength: float) -> ChannelDraw:
    traits = TRAITS[index]
    delayed = rng.random() < traits.delayed_probability
    retention, peak = _uniform(rng, traits.retention), _uniform(rng, traits.peak)
    curve, half, slope = _draw_curve(rng)
    return ChannelDraw(
        name=CHANNELS[index],
        share=share,
        roi=_lognormal(rng, 1.2, 0.6, RANGES["roi"]),
        adstock="delayed" if delayed else "geometric",
        # The delayed kernel retention**((lag - peak)**2) needs some retention to be wider than one week.
        retention=max(retention, 0.2) if delayed else retention,
        peak=peak if delayed else 0.0,
        curve=curve,
        half=half,
        slope=slope,
        follow=strength * traits.follow,
    )


def _credit_targets(rng: np.random.Generator, shares: np.ndarray, credited: float) -> tuple[float, float]:
    """Intended credit/true of search and retargeting: both near one mean ratio, so that their credits sum to it."""
    pair = float(shares[SEARCH] + shares[RETARGETING])
    mean = float(np.clip(credited / pair, *RANGES["credit_ratio"]))
    tilt = math.exp(float(rng.uniform(-0.1, 0.1)))
    retargeting = (mean * pair - mean * tilt * shares[SEARCH]) / shares[RETARGETING]
    return mean * tilt, float(np.clip(retargeting, 0.85 * mean, 1.15 * mean))


def draw_world(rng: np.random.Generator) -> WorldDraw:
    """Draws one world's parameters. The order of the draws is part of what a seed means."""
    skip = {"share", "share_sum", "roi", "half", "hill_slope", "power", "credit_ratio"}
    scalars = {name: _uniform(rng, bounds) for name, bounds in RANGES.items() if name not in skip}
    shares = np.array([_lognormal(rng, t.share_median, 0.4, RANGES["share"]) for t in TRAITS])
    shares *= min(1.0, RANGES["share_sum"][1] / shares.sum())
    channels = tuple(_draw_channel(rng, i, float(s), scalars["follow"]) for i, s in enumerate(shares))
    return WorldDraw(
        channels=channels,
        scalars=scalars,
        heavy_channel="social" if rng.random() < 0.5 else "tv",
        credit_targets=_credit_targets(rng, shares, scalars["credited"]),
    )
