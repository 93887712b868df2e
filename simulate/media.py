"""Spend plans, experiments, carry-over and saturation.

x[c,g,t] = sum_l w_c(l) · z[c,g,t-l] / mean,  w_c(l) ~ alpha**l (geometric) or alpha**((l - theta)**2) (delayed),
both over lags 0 to HISTORY and summing to 1;  pressure = beta_c · geo effect[c,g] · h_c(x),  h_c one of
Hill x^n / (x^n + k^n), exponential 1 - exp(-x / k), power x^n.  z is spend per head, relative to its plan's mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from simulate.demand import Demand
from simulate.params import CHANNELS, HISTORY, RETARGETING, SEARCH, TRAITS, ChannelDraw, Traits, WorldDraw
from simulate.people import CONTROL, EXPOSED, People

HEAVY_FACTOR = 2.5


@dataclass(frozen=True, slots=True)
class Trial:
    """One experiment. `treated` is empty for the user-randomised one. Weeks are panel indices, `stop` exclusive."""

    name: str
    kind: str  # 'geo' or 'user'
    channel: int
    begin: int
    stop: int
    treated: tuple[int, ...]
    factor: float  # spend multiple in the treated geos; for the user test, in the control arm

    def start_date(self, start: date) -> date:
        """First day, a Monday when the panel starts on one."""
        return start + timedelta(weeks=self.begin)

    def end_date(self, start: date) -> date:
        """Last day, inclusive."""
        return start + timedelta(weeks=self.stop, days=-1)


@dataclass(frozen=True, slots=True)
class Media:
    """What was spent, what it did and what it would have done without each experiment."""

    tests: tuple[Trial, ...]
    spend: np.ndarray  # (channel, geo, week) EUR, as billed
    planned: np.ndarray  # (channel, geo, week) EUR, without any experiment
    delivery: np.ndarray  # (channel, geo, arm, week) spend per head, 1 = plan's mean
    pressure: np.ndarray  # (channel, geo, arm, week) conversions per susceptible person-week
    without: np.ndarray  # the same without the channel's experiment; for the user test, exposed arm held out
    beta: np.ndarray  # (channel,)
    geo_effect: np.ndarray  # (channel, geo)


def kernel(draw: ChannelDraw) -> np.ndarray:
    """Carry-over weights over lags 0 to HISTORY; they sum to 1."""
    lag = np.arange(HISTORY + 1)
    weights = draw.retention ** ((lag - draw.peak) ** 2 if draw.adstock == "delayed" else lag)
    return weights / weights.sum()


def carry_over(z: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Adstock along the last axis; drops the HISTORY weeks that only feed later ones."""
    weeks = z.shape[-1] - HISTORY
    return sum(
        (w * z[..., HISTORY - lag : HISTORY - lag + weeks] for lag, w in enumerate(weights)),
        start=np.zeros((*z.shape[:-1], weeks)),
    )


def saturate(x: np.ndarray, draw: ChannelDraw) -> np.ndarray:
    """Response curve of adstocked spend relative to its mean; 0 at 0, increasing."""
    if draw.curve == "hill":
        return x**draw.slope / (x**draw.slope + draw.half**draw.slope)
    if draw.curve == "exponential":
        return -np.expm1(-x / draw.half)
    return x**draw.slope


def _flights(rng: np.random.Generator, weeks: int, blocks: tuple[int, int], off: float, sd: float) -> np.ndarray:
    """Piecewise constant levels, lognormal when on, 0 when off; shape (weeks,)."""
    out = np.empty(weeks)
    at = 0
    while at < weeks:
        length = int(rng.integers(blocks[0], blocks[1] + 1))
        out[at : at + length] = 0.0 if rng.random() < off else np.exp(sd * rng.standard_normal())
        at += length
    return out


def _plan(rng: np.random.Generator, traits: Traits, follow: float, demand: Demand, steady: slice) -> np.ndarray:
    """Planned spend per head, (geo, HISTORY + weeks), any scale. `steady` weeks have no flights: a test runs there."""
    geos, total = demand.log_demand.shape
    national = _flights(rng, total, traits.block_weeks, traits.national_off, traits.national_sd)
    own = np.stack([_flights(rng, total, traits.block_weeks, traits.off_probability, 0.5) for _ in range(geos)])
    level = national * own
    if steady.stop:
        # Each market is held at its own usual level while the test runs; one that was never on gets the average.
        usual = level[:, : steady.start].mean(axis=1, keepdims=True)
        level[:, steady] = np.where(usual > 0, usual, level.mean())
    intensity = np.exp(0.15 * rng.standard_normal((geos, 1)))  # some markets are simply bought harder
    jitter = np.exp(0.12 * rng.standard_normal((geos, total)))
    return level * intensity * jitter * np.exp(follow * demand.log_demand)


def _treated_sets(rng: np.random.Generator, share: np.ndarray) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two disjoint sets of a third of the geos each, of ordinary size: the most even of 40 random splits."""
    size = max(1, len(share) // 3)
    splits = [rng.permutation(len(share)) for _ in range(40)]
    gaps = [max(abs(share[s[:size]].sum() - 1 / 3), abs(share[s[size : 2 * size]].sum() - 1 / 3)) for s in splits]
    best = splits[int(np.argmin(gaps))]
    return tuple(sorted(best[:size].tolist())), tuple(sorted(best[size : 2 * size].tolist()))


def plan_tests(rng: np.random.Generator, share: np.ndarray, heavy: str, weeks: int) -> tuple[Trial, ...]:
    """Holdout, go-dark and heavy-up at three times, each of eight weeks (less in a panel shorter than 48)."""
    length = min(8, weeks // 6)
    holdout, dark, up = (int(weeks * rng.uniform(*r)) for r in ((0.24, 0.32), (0.46, 0.54), (0.74, 0.82)))
    dark_geos, heavy_geos = _treated_sets(rng, share)
    return (
        Trial("retargeting_holdout", "user", RETARGETING, holdout, holdout + length, (), 0.0),
        Trial("search_go_dark", "geo", SEARCH, dark, dark + length, dark_geos, 0.0),
        Trial(f"{heavy}_heavy_up", "geo", CHANNELS.index(heavy), up, up + length, heavy_geos, HEAVY_FACTOR),
    )


def _with_tests(plan: np.ndarray, tests: tuple[Trial, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Spend per head that reaches each arm, and what would without the test: both (channel, geo, arm, all weeks)."""
    reached = np.repeat(plan[:, :, None, :], 2, axis=2)
    without = reached.copy()
    for test in tests:
        window = slice(HISTORY + test.begin, HISTORY + test.stop)
        if test.kind == "geo":
            reached[test.channel, list(test.treated), :, window] *= test.factor
        else:
            reached[test.channel, :, CONTROL, window] *= test.factor
            without[test.channel, :, :, window] *= test.factor
    return reached, without


def make_media(
    rng: np.random.Generator, draw: WorldDraw, demand: Demand, people: People, expected_conversions: float
) -> Media:
    """Plans spend, places the experiments and turns both into causal pressure.

    `expected_conversions` is the total of the panel without experiments; with a channel's drawn share and ROI it
    fixes both the channel's effect and its spend.
    """
    weeks = demand.promo.shape[1] - HISTORY
    heads = people.per_geo
    tests = plan_tests(rng, heads / heads.sum(), draw.heavy_channel, weeks)
    windows = {t.channel: slice(HISTORY + t.begin, HISTORY + t.stop) for t in tests}
    plan = np.stack(
        [_plan(rng, TRAITS[i], c.follow, demand, windows.get(i, slice(0, 0))) for i, c in enumerate(draw.channels)]
    )
    head_weight = heads / heads.sum() / weeks
    plan /= np.einsum("cgt,g->c", plan[..., HISTORY:], head_weight)[:, None, None]
    reached, without = _with_tests(plan, tests)
    geo_effect = np.exp(draw.scalars["geo_effect_sd"] * rng.standard_normal((len(CHANNELS), len(heads))))
    level = np.array([c.share * expected_conversions * draw.scalars["order_value"] / c.roi for c in draw.channels])
    pressure, alternative, beta = _pressures(draw, people, plan, reached, without, geo_effect, expected_conversions)
    panel = np.s_[..., HISTORY:]
    planned = level[:, None, None] * head_weight[:, None] * plan[panel]
    # Ads that are not shown to the control arm are not paid for.
    arm_share = people.per_group / heads[:, None]
    billed = np.einsum("cgat,ga->cgt", reached[panel], arm_share)
    return Media(
        tests=tests,
        spend=np.round(level[:, None, None] * head_weight[:, None] * billed, 2),
        planned=planned,
        delivery=reached[panel],
        pressure=pressure,
        without=alternative,
        beta=beta,
        geo_effect=geo_effect,
    )


def _pressures(
    draw: WorldDraw,
    people: People,
    plan: np.ndarray,
    reached: np.ndarray,
    without: np.ndarray,
    geo_effect: np.ndarray,
    expected_conversions: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pressure as it was, as it would have been without the test, and beta per channel."""
    mass = np.add.reduceat(people.susceptibility, people.bounds[:-1:2], axis=1)  # (channel, geo)
    was, would, betas = [], [], []
    for i, channel in enumerate(draw.channels):
        weights = kernel(channel)
        planned = carry_over(plan[i], weights)
        mean = (planned.mean(axis=1) * people.per_geo).sum() / people.size
        response = (saturate(planned / mean, channel).sum(axis=1) * mass[i] * geo_effect[i]).sum()
        beta = channel.share * expected_conversions / response
        scale = beta * geo_effect[i][:, None, None]
        was.append(scale * saturate(carry_over(reached[i], weights) / mean, channel))
        would.append(scale * saturate(carry_over(without[i], weights) / mean, channel))
        betas.append(beta)
    return np.stack(was), np.stack(would), np.array(betas)


def treated_spend_delta(test: Trial, media: Media, people: People) -> float:
    """True currency that the test moved, signed.

    Geo test: billed minus planned spend of the treated geos in the window. User test: what the exposed arm's ads
    cost, that is, per geo, billed spend in the window × share of people in the exposed arm ÷ share not in control.
    """
    window = slice(test.begin, test.stop)
    if test.kind == "geo":
        rows = list(test.treated)
        return float((media.spend[test.channel, rows, window] - media.planned[test.channel, rows, window]).sum())
    groups = people.per_group
    served = groups[:, EXPOSED] / (groups.sum(axis=1) - groups[:, CONTROL])
    return float((media.spend[test.channel, :, window].sum(axis=1) * served).sum())
