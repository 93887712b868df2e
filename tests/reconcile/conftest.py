"""Small worlds whose incremental outcome is known, built from the generative model of DESIGN section 5."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

import numpy as np
import pytest

from contracts.evidence import Credit, LiftEstimate, LiftLibrary
from contracts.intervals import normal_interval
from reconcile.pool import MmmEvidence, PoolInputs

START, END = date(2024, 1, 1), date(2024, 12, 29)
QUARTERS = ((START, date(2024, 6, 30)), (date(2024, 7, 1), END))


@dataclass(frozen=True)
class World:
    """Pool inputs and the truth behind them."""

    inputs: PoolInputs
    truth: np.ndarray  # (C,)


def lift(k: int, channel: str, mean: float, se: float, delta: float = -100.0) -> LiftEstimate:
    """A geo test with a normal interval."""
    interval = normal_interval(mean, se)
    return LiftEstimate(
        f"test{k}", "did", "geo", channel, "", "conversions", START, date(2024, 2, 4), ("a",), mean, se, 30.0,
        interval["p05"], interval["p10"], interval["p50"], interval["p90"], interval["p95"], 0.01, 0.1, delta, 0.0,
        (f"exp{k}",),
    )  # fmt: skip


def credit(model: str, channel: str, total: float, sd: float) -> tuple[Credit, ...]:
    """One credit over two half-years, whose noise is independent."""
    return tuple(
        Credit(model, channel, "conversions", a, b, **normal_interval(total / 2, sd / np.sqrt(2)), evidence_ids=("j",))
        for a, b in QUARTERS
    )


def build(
    seed: int,
    *,
    channels: int = 4,
    tested: int = 2,
    models: int = 2,
    mmm_sd: float = 0.35,
    lift_se: float = 0.2,
    base_share: float = 0.6,
) -> World:
    """One world: MMM off by its sd and a small bias, lifts by their se, credit by level, channel and rule."""
    rng = np.random.default_rng(seed)
    names = tuple(f"c{i}" for i in range(channels))
    truth = np.exp(rng.normal(6.5, 0.7, channels))
    off = mmm_sd * rng.normal(size=channels) + 0.15 * rng.normal(size=channels)
    logs = np.log(truth) + off + mmm_sd * rng.normal(size=(1000, channels))
    at, sign = np.arange(tested), np.where(np.arange(tested) % 2, 1.0, -1.0)
    ratio = rng.uniform(0.08, 0.2, tested)
    ratio_logs = np.log(ratio) + 0.1 * rng.normal(size=tested) + 0.1 * rng.normal(size=(1000, tested))
    totals = np.exp(logs)
    effect = truth[at] * ratio
    estimates = tuple(
        lift(k, names[at[k]], sign[k] * effect[k] * (1 + lift_se * rng.normal()), lift_se * effect[k])
        for k in range(tested)
    )
    covariance = np.diag([e.std_error**2 for e in estimates]) if tested else np.zeros((0, 0))
    channel_bias = 0.4 * rng.normal(size=channels)
    rows: list[Credit] = []
    for j in range(models):
        level = 0.7 * rng.normal()
        for c, name in enumerate(names):
            mean = truth[c] * np.exp(level + channel_bias[c] + 0.1 * rng.normal())
            rows += credit(f"m{j}", name, mean + 15 * rng.normal(), 15.0)
    inputs = PoolInputs(
        mmm=MmmEvidence(names, totals, sign * totals[:, at] * np.exp(ratio_logs), ("kpi",)),
        lifts=LiftLibrary(estimates, covariance),
        credits=tuple(rows),
        kpi_total=float(truth.sum() / (1 - base_share)),
        kpi_total_sd=20.0,
        channels=names,
        families={n: f"f{i % 2}" for i, n in enumerate(names)},
        period_start=START,
        period_end=END,
    )
    return World(inputs, truth)


@pytest.fixture(scope="session")
def make_world() -> Callable[..., World]:
    """Factory of worlds."""
    return build


@pytest.fixture(scope="session")
def make_lift() -> Callable[..., LiftEstimate]:
    """Factory of lift estimates."""
    return lift


@pytest.fixture(scope="session")
def make_credit() -> Callable[..., tuple[Credit, ...]]:
    """Factory of credits of one model × channel."""
    return credit
