"""The pool against worlds whose truth is known, and its limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from contracts.evidence import LiftLibrary
from contracts.tables import BY_NAME, STAMP
from reconcile.pool import PoolPriors, Reconciled, reconcile

Make = Callable[..., Any]


def rows(result: Reconciled, channel: str) -> Any:
    """Factor rows of a channel."""
    return result.factors[result.factors["channel"] == channel].reset_index(drop=True)


@pytest.fixture(scope="module")
def plain(make_world: Make) -> tuple[Any, Reconciled]:
    """A world with all three sources and its answer."""
    world = make_world(3)
    return world, reconcile(world.inputs, seed=1)


def test_truth_lies_inside_and_rows_have_the_shape_of_the_view(plain: tuple[Any, Reconciled]) -> None:
    world, result = plain
    low, high = np.quantile(result.incremental, [0.005, 0.995], axis=0)
    assert ((low < world.truth) & (world.truth < high)).all()
    stamp = {c.name for c in STAMP}
    assert list(result.factors.columns) == [n for n in BY_NAME["v_incrementality"].names if n not in stamp]
    assert len(result.factors) == 4 * 2
    assert result.diagnostics.rhat < 1.05 and result.diagnostics.ess > 400
    assert result.diagnostics.divergences <= 5


def test_factor_is_incremental_over_credit(plain: tuple[Any, Reconciled]) -> None:
    _, result = plain
    known = result.factors[result.factors["flag"] == ""]
    assert np.allclose(known["mean"], known["incremental_kpi"] / known["credited"], rtol=0.1)
    assert (known["p05"] < known["p50"]).all() and (known["p50"] < known["p95"]).all()
    shares = known[["weight_lift", "weight_mmm", "weight_credit"]]
    assert np.allclose(shares.sum(axis=1), 1.0) and (shares >= 0).all(axis=None)


def test_tested_channels_lean_on_their_test(plain: tuple[Any, Reconciled]) -> None:
    _, result = plain
    assert rows(result, "c0")["weight_lift"].iloc[0] > 0.3
    assert rows(result, "c3")["weight_lift"].iloc[0] < 0.15


def test_a_precise_go_dark_test_decides_and_the_same_seed_gives_the_same_draws(make_world: Make) -> None:
    world = make_world(4, channels=2, tested=1, models=0, lift_se=0.03)
    inputs = world.inputs
    assert inputs.lifts.estimates[0].mean < 0
    first, again = reconcile(inputs, seed=1), reconcile(inputs, seed=1)
    assert abs(np.log(np.median(first.incremental[:, 0]) / world.truth[0])) < 0.3
    assert rows(first, "c0")["weight_lift"].iloc[0] > 0.5
    assert not first.factors["flag"].str.contains("disagree").any()
    np.testing.assert_array_equal(again.incremental, first.incremental)
    assert again.factors.equals(first.factors)


@pytest.mark.slow
def test_doubling_one_credit_model_halves_its_factor_and_moves_no_incremental(make_world: Make) -> None:
    inputs = make_world(3, mmm_sd=0.15, lift_se=0.1).inputs
    result = reconcile(inputs, seed=1)
    credits = tuple(replace(c, mean=2 * c.mean, sd=2 * c.sd) if c.model == "m0" else c for c in inputs.credits)
    other = reconcile(replace(inputs, credits=credits), seed=1)
    for model, ratio in (("m0", 0.5), ("m1", 1.0)):
        mine = result.factors["model"] == model
        assert np.allclose(other.factors[mine]["p50"] / result.factors[mine]["p50"], ratio, rtol=0.02)
    moved = np.median(other.incremental, axis=0) / np.median(result.incremental, axis=0) - 1
    assert np.abs(moved).max() < 0.02


@pytest.mark.slow
def test_a_vague_model_returns_the_lift_and_a_vague_lift_the_model(make_world: Make, make_lift: Make) -> None:
    world = make_world(5, channels=2, tested=1, models=0, mmm_sd=0.1)
    mmm = world.inputs.mmm
    ratio = float(np.median(np.abs(mmm.lift_draws[:, 0]) / mmm.totals[:, 0]))
    truth = float(np.median(mmm.totals[:, 0]))

    def pooled(spread: float, effect: float, se: float) -> float:
        wide = replace(mmm, totals=mmm.totals**spread * np.median(mmm.totals, axis=0) ** (1 - spread))
        wide = replace(wide, lift_draws=-ratio * wide.totals[:, :1])
        test = make_lift(0, "c0", -effect * ratio * truth, se * ratio * truth)
        lifts = LiftLibrary((test,), np.array([[test.std_error**2]]))
        inputs = replace(world.inputs, mmm=wide, lifts=lifts, credits=(), kpi_total=1e6)
        return float(np.median(reconcile(inputs, PoolPriors(lift_bias_sd=0.01), seed=2).incremental[:, 0])) / truth

    assert pooled(20.0, 1.6, 0.05) == pytest.approx(1.6, rel=0.04)
    assert pooled(1.0, 1.6, 50.0) == pytest.approx(1.0, rel=0.04)


def test_a_conflict_is_flagged_and_widens_the_answer(make_world: Make) -> None:
    world = make_world(7, channels=2, tested=1, models=1, mmm_sd=0.1, lift_se=0.05)
    test = world.inputs.lifts.estimates[0]
    far = replace(test, mean=2.5 * test.mean)
    fought = reconcile(replace(world.inputs, lifts=LiftLibrary((far,), world.inputs.lifts.covariance)), seed=1)
    assert rows(fought, "c0")["flag"].str.contains(r"lift test0 and model disagree: z = [3-8]\.").all()
    assert not rows(fought, "c1")["flag"].str.contains("lift").any()
    precise = np.log(world.inputs.mmm.totals[:, 0]).std()
    assert np.log(fought.incremental[:, 0]).std() > 2 * precise


def test_closure_keeps_the_base_positive(make_world: Make) -> None:
    world = make_world(9, channels=3, tested=0, models=0, mmm_sd=0.5)
    kpi = float(0.8 * np.median(world.inputs.mmm.totals, axis=0).sum())
    result = reconcile(replace(world.inputs, kpi_total=kpi, kpi_total_sd=0.0), seed=1)
    assert (result.incremental.sum(axis=1) < 1.01 * kpi).all()
    assert result.factors["model"].tolist() == [""] * 3
    assert result.factors["mean"].isna().all()


def test_negative_and_missing_credit_print_no_factor_but_stay_in_the_answer(
    make_world: Make, make_credit: Make
) -> None:
    world = make_world(11, channels=3, tested=1, models=2)
    credits = tuple(c for c in world.inputs.credits if c.channel != "c2" and (c.channel, c.model) != ("c1", "m0"))
    credits += make_credit("m0", "c1", -20.0, 15.0)
    result = reconcile(replace(world.inputs, credits=credits), seed=1)
    negative = rows(result, "c1").set_index("model")
    assert np.isnan(negative.loc["m0", "p50"]) and "holds 0" in negative.loc["m0", "flag"]
    assert negative.loc["m0", "credited"] == pytest.approx(-20.0)
    assert np.isfinite(negative.loc["m1", "p50"])
    offline = rows(result, "c2")
    assert offline["mean"].isna().all() and offline["flag"].str.contains("no credit is recorded").all()
    assert np.isfinite(offline["incremental_kpi"]).all()


def test_without_a_model_lifts_and_credits_still_pool(make_world: Make) -> None:
    world = make_world(13, channels=3, tested=1, models=1, lift_se=0.1)
    spend = {"c0": 100.0 / (abs(world.inputs.lifts.estimates[0].mean) / world.truth[0])}
    result = reconcile(replace(world.inputs, mmm=None, spend_total=spend), seed=1)
    low, high = np.quantile(result.incremental[:, 0], [0.05, 0.95])
    assert low < world.truth[0] < high and high / low < 6
    assert (rows(result, "c0")["weight_mmm"] == 0).all()
    assert (rows(result, "c0")["weight_lift"] > 0.3).all()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ninety_per_cent_intervals_cover_the_truth_in_simulated_worlds(make_world: Make) -> None:
    """120 channel totals in 30 worlds. P(fewer than 96 hits | true coverage 0.9) < 1e-3, channels independent."""
    hits, errors, alone = 0, [], []
    for seed in range(30):
        world = make_world(1000 + seed)
        result = reconcile(world.inputs, seed=seed)
        low, high = np.quantile(result.incremental, [0.05, 0.95], axis=0)
        hits += int(((low < world.truth) & (world.truth < high)).sum())
        errors.append(np.log(np.median(result.incremental, axis=0) / world.truth))
        alone.append(np.log(np.median(world.inputs.mmm.totals, axis=0) / world.truth))
    assert hits >= 96
    assert np.sqrt(np.mean(np.square(errors))) < 0.85 * np.sqrt(np.mean(np.square(alone)))
