"""The pool against worlds whose truth is known, and the laws that its answer must keep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest

from contracts.columns import STAMP
from contracts.evidence import LiftLibrary
from contracts.tables import BY_NAME
from reconcile.inputs import PoolInputs
from reconcile.pool import Reconciled, reconcile
from reconcile.prepare import prepare
from reconcile.priors import PoolPriors
from reconcile.sampler import Effort, centre, meaning, sample

Make = Callable[..., Any]
STAMPED = {c.name for c in STAMP}


def columns(view: str) -> list[str]:
    """Columns of a view without its stamp."""
    return [n for n in BY_NAME[view].names if n not in STAMPED]


def whole(result: Reconciled, table: str = "outcomes") -> Any:
    """Rows over all periods."""
    rows = getattr(result, table)
    return rows[(rows["period_end"] == rows["period_end"].max()) & (rows["period_start"] == rows["period_start"].min())]


@pytest.fixture(scope="module")
def answer(make_world: Make, short: Effort) -> tuple[Any, Reconciled]:
    """A world with all three sources and its answer."""
    world = make_world(3)
    return world, reconcile(world.inputs, seed=1, effort=short)


@pytest.mark.slow
def test_truth_lies_inside_and_rows_have_the_shape_of_their_views(answer: tuple[Any, Reconciled]) -> None:
    world, result = answer
    low, high = np.quantile(result.by_period, [0.005, 0.995], axis=0)
    assert ((low < world.truth) & (world.truth < high)).all()
    assert list(result.factors.columns) == columns("v_incrementality")
    assert list(result.outcomes.columns) == columns("v_reconciled")
    assert list(result.scores.columns) == columns("v_pool_scores")
    assert len(result.factors) == 4 * 2 * 4 and len(result.outcomes) == 4 * 4
    assert result.diagnostics.rhat < 1.05 and result.diagnostics.ess > 400


@pytest.mark.slow
def test_factors_weights_and_returns_belong_together(answer: tuple[Any, Reconciled]) -> None:
    world, result = answer
    known = result.factors[result.factors["flag"] == ""]
    assert np.allclose(known["mean"], known["incremental_kpi"] / known["credited"], rtol=0.15)
    shares = result.outcomes[["weight_lift", "weight_mmm", "weight_credit", "weight_family"]]
    assert np.allclose(shares.sum(axis=1), 1.0) and (shares >= 0).all(axis=None)
    rows = whole(result).set_index("channel")
    assert rows.at["c0", "weight_lift"] > 0.3 and rows.at["c3", "weight_lift"] < 0.15
    assert np.allclose(rows["iroas"], rows["mean"] / world.inputs.spend.sum(axis=1))
    assert (rows["mroas"] < rows["iroas"]).all(), "returns saturate"
    np.testing.assert_allclose(result.by_period.sum(axis=2), result.incremental)


@pytest.mark.slow
def test_every_test_is_scored_by_all_who_had_not_seen_it(answer: tuple[Any, Reconciled]) -> None:
    _, result = answer
    assert set(result.scores["source"]) == {"mmm", "pool", "m0", "m1"}
    assert len(result.scores) == 8 and result.scores["covered"].sum() >= 4


def log_totals(inputs: PoolInputs, effort: Effort, priors: PoolPriors = PoolPriors()) -> np.ndarray:
    """Median log total of each channel."""
    return np.median(sample(prepare(inputs, priors).arrays, priors, 1, effort).level, axis=0)


@pytest.mark.slow
def test_a_vague_model_returns_the_lift_and_a_vague_lift_the_model(make_world: Make, short: Effort) -> None:
    inputs = replace(make_world(5, lift_se=0.03).inputs, credits=(), kpi=np.full(3, 1e6))
    mmm, part = inputs.mmm, np.abs(inputs.mmm.lift_draws[:, 0]) / inputs.mmm.totals[:, 0]
    tight = PoolPriors(lift_bias_sd=0.01, lift_scope_sd=0.01, walk_sd=1e-3, family_log_sd=20.0, within_family_sd=20.0)

    def spread(power: float, se: float) -> PoolInputs:
        totals = mmm.totals**power * np.median(mmm.totals, axis=0) ** (1 - power)
        draws = np.sign(mmm.lift_draws) * totals[:, :2] * np.abs(mmm.lift_draws) / mmm.totals[:, :2]
        tests = tuple(replace(e, std_error=e.std_error * se) for e in inputs.lifts.estimates)
        cov = inputs.lifts.covariance * se**2
        return replace(inputs, mmm=replace(mmm, totals=totals, lift_draws=draws), lifts=LiftLibrary(tests, cov))

    lift_says = np.log(abs(inputs.lifts.estimates[0].mean) / np.median(part))
    model_says = np.log(np.median(mmm.totals[:, 0]))
    assert abs(lift_says - model_says) > 0.1, "the two say different things"
    assert log_totals(spread(20.0, 1.0), short, tight)[0] == pytest.approx(lift_says, abs=0.06)
    assert log_totals(spread(1.0, 1e4), short, tight)[0] == pytest.approx(model_says, abs=0.06)


def centred(inputs: PoolInputs) -> np.ndarray:
    """Posterior mode (spreads at their prior medians) of log totals: exact, no sampling error."""
    data = prepare(inputs, PoolPriors()).arrays
    with jax.enable_x64(True):
        at, _ = centre(data, PoolPriors())
    return np.asarray(meaning(at[None], data, PoolPriors()).level[0])


def doubled(inputs: PoolInputs) -> PoolInputs:
    """All credits of m0 doubled."""
    credits = tuple(replace(c, mean=2 * c.mean, sd=2 * c.sd) if c.model == "m0" else c for c in inputs.credits)
    return replace(inputs, credits=credits)


@pytest.mark.slow
def test_doubling_one_credit_model_moves_no_outcome(make_world: Make) -> None:
    inputs = make_world(3).inputs
    assert np.abs(np.expm1(centred(doubled(inputs)) - centred(inputs))).max() < 0.02


@pytest.mark.slow
def test_doubling_one_credit_model_halves_its_factor(make_world: Make, short: Effort) -> None:
    inputs = make_world(3).inputs
    before, after = (
        reconcile(i, seed=1, effort=replace(short, draws=1000)) for i in (inputs, doubled(inputs))
    )  # fmt: skip
    for name, ratio in (("m0", 0.5), ("m1", 1.0)):
        a, b = (whole(r, "factors").query(f"model == {name!r}")["p50"].to_numpy() for r in (before, after))
        np.testing.assert_allclose(b / a, ratio, rtol=0.06)


@pytest.mark.slow
def test_copies_of_a_credit_model_hardly_count(make_world: Make) -> None:
    """Rules of the same counts are hardly further witnesses: three copies of m0 move a total by 3.1 % at most.

    They still outvote m1 on what the rules of a source have in common, so the movement is not zero.
    """
    inputs = make_world(3).inputs
    copies = tuple(replace(c, model=f"copy{n}") for n in range(3) for c in inputs.credits if c.model == "m0")
    more = replace(inputs, credits=(*inputs.credits, *copies))
    assert np.abs(np.expm1(centred(more) - centred(inputs))).max() < 0.05


@pytest.mark.slow
def test_a_red_conflict_is_flagged_and_widens_the_answer(make_world: Make, short: Effort) -> None:
    inputs = make_world(7, mmm_sd=0.1, lift_se=0.05).inputs
    test = inputs.lifts.estimates[0]
    far = replace(test, mean=4.0 * test.mean)
    fought = reconcile(
        replace(inputs, lifts=LiftLibrary((far, inputs.lifts.estimates[1]), inputs.lifts.covariance)),
        seed=1, effort=replace(short, rounds=6),
    )  # fmt: skip
    found = {(f.channel, f.source): f for f in fought.conflicts}
    assert found["c0", "lift"].severity == "red" and found["c0", "lift"].z > 3
    assert found["c1", "lift"].severity == ""
    assert "c0" in fought.diagnostics.widened
    rows = whole(fought).set_index("channel")
    assert rows.at["c0", "severity"] == "red" and "shows more than the model expects" in rows.at["c0", "flag"]
    alone = np.log(inputs.mmm.totals[:, 0]).std()
    assert np.log(fought.incremental[:, 0]).std() > 2 * alone


@pytest.mark.slow
def test_a_test_of_the_wrong_sign_is_flagged(make_world: Make, short: Effort) -> None:
    inputs = make_world(3).inputs
    test = inputs.lifts.estimates[1]
    wrong = replace(test, mean=-2.0 * test.std_error)
    lifts = LiftLibrary((inputs.lifts.estimates[0], wrong), inputs.lifts.covariance)
    result = reconcile(replace(inputs, lifts=lifts), seed=1, effort=short)
    signs = {f.channel: f for f in result.conflicts if f.source == "sign"}
    assert signs["c1"].severity == "amber" and signs["c1"].p_sign == pytest.approx(0.977, abs=1e-3)
    assert signs["c0"].severity == ""


@pytest.mark.slow
def test_a_model_against_all_other_evidence_is_flagged(make_world: Make, short: Effort) -> None:
    inputs = make_world(7, mmm_sd=0.1, lift_se=0.05).inputs
    mmm = replace(
        inputs.mmm, totals=inputs.mmm.totals * np.array([2.5, 1.0, 1.0, 1.0]),
        lift_draws=inputs.mmm.lift_draws * np.array([2.5, 1.0]),
    )  # fmt: skip
    off = replace(inputs, mmm=mmm)
    for given, expected in ((off, {"c0"}), (inputs, set())):
        result = reconcile(given, seed=1, effort=replace(short, rounds=6))
        flagged = [f for f in result.conflicts if f.source == "mmm" and f.severity]
        assert {f.channel for f in flagged} == expected
        assert all(f.z > 2 and "the model shows more than all other evidence" in f.text for f in flagged)
        rows = whole(result).set_index("channel")
        assert ("the model shows more" in rows.at["c0", "flag"]) == bool(expected)


@pytest.mark.slow
def test_credit_against_what_its_family_teaches_is_flagged(make_world: Make, short: Effort) -> None:
    inputs = make_world(7, mmm_sd=0.1, lift_se=0.05, bias_sd=0.1).inputs
    rows = tuple(
        replace(c, **{f: 40.0 * getattr(c, f) for f in ("mean", "sd", "p05", "p10", "p50", "p90", "p95")})
        if c.channel == "c0" else c
        for c in inputs.credits
    )  # fmt: skip
    for given, fires in ((replace(inputs, credits=rows, kpi=40 * inputs.kpi), True), (inputs, False)):
        result = reconcile(given, seed=1, effort=replace(short, rounds=6))
        flagged = {f.channel: f for f in result.conflicts if f.source == "credit" and f.severity}
        assert ("c0" in flagged) == fires and not {"c1", "c3"} & set(flagged)
        if fires:
            assert "credit the channel with more per incremental outcome" in flagged["c0"].text


@pytest.mark.slow
def test_closure_keeps_the_base_positive(make_world: Make, short: Effort) -> None:
    world = make_world(9, mmm_sd=0.5)
    kpi = 0.8 * world.truth.sum(axis=0)
    result = reconcile(replace(world.inputs, kpi=kpi, kpi_sd=np.zeros(3)), seed=1, effort=short)
    assert (result.by_period.sum(axis=1) < 1.02 * kpi).mean() > 0.99


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["mmm", "lifts", "credits"])
def test_partial_evidence_still_answers(make_world: Make, short: Effort, missing: str) -> None:
    world = make_world(11)
    mmm = world.inputs.mmm
    without = {
        "mmm": {"mmm": None},
        "lifts": {
            "lifts": LiftLibrary((), np.zeros((0, 0))), "scopes": (),
            "mmm": replace(mmm, lift_draws=np.zeros((800, 0))),
        },
        "credits": {"credits": ()},
    }[missing]  # fmt: skip
    result = reconcile(replace(world.inputs, **without), seed=1, effort=replace(short, rounds=6))
    low, high = np.quantile(result.incremental, [0.005, 0.995], axis=0)
    total = world.truth.sum(axis=1)
    assert ((low < total) & (total < high)).all()
    rows = whole(result)
    gone = {"mmm": "weight_mmm", "lifts": "weight_lift", "credits": "weight_credit"}[missing]
    assert (rows[gone] < 0.02).all()
