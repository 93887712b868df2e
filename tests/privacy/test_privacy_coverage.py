"""T10: intervals that are made from releases hold the truth as often as they say (slow).

200 replications of a user test: people are drawn, their clipped sums are counted as the trials measure counts them, the
mechanism adds its noise, the release is read back and `lift` makes the 95 % interval. Hits are accepted from 181 to 199
of 200 (exact binomial: outside with probability 0.27 % when the level is right). The mutant: the same releases read as
if they had no noise. And 200 releases of kpi totals, whose interval is the released value and variance alone.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import pyarrow as pa
import pytest
from privacy_worlds import EXPERIMENT
from scipy import stats

from contracts.evidence import Experiment
from contracts.release import Release
from contracts.trials import TrialDesign
from lift.trials import read_trial
from privacy import trials
from privacy.files import vector_table
from privacy.measure_policies import TrialPolicy
from privacy.mechanism import add_noise
from privacy.plan import plan_releases
from privacy.policy import PrivacyPolicy
from privacy.vectors import VectorPlan

RUNS, ACCEPT = 200, range(181, 200)
PEOPLE, BASE, EFFECT = 6_000, 0.06, 0.01  # per arm; conversions per person
POLICY = PrivacyPolicy(trials=TrialPolicy(visits=1, conversions=1, revenue=100), shares={"trials": 0.05})
COMPONENTS = TrialDesign().components()
pytestmark = pytest.mark.slow


def part(experiment: Experiment) -> trials.Part:
    """The whole test."""
    return trials.Part(0, -1, experiment.start, experiment.end, TrialDesign())


def exact_units(rng: np.random.Generator) -> np.ndarray:
    """Totals of both arms in the order of the keys, as `privacy.trials` counts one visit and at most one sale each."""
    out = []
    for rate in (BASE, BASE + EFFECT):
        y = rng.binomial(1, rate, PEOPLE)
        r = np.minimum(np.round(y * rng.gamma(2.0, 20.0, PEOPLE), 2), 100.0) / 100.0
        parts = {"visits": np.ones(PEOPLE), "conversions": y.astype(float), "revenue": r}
        for component in COMPONENTS:
            out.append(np.prod([parts[name] for name in component], axis=0).sum() if component else PEOPLE)
    return np.rint(np.array(out) * trials.ONE).astype(np.int64)


def release(vector: VectorPlan, experiment: Experiment, units: np.ndarray) -> Release:
    """The release of one draw."""
    keys = trials.keys(experiment.name, ("control", "treated"), part(experiment))["trial"]
    table = vector_table(keys, vector, units, np.tile(trials.component_bounds(POLICY.trials, COMPONENTS), 2))
    return Release(
        "trials-x", "trials", "b", date(2024, 1, 1), date(2024, 3, 31), pa.table(table).to_pandas(), (vector.spec(),),
        0.01, 1.0, 1e-6, {},
    )  # fmt: skip


@pytest.fixture
def vector(make_question):  # type: ignore[no-untyped-def]
    plan = next(p for p in plan_releases(make_question(), POLICY) if p.measure == "trials")
    return plan.vectors[0]


def hits(vector: VectorPlan, experiment: Experiment, metric: str, *, noise_known: bool) -> int:
    """How many of the 95 % intervals of 200 releases hold the true difference."""
    rng = np.random.default_rng(17)
    truth = {"conversions": EFFECT}[metric]
    count = 0
    for _ in range(RUNS):
        found = release(vector, experiment, add_noise(exact_units(rng), vector.sigma_units))
        if not noise_known:
            found = replace(found, table=found.table.assign(variance=found.table["variance"] * 1e-9))
        (e,) = (x for x in read_trial(experiment, found, spend_delta=None).estimates if x.metric == metric)
        count += abs(e.mean - truth * PEOPLE) <= e.std_error * stats.t.ppf(0.975, min(e.dof, 1e6))
    return count


def test_intervals_of_a_trial_hold_the_truth(vector, make_question) -> None:  # type: ignore[no-untyped-def]
    (experiment,) = make_question().experiments
    sampling = (2 * PEOPLE * BASE * (1 - BASE)) ** 0.5
    assert vector.sigma_units * vector.unit > 0.5 * sampling, "the noise matters in this world"
    assert hits(vector, experiment, "conversions", noise_known=True) in ACCEPT


def test_the_test_above_sees_noise_that_is_left_out(vector, make_question) -> None:  # type: ignore[no-untyped-def]
    (experiment,) = make_question().experiments
    assert hits(vector, experiment, "conversions", noise_known=False) not in ACCEPT


def test_a_released_cell_and_its_variance_are_an_interval(make_question, no_trial) -> None:  # type: ignore[no-untyped-def]
    plan = next(p for p in plan_releases(make_question(**no_trial), PrivacyPolicy()) if p.measure == "kpi")
    v = plan.vectors[0]
    exact = np.full(RUNS, 123 * v.denominator // v.numerator, dtype=np.int64)
    keys = trials.keys("x", ("a",), part(EXPERIMENT))["trial"].iloc[[0] * RUNS].reset_index(drop=True)
    table = vector_table(keys, v, add_noise(exact, v.sigma_units)).to_pandas()
    inside = (table["value"] - 123).abs() <= stats.norm.ppf(0.975) * table["variance"] ** 0.5
    assert int(inside.sum()) in ACCEPT
