"""What a budget buys, worked out before any row is read: noise per cell, relative error, smallest detectable lift.

| on paper | here | unit |
|---|---|---|
| sigma = C / sqrt(2 rho_v) | Cell.sd; OpenDP's own map decides, see privacy.mechanism | metric units |
| eps(delta) of rho | epsilon_of, by OpenDP (Canonne, Kamath and Steinke 2020) | at delta |
| relative error of a cell of size m | sd / m; counting itself adds 1 / sqrt(m) | share of m |
| Var d, two arms of n people each | 2 [p(1 - p)/n + (sigma_S² + p² sigma_n²)/n²] | (conversions per person)² |
| Var of a geo test | (sigma² + s²)(G_T + G_T²/G_C)(W + W²/P) | conversions² |
| smallest detectable lift | (z_(1 - alpha/2) + z_power) · sd of the estimate | as the estimate |

The user test is a difference of means with released sums S and sizes n (delta method, both noisy). The geo test sets
G_T treated geos against G_C control geos, scaled by G_T/G_C, over W weeks of test and P weeks before; s² = m + (cv m)²
is a geo's own weekly variance, weeks taken as independent and geos as equal. It is a floor: serial correlation and
drift, which the analysis allows for, make a real test wider.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

from scipy import stats

from contracts.calendar import blocks, weeks_between
from contracts.checks import positive
from contracts.errors import ConfigError
from contracts.evidence import Experiment
from privacy.budget import QUARTERS_PER_YEAR
from privacy.corrections import RESERVE, Correction
from privacy.inputs import Question
from privacy.mechanism import epsilon_of
from privacy.plan import plan_releases
from privacy.policy import PrivacyPolicy

QUARTER = weeks_between(date(2024, 1, 1), date(2024, 3, 25))  # 13 weeks, as most quarters have
EXAMPLE = ("example one", "example two")


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a marketer declares about the business; nothing is looked up. Raises ContractError on impossible values."""

    cells: tuple[float, ...] = (10.0, 30.0, 100.0, 300.0, 1000.0)  # conversions per geo and week
    people_per_arm: int = 50_000
    base_rate: float = 0.02  # conversions per person over a user test
    treated_geos: int = 5
    control_geos: int = 5
    test_weeks: int = 8
    weeks_before: int = 52
    geo_conversions: float = 300.0  # per geo and week
    geo_variation: float = 0.05  # sd of a geo's week beyond counting, share of its level
    alpha: float = 0.05  # two-sided
    power: float = 0.8

    def __post_init__(self) -> None:
        positive(
            people_per_arm=self.people_per_arm,
            treated_geos=self.treated_geos,
            control_geos=self.control_geos,
            test_weeks=self.test_weeks,
            weeks_before=self.weeks_before,
            geo_conversions=self.geo_conversions,
            **{f"size {i}": m for i, m in enumerate(self.cells, 1)},
        )
        for name in ("base_rate", "alpha", "power"):
            value = getattr(self, name)
            if not 0 < value < 1:
                raise ConfigError(f"{name} must lie between 0 and 1; got {value}.")
        if not 0 <= self.geo_variation < 10:
            raise ConfigError(f"geo_variation must be a share of the level, such as 0.05; got {self.geo_variation}.")
        if self.power <= self.alpha / 2:
            raise ConfigError(f"power must be above alpha / 2; got {self.power} and {self.alpha}.")


@dataclass(frozen=True, slots=True)
class Cell:
    """Noise of one vector of one release."""

    measure: str
    weeks: int  # of the batch; 0 for a trial, whose window is its own
    vector: str
    bound: float  # C, metric units, L2, per person
    nano: int
    sd: float  # metric units, every cell


@dataclass(frozen=True, slots=True)
class Lift:
    """Smallest detectable lift of a test, as a share of what it is compared with."""

    total: float
    without_noise: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """What one grant buys. `relative_error` has one entry per declared size; None where the measure is not released."""

    rho: float
    epsilon_quarter: float
    epsilon_year: float
    cells: tuple[Cell, ...]
    relative_error: tuple[float, ...] | None
    user_lift: Lift | None
    geo_lift: Lift | None


def example_question(policy: PrivacyPolicy, experiments: int) -> Question:
    """One whole quarter with one geo and that many user tests in it: noise depends on nothing else of a question."""
    named = {c for rule in policy.credit.rules.values() for c in getattr(rule, "direct", ())}
    channels = tuple(sorted({*EXAMPLE, *policy.media.channels, *named}))
    tests = tuple(
        Experiment(f"test {i}", "user", channels[0], QUARTER[0], QUARTER[-1], (), None) for i in range(experiments)
    )
    arms = {e.name: (e.control_arm, "treated") for e in tests}
    return Question(blocks(QUARTER), "monday", ("example",), channels, tests, arms)


def cells(policy: PrivacyPolicy, experiments: int = 1) -> tuple[Cell, ...]:
    """Noise of every vector of every release of a 13-week quarter, and of a correction of kpi that takes the whole
    reserve; equal batches are told once.

    Raises ConfigError where the policy itself is impossible (a grant under one nano-rho, too large a table).
    """
    out: dict[tuple[object, ...], Cell] = {}
    again = (Correction(QUARTER[0], "kpi"),) if policy.share_nano(RESERVE) and policy.share_nano("kpi") else ()
    for plan in plan_releases(example_question(policy, experiments), replace(policy, corrections=again)):
        name = f"{plan.measure} correction" if plan.correction else plan.measure
        for v in plan.vectors:
            cell = Cell(name, len(plan.weeks), v.name, v.bound_units * v.unit, v.nano, v.sigma_units * v.unit)
            out.setdefault((cell.measure, cell.weeks, cell.vector, cell.nano), cell)
    return tuple(out.values())


def _quantiles(sizes: Sizes) -> float:
    return float(stats.norm.ppf(1 - sizes.alpha / 2) + stats.norm.ppf(sizes.power))


def user_lift(sizes: Sizes, noise_conversions: float, noise_people: float) -> Lift:
    """Smallest detectable relative change of the conversion rate of a user test, given the noise sd of S and of n."""
    n, p = sizes.people_per_arm, sizes.base_rate
    sampling = 2 * p * (1 - p) / n
    released = 2 * (noise_conversions**2 + p**2 * noise_people**2) / n**2
    return Lift(_quantiles(sizes) * math.sqrt(sampling + released) / p, _quantiles(sizes) * math.sqrt(sampling) / p)


def geo_lift(sizes: Sizes, noise: float) -> Lift:
    """Smallest detectable relative change of the treated geos' total, given the noise sd of a geo and week."""
    m, w = sizes.geo_conversions, sizes.test_weeks
    own = m + (sizes.geo_variation * m) ** 2
    design = (sizes.treated_geos + sizes.treated_geos**2 / sizes.control_geos) * (w + w**2 / sizes.weeks_before)
    level = sizes.treated_geos * w * m
    return Lift(
        _quantiles(sizes) * math.sqrt((noise**2 + own) * design) / level,
        _quantiles(sizes) * math.sqrt(own * design) / level,
    )


def forecast(policy: PrivacyPolicy, sizes: Sizes, experiments: int = 1) -> Forecast:
    """What this policy's grant buys. Where kpi comes in unequal batches, the noisiest decides over errors."""
    found = cells(policy, experiments)
    kpi = [c.sd for c in found if (c.measure, c.vector) == ("kpi", "conversions")]
    trial = [c.sd for c in found if c.measure == "trials"]
    cap, delta = policy.cap_nano, policy.delta
    bound = policy.trials.conversions
    return Forecast(
        policy.rho_per_user_quarter,
        epsilon_of(cap, delta),
        epsilon_of(QUARTERS_PER_YEAR * cap, delta),
        found,
        tuple(max(kpi) / m for m in sizes.cells) if kpi else None,
        user_lift(sizes, max(trial) * bound, max(trial)) if trial else None,
        geo_lift(sizes, max(kpi)) if kpi else None,
    )


def forecasts(
    policy: PrivacyPolicy,
    rhos: Sequence[float],
    sizes: Sizes,
    shares: Mapping[str, float] | None = None,
    experiments: int = 1,
) -> tuple[Forecast, ...]:
    """One forecast per rho. `shares` replace those of the policy. Raises ConfigError naming the key at fault."""
    split = dict(policy.shares) | dict(shares or {})
    return tuple(forecast(replace(policy, rho_per_user_quarter=rho, shares=split), sizes, experiments) for rho in rhos)
