"""`python -m benchmarks.mmm SET`: one fit of a public set from process start, against its known contributions.

Prints one JSON object: wall and processor seconds since the process began (imports, compiling and draws included),
convergence over geo × channel contribution totals, error and coverage. `--cache FOLDER` keeps compiled programs: run
twice for "cold" and "warm". `--after WEEKS` fits all but the last WEEKS first and then the whole, which is a refresh;
both are timed. Run on a quiet machine with OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from typing import Any

BEGUN = time.time()


def main() -> None:
    """Runs and prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mmm", description=__doc__)
    parser.add_argument("set", choices=("small", "growing", "medium", "large"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--draws", type=int, help="draws a chain before the first look at the gate (engine's default)")
    parser.add_argument("--cache", help="folder of compiled programs")
    parser.add_argument("--after", type=int, default=0, help="weeks of a refresh")
    told = parser.parse_args()
    if told.cache:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = told.cache
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
    print(json.dumps(measure(told.set, told.seed, told.draws, told.after)))


def measure(name: str, seed: int, draws: int | None, after: int) -> dict[str, Any]:
    """One fit, or a fit and its refresh."""
    from benchmarks.mmm_sets import load
    from mmm.fit import RunFlags, fit
    from mmm.spec import ModelSpec

    known, spec = load(name), ModelSpec()
    flags = RunFlags() if draws is None else RunFlags(draws=draws)
    out: dict[str, Any] = {"set": name, "seed": seed}
    start = None
    if after:
        earlier = load(name, len(known.panel.weeks) - after)
        start = fit(earlier.panel, spec, seed=seed, flags=flags).start
        out |= {"first_wall_s": time.time() - BEGUN, "first_cpu_s": time.process_time()}
    found = fit(known.panel, spec, seed=seed, flags=flags, start=start)
    wall, processor = time.time() - BEGUN, time.process_time()
    out |= {"wall_s": wall - out.get("first_wall_s", 0.0), "cpu_s": processor - out.get("first_cpu_s", 0.0)}
    out |= {"max_rss_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, "gate": found.report.passed}
    out |= {"failures": found.report.failures()[:300], "draws": found.posterior.draws}
    return out | scores(known, spec, found)


def scores(known: Any, spec: Any, found: Any) -> dict[str, float]:
    """Convergence of geo × channel totals and of the free parameters, error and coverage against the truth."""
    import numpy as np

    from mmm.diagnostics import convergence
    from mmm.effects import contributions, geo_total_draws

    posterior, panel = found.posterior, known.panel
    totals = geo_total_draws(panel, spec, posterior)
    shape = posterior.params["theta"].shape[:2]
    rhat, ess = convergence(totals.reshape(*shape, *totals.shape[1:]))
    free = min(convergence(v)[1] for v in posterior.sampled.values())
    truth = known.truth.sum(axis=1)
    plain = coverage(totals, truth)
    factor = np.exp(
        spec.structural_sd * np.random.default_rng(0).standard_normal((len(totals), 1, totals.shape[2]))
        - spec.structural_sd**2 / 2
    )
    blurred = coverage(totals * factor, truth)
    errors = []
    for part in contributions(panel, spec, posterior, draws=400):
        true = known.truth[:, :, part.index]
        errors.append(np.sqrt(((part.cells.mean(axis=0) - true) ** 2).mean(axis=1)) / np.abs(true.mean(axis=1)))
    return {
        "totals_rhat": rhat, "totals_min_ess": ess, "free_min_ess": free,
        "srmse": float(np.mean(errors)), "coverage_posterior": plain, "coverage_published": blurred,
        "rmse_log_total": float(np.sqrt(np.mean(np.log(totals.mean(axis=0).sum(axis=0) / truth.sum(axis=0)) ** 2))),
    }  # fmt: skip


def coverage(draws: Any, truth: Any) -> float:
    """Share of geo × channel totals inside their 90 % interval."""
    import numpy as np

    low, high = np.quantile(draws, [0.05, 0.95], axis=0)
    return float(((truth >= low) & (truth <= high)).mean())


if __name__ == "__main__":
    main()
