"""What attribution adds to model and lift tests: simulated worlds whose incremental outcomes are known.

Channels lie in families; four are tested once. Return per unit of spend varies by family and channel, saturates and
walks; the model's draws are correlated, off by their own error and by a bias; each credit model has a level, a bias
per family and per channel, a slope in spend, shocks and released noise. Every world is reconciled with and without its
credits. The generating equations are not the pool's: no bias is shared between credit models, spreads inside families
and walks have other sizes than the pool's priors, and the heavy-tailed worlds draw family bias from t3 and channel and
model bias from t4.

`python -m benchmarks.reconcile_worlds --worlds 40 --scenario plain|heavy|five|noise` prints one row.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from datetime import date, timedelta

import numpy as np

from contracts.evidence import Credit, LiftEstimate, LiftLibrary
from contracts.intervals import normal_interval
from reconcile.inputs import LiftScope, MmmEvidence, PoolInputs
from reconcile.prepare import prepare
from reconcile.priors import PoolPriors
from reconcile.sampler import Effort, sample

FIRST = date(2023, 1, 2)
DRAWS = 1000
QUICK = Effort(pilot=120, warmup=140, draws=250, rounds=0)


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a world is like."""

    channels: int = 12
    families: int = 4
    periods: int = 8
    models: int = 3
    tested: int = 4
    heavy: bool = False
    noise: bool = False  # credit knows nothing: its bias between channels is as large as the outcomes differ
    mmm_sd: float = 0.4


SCENARIOS = {
    "plain": Scenario(),
    "heavy": Scenario(heavy=True),
    "five": Scenario(channels=5, families=3),
    "noise": Scenario(noise=True),
}


def _unit(rng: np.random.Generator, size: object, dof: float | None) -> np.ndarray:
    """Draws with variance 1: normal, or Student-t."""
    if dof is None:
        return rng.standard_normal(size)  # type: ignore[arg-type]
    return rng.standard_t(dof, size) / np.sqrt(dof / (dof - 2))  # type: ignore[arg-type]


def world(seed: int, s: Scenario) -> tuple[PoolInputs, np.ndarray]:
    """Evidence, and the true incremental outcome (C, T)."""
    rng = np.random.default_rng(seed)
    names = tuple(f"c{i:02d}" for i in range(s.channels))
    family = rng.permutation(np.arange(s.channels)) % s.families
    periods = tuple((FIRST + timedelta(days=91 * t), FIRST + timedelta(days=91 * t + 90)) for t in range(s.periods))
    shape = (s.channels, s.periods)
    spend = 100 * np.exp(rng.normal(4, 0.7, (s.channels, 1)) + 0.25 * rng.standard_normal(shape))
    kappa = -rng.uniform(0.1, 0.6, s.channels)[:, None]
    level = rng.normal(-4, 0.5, s.families)[family] + 0.4 * rng.standard_normal(s.channels)
    walk = np.cumsum(0.05 * rng.standard_normal(shape), axis=1)
    relative = np.log(spend / spend.mean(axis=1, keepdims=True))
    truth = np.exp(level[:, None] + kappa * relative + walk) * spend
    mmm, totals = _model(rng, names, truth, spend, kappa, s)
    lifts, draws, scopes = _tests(rng, names, truth, spend, totals, mmm, periods, s)
    inputs = PoolInputs(
        mmm=replace(mmm, lift_draws=draws), lifts=lifts,
        credits=_credits(rng, names, truth, relative, family, periods, s),
        kpi=truth.sum(axis=0) / 0.4, kpi_sd=np.full(s.periods, 20.0), channels=names,
        families={n: f"f{f}" for n, f in zip(names, family, strict=True)}, periods=periods, spend=spend, scopes=scopes,
    )  # fmt: skip
    return inputs, truth


def _model(
    rng: np.random.Generator, names: tuple[str, ...], truth: np.ndarray, spend: np.ndarray, kappa: np.ndarray,
    s: Scenario,
) -> tuple[MmmEvidence, np.ndarray]:  # fmt: skip
    """Joint draws with collinear channels: off by one draw of their own error, and by a bias of 0.15."""
    mixing = np.eye(s.channels) + 0.3 * rng.standard_normal((s.channels, s.channels))
    root = mixing / np.sqrt((mixing**2).sum(axis=1))[:, None] * s.mmm_sd
    off = root @ rng.standard_normal(s.channels) + 0.15 * _unit(rng, s.channels, 4 if s.heavy else None)
    totals = np.exp(np.log(truth.sum(axis=1)) + off + rng.standard_normal((DRAWS, s.channels)) @ root.T)
    split = spend ** (1 + kappa) * np.exp(0.05 * rng.standard_normal(truth.shape))
    profile = np.log(split / split.sum(axis=1, keepdims=True))
    evidence = MmmEvidence(names, totals, np.zeros((DRAWS, 0)), ("kpi",), profile, np.full(truth.shape, 0.05))
    return evidence, totals


def _tests(
    rng: np.random.Generator, names: tuple[str, ...], truth: np.ndarray, spend: np.ndarray, totals: np.ndarray,
    mmm: MmmEvidence, periods: tuple[tuple[date, date], ...], s: Scenario,
) -> tuple[LiftLibrary, np.ndarray, tuple[LiftScope, ...]]:  # fmt: skip
    assert mmm.profile is not None
    estimates, draws = [], np.empty((DRAWS, s.tested))
    for k in range(s.tested):
        t, part = int(rng.integers(s.periods)), float(rng.uniform(0.05, 0.15))
        start = periods[t][0] + timedelta(days=14)
        effect = truth[k, t] * part * (1 + 0.1 * rng.standard_normal())
        error = 0.2 * effect
        mean = -(effect + error * rng.standard_normal())
        quantiles = {q: v for q, v in normal_interval(mean, error).items() if q not in ("mean", "sd")}
        estimates.append(
            LiftEstimate(
                experiment=f"test{k}", estimator="did", kind="geo", channel=names[k], arm="", metric="conversions",
                start=start, end=start + timedelta(days=41), treated=("a",), mean=mean, std_error=error, dof=30.0,
                p_value=0.01, noise_variance_share=0.1, spend_delta=-part * spend[k, t], spend_delta_se=0.0,
                evidence_ids=(f"exp{k}",), **quantiles,
            )
        )  # fmt: skip
        secant = part * np.exp(mmm.profile[k, t] + 0.1 * rng.standard_normal() + 0.1 * rng.standard_normal(DRAWS))
        draws[:, k] = -totals[:, k] * secant
    covariance = np.diag([e.std_error**2 for e in estimates])
    return LiftLibrary(tuple(estimates), covariance), draws, (LiftScope(coverage=0.3),) * s.tested


def _credits(
    rng: np.random.Generator, names: tuple[str, ...], truth: np.ndarray, relative: np.ndarray, family: np.ndarray,
    periods: tuple[tuple[date, date], ...], s: Scenario,
) -> tuple[Credit, ...]:  # fmt: skip
    rows = []
    for j in range(s.models):
        of_family = 0.5 * _unit(rng, s.families, 3 if s.heavy else None)
        own = (1.5 if s.noise else 0.3) * _unit(rng, s.channels, 4 if s.heavy else None)
        slope = 0.1 * rng.standard_normal()
        log = np.log(truth) + 0.8 * rng.standard_normal() + (of_family[family] + own)[:, None] + slope * relative
        mean = np.exp(log + 0.05 * rng.standard_normal(truth.shape))
        sd = 3.0 + 0.03 * mean
        seen = mean + sd * rng.standard_normal(truth.shape)
        rows += [
            Credit(
                f"m{j}",
                names[c],
                "conversions",
                *periods[t],
                **normal_interval(seen[c, t], sd[c, t]),
                evidence_ids=("j",),
            )
            for c in range(s.channels)
            for t in range(s.periods)
        ]
    return tuple(rows)


def study(worlds: int, s: Scenario, first: int = 0) -> dict[str, float]:
    """RMSE of log totals with and without credit, tested and untested, and coverage of 90 % intervals."""
    errors: dict[str, list[np.ndarray]] = {"with": [], "without": []}
    hits = {"with": 0, "without": 0}
    cells = 0
    begun = time.process_time()
    for seed in range(first, first + worlds):
        inputs, truth = world(seed, s)
        total = np.log(truth.sum(axis=1))
        for name, evidence in (("with", inputs), ("without", replace(inputs, credits=()))):
            drawn = sample(prepare(evidence, PoolPriors()).arrays, PoolPriors(), seed, QUICK)
            low, middle, high = np.quantile(drawn.level, [0.05, 0.5, 0.95], axis=0)
            errors[name].append(middle - total)
            hits[name] += int(((low < total) & (total < high)).sum())
            if name == "with":
                low, high = np.quantile(drawn.log_outcome, [0.05, 0.95], axis=0)
                cells += int(((low < np.log(truth)) & (np.log(truth) < high)).sum())
        done = seed - first + 1
        if done % 5 == 0 or done == worlds:
            print(done, _figures(errors, hits, cells, s, time.process_time() - begun), flush=True)
    return _figures(errors, hits, cells, s, time.process_time() - begun)


def _figures(
    errors: dict[str, list[np.ndarray]], hits: dict[str, int], cells: int, s: Scenario, seconds: float
) -> dict[str, float]:
    out: dict[str, float] = {}
    for name, found in errors.items():
        squares = np.square(found)
        out[f"tested {name}"] = float(np.sqrt(squares[:, : s.tested].mean()))
        out[f"untested {name}"] = float(np.sqrt(squares[:, s.tested :].mean()))
        out[f"coverage {name}"] = hits[name] / squares.size
    out["ratio untested"] = out["untested with"] / out["untested without"]
    out["coverage of cells"] = cells / (len(errors["with"]) * s.channels * s.periods)
    return {k: round(v, 3) for k, v in out.items()} | {"intervals": squares.size, "cpu s": round(seconds, 1)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=40)
    parser.add_argument("--scenario", choices=SCENARIOS, default="plain")
    asked = parser.parse_args()
    print(asked.scenario, study(asked.worlds, SCENARIOS[asked.scenario]))
