"""Claimed power against measured power: plan on a history, run the best design in the future that follows, read it.

    python -m benchmarks.lift_power --panels 200

Each panel: 21 geos, 90 + 15 days (world A1 of benchmarks.lift_simulation). The design picks the best of all sets of
`--sizes` among `--candidates` geos on the 90 days and states its MDE at power 0.8. The future then holds an effect of
exactly that size, and the default estimator reads it. Measured power should be 0.8; with the uncorrected MDE it is not.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402

from benchmarks.lift_simulation import DAYS, SETTINGS, draw  # noqa: E402
from lift.design import DesignPanel, DesignSpec, market_selection  # noqa: E402
from lift.gls import GlsControl  # noqa: E402
from lift.protocol import GeoTest  # noqa: E402


@dataclass(frozen=True, slots=True)
class Job:
    """A share of the panels."""

    seeds: range
    candidates: int
    sizes: tuple[int, int]
    noise: float  # sd of released noise per cell, KPI units


def run_job(job: Job) -> np.ndarray:
    """(panels, 5): found at MDE, found at the uncorrected MDE, found at half the MDE, std_error ratio, claim there."""
    return np.array([_one(np.random.default_rng([seed, 777]), job) for seed in job.seeds])


def _one(rng: np.random.Generator, job: Job) -> list[float]:
    setting = SETTINGS["A1"]
    clean = draw(rng, setting)
    clean = clean[rng.permutation(len(clean))]
    kpi = clean + job.noise * rng.standard_normal(clean.shape)
    pre = setting.pre
    noise = np.full(kpi.shape, job.noise**2)
    names = tuple(f"g{i:02d}" for i in range(len(kpi)))
    panel = DesignPanel(names, kpi[:, :pre], noise[:, :pre], 1.0)
    spec = DesignSpec(candidates=names[: job.candidates], sizes=job.sizes, durations=(DAYS,), rows=1)
    best = market_selection(panel, spec).table.iloc[0]
    treated = np.array([names.index(g) for g in best["geos"].split(";")])
    donors = np.setdiff1d(np.arange(len(names)), treated)
    test = GeoTest("power", kpi, noise, treated, donors, np.arange(pre), np.arange(pre, pre + DAYS), 1.0)
    r = GlsControl()(test)
    truth = float(clean[np.ix_(treated, test.window)].sum())
    half = (r.upper - r.lower) / 2
    shares = (best["mde"], best["mde_uncorrected"], 0.5 * best["mde"])
    # An effect up and the same effect down: what moved all geos by chance then cancels, and the rate is steadier.
    found = [(float(r.mean + s * truth > half) + float(r.mean - s * truth < -half)) / 2 for s in shares]
    return [*found, r.std_error / best["std_error_kpi"], float(best["treated_geos"])]


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints measured power beside the claim."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--panels", type=int, default=100)
    parser.add_argument("--candidates", type=int, default=10)
    parser.add_argument("--sizes", type=int, nargs=2, default=(1, 3))
    parser.add_argument("--noise", type=float, default=0.0)
    parser.add_argument("--jobs", type=int, default=1)
    given = parser.parse_args(arguments)
    cuts = np.linspace(0, given.panels, given.jobs + 1).astype(int)
    work = [
        Job(range(a, b), given.candidates, tuple(given.sizes), given.noise)
        for a, b in zip(cuts[:-1], cuts[1:], strict=True)
    ]
    if given.jobs > 1:
        with ProcessPoolExecutor(given.jobs) as pool:
            rows = np.concatenate(list(pool.map(run_job, work)))
    else:
        rows = run_job(work[0])
    mean = rows.mean(axis=0)
    print(
        f"{len(rows)} panels, best of all sets of {given.sizes} among {given.candidates}, released sd {given.noise:g}"
    )
    print(f"claimed power at the MDE 0.800, measured {mean[0]:.3f}; at the uncorrected MDE {mean[1]:.3f}; "
          f"at half the MDE {mean[2]:.3f}")  # fmt: skip
    print(f"standard error of the readout / planned: median {np.median(rows[:, 3]):.3f}, mean {mean[3]:.3f}")


if __name__ == "__main__":
    main()
