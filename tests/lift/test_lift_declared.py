"""Tests read as their releases declare them: published numbers, person-level formulae, steps down, looks."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from lift_worlds import declared_release, panel, weekly

from contracts.errors import ContractError
from contracts.evidence import Experiment
from contracts.trials import TrialDesign
from lift.library import build_library
from lift.looks import read_looks
from lift.readout import running_readout, user_readout
from lift.sequential import mixture_sequence, spending_sequence
from lift.totals import added, read_cell
from lift.trials import read_arms, read_trial
from mmm.lifts import lift_terms

MAIL = Experiment("mail", "user", "email", date(2024, 1, 1), date(2024, 2, 4), (), None)
BEFORE = TrialDesign(metrics=("conversions", "revenue"), covariate=9.0, covariate_since=date(2023, 1, 1))


def _people(seed: int = 0, n: int = 9000, arms: tuple[str, ...] = ("control", "a", "b")) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    arm = rng.choice(arms, size=n)
    covariate = np.minimum(rng.poisson(2.0, n), 9)
    exposed = rng.binomial(1, 0.4, n)
    conversions = rng.binomial(1, 0.03 + 0.03 * np.minimum(covariate, 5) + 0.06 * exposed * (arm == "a"))
    return pd.DataFrame(
        {
            "arm": arm, "conversions": conversions, "revenue": np.round(conversions * rng.gamma(2.0, 30.0, n), 2),
            "visits": 1 + rng.poisson(0.4 * covariate), "covariate": covariate, "exposed": exposed,
            "stratum": np.where(covariate > 2, "old", "new"),
        }
    )  # fmt: skip


def _public(shared_data: Path, name: str) -> pd.DataFrame:
    path = shared_data / name
    if not path.exists():
        pytest.skip(f"{name} is not in the public data folder")
    return pd.read_csv(path)


def test_nsw_from_totals(shared_data: Path) -> None:
    """National Supported Work: 1794.34 with a pooled standard error of 632.85, from n, sums and squares alone."""
    raw = _public(shared_data, "lift/nsw_rct.csv")
    treated = "treat" if "treat" in raw else "treated"
    people = pd.DataFrame({"arm": np.where(raw[treated] == 1, "a", "control"), "revenue": raw["re78"]})
    release = declared_release(people, TrialDesign(metrics=("revenue",)))
    (e,) = read_trial(MAIL, release, spend_delta=None).estimates
    arms = {a: added(cells) for a, cells in read_arms(MAIL, release).items()}
    n = {a: float(t.of("n")[0]) for a, t in arms.items()}
    assert e.mean / n["a"] == pytest.approx(1794.34, abs=0.005)
    spread = {a: float(read_cell(t, ["revenue"]).spread[0, 0]) for a, t in arms.items()}
    pooled = sum((n[a] - 1) * spread[a] for a in n) / (sum(n.values()) - 2)
    assert math.sqrt(pooled * sum(1 / x for x in n.values())) == pytest.approx(632.85, abs=0.005)
    assert e.std_error / n["a"] == pytest.approx(math.sqrt(sum(spread[a] / n[a] for a in n)), rel=1e-9)  # Welch


HILLSTROM = {
    ("Mens E-Mail", "visits"): (0.07659, 0.00339), ("Mens E-Mail", "conversions"): (0.006805, 0.000921),
    ("Mens E-Mail", "revenue"): (0.7698, 0.1452), ("Womens E-Mail", "visits"): (0.04523, 0.00323),
    ("Womens E-Mail", "conversions"): (0.003111, 0.000823), ("Womens E-Mail", "revenue"): (0.4244, 0.1303),
}  # fmt: skip


def test_hillstrom_as_declared_with_the_history_as_covariate(shared_data: Path) -> None:
    raw = _public(shared_data, "trials/hillstrom.csv")
    people = raw.rename(
        columns={"segment": "arm", "visit": "visits", "conversion": "conversions", "spend": "revenue"}
    ).assign(covariate=raw["history"])
    design = TrialDesign(covariate=5000.0, covariate_since=date(2007, 3, 20))
    experiment = replace(MAIL, control_arm="No E-Mail")
    reading = read_trial(experiment, declared_release(people, design), spend_delta=None)
    size = people.groupby("arm").size()
    plain = {(e.arm, e.metric): e for e in reading.beside if e.estimator == "difference_in_means"}
    for e in reading.estimates:
        value, error = HILLSTROM[e.arm, e.metric]
        digits = len(str(error).split(".")[1])
        itt = plain[e.arm, e.metric]
        assert itt.mean / size[e.arm] == pytest.approx(value, abs=0.6 * 10.0 ** -len(str(value).split(".")[1]))
        assert itt.std_error / size[e.arm] == pytest.approx(error, abs=0.6 * 10.0**-digits)
        assert e.estimator == "cuped" and e.std_error <= itt.std_error * (1 + 1e-9)
        pair = people[people["arm"].isin([e.arm, "No E-Mail"])]
        x = sm.add_constant(pd.DataFrame({"z": (pair["arm"] == e.arm) * 1.0, "x": pair["covariate"]}))
        fit = sm.OLS(pair[e.metric], x).fit(cov_type="HC1")
        assert e.mean / size[e.arm] == pytest.approx(fit.params["z"], abs=0.02 * fit.bse["z"])
        assert e.std_error / size[e.arm] == pytest.approx(fit.bse["z"], rel=2e-3)
    for metric, family in reading.families.items():
        shared = family.loadings[0] * family.loadings[1]
        assert 0.3 < shared < 0.6, metric  # arms of one size share half of their variance with the control arm
        size = np.array([abs(float(e.value) / float(e.std_error)) for e in family.effects])
        z = np.random.default_rng(1).multivariate_normal([0, 0], [[1, shared], [shared, 1]], 400_000)
        by_hand = [(np.abs(z).max(axis=1) >= s).mean() for s in size]
        assert family.dunnett == pytest.approx(by_hand, abs=5e-4)
        assert ((family.raw <= family.dunnett) & (family.dunnett <= 2 * family.raw + 1e-12)).all()


@pytest.mark.slow
def test_the_covariance_of_all_readings_matches_repeated_trials() -> None:
    """600 trials redrawn: correlations of arms and metrics under CUPED within 0.16 (4 sd) of what one trial says."""
    said, draws = None, []
    for seed in range(600):
        reading = read_trial(MAIL, declared_release(_people(seed, 3000), BEFORE), spend_delta=None)
        draws.append([e.mean for e in reading.estimates])
        said = reading.covariance if seed == 0 else said
    assert said is not None
    seen = np.cov(np.array(draws).T)
    sd = np.sqrt(np.diag(seen))
    np.testing.assert_allclose(np.sqrt(np.diag(said)) / sd, 1.0, atol=0.16)
    np.testing.assert_allclose(
        said / np.sqrt(np.outer(np.diag(said), np.diag(said))), seen / np.outer(sd, sd), atol=0.16
    )


def test_strata_and_the_value_before_are_taken_out_together() -> None:
    people = _people(1)
    design = replace(BEFORE, strata=("new", "old"))
    reading = read_trial(MAIL, declared_release(people, design), spend_delta=None)
    by = {(e.estimator, e.arm, e.metric): e for e in (*reading.estimates, *reading.beside)}
    assert {e.estimator for e in reading.estimates} == {"stratified_cuped"}
    for arm in ("a", "b"):
        pair = people[people["arm"].isin([arm, "control"])]
        got = by["stratified", arm, "conversions"]
        effects, weights = [], []
        for _, cell in pair.groupby("stratum"):
            effects.append(cell.groupby("arm")["conversions"].mean()[[arm, "control"]] @ [1, -1])
            weights.append(len(cell))
        want = np.average(effects, weights=weights) * (people["arm"] == arm).sum()
        assert got.mean == pytest.approx(want)
        plain, both = by["difference_in_means", arm, "conversions"], by["stratified_cuped", arm, "conversions"]
        assert both.std_error < got.std_error < plain.std_error
    assert replace(design, headline="cuped").published == "cuped"


def test_a_stratum_of_nobody_steps_down_and_says_so() -> None:
    people = _people(2)
    people = people[(people["stratum"] == "new") | (people.index < 60)]
    design = TrialDesign(metrics=("conversions",), strata=("new", "old"))
    reading = read_trial(MAIL, declared_release(people, design, noise=5.0), spend_delta=None)
    assert {e.estimator for e in reading.estimates} == {"difference_in_means"}
    (note,) = reading.checks
    assert (
        note.verdict == "warn"
        and "stratified cannot be read: arm" in note.text
        and "in stratum 'old' has a" in note.text
    )


def test_exposed_people_by_instrument_and_by_ghost_ads() -> None:
    people = _people(3, arms=("control", "a"))
    size = (people["arm"] == "a").sum()
    ghost = TrialDesign(metrics=("conversions",), exposed="assignments", ghost=True)
    reading = read_trial(MAIL, declared_release(people, ghost), spend_delta=1000.0)
    (e,) = [x for x in reading.beside if x.estimator == "ghost_ads"]
    seen = people[people["exposed"] == 1].groupby("arm")["conversions"].agg(["sum", "mean", "size"])
    assert e.mean == pytest.approx(seen.loc["a", "sum"] - seen.loc["a", "size"] * seen.loc["control", "mean"])
    assert e.spend_delta == 1000.0 and e.std_error < reading.estimates[0].std_error
    assert [c.verdict for c in reading.checks] == ["pass"]
    tilted = people.assign(exposed=people["exposed"] * np.where(people["arm"] == "control", people.index % 2, 1))
    (check,) = read_trial(MAIL, declared_release(tilted, ghost), spend_delta=None).checks
    assert check.verdict == "fail" and "logging depends on the arm, so ghost_ads cannot be used" in check.text

    reached = people.assign(exposed=people["exposed"] * (people["arm"] == "a"))
    served = replace(ghost, ghost=False)
    reading = read_trial(MAIL, declared_release(reached, served), spend_delta=1000.0)
    (late,) = reading.beside
    assert (late.estimator, late.metric) == ("complier_effect", "conversions per person reached")
    itt = reading.estimates[0]
    assert late.mean == pytest.approx(itt.mean / size / reached.loc[reached["arm"] == "a", "exposed"].mean())
    assert late.p_value == pytest.approx(itt.p_value) and math.isnan(late.spend_delta)
    nobody = reached.assign(exposed=(reached.index == reached.index[reached["arm"] == "a"][0]) * 1)
    reading = read_trial(MAIL, declared_release(nobody, served), spend_delta=None)
    assert reading.beside == () and "has no bounds and is not shown" in reading.checks[0].text


def test_a_ratio_has_a_row_of_its_own() -> None:
    people = _people(4, arms=("control", "a"))
    design = TrialDesign(ratio=("revenue", "visits"))
    (row,) = read_trial(MAIL, declared_release(people, design), spend_delta=5.0).beside
    sums = people.groupby("arm")[["revenue", "visits"]].sum()
    want = sums["revenue"] / sums["visits"]
    assert (row.estimator, row.metric) == ("ratio_of_sums", "revenue per visit")
    assert row.mean == pytest.approx(want["a"] - want["control"]) and math.isnan(row.spend_delta)


@pytest.mark.parametrize("entry", [True, False])
def test_looks_reach_the_sequence_that_the_study_covers(entry: bool) -> None:
    """Releases of looks feed the very pairs that benchmarks/lift_trials.py feeds: new people add up, others do not."""
    design = TrialDesign(metrics=("conversions",), entry=entry, looks=5)
    weeks = [_people(10 + k, 4000, ("control", "a")) for k in range(4)]
    releases = [declared_release(p, design, noise=6.0, look=k) for k, p in enumerate(weeks, 1)]
    found = read_looks(MAIL, releases[::-1])
    pairs = [(read_arms(MAIL, r)["a"][0], read_arms(MAIL, r)["control"][0]) for r in releases]
    want = mixture_sequence(pairs, "conversions", planned_looks=5) if entry else spending_sequence(pairs, "conversions")
    assert [line.lower for line in found.lines] == pytest.approx(list(want.lower))
    assert [line.upper for line in found.lines] == pytest.approx(list(want.upper))
    assert [line.p_value for line in found.lines] == pytest.approx(list(want.p_always))
    (row,) = found.estimates
    assert (row.estimator, row.metric, row.end) == ("always_valid", "conversions per person", releases[-1].block_end)
    assert row.p05 < row.p10 < row.mean < row.p90 < row.p95
    assert (row.p_value < 0.1) == (not row.p05 <= 0 <= row.p95)
    assert found.arms[0].of("n")[1] == pytest.approx(36.0 * (4 if entry else 1))
    page = running_readout(MAIL, found, "USD", kpi="conversions", split={"a": 0.5, "control": 0.5})
    assert len(page.looks) == 4 and page.headline == row and page.checks[0].name == "sample ratio"
    with pytest.raises(ContractError, match="has no look yet"):
        read_looks(MAIL, [])


def test_the_page_of_a_declared_test_holds_every_reading_and_the_family() -> None:
    people = _people(5)
    release = declared_release(people, replace(BEFORE, ratio=("revenue", "conversions")), noise=3.0)
    reading = read_trial(MAIL, release, spend_delta=900.0)
    page = user_readout(MAIL, release, reading, "USD", kpi="conversions")
    assert page.headline.estimator == "cuped"
    assert {e.estimator for e in page.estimates} == {"cuped", "difference_in_means", "ratio_of_sums"}
    family = next(c for c in page.checks if c.name == "several arms conversions")
    assert "all 2 arms allowed for (Dunnett" in family.text and family.value == pytest.approx(
        float(reading.families["conversions"].dunnett.min())
    )


def test_the_model_hears_the_published_row_and_no_other() -> None:
    """Decision 0004: shares of people from spend and arm sizes; CUPED changes mean and error of the row alone."""
    p = panel(*weekly(np.random.default_rng(2)), spend=np.full((12, 48), 50.0))
    experiment = replace(MAIL, channel="tv", start=p.weeks[40], end=p.weeks[43] + timedelta(days=6), spend_delta=900.0)
    people = _people(6, arms=("control", "a"))
    design = replace(BEFORE, exposed="assignments", ghost=True)
    terms = {}
    for name in ("cuped", "difference_in_means"):
        release = declared_release(people, replace(design, headline=name), noise=2.0)
        library = build_library(p, (experiment,), {"mail": release})
        assert [(e.estimator, e.metric) for e in library.estimates] == [(name, m) for m in ("conversions", "revenue")]
        (terms[name],) = lift_terms(p, library, (experiment,), {})
        assert terms[name].mean == library.estimates[0].mean and terms[name].std_error == library.estimates[0].std_error
    a, b = terms.values()
    assert a.std_error < b.std_error and a.coverage == b.coverage and a.evidence_ids == b.evidence_ids
