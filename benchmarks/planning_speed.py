"""How long a plan takes to value and to find: 30 channels × 13 weeks, 1,000 draws, over 1 and 50 geos.

    python -m benchmarks.planning_speed --decision channel_period

The fixed total is today's, each channel within ± 30 %. Processor time stands beside wall time: the machine may
be shared. Memory is the largest of the process, imports included.
"""

from __future__ import annotations

import argparse
import resource
import time
from datetime import date

import numpy as np

from contracts.response import SteadyResponse
from contracts.surface import DynamicResponse
from planning.decision import KINDS
from planning.derivatives import derivatives
from planning.limits import Limit
from planning.objective import Objective
from planning.optimise import Problem, optimise
from planning.surface import Surface, build_surface, evaluate, held


def make_surface(channels: int, geos: int, draws: int, periods: int, seed: int = 0) -> Surface:
    """Random curves, half of them S-shaped, 13 lags."""
    rng = np.random.default_rng(seed)
    size, base, lags = rng.uniform(0.5, 2.0, geos), rng.uniform(50, 500, channels), 13
    spend = np.outer(size, base) * rng.uniform(0.8, 1.2, (geos, channels))
    height = size[:, None] * rng.uniform(20, 200, channels) * np.exp(0.3 * rng.standard_normal((draws, 1, channels)))
    response = DynamicResponse(
        steady=SteadyResponse(
            channels=tuple(f"c{i}" for i in range(channels)),
            geos=tuple(f"g{i}" for i in range(geos)),
            amplitude=height * (1 + 0.1 * rng.standard_normal((draws, geos, channels))),
            unit=1.0 / (base * size[:, None]),
            half_saturation=rng.uniform(0.5, 2.0, channels) * np.exp(0.2 * rng.standard_normal((draws, channels))),
            slope=rng.uniform(0.8, 1.4, channels) * np.exp(0.05 * rng.standard_normal((draws, channels))),
            current_spend=spend,
            observed_max=2.0 * spend.sum(axis=0),
            weights=np.full(draws, 1.0 / draws),
        ),
        retention=rng.uniform(0.2, 0.7, channels) * np.exp(0.1 * rng.standard_normal((draws, channels))).clip(0.5, 1.3),
        delay=rng.uniform(0.0, 2.0, channels) * np.ones((draws, channels)),
        lags=lags,
        recent=rng.uniform(0.5, 1.5, (geos, lags - 1, channels)),
        observed=np.full((geos, channels), 2.0),
        population=1000.0 * size,
        last_period=date(2025, 1, 6),
        period_days=7,
        currency="EUR",
        kpi_name="conversions",
        revenue_per_kpi=20.0,
    )
    return build_surface(response, date(2025, 1, 13), periods)


def main() -> None:
    """Prints one line a measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decision", choices=KINDS, default="channel_period")
    parser.add_argument("--objective", choices=("mean", "quantile", "cvar"), default="mean")
    parser.add_argument("--geos", type=int, default=50)
    parser.add_argument("--channels", type=int, default=30)
    parser.add_argument("--draws", type=int, default=1000)
    given = parser.parse_args()
    for geos in sorted({1, given.geos}):
        surface = make_surface(given.channels, geos, given.draws, 13)
        plan, one = held(surface), np.ones(surface.periods + surface.response.lags - 1)
        for name, call in (
            ("value", lambda s=surface, p=plan: evaluate(s, p)),
            ("gradient", lambda s=surface, p=plan, o=one: derivatives(s, p, s.weights, o)),
            ("gradient and curvature", lambda s=surface, p=plan, o=one: derivatives(s, p, s.weights, o, second=True)),
        ):
            times = []
            for _ in range(5):
                begun = time.perf_counter()
                call()
                times.append(time.perf_counter() - begun)
            print(f"{geos} geos: {name}: best of 5 {1000 * min(times):.0f} ms, worst {1000 * max(times):.0f} ms")
    today = held(surface).sum(axis=(0, 1))
    total = round(float(today.sum()), 2)
    bounds = [
        Limit(name=c, low=0.7 * x, high=1.3 * x, channels=(c,))
        for c, x in zip(surface.response.channels, today, strict=True)
    ]
    rules = (Limit(name="total", low=total, high=total), *bounds)
    objective = Objective(kind=given.objective, gain=given.objective != "mean")
    begun, used = time.perf_counter(), time.process_time()
    best = optimise(Problem(surface=surface, decision=given.decision, objective=objective, rules=rules))
    wall, used = time.perf_counter() - begun, time.process_time() - used
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{given.geos} geos, {given.decision}, {given.objective}: {wall:.1f} s wall, {used:.1f} s processor, "
        f"{memory:.2f} GB; value {best.value:.0f}, gap {best.gap:.1e}, off the total {best.spend.sum() - total:+.4f}"
    )


if __name__ == "__main__":
    main()
