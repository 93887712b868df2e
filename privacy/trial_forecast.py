"""What the grant of trials buys: for each planned user test the noise of its totals and the smallest lift it shows.

| on paper | here | unit |
|---|---|---|
| sigma = sqrt(k) / sqrt(2 rho) for k components | TrialForecast.sd | the bound of each component |
| Var d = Σ_a [p(1 - p)/n_a + J (sigma_S² + p² sigma_n²)/n_a²] | user_lift | (conversions per person)² |
| smallest detectable lift | (z_(1 - alpha/2) + z_power) · sd of the estimate / p | share of p |

a runs over the control and one treated arm of n_a people, J is the number of strata, whose noise adds up in an arm's
total. The figure is that of the difference of means, one arm at a time: what a covariate or strata explain makes a test
finer, a correction for several arms coarser. Prices are those of `privacy.plan`, on a calendar of whole quarters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, timedelta

from scipy import stats

from contracts.calendar import blocks, next_quarter, quarter_start, week_of, weeks_between
from contracts.evidence import Experiment
from contracts.trials import TrialDesign
from privacy.inputs import Question
from privacy.plan import plan_releases
from privacy.policy import PrivacyPolicy
from privacy.sizes import Sizes
from privacy.vectors import ReleasePlan

QUARTER = weeks_between(date(2024, 1, 1), date(2024, 3, 25))  # 13 weeks, as most quarters have
TREATED = "treated"


@dataclass(frozen=True, slots=True)
class PlannedTrials:
    """User tests as they are declared, before anything of them is released; fields as in `privacy.inputs.Question`.

    A test without declared arms has its control arm and one other; `split` holds planned shares of the arms.
    """

    experiments: tuple[Experiment, ...] = ()
    arms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    designs: Mapping[str, TrialDesign] = field(default_factory=dict)
    split: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    week_start: str = "monday"
    fiscal_year_start: int = 1

    def arms_of(self, experiment: Experiment) -> tuple[str, ...]:
        """All arms of a test."""
        return self.arms.get(experiment.name) or (experiment.control_arm, TREATED)

    def people(self, experiment: Experiment, per_arm: float) -> tuple[float, float]:
        """People in the control arm and in the smallest treated one, where arms hold `per_arm` on average."""
        arms, split = self.arms_of(experiment), self.split.get(experiment.name, {})
        weights = {a: split[a] for a in arms} if all(a in split for a in arms) else dict.fromkeys(arms, 1.0)
        each = {a: per_arm * len(arms) * w / sum(weights.values()) for a, w in weights.items()}
        return each[experiment.control_arm], min(n for a, n in each.items() if a != experiment.control_arm)

    def question(self) -> Question:
        """All whole quarters that the tests touch, as if they were over. Raises ContractError as `Question` does."""
        designs = {e.name: self.designs.get(e.name, TrialDesign()) for e in self.experiments}
        first = min(designs[e.name].first_day(e.start) for e in self.experiments)
        opens = quarter_start(week_of(first, self.week_start), self.fiscal_year_start)
        last = week_of(max(e.end for e in self.experiments), self.week_start)
        ends = next_quarter(quarter_start(last, self.fiscal_year_start))  # exclusive
        start = week_of(opens + timedelta(days=6), self.week_start)
        weeks = weeks_between(start, week_of(ends - timedelta(days=1), self.week_start))
        channels = tuple(sorted({c for e in self.experiments for c in e.channels}))
        arms = {e.name: self.arms_of(e) for e in self.experiments}
        return Question(
            blocks(weeks, self.fiscal_year_start), self.week_start, ("example",), channels, self.experiments, arms,
            designs,
        )  # fmt: skip


def example_trials(count: int) -> PlannedTrials:
    """So many tests that all fill one quarter, with two arms and the components that are released by default."""
    return PlannedTrials(
        tuple(
            Experiment(f"test {i}", "user", "example one", QUARTER[0], QUARTER[-1], (), None)
            for i in range(1, count + 1)
        )
    )


@dataclass(frozen=True, slots=True)
class Lift:
    """Smallest detectable lift of a test, as a share of what it is compared with."""

    total: float
    without_noise: float


@dataclass(frozen=True, slots=True)
class TrialForecast:
    """One planned test. `lift` is None where conversions are not among its metrics."""

    name: str
    components: int
    strata: int
    quarters: int  # charged in full, each
    nano: int
    bound: float  # L2 norm of one person's vector, in bounds of the components
    sd: float  # of every total, in units of the component's bound
    looks: int
    look_components: int
    look_nano: int  # of each look
    look_bound: float
    look_sd: float
    people: tuple[float, float]  # control arm, smallest treated arm
    lift: Lift | None


def quantiles(sizes: Sizes) -> float:
    """z_(1 - alpha/2) + z_power."""
    return float(stats.norm.ppf(1 - sizes.alpha / 2) + stats.norm.ppf(sizes.power))


def user_lift(
    sizes: Sizes,
    noise_conversions: float,
    noise_people: float,
    people: tuple[float, float] | None = None,
    strata: int = 1,
) -> Lift:
    """Smallest detectable relative change of the conversion rate, given the noise sd of S and of n of one stratum."""
    arms = people or (sizes.people_per_arm, sizes.people_per_arm)
    p = sizes.base_rate
    sampling = p * (1 - p) * sum(1 / n for n in arms)
    released = strata * (noise_conversions**2 + p**2 * noise_people**2) * sum(1 / n**2 for n in arms)
    return Lift(quantiles(sizes) * math.sqrt(sampling + released) / p, quantiles(sizes) * math.sqrt(sampling) / p)


def trial_forecasts(policy: PrivacyPolicy, sizes: Sizes, planned: PlannedTrials) -> tuple[TrialForecast, ...]:
    """One forecast per test, in their order; none where trials have no share. Raises as `plan_releases` does."""
    if not planned.experiments or not policy.share_nano("trials"):
        return ()
    only = replace(policy, shares={"trials": policy.shares["trials"]}, corrections=())
    plans = plan_releases(planned.question(), only)
    return tuple(
        _one(e, [p for p in plans if p.experiment == e.name], only, sizes, planned) for e in planned.experiments
    )


def _one(
    e: Experiment, plans: list[ReleasePlan], policy: PrivacyPolicy, sizes: Sizes, planned: PlannedTrials
) -> TrialForecast:
    design = planned.designs.get(e.name, TrialDesign())
    (whole,) = (p for p in plans if not p.look)
    looks = [p.vectors[0] for p in plans if p.look]
    v, strata, people = whole.vectors[0], len(design.cells()), planned.people(e, sizes.people_per_arm)
    sd = v.sigma_units * v.unit
    known = "conversions" in design.metrics
    return TrialForecast(
        name=e.name,
        components=len(design.components()),
        strata=strata,
        quarters=len(whole.blocks),
        nano=v.nano,
        bound=v.bound_units * v.unit,
        sd=sd,
        looks=len(looks),
        look_components=len(design.look_components()),
        look_nano=looks[0].nano if looks else 0,
        look_bound=looks[0].bound_units * looks[0].unit if looks else 0.0,
        look_sd=looks[0].sigma_units * looks[0].unit if looks else 0.0,
        people=people,
        lift=user_lift(sizes, sd * policy.trials.conversions, sd, people, strata) if known else None,
    )
