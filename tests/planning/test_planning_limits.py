"""Limits as rows; clashes are named, with the smallest relaxation."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import numpy as np
import pytest

from contracts.errors import ContractError
from planning.decision import build_decision, whole_cents
from planning.limits import Change, Fairness, Limit, MinimumCampaign, breach, build_rows, feasible_point

Make = Callable[..., Any]
FIRST, SECOND = date(2025, 1, 13), date(2025, 1, 20)


def rows_of(surface: Any, *rules: Any, decision: str = "channel_period") -> Any:
    made = build_decision(surface, decision)
    return build_rows(surface, rules, made.to_cells, made.top)


def test_every_limit_is_kept_by_a_feasible_point(make_surface: Make) -> None:
    surface = make_surface(1, channels=3, geos=4)
    rules = (
        Limit(name="total", low=1000, high=1000),
        Limit(name="pair", low=300, high=900, channels=("c0", "c1")),
        Limit(name="lock", low=200, high=200, channels=("c2",)),
        Limit(name="launch", low=50, channels=("c0",), geos=("g1",), first=SECOND, last=SECOND),
        Limit(name="cap", high=190, each="period"),
        Change(name="smooth", up=0.5, down=0.5),
        Fairness(name="fair", within=0.1),
    )
    made = build_decision(surface, "cell")
    rows = build_rows(surface, rules, made.to_cells, made.top)
    plan = made.cells(feasible_point(rows))
    assert breach(rows, made.amounts(plan)) < 1e-6
    assert plan.sum() == pytest.approx(1000) and plan[:, :, 2].sum() == pytest.approx(200)
    assert 300 - 1e-6 <= plan[:, :, :2].sum() <= 900 + 1e-6
    assert plan[1, 1, 0] >= 50 - 1e-6 and plan.sum(axis=(1, 2)).max() <= 190 + 1e-6
    weekly = plan.sum(axis=1)
    assert (weekly[1:] <= 1.5 * weekly[:-1] + 1e-6).all() and (weekly[1:] >= 0.5 * weekly[:-1] - 1e-6).all()
    heads = plan.sum(axis=(0, 2)) / surface.response.population
    average = plan.sum() / surface.response.population.sum()
    assert (np.abs(heads / average - 1) <= 0.1 + 1e-6).all()


def test_a_change_may_be_bound_to_today(make_surface: Make) -> None:
    surface = make_surface(1, channels=2)
    rows = rows_of(surface, Change(name="smooth", up=0.1, down=0.2, from_today=True))
    week = build_decision(surface, "channel_period").cells(feasible_point(rows))[0].sum(axis=0)
    today = surface.response.steady.current_spend.sum(axis=0)
    assert (week <= 1.1 * today + 1e-6).all() and (week >= 0.8 * today - 1e-6).all()


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            (
                Limit(name="total", high=100),
                Limit(name="tv contract", low=150, channels=("c0",)),
                Limit(name="rest", low=5),
            ),
            r"limits 'total', 'tv contract' cannot hold together; the smallest relaxation moves 50.00: .* by 50.00",
        ),
        (
            (
                Limit(name="total", high=100),
                Limit(name="tv contract", low=150, channels=("c0",)),
                Limit(name="radio contract", low=120, channels=("c1",)),
            ),
            r"limits 'total', 'radio contract' cannot hold together; the smallest relaxation moves 170.00",
        ),
        (
            (Limit(name="total", low=100, high=100), Limit(name="cap", high=15, each="channel")),
            r"limits 'total', 'cap' cannot hold together; the smallest relaxation moves 70.00",
        ),
        (
            (
                Change(name="smooth", up=0.1, down=0.1),
                Limit(name="start", high=10, channels=("c0",), first=FIRST, last=FIRST),
                Limit(name="push", low=50, channels=("c0",), first=SECOND, last=SECOND),
            ),
            r"limits 'smooth', 'start', 'push' cannot hold together; the smallest relaxation moves 35.45",
        ),
    ],
)
def test_limits_that_clash_are_named_with_the_smallest_relaxation(
    make_surface: Make, rules: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(ContractError, match=message):
        feasible_point(rows_of(make_surface(1, channels=2), *rules))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Limit(name="tv", channels=("tv",)), "limit 'tv' names channel 'tv'; the model knows c0, c1"),
        (Limit(name="north", geos=("north",)), "limit 'north' names geo 'north'; the model knows g0, g1"),
        (Limit(name="old", first=date(2024, 1, 1)), "limit 'old' names 2024-01-01, outside the plan's 2025-01-13"),
        (Limit(name="gap", first=date(2025, 1, 14), last=date(2025, 1, 15)), "limit 'gap' holds no period of the plan"),
    ],
)
def test_limits_on_what_is_not_there_are_refused(make_surface: Make, rule: Limit, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        rows_of(make_surface(1, channels=2), rule)


def test_limits_are_checked_at_birth() -> None:
    with pytest.raises(ContractError, match="limit 'a' asks for at least 5.00 and at most 2.00; lower the first"):
        Limit(name="a", low=5, high=2)
    with pytest.raises(ContractError, match="limit 'a' must be numbers >= 0; got -1 to inf"):
        Limit(name="a", low=-1)
    with pytest.raises(ContractError, match="each must be sum, period or channel; got 'geo'"):
        Limit(name="a", each="geo")
    with pytest.raises(ContractError, match="down must lie between 0 and 1"):
        Change(name="a", up=0.1, down=1.5)
    with pytest.raises(ContractError, match="within must lie between 0 and 1"):
        Fairness(name="a", within=-0.1)
    with pytest.raises(ContractError, match="amount must be a finite number >= 0"):
        MinimumCampaign(channel="a", amount=-1.0)


@pytest.mark.parametrize("kind", ["channel", "channel_period", "channel_geo", "cell"])
def test_a_decision_gives_its_reference_back(make_surface: Make, kind: str) -> None:
    surface = make_surface(2, channels=3)
    plan = np.random.default_rng(0).uniform(1, 5, surface.shape)
    made = build_decision(surface, kind, plan)
    assert made.cells(made.amounts(plan)) == pytest.approx(plan)
    blocks = np.random.default_rng(1).normal(size=(3, 2, 6, 6))
    blocks = blocks + blocks.transpose(0, 1, 3, 2)
    whole = np.zeros((plan.size, plan.size))
    at = np.arange(plan.size).reshape(plan.shape)
    for c in range(3):
        for g in range(2):
            whole[np.ix_(at[:, g, c], at[:, g, c])] = blocks[c, g]
    dense = made.to_cells.toarray()
    wanted = dense.T @ whole @ dense
    for block, group in zip(made.blocks(blocks), made.groups, strict=True):
        assert block == pytest.approx(wanted[np.ix_(group, group)])


def test_an_unknown_decision_is_refused(make_surface: Make) -> None:
    with pytest.raises(ContractError, match="a plan is decided by channel, channel_period, .*; got 'week'"):
        build_decision(make_surface(1, channels=2), "week")


def test_whole_cents_keep_the_total_and_every_sum_within_a_cent() -> None:
    rng = np.random.default_rng(0)
    plan = rng.gamma(0.3, 10.0, (13, 7, 5))
    plan[:, :, 1] = 0.0
    plan *= 1234.56 / plan.sum()
    cents = whole_cents(plan)
    assert round(cents.sum() * 100) == 123456
    assert np.allclose(cents * 100, np.rint(cents * 100)) and (cents >= 0).all()
    assert not cents[:, :, 1].any()
    assert np.abs(cents.sum(axis=(0, 1)) - plan.sum(axis=(0, 1))).max() < 0.0101
