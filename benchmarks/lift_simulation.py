"""False positives, coverage, width and power of a geo estimator on simulated panels whose effect is known.

    python -m benchmarks.lift_simulation --panels 300 --settings A1 A2 A3 A4
    python -m benchmarks.lift_simulation --panels 300 --noise 400 1600            # released noise: history, window
    python -m benchmarks.lift_simulation --panels 300 --noise 400 1600 --blind    # the same, told that it is exact

Settings: one treated geo (nearest the median baseline) and 20 controls over 90 + 15 days; log-normal baselines (mean
4,000, spread 0.6), trend 0.001 a day, weekly amplitude 0.10, noise exp(0.2 sqrt(base / mean) AR1(0.3)). A2: treated
times 5. A3: 9 controls. A4: 30 days of history. Effect 0 or 7.5 %, nominal level 5 %.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402

from lift.protocol import GeoTest  # noqa: E402
from lift.registry import ESTIMATORS  # noqa: E402

EFFECT = 0.075
WEEK = np.array([-1.0, -0.5, 0.0, 0.2, 0.8, 1.0, 0.5])
DAYS = 15


@dataclass(frozen=True, slots=True)
class Setting:
    """One world of the study."""

    pre: int = 90
    controls: int = 20
    treated_scale: float = 1.0


SETTINGS = {"A1": Setting(), "A2": Setting(treated_scale=5.0), "A3": Setting(controls=9), "A4": Setting(pre=30)}


def _ar1(rng: np.random.Generator, shape: tuple[int, int], phi: float) -> np.ndarray:
    """AR(1) with innovations of sd 1, stationary from the first period."""
    shocks = rng.standard_normal(shape)
    out = np.empty(shape)
    out[:, 0] = shocks[:, 0] / math.sqrt(1 - phi**2)
    for t in range(1, shape[1]):
        out[:, t] = phi * out[:, t - 1] + shocks[:, t]
    return out


def draw(rng: np.random.Generator, setting: Setting) -> np.ndarray:
    """KPI (G, T) of one null panel; row 0 is the treated geo."""
    n, t = setting.controls + 1, np.arange(setting.pre + DAYS)
    base = 4000 * np.exp(0.6 * rng.standard_normal(n) - 0.18)
    shape = (1 + 0.001 * t) * (1 + 0.1 * WEEK[t % 7])
    spread = 0.2 * np.sqrt(base / base.mean())[:, None]
    kpi = base[:, None] * shape * np.exp(spread * _ar1(rng, (n, len(t)), 0.3))
    middle = int(np.argmin(np.abs(base - np.median(base))))
    kpi = kpi[[middle, *(i for i in range(n) if i != middle)]]
    kpi[0] *= setting.treated_scale
    return kpi


def as_test(kpi: np.ndarray, noise: np.ndarray, pre: int) -> GeoTest:
    """Row 0 treated from period `pre` on; every other row a donor."""
    g, t = kpi.shape
    return GeoTest("study", kpi, noise, np.array([0]), np.arange(1, g), np.arange(pre), np.arange(pre, t), 1.0)


@dataclass(frozen=True, slots=True)
class Job:
    """A share of the panels of one setting."""

    setting: Setting
    estimator: str
    seeds: range
    noise: tuple[float, float]  # sd of released noise per cell, history and window, KPI units
    blind: bool
    refit: bool


def run_job(job: Job) -> np.ndarray:
    """(panels, 7): rejected and covered at null, rejected and covered at effect, width per day, error, true effect."""
    rows = []
    for seed in job.seeds:
        rng = np.random.default_rng([seed, 20251])
        kpi = draw(rng, job.setting)
        sd = np.where(np.arange(kpi.shape[1]) < job.setting.pre, *job.noise)
        noisy = kpi + sd * rng.standard_normal(kpi.shape)
        told = np.zeros(kpi.shape) if job.blind else np.broadcast_to(sd**2, kpi.shape)
        rows.append(_read(job, noisy, told, EFFECT * kpi[0, job.setting.pre :]))
    return np.array(rows)


def _read(job: Job, kpi: np.ndarray, noise: np.ndarray, added: np.ndarray) -> list[float]:
    """Null and effect. Nothing of the treated window enters a forecast, so the effect moves estimate and interval by
    exactly what was added; `--refit` reads the lifted panel anew all the same."""
    test = as_test(kpi, noise, job.setting.pre)
    estimator = ESTIMATORS[job.estimator]
    null, truth = estimator(test), float(added.sum())
    lower, upper = null.lower + truth, null.upper + truth
    if job.refit:
        lifted = kpi.copy()
        lifted[0, job.setting.pre :] += added
        effect = estimator(replace(test, kpi=lifted))
        lower, upper = effect.lower, effect.upper
    return [
        null.p_value < 0.05, null.lower <= 0 <= null.upper, not lower <= 0 <= upper, lower <= truth <= upper,
        (null.upper - null.lower) / DAYS, null.mean / DAYS, truth / DAYS,
    ]  # fmt: skip


def study(
    name: str, estimator: str, panels: int, noise: tuple[float, float], blind: bool, jobs: int, refit: bool
) -> dict[str, float]:
    """Measured rates of one setting."""
    cuts = np.linspace(0, panels, jobs + 1).astype(int)
    work = [
        Job(SETTINGS[name], estimator, range(a, b), noise, blind, refit)
        for a, b in zip(cuts[:-1], cuts[1:], strict=True)
    ]
    started = time.perf_counter()
    if jobs > 1:
        with ProcessPoolExecutor(jobs) as pool:
            rows = np.concatenate(list(pool.map(run_job, work)))
    else:
        rows = run_job(work[0])
    mean = rows.mean(axis=0)
    return {
        "false_positives": mean[0], "coverage_null": mean[1], "power": mean[2], "coverage_effect": mean[3],
        "width_per_day": mean[4], "width_median": float(np.median(rows[:, 4])), "bias_per_day": mean[5],
        "rmse_per_day": float(np.sqrt((rows[:, 5] ** 2).mean())), "ms": 1000 * (time.perf_counter() - started) / panels,
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one row per setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--panels", type=int, default=200)
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--estimator", default="gls_control", choices=sorted(ESTIMATORS))
    parser.add_argument("--noise", nargs=2, type=float, default=(0.0, 0.0), metavar=("HISTORY", "WINDOW"))
    parser.add_argument("--blind", action="store_true", help="tell the estimator that the KPI is exact")
    parser.add_argument("--refit", action="store_true", help="read every panel twice, without and with its effect")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    given = parser.parse_args(arguments)
    what = "told that it is exact" if given.blind else "told"
    print(f"{given.estimator}, {given.panels} panels a setting, released noise sd {tuple(given.noise)} ({what})")
    print("setting  false+  cover0  power  cover  width/day  median  bias/day  rmse/day   ms a fit")
    for name in given.settings:
        r = study(name, given.estimator, given.panels, tuple(given.noise), given.blind, given.jobs, given.refit)
        print(
            f"{name:<8}{r['false_positives']:7.4f}{r['coverage_null']:8.4f}{r['power']:7.3f}{r['coverage_effect']:7.4f}"
            f"{r['width_per_day']:11.0f}{r['width_median']:8.0f}{r['bias_per_day']:10.1f}{r['rmse_per_day']:10.1f}"
            f"{r['ms']:11.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
