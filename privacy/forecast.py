"""What a budget buys, worked out before any row is read: noise per cell, relative error, smallest detectable lift.

| on paper | here | unit |
|---|---|---|
| sigma = C / sqrt(2 rho_v) | Cell.sd; OpenDP's own map decides, see privacy.mechanism | metric units |
| eps(delta) of rho | epsilon_of, by OpenDP (Canonne, Kamath and Steinke 2020) | at delta |
| relative error of a cell of size m | sd / m; counting itself adds 1 / sqrt(m) | share of m |
| Var of a user test | privacy.trial_forecast | (conversions per person)² |
| Var of a geo test | (sigma² + s²)(G_T + G_T²/G_C)(W + W²/P) | conversions² |
| smallest detectable lift | (z_(1 - alpha/2) + z_power) · sd of the estimate | as the estimate |

The geo test sets G_T treated geos against G_C control geos, scaled by G_T/G_C, over W weeks of test and P weeks before;
s² = m + (cv m)² is a geo's own weekly variance, weeks taken as independent and geos as equal. It is a floor: serial
correlation and drift, which the analysis allows for, make a real test wider.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from contracts.calendar import blocks
from privacy.budget import QUARTERS_PER_YEAR
from privacy.corrections import RESERVE, Correction
from privacy.inputs import Question
from privacy.mechanism import epsilon_of
from privacy.plan import plan_releases
from privacy.policy import PrivacyPolicy
from privacy.sizes import Sizes
from privacy.trial_forecast import (
    QUARTER,
    Lift,
    PlannedTrials,
    TrialForecast,
    example_trials,
    quantiles,
    trial_forecasts,
)

EXAMPLE = ("example one", "example two")


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
class Forecast:
    """What one grant buys. `relative_error` has one entry per declared size; None where the measure is not released."""

    rho: float
    epsilon_quarter: float
    epsilon_year: float
    cells: tuple[Cell, ...]
    relative_error: tuple[float, ...] | None
    trials: tuple[TrialForecast, ...]
    geo_lift: Lift | None

    @property
    def user_lift(self) -> Lift | None:
        """The lift of the test that shows least; None where no test releases conversions."""
        lifts = [t.lift for t in self.trials if t.lift is not None]
        return max(lifts, key=lambda lift: lift.total) if lifts else None


def example_question(policy: PrivacyPolicy) -> Question:
    """One whole quarter with one geo: noise depends on nothing else of a question but the tests."""
    named = {c for rule in policy.credit.rules.values() for c in getattr(rule, "direct", ())}
    channels = tuple(sorted({*EXAMPLE, *policy.media.channels, *named}))
    return Question(blocks(QUARTER), "monday", ("example",), channels)


def cells(policy: PrivacyPolicy, trials: tuple[TrialForecast, ...] = ()) -> tuple[Cell, ...]:
    """Noise of every vector of every release of a 13-week quarter, of a correction of kpi that takes the whole
    reserve, and of the tests; equal batches are told once.

    Raises ConfigError where the policy itself is impossible (a grant under one nano-rho, too large a table).
    """
    out: dict[tuple[object, ...], Cell] = {}
    again = (Correction(QUARTER[0], "kpi"),) if policy.share_nano(RESERVE) and policy.share_nano("kpi") else ()
    for plan in plan_releases(example_question(policy), replace(policy, corrections=again)):
        name = f"{plan.measure} correction" if plan.correction else plan.measure
        for v in plan.vectors:
            cell = Cell(name, len(plan.weeks), v.name, v.bound_units * v.unit, v.nano, v.sigma_units * v.unit)
            out.setdefault((cell.measure, cell.weeks, cell.vector, cell.nano), cell)
    tests = [Cell("trials", 0, t.name, t.bound, t.nano, t.sd) for t in trials]
    looks = [Cell("trials", 0, f"{t.name}, each look", t.look_bound, t.look_nano, t.look_sd) for t in trials if t.looks]
    return (*out.values(), *tests, *looks)


def geo_lift(sizes: Sizes, noise: float) -> Lift:
    """Smallest detectable relative change of the treated geos' total, given the noise sd of a geo and week."""
    m, w = sizes.geo_conversions, sizes.test_weeks
    own = m + (sizes.geo_variation * m) ** 2
    design = (sizes.treated_geos + sizes.treated_geos**2 / sizes.control_geos) * (w + w**2 / sizes.weeks_before)
    level = sizes.treated_geos * w * m
    return Lift(
        quantiles(sizes) * math.sqrt((noise**2 + own) * design) / level,
        quantiles(sizes) * math.sqrt(own * design) / level,
    )


def forecast(policy: PrivacyPolicy, sizes: Sizes, planned: PlannedTrials | None = None) -> Forecast:
    """What this policy's grant buys, for the planned tests or one example. Where kpi comes in unequal batches, the
    noisiest decides over errors.
    """
    trials = trial_forecasts(policy, sizes, planned or example_trials(1))
    found = cells(policy, trials)
    kpi = [c.sd for c in found if (c.measure, c.vector) == ("kpi", "conversions")]
    cap, delta = policy.cap_nano, policy.delta
    return Forecast(
        policy.rho_per_user_quarter,
        epsilon_of(cap, delta),
        epsilon_of(QUARTERS_PER_YEAR * cap, delta),
        found,
        tuple(max(kpi) / m for m in sizes.cells) if kpi else None,
        trials,
        geo_lift(sizes, max(kpi)) if kpi else None,
    )


def forecasts(
    policy: PrivacyPolicy,
    rhos: Sequence[float],
    sizes: Sizes,
    shares: Mapping[str, float] | None = None,
    planned: PlannedTrials | None = None,
) -> tuple[Forecast, ...]:
    """One forecast per rho. `shares` replace those of the policy. Raises ConfigError naming the key at fault."""
    split = dict(policy.shares) | dict(shares or {})
    return tuple(forecast(replace(policy, rho_per_user_quarter=rho, shares=split), sizes, planned) for rho in rhos)
