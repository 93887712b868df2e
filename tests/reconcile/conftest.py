"""One small world whose incremental outcome is known. All have one shape, so that they share one compilation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pytest

from contracts.evidence import Credit, LiftEstimate, LiftLibrary
from contracts.intervals import normal_interval
from reconcile.inputs import LiftScope, MmmEvidence, PoolInputs
from reconcile.sampler import Effort

FIRST = date(2024, 1, 1)
PERIODS = tuple((FIRST + timedelta(days=91 * t), FIRST + timedelta(days=91 * t + 90)) for t in range(3))
CHANNELS = ("c0", "c1", "c2", "c3")
MODELS = ("m0", "m1")
SHORT = Effort(pilot=100, warmup=120, draws=250, rounds=2)
DRAWS = 800


@dataclass(frozen=True)
class World:
    """Pool inputs and the truth behind them."""

    inputs: PoolInputs
    truth: np.ndarray  # (C, T)


def lift(k: int, channel: str, mean: float, se: float, delta: float = -100.0, period: int = 1) -> LiftEstimate:
    """A geo test of six weeks with a normal interval."""
    interval = normal_interval(mean, se)
    start = PERIODS[period][0] + timedelta(days=14)
    return LiftEstimate(
        f"test{k}", "did", "geo", channel, "", "conversions", start, start + timedelta(days=41), ("a",), mean, se, 30.0,
        interval["p05"], interval["p10"], interval["p50"], interval["p90"], interval["p95"], 0.01, 0.1, delta, 0.0,
        (f"exp{k}",),
    )  # fmt: skip


def credit(model: str, channel: str, period: int, mean: float, sd: float) -> Credit:
    """One credit of one period."""
    return Credit(model, channel, "conversions", *PERIODS[period], **normal_interval(mean, sd), evidence_ids=("j",))


def build(seed: int, *, mmm_sd: float = 0.3, lift_se: float = 0.15, bias_sd: float = 0.4) -> World:
    """One world: two channels in each of two families, the first two tested."""
    rng = np.random.default_rng(seed)
    c, t = len(CHANNELS), len(PERIODS)
    spend = 1000 * np.exp(0.3 * rng.standard_normal((c, t)))
    relative = np.log(spend / spend.mean(axis=1, keepdims=True))
    truth = np.exp(rng.normal(6.0, 0.5, (c, 1)) + 0.7 * relative + 0.05 * rng.standard_normal((c, t)))
    off = mmm_sd * rng.standard_normal(c)
    totals = np.exp(np.log(truth.sum(axis=1)) + off + mmm_sd * rng.standard_normal((DRAWS, c)))
    split = spend**0.7 / (spend**0.7).sum(axis=1, keepdims=True)
    estimates, predictions = [], np.empty((DRAWS, 2))
    for k in range(2):
        sign = -1.0 if k == 0 else 1.0
        effect = sign * 0.1 * truth[k, 1]
        mean = effect * (1 + lift_se * rng.standard_normal())
        estimates.append(lift(k, CHANNELS[k], mean, lift_se * abs(effect), sign * 0.1 * spend[k, 1]))
        predictions[:, k] = sign * 0.1 * totals[:, k] * split[k, 1] * np.exp(0.05 * rng.standard_normal(DRAWS))
    rows = []
    for model in MODELS:
        level, own = 0.7 * rng.standard_normal(), bias_sd * rng.standard_normal(c)
        for i, name in enumerate(CHANNELS):
            for p in range(t):
                mean = truth[i, p] * np.exp(level + own[i] + 0.05 * rng.standard_normal())
                rows.append(credit(model, name, p, mean + 5 * rng.standard_normal(), 5.0))
    inputs = PoolInputs(
        mmm=MmmEvidence(CHANNELS, totals, predictions, ("kpi",), np.log(split), np.full((c, t), 0.05)),
        lifts=LiftLibrary(tuple(estimates), np.diag([e.std_error**2 for e in estimates])),
        credits=tuple(rows), kpi=truth.sum(axis=0) / 0.4, kpi_sd=np.full(t, 20.0), channels=CHANNELS,
        families={n: f"f{i % 2}" for i, n in enumerate(CHANNELS)}, periods=PERIODS, spend=spend,
        scopes=(LiftScope(0.3, 0.0), LiftScope(0.3, 2.0)),
    )  # fmt: skip
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
def make_credit() -> Callable[..., Credit]:
    """Factory of credits."""
    return credit


@pytest.fixture(scope="session")
def short() -> Effort:
    """A sampling effort for tests."""
    return SHORT
