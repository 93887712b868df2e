"""Does a recommended plan win in truth? Small worlds whose true curves are known, and posteriors that are honest.

Each world draws true curves from a prior: height, half-saturation, slope, carry-over per channel. Each channel is then
measured at four spend levels with noise; the posterior is found by importance sampling of the same prior given those
four readings (exact up to Monte Carlo error, one channel at a time), so that stated uncertainty is true uncertainty.
A plan for 13 weeks at today's budget, channels within ± 30 %, is then chosen and played against the true curves.

    python -m benchmarks.planning_worlds --worlds 200

Reported: share of worlds in which a plan truly beats today's split; the tenth percentile over worlds of the true gain
under the P10 plan minus that under the mean plan, with a paired bootstrap; coverage of the stated 80 % interval of the
gain, valued on the draws that chose the plan and on the others. Gains are shares of what today's split truly brings.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd

from contracts.response import SteadyResponse
from contracts.surface import DynamicResponse
from planning.limits import Limit
from planning.objective import Objective
from planning.optimise import Problem, choose_and_value, describe, optimise
from planning.surface import Assumptions, Surface, build_surface, evaluate, held

LAGS, PERIODS = 9, 13
LEVELS = np.array([0.5, 0.8, 1.0, 1.3])  # of today's spend, at which each channel was measured
PRIOR_DRAWS = 200_000
PLANS = ("mean", "p10", "half p10", "mean on half", "p10 on half")  # half p10: the average of mean and P10


@dataclass(frozen=True)
class World:
    """True curves and posterior draws of the same channels."""

    truth: Surface
    posterior: Surface
    ess: float  # smallest over the channels
    log_sd: float  # of a channel's response today under the posterior, mean over channels: how well it is measured


def prior(rng: np.random.Generator, size: int, channels: int) -> dict[str, np.ndarray]:
    """Draws (size, channels) of the curve parameters; spend 1 is today's, height 1 a typical channel."""
    shape = (size, channels)
    return {
        "height": np.exp(0.5 * rng.standard_normal(shape)),
        "half": 1.5 * np.exp(0.6 * rng.standard_normal(shape)),
        "slope": 1.1 * np.exp(0.25 * rng.standard_normal(shape)),
        "retention": rng.beta(2.0, 3.0, shape),
    }


def steady(values: dict[str, np.ndarray], spend: np.ndarray) -> np.ndarray:
    """Response (N, C, levels) of a spend held, in the prior's units."""
    dose = spend ** values["slope"][..., None]
    return values["height"][..., None] * dose / (dose + values["half"][..., None] ** values["slope"][..., None])


def make_world(seed: int, *, channels: int, noise: float, draws: int) -> World:
    """One world; `noise` is the standard error of one reading as a share of the channel's true response today."""
    rng = np.random.default_rng(seed)
    truth = prior(rng, 1, channels)
    size = rng.dirichlet(np.full(channels, 3.0)) * channels  # today's spend and typical height of each channel
    real = steady(truth, LEVELS)[0]
    error = noise * steady(truth, np.ones(1))[0]
    read = real + error * rng.standard_normal(real.shape)
    kept = {name: np.empty((draws, channels)) for name in truth}
    ess = np.inf
    for c in range(channels):
        tries = {name: v[:, 0] for name, v in prior(rng, PRIOR_DRAWS, 1).items()}
        off = (steady({n: v[:, None] for n, v in tries.items()}, LEVELS)[:, 0] - read[c]) / error[c]
        weight = np.exp(-0.5 * (off**2).sum(axis=1) + 0.5 * (off**2).sum(axis=1).min())
        ess = min(ess, float(weight.sum() ** 2 / (weight**2).sum()))
        at = rng.choice(PRIOR_DRAWS, draws, p=weight / weight.sum())
        for name in kept:
            kept[name][:, c] = tries[name][at]
    log_sd = float(np.log(steady(kept, np.ones(1))[..., 0]).std(axis=0).mean())
    return World(_surface(truth, size), _surface(kept, size), ess, log_sd)


def _surface(values: dict[str, np.ndarray], size: np.ndarray) -> Surface:
    """Surface of the curves, today's spend in flight."""
    draws, channels = values["height"].shape
    response = DynamicResponse(
        steady=SteadyResponse(
            channels=tuple(f"c{i}" for i in range(channels)),
            geos=("national",),
            amplitude=(100.0 * size * values["height"])[:, None, :],
            unit=(1.0 / (1000.0 * size))[None],
            half_saturation=values["half"],
            slope=values["slope"],
            current_spend=(1000.0 * size)[None],
            observed_max=1300.0 * size,
            weights=np.full(draws, 1.0 / draws),
        ),
        retention=values["retention"],
        delay=np.zeros((draws, channels)),
        lags=LAGS,
        recent=np.ones((1, LAGS - 1, channels)),
        observed=np.full((1, channels), LEVELS[-1]),
        population=np.ones(1),
        last_period=date(2025, 1, 6),
        period_days=7,
        currency="EUR",
        kpi_name="conversions",
        revenue_per_kpi=None,
    )
    return build_surface(response, date(2025, 1, 13), PERIODS, Assumptions())


def play(world: World, share: float, plans: tuple[str, ...] = PLANS) -> list[dict[str, float | str]]:
    """True and stated gain of each plan, as shares of what today's split truly brings."""
    surface, today = world.posterior, held(world.posterior).sum(axis=(0, 1))
    budget = round(float(today.sum()), 2)
    bounds = [
        Limit(name=c, low=(1 - share) * x, high=(1 + share) * x, channels=(c,))
        for c, x in zip(surface.response.channels, today, strict=True)
    ]
    rules = (Limit(name="total", low=budget, high=budget), *bounds)
    base = float(evaluate(world.truth, held(world.truth)).plan.sum())
    rows: list[dict[str, float | str]] = []
    for name in plans:
        caution = 0.5 if name.startswith("half") else 1.0
        kind = "mean" if name.startswith("mean") else "quantile"
        objective = Objective(kind=kind, level=0.1, caution=caution, gain=True)
        problem = Problem(surface=surface, objective=objective, rules=rules)
        best = choose_and_value(problem)[1] if name.endswith("on half") else optimise(problem)
        true = describe(Problem(surface=world.truth), best.spend).gain
        stated = best.gain_interval
        rows.append(
            {"plan": name, "true": float(true[0]) / base, "stated": stated["mean"] / base, "p10": stated["p10"] / base,
             "p90": stated["p90"] / base, "probability": best.gain_probability, "gap": best.gap}
        )  # fmt: skip
    return rows


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row a plan: share of true wins, true and stated gain, tenth percentile of the true gain, coverage."""
    rows = []
    for name in dict.fromkeys(table["plan"]):
        part = table[table["plan"] == name]
        inside = (part["true"] >= part["p10"]) & (part["true"] <= part["p90"])
        rows.append(
            {
                "plan": name,
                "wins": (part["true"] > 0).mean(),
                "stated wins": part["probability"].mean(),
                "true gain": part["true"].mean(),
                "stated gain": part["stated"].mean(),
                "stated p10": part["p10"].mean(),
                "tenth percentile": part["true"].quantile(0.1),
                "covered by 80 %": inside.mean(),
            }
        )
    return pd.DataFrame(rows)


def compare_tails(table: pd.DataFrame, cautious: str, bold: str, repeats: int = 4000) -> dict[str, float]:
    """Tenth percentile over worlds of the true gain, `cautious` minus `bold`: estimate, 90 % interval, share over 0."""
    wide = table.pivot(index="world", columns="plan", values="true")[[cautious, bold]].to_numpy()
    at = np.random.default_rng(0).integers(0, len(wide), (repeats, len(wide)))
    tenth = np.quantile(wide[at], 0.1, axis=1)  # (repeats, 2)
    difference = tenth[:, 0] - tenth[:, 1]
    low, high = np.quantile(difference, [0.05, 0.95])
    now = np.quantile(wide, 0.1, axis=0)
    return {"difference": now[0] - now[1], "low": low, "high": high, "share over 0": float((difference > 0).mean())}


def main() -> None:
    """Runs the study and prints its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=200)
    parser.add_argument("--channels", type=int, default=5)
    parser.add_argument("--noise", type=float, default=0.4, help="standard error of one of four readings, share")
    parser.add_argument("--change", type=float, default=0.3, help="how far a channel may move")
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plans", nargs="+", choices=PLANS, default=list(PLANS))
    given = parser.parse_args()
    begun, rows, ess, sds = time.perf_counter(), [], [], []
    for i in range(given.worlds):
        world = make_world(given.seed + i, channels=given.channels, noise=given.noise, draws=given.draws)
        ess.append(world.ess)
        sds.append(world.log_sd)
        rows += [{"world": i} | row for row in play(world, given.change, tuple(given.plans))]
    table = pd.DataFrame(rows)
    pd.set_option("display.width", 200, "display.max_columns", 20)
    print(f"{given.worlds} worlds in {time.perf_counter() - begun:.0f} s; smallest effective draws {min(ess):.0f}; "
          f"log sd of a channel {np.mean(sds):.2f}; largest gap {table['gap'].max():.1e}")  # fmt: skip
    print(summary(table).round(4).to_string(index=False))
    for cautious, bold in (("p10", "mean"), ("half p10", "mean"), ("p10 on half", "mean on half")):
        if not {cautious, bold} <= set(given.plans):
            continue
        found = {k: round(v, 5) for k, v in compare_tails(table, cautious, bold).items()}
        print(f"tenth percentile of the true gain, {cautious} minus {bold}: {found}")


if __name__ == "__main__":
    main()
