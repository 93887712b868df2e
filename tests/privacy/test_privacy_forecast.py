"""The forecast tells the noise that a release will have, and detects what it says it detects."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import ConfigError, ContractError
from contracts.evidence import Experiment
from contracts.trials import TrialDesign
from privacy.cadence import Part
from privacy.forecast import cells, forecast, forecasts, geo_lift
from privacy.plan import plan_releases
from privacy.policy import PrivacyPolicy
from privacy.sizes import Sizes
from privacy.trial_forecast import PlannedTrials, example_trials, trial_forecasts, user_lift


def test_the_noise_is_c_over_root_two_rho() -> None:
    """Golden: the defaults of docs/privacy.md (5.3 conversions, 1,000 currency, 28 active people)."""
    found = {(c.measure, c.vector): c for c in forecast(PrivacyPolicy(), Sizes()).cells}
    assert found["kpi", "conversions"].sd == pytest.approx(2 / math.sqrt(2 * 0.07))
    assert found["kpi", "revenue"].sd == pytest.approx(1000, rel=1e-3)
    assert found["kpi", "active_users"].sd == pytest.approx(28.3, rel=1e-3)
    for c in found.values():
        assert c.sd == pytest.approx(c.bound / math.sqrt(2 * c.nano / 1e9), rel=1e-6), c
    assert sum(c.nano for c in found.values() if "correction" not in c.measure) == 190_000_000, "all but the reserve"
    again = found["kpi correction", "conversions"]
    assert again.sd == pytest.approx(found["kpi", "conversions"].sd * math.sqrt(10), rel=1e-6), (
        "the reserve pays a tenth"
    )
    assert sum(c.nano for c in found.values()) == 200_000_000


def test_batches_are_told_with_their_own_noise() -> None:
    weekly = cells(replace(PrivacyPolicy(), cadence={"kpi": "week"}))
    conversions = [c for c in weekly if (c.measure, c.vector) == ("kpi", "conversions")]
    assert [(c.weeks, c.sd) for c in conversions] == [(1, pytest.approx(2 / math.sqrt(2 * 0.07 / 13), rel=1e-6))]
    split = cells(replace(PrivacyPolicy(), cadence={"kpi": (Part(9, 0.4), Part(None, 0.6))}))
    conversions = [c for c in split if (c.measure, c.vector) == ("kpi", "conversions")]
    assert [(c.weeks, c.nano) for c in conversions] == [(9, 28_000_000), (4, 42_000_000)]
    noisiest = forecast(replace(PrivacyPolicy(), cadence={"kpi": (Part(9, 0.4), Part(None, 0.6))}), Sizes((100,)))
    assert noisiest.relative_error == (pytest.approx(2 / math.sqrt(2 * 0.028) / 100, rel=1e-6),)


def test_tests_share_the_grant_of_trials() -> None:
    one, two = (forecast(PrivacyPolicy(), Sizes(), example_trials(n)).trials[0] for n in (1, 2))
    assert (one.nano, two.nano) == (30_000_000, 15_000_000) and two.sd == pytest.approx(one.sd * math.sqrt(2))
    none = forecast(replace(PrivacyPolicy(), shares={"kpi": 0.5}), Sizes())
    assert none.user_lift is None and none.geo_lift is not None


def _test(name: str, start: date, end: date) -> Experiment:
    return Experiment(name, "user", "mail", start, end, (), None)


def test_a_declared_test_is_told_with_the_noise_and_price_that_its_release_will_have() -> None:
    """Four components, five looks, a pre-period in the quarter before, beside a plain test: the plans are the judge."""
    rich = TrialDesign(metrics=("conversions",), pre_days=20, looks=5, strata=("new", "old"))
    tests = (_test("rich", date(2024, 4, 8), date(2024, 5, 19)), _test("plain", date(2024, 5, 6), date(2024, 6, 2)))
    planned = PlannedTrials(tests, {}, {"rich": rich})
    policy = PrivacyPolicy()
    first, second = trial_forecasts(policy, Sizes(), planned)
    plans = {(p.experiment, p.look): p for p in plan_releases(planned.question(), policy) if p.measure == "trials"}
    for found in (first, second):
        plan = plans[found.name, 0]
        assert (found.nano, found.quarters) == (plan.vectors[0].nano, len(plan.blocks))
        assert found.sd == plan.vectors[0].sigma_units * plan.vectors[0].unit
    assert (first.components, first.strata, first.looks, first.quarters) == (6, 2, 5, 2)
    look = plans["rich", 3].vectors[0]
    assert (first.look_nano, first.look_sd) == (look.nano, look.sigma_units * look.unit)
    assert first.nano + 5 * first.look_nano == 15_000_000, "two tests share a quarter's 30 million"
    assert first.sd == pytest.approx(math.sqrt(6 / (2 * first.nano / 1e9)), rel=1e-5)
    assert second.components == 8 and second.nano == 15_000_000 and not second.looks
    shown = {c.vector: c for c in forecast(policy, Sizes(), planned).cells if c.measure == "trials"}
    assert set(shown) == {"rich", "plain", "rich, each look"} and shown["rich, each look"].sd == first.look_sd


def test_strata_arms_and_split_decide_what_a_declared_test_can_show() -> None:
    week = (date(2024, 1, 8), date(2024, 2, 4))

    def lift(design: TrialDesign, arms: tuple[str, ...] = (), split: dict[str, float] | None = None) -> float:
        planned = PlannedTrials((_test("t", *week),), {"t": arms} if arms else {}, {"t": design}, {"t": split or {}})
        (found,) = trial_forecasts(PrivacyPolicy(), Sizes(people_per_arm=20_000), planned)
        assert found.lift
        return found.lift.total

    plain = lift(TrialDesign())
    assert lift(TrialDesign(metrics=("conversions",))) < plain, "three totals are less noisy than eight"
    assert lift(TrialDesign(strata=("a", "b", "c"))) > plain, "the noise of three strata adds up"
    assert lift(TrialDesign(looks=4)) > plain, "looks take half of the grant"
    assert lift(TrialDesign(), ("control", "a", "b")) == pytest.approx(plain)
    uneven = lift(TrialDesign(), ("control", "a", "b"), {"control": 0.8, "a": 0.1, "b": 0.1})
    assert uneven > plain, "the smallest arm decides"
    planned = PlannedTrials((_test("t", *week),), {}, {"t": TrialDesign(metrics=("revenue",))})
    found = forecast(PrivacyPolicy(), Sizes(), planned)
    assert found.trials[0].lift is None and found.user_lift is None and found.trials[0].sd > 0
    assert planned.people(planned.experiments[0], 10.0) == (10.0, 10.0)
    assert PlannedTrials(planned.experiments, {"t": ("control", "a", "b")}, {}, {"t": {"control": 2, "a": 1, "b": 3}}
                         ).people(planned.experiments[0], 10.0) == (10.0, 5.0)  # fmt: skip


@settings(max_examples=6, deadline=None)
@given(st.floats(0.01, 5), st.floats(1.1, 10))
def test_more_rho_never_buys_less(rho: float, factor: float) -> None:
    less, more = forecasts(PrivacyPolicy(), (rho, rho * factor), Sizes((100.0,)))
    assert more.epsilon_quarter > less.epsilon_quarter and more.epsilon_year > less.epsilon_year
    assert less.relative_error and more.relative_error and more.relative_error[0] < less.relative_error[0]
    for a, b in ((less.user_lift, more.user_lift), (less.geo_lift, more.geo_lift)):
        assert a and b and b.without_noise == a.without_noise < b.total < a.total


def test_a_user_test_has_its_power_at_the_detectable_lift() -> None:
    """Simulated: 4,000 tests at that lift; power within 5 standard errors of 0.8 (false alarm 6e-7), level at 0."""
    sizes, noise_s, noise_n = Sizes(people_per_arm=20_000, base_rate=0.03), 30.0, 15.0
    lift = user_lift(sizes, noise_s, noise_n).total
    random, n, tests = np.random.default_rng(5), sizes.people_per_arm, 4_000
    for effect, expected in ((lift, sizes.power), (0.0, sizes.alpha)):
        means, errors = [], []
        for p in (sizes.base_rate, sizes.base_rate * (1 + effect)):
            s = random.binomial(n, p, tests) + noise_s * random.standard_normal(tests)
            people = n + noise_n * random.standard_normal(tests)
            means.append(s / people)
            errors.append(p * (1 - p) / n + (noise_s**2 + p**2 * noise_n**2) / n**2)
        found = np.abs(means[1] - means[0]) > 1.959964 * math.sqrt(sum(errors))
        assert abs(found.mean() - expected) < 5 * math.sqrt(expected * (1 - expected) / tests) + 0.02 * (effect > 0)


def test_a_geo_test_has_its_power_at_the_detectable_lift() -> None:
    sizes, noise = Sizes(geo_conversions=200.0, treated_geos=3, control_geos=6, test_weeks=6, weeks_before=40), 15.0
    lift, random, tests = geo_lift(sizes, noise).total, np.random.default_rng(6), 4_000
    m, t, c = sizes.geo_conversions, sizes.treated_geos, sizes.control_geos
    sd = math.sqrt(noise**2 + m + (sizes.geo_variation * m) ** 2)
    weeks = sizes.weeks_before + sizes.test_weeks
    for effect, expected in ((lift, sizes.power), (0.0, sizes.alpha)):
        treated = t * m + math.sqrt(t) * sd * random.standard_normal((tests, weeks))
        treated[:, sizes.weeks_before :] += effect * t * m
        control = c * m + math.sqrt(c) * sd * random.standard_normal((tests, weeks))
        gap = treated - control * t / c
        found = gap[:, sizes.weeks_before :].sum(1) - sizes.test_weeks * gap[:, : sizes.weeks_before].mean(1)
        variance = sd**2 * (t + t**2 / c) * (sizes.test_weeks + sizes.test_weeks**2 / sizes.weeks_before)
        power = (np.abs(found) > 1.959964 * math.sqrt(variance)).mean()
        assert abs(power - expected) < 5 * math.sqrt(expected * (1 - expected) / tests)


def test_impossible_sizes_and_splits_are_refused() -> None:
    with pytest.raises(ContractError, match="people_per_arm"):
        Sizes(people_per_arm=0)
    with pytest.raises(ContractError, match="size 2"):
        Sizes(cells=(3.0, -1.0))
    with pytest.raises(ConfigError, match="base_rate must lie between 0 and 1; got 1.5"):
        Sizes(base_rate=1.5)
    with pytest.raises(ConfigError, match="power must be above"):
        Sizes(power=0.02, alpha=0.1)
    with pytest.raises(ConfigError, match=r"privacy\.shares\.\* must add up to 1 at most; got 1\.4"):
        forecasts(PrivacyPolicy(), (0.2,), Sizes(), {"kpi": 0.9})
    with pytest.raises(ConfigError, match="rho_per_user_quarter must be > 0"):
        forecasts(PrivacyPolicy(), (0.0,), Sizes())
