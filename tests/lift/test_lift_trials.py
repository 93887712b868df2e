"""User-randomised lift from released totals: published Hillstrom numbers, noise as predicted, coverage."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lift_worlds import release_of, trial_table

from contracts.errors import ContractError
from contracts.evidence import Experiment
from contracts.release import Release
from lift.arms import intention_to_treat
from lift.totals import Estimate, added
from lift.trials import read_arms, read_trial

MAIL = Experiment("mail", "user", "email", date(2024, 1, 1), date(2024, 1, 14), (), None)


def difference(release: Release, arm: str, metric: str) -> Estimate:
    arms = read_arms(MAIL, release)
    return intention_to_treat(added(arms[arm]), added(arms["control"]), metric)


def _people(rng: np.random.Generator, n: int = 3000, arms: tuple[str, ...] = ("control", "a", "b")) -> pd.DataFrame:
    arm = rng.choice(arms, size=n)
    visits = rng.poisson(0.6, n)
    conversions = rng.binomial(1, 0.08 + 0.03 * (arm == "a"), n)
    revenue = np.round(conversions * rng.gamma(2.0, 40.0, n), 2)
    return pd.DataFrame({"arm": arm, "visits": visits, "conversions": conversions, "revenue": revenue})


def _hillstrom(shared_data: Path) -> pd.DataFrame:
    path = shared_data / "trials" / "hillstrom.csv"
    if not path.exists():
        pytest.skip("trials/hillstrom.csv is not in the public data folder")
    raw = pd.read_csv(path)
    return raw.rename(
        columns={"segment": "arm", "visit": "visits", "conversion": "conversions", "spend": "revenue"}
    ).replace({"arm": {"No E-Mail": "control"}})


HILLSTROM = {  # published differences against no e-mail, and their standard errors
    ("Mens E-Mail", "visits"): (0.07659, 0.00339),
    ("Mens E-Mail", "conversions"): (0.006805, 0.000921),
    ("Mens E-Mail", "revenue"): (0.7698, 0.1452),
    ("Womens E-Mail", "visits"): (0.04523, 0.00323),
    ("Womens E-Mail", "conversions"): (0.003111, 0.000823),
    ("Womens E-Mail", "revenue"): (0.4244, 0.1303),
}


def test_exact_totals_give_the_published_hillstrom_numbers(shared_data: Path) -> None:
    people = _hillstrom(shared_data)
    release = release_of(trial_table(people))
    for (arm, metric), (value, error) in HILLSTROM.items():
        d = difference(release, arm, metric)
        assert d.value == pytest.approx(value, abs=0.6 * 10 ** -_decimals(value))
        assert d.std_error == pytest.approx(error, abs=0.6 * 10 ** -_decimals(error))
        assert (float(d.dof), float(d.noise_share)) == (math.inf, 0.0)
        means = people.groupby("arm")[metric].agg(["mean", "var", "size"])
        exact = math.sqrt(sum(means.loc[g, "var"] / means.loc[g, "size"] for g in (arm, "control")))
        assert d.std_error == pytest.approx(exact, rel=1e-9)


def _decimals(number: float) -> int:
    return len(repr(number).split(".")[1])


def test_hillstrom_interval_widens_as_the_noise_predicts(shared_data: Path) -> None:
    people = _hillstrom(shared_data)
    noise = {"visits": 120.0, "conversions": 25.0, "revenue": 900.0, "n": 15.0}
    exact, noisy = release_of(trial_table(people)), release_of(trial_table(people, noise))
    for arm, metric in HILLSTROM:
        a, b = (difference(r, arm, metric) for r in (exact, noisy))
        m = people.groupby("arm")[metric].mean()
        n = people.groupby("arm").size()
        added = sum((noise[metric] ** 2 + m[g] ** 2 * noise["n"] ** 2) / n[g] ** 2 for g in (arm, "control"))
        # Exact sums that are said to be noisy: the squares lose var(S)/n, which is the only other change.
        sampling = a.std_error**2 - sum(-(noise[metric] ** 2) / n[g] / (n[g] - 1) / n[g] for g in (arm, "control"))
        assert b.std_error**2 == pytest.approx(sampling + added, rel=1e-9)
        assert b.std_error > a.std_error


def _noisy_differences(rng: np.random.Generator, sd: float, runs: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`runs` trials of 4,000 binary outcomes an arm, all totals with noise `sd`; returns value, se, dof by the room."""
    n, p = 4000, 0.06
    rows = []
    for _ in range(runs):
        parts = []
        for arm in ("control", "a"):
            y = rng.binomial(n, p)
            for component, value in (("n", n), ("conversions", y), ("conversions*conversions", y)):
                parts.append(("trial", "mail", arm, component, value + sd * rng.standard_normal(), sd**2))
        table = pd.DataFrame(parts, columns=["vector", "experiment", "arm", "component", "value", "variance"])
        d = difference(release_of(table), "a", "conversions")
        rows.append((d.value, d.std_error, d.dof))
    values, errors, dofs = np.array(rows).T
    return values, errors, dofs


@pytest.mark.parametrize("times", [0.0, 1.0, 3.0])
def test_coverage_with_noise_of_0_1_and_3_times_the_sampling_sd(times: float) -> None:
    """1,500 trials each; a true level of 90 % leaves 87-93 % with probability 1e-4 (sd .77 points), seeds fixed."""
    from scipy import stats

    sampling_sd = math.sqrt(4000 * 0.06 * 0.94)
    values, errors, dofs = _noisy_differences(np.random.default_rng(11), times * sampling_sd, 1500)
    covered = np.abs(values) <= errors * stats.t.ppf(0.95, np.minimum(dofs, 1e6))
    assert 0.87 <= covered.mean() <= 0.935
    assert np.median(errors) == pytest.approx(values.std(), rel=0.08)


def test_incremental_outcome_is_the_difference_times_the_people() -> None:
    people = _people(np.random.default_rng(0))
    release = release_of(trial_table(people, {"n": 8.0, "conversions": 4.0}))
    reading = read_trial(MAIL, release, spend_delta=900.0)
    estimates = reading.estimates
    people_in = {a: float(added(cells).of("n")[0]) for a, cells in read_arms(MAIL, release).items()}
    assert [(e.arm, e.metric) for e in estimates] == [
        (a, m) for a in ("a", "b") for m in ("conversions", "revenue", "visits")
    ]
    for e in estimates:
        d = difference(release, e.arm, e.metric)
        assert e.mean == pytest.approx(float(d.value) * people_in[e.arm])
        assert e.std_error == pytest.approx(float(d.std_error) * people_in[e.arm], rel=0.01)
        assert (e.p_value < 0.1) == (not e.p05 <= 0 <= e.p95)
        assert e.evidence_ids == ("experiment:mail", "trials-1")
        assert e.arm_ratio == pytest.approx(people_in[e.arm] / people_in["control"])
    assert sum(e.spend_delta for e in estimates if e.metric == "visits") == pytest.approx(900.0)
    assert np.isnan(read_trial(MAIL, release, spend_delta=None).estimates[0].spend_delta)
    assert reading.beside == () and reading.checks == ()


def test_joint_covariance_matches_repeated_draws() -> None:
    """Noise and sampling redrawn 1,000 times; every entry within 4 standard errors of what one release says."""
    rng = np.random.default_rng(3)
    noise = {"n": 10.0, "conversions": 8.0, "revenue": 500.0}
    first = trial_table(_people(rng), noise)
    said = read_trial(MAIL, release_of(first[~first["component"].str.contains("visits")]), spend_delta=None).covariance
    draws = []
    for _ in range(1000):
        table = trial_table(_people(rng), noise)
        table["value"] += rng.standard_normal(len(table)) * np.sqrt(table["variance"])
        drawn = read_trial(MAIL, release_of(table[~table["component"].str.contains("visits")]), spend_delta=None)
        draws.append([e.mean for e in drawn.estimates])
    seen = np.cov(np.array(draws).T)
    sd = np.sqrt(np.diag(seen))
    np.testing.assert_allclose(said / np.outer(sd, sd), seen / np.outer(sd, sd), atol=0.18)
    assert said[0, 2] / (sd[0] * sd[2]) > 0.35  # the two arms share their control arm
    assert np.linalg.eigvalsh(said)[0] > 0


def test_diagonal_is_the_square_of_the_standard_error() -> None:
    release = release_of(trial_table(_people(np.random.default_rng(4)), {"n": 8.0, "visits": 30.0, "revenue": 10.0}))
    reading = read_trial(MAIL, release, spend_delta=None)
    covariance = reading.covariance
    np.testing.assert_allclose(np.diag(covariance), [e.std_error**2 for e in reading.estimates], rtol=1e-12)
    np.testing.assert_allclose(covariance, covariance.T, rtol=1e-12)


def test_a_noisy_square_below_what_is_possible_is_lifted_to_the_bound() -> None:
    table = trial_table(_people(np.random.default_rng(5)))
    table.loc[table["component"] == "conversions*conversions", ["value", "variance"]] = [-50.0, 400.0]
    d = difference(release_of(table), "b", "conversions")
    totals = table.set_index(["arm", "component"])["value"]
    expected = 0.0
    for arm in ("b", "control"):
        n = totals[arm, "n"]
        p = totals[arm, "conversions"] / n
        expected += p * (1 - p) / n
    assert d.std_error == pytest.approx(math.sqrt(expected))


def test_refusals_say_what_to_do() -> None:
    table = trial_table(_people(np.random.default_rng(6)), {"n": 5.0})
    release = release_of(table)
    with pytest.raises(ContractError, match="has no arm 'placebo' .* which holds 'a', 'b', 'control'"):
        read_trial(replace(MAIL, control_arm="placebo"), release, spend_delta=None)
    with pytest.raises(ContractError, match="holds no metric of experiment 'mail'; it needs at least one of conv"):
        read_trial(MAIL, release_of(table[table["component"] == "n"]), spend_delta=None)
    small = table.copy()
    small.loc[(small["arm"] == "a") & (small["component"] == "n"), ["value", "variance"]] = [60.0, 400.0]
    with pytest.raises(ContractError, match="released size of 60, under the 100"):
        read_trial(MAIL, release_of(small), spend_delta=None)
    nobody = small.replace({"value": {60.0: -12.0}})
    with pytest.raises(ContractError, match="released size of -12, under the 100 that its noise allows"):
        read_trial(MAIL, release_of(nobody), spend_delta=None)
    with pytest.raises(ContractError, match="has a control arm only"):
        read_trial(MAIL, release_of(table[table["arm"] == "control"]), spend_delta=None)
    with pytest.raises(ContractError, match="holds 'kpi'; a user test reads 'trials'"):
        read_trial(MAIL, release_of(table, measure="kpi"), spend_delta=None)
    with pytest.raises(ContractError, match="experiment 'mail' is a geo test"):
        read_trial(replace(MAIL, kind="geo", treated=("g",)), release, spend_delta=None)
    dead = table.copy()
    dead.loc[dead["component"].str.contains("visits"), "value"] = 0.0
    found = read_trial(MAIL, release_of(dead), spend_delta=None)
    assert {e.metric for e in found.estimates} == {"conversions", "revenue"}
    assert [(c.name, c.verdict) for c in found.checks] == [("metric visits", "warn")]
    with pytest.raises(ContractError, match="'visits' give a variance of 0"):
        read_trial(MAIL, release_of(dead[dead["component"].str.contains("visits|^n$")]), spend_delta=None)
