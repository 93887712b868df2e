"""Rows of the answer from draws that are known: what was borrowed, and why a factor is not printed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from reconcile.figures import BORROWED_ABOVE, factor_rows, reconciled_rows
from reconcile.inputs import PoolInputs
from reconcile.prepare import Prepared, prepare
from reconcile.priors import PoolPriors
from reconcile.sampler import Sampled

Make = Callable[..., Any]
DRAWS = 400


def drawn(inputs: PoolInputs, data: Prepared) -> Sampled:
    """Draws in which every channel causes about 600 a period, with the credit as it was seen."""
    c, t = len(inputs.channels), len(inputs.periods)
    rng = np.random.default_rng(0)
    level = np.log(600.0 * t) + 0.1 * rng.standard_normal((DRAWS, c))
    seen = np.log(np.maximum(data.arrays.credit, 1.0))
    return Sampled(
        theta=np.zeros((DRAWS, 1)), level=level, share=np.full((DRAWS, c, t), -np.log(t)),
        kappa=np.full((DRAWS, c), -0.3), effect=np.zeros((DRAWS, 2)), log_credit=np.tile(seen, (DRAWS, 1, 1, 1)),
        shock=np.full((DRAWS, len(data.sources)), 0.05), own=np.full((DRAWS, len(data.sources)), 0.05),
        rhat=1.0, ess=1000.0, divergences=0,
    )  # fmt: skip


def shares(c: int, t: int, family: float = 0.0, prior: float = 0.0) -> dict[str, np.ndarray]:
    """Weights of every channel and span."""
    rest = {"lift": 1.0 - family - prior, "mmm": 0.0, "credit": 0.0, "family": family, "prior": prior}
    return {k: np.full((c, t + 1), v) for k, v in rest.items()}


def factors(inputs: PoolInputs) -> pd.DataFrame:
    """Rows of v_incrementality."""
    data = prepare(inputs, PoolPriors())
    return factor_rows(inputs, data, drawn(inputs, data), shares(len(inputs.channels), len(inputs.periods)), (), 1)


def of(rows: pd.DataFrame, channel: str, model: str, inputs: PoolInputs, n: int) -> pd.Series:
    """One row: span 0 is the whole stretch."""
    periods = inputs.periods
    first, last = (periods[0][0], periods[-1][1]) if n == 0 else periods[n - 1]
    at = (rows["channel"] == channel) & (rows["model"] == model) & (rows["period_start"] == first)
    return rows[at & (rows["period_end"] == last)].iloc[0]


@pytest.fixture(scope="module")
def plain(make_world: Make) -> PoolInputs:
    return make_world(3).inputs


@pytest.mark.parametrize(
    ("family", "prior", "borrowed"),
    [(BORROWED_ABOVE + 0.01, 0.0, True), (0.2, 0.2, True), (BORROWED_ABOVE - 0.01, 0.0, False), (0.0, 0.0, False)],
)
def test_an_answer_is_borrowed_where_family_and_priors_hold_it(
    plain: PoolInputs, family: float, prior: float, borrowed: bool
) -> None:
    data = prepare(plain, PoolPriors())
    rows = reconciled_rows(plain, drawn(plain, data), shares(4, 3, family, prior), ())
    assert (rows["borrowed"] == borrowed).all() and len(rows) == 4 * 4


def test_a_factor_is_the_outcome_over_the_credit(plain: PoolInputs) -> None:
    rows = factors(plain)
    assert (rows["flag"] == "").all()
    row = of(rows, "c1", "m0", plain, 2)
    assert row["p50"] == pytest.approx(600.0 / row["credited"], rel=0.05)
    assert row["p10"] < row["p50"] < row["p90"]


def test_a_channel_without_credit_has_no_factor(plain: PoolInputs) -> None:
    gone = replace(plain, credits=tuple(c for c in plain.credits if c.channel != "c0"))
    rows = factors(gone)
    for n in range(4):
        row = of(rows, "c0", "m0", gone, n)
        assert row["flag"] == "no credit is recorded for this channel, so there is no factor"
        assert np.isnan(row["p50"]) and np.isnan(row["credited"]) and row["incremental_kpi"] > 0
    assert of(rows, "c1", "m0", gone, 0)["flag"] == ""


def test_a_stretch_with_a_gap_has_no_factor_but_its_periods_do(plain: PoolInputs) -> None:
    hole = (plain.periods[1][0], "c0", "m0")
    gap = replace(plain, credits=tuple(c for c in plain.credits if (c.period_start, c.channel, c.model) != hole))
    rows = factors(gap)
    assert of(rows, "c0", "m0", gap, 0)["flag"] == "credit is missing in part of the stretch, so there is no factor"
    assert "no credit is recorded" in of(rows, "c0", "m0", gap, 2)["flag"], "the period itself has none"
    assert of(rows, "c0", "m0", gap, 1)["flag"] == of(rows, "c0", "m0", gap, 3)["flag"] == ""


def test_an_untracked_channel_has_no_factor(plain: PoolInputs, make_credit: Make) -> None:
    """Its credit is noise around 0 in every period and model."""
    noise = tuple(
        make_credit(c.model, "c0", plain.periods.index((c.period_start, c.period_end)), 3.0, 5.0)
        if c.channel == "c0"
        else c
        for c in plain.credits
    )
    dim = replace(plain, credits=noise)
    row = of(factors(dim), "c0", "m0", dim, 0)
    assert row["flag"] == "the channel is not tracked: its credit cannot be told from noise, so no factor is printed"
    assert row["credited"] == pytest.approx(9.0) and np.isnan(row["p50"])


def test_a_credit_that_may_be_nothing_has_no_factor_in_its_period(plain: PoolInputs, make_credit: Make) -> None:
    credits = tuple(
        make_credit("m0", "c0", 1, 4.0, 5.0)
        if (c.model, c.channel, c.period_start) == ("m0", "c0", plain.periods[1][0]) else c
        for c in plain.credits
    )  # fmt: skip
    weak = replace(plain, credits=credits)
    rows = factors(weak)
    assert (
        of(rows, "c0", "m0", weak, 2)["flag"] == "the credit's 90 % interval holds 0 or less, so no factor is printed"
    )
    assert of(rows, "c0", "m0", weak, 0)["flag"] == "", "over the whole stretch there is enough"
