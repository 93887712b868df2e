"""User trials from noisy totals: coverage and false positives of every estimator, and of always-valid looks.

`python -m benchmarks.lift_trials --help`. People are of a few types; a trial's totals are a multinomial count of types
times the types' values, so 20,000 trials of any size cost no more than 20,000 multinomial draws. Noise of `times` x the
sampling sd of each total is added to every total, n included.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lift.arms import (
    adjusted,
    among_exposed,
    complier_effect,
    differences,
    intention_to_treat,
    ratio,
    stratified,
    uncertain,
    without_before,
)
from lift.sequential import mixture_sequence, spending_sequence
from lift.totals import Estimate, Totals, added

COMPONENTS = (
    "n", "conversions", "conversions*conversions", "visits", "visits*visits", "conversions*visits",
    "pre_visits", "pre_visits*pre_visits", "conversions*pre_visits", "pre_visits*visits",
    "exposed", "conversions*exposed", "conversions*conversions*exposed",
)  # fmt: skip


@dataclass(frozen=True)
class World:
    """Types of people: columns stratum, pre_visits, would be exposed, visits, conversions; chance per arm."""

    effect: float = 0.0  # added chance of converting for a person who is exposed in the treated arm
    base: float = 0.05
    reach: float = 0.5

    def types(self, treated: bool) -> tuple[np.ndarray, np.ndarray]:
        """(types, 5) values and (types,) chances."""
        rows, chance = [], []
        for stratum, pre, exposed, visits in itertools.product((0, 1), (0, 1, 2), (0, 1), (0, 1, 2, 3)):
            p = 0.5 * (0.6, 0.3, 0.1)[pre] * (self.reach if exposed else 1 - self.reach)
            busy = 0.15 + 0.15 * pre + 0.1 * stratum
            p *= (1 - busy, busy * 0.6, busy * 0.3, busy * 0.1)[visits]
            buy = self.base * (0.4 + 0.8 * pre + 0.5 * visits + 0.3 * stratum)
            buy = buy + self.effect * exposed if treated else buy
            for converted in (0, 1):
                rows.append((stratum, pre, exposed, visits, converted))
                chance.append(p * (buy if converted else 1 - buy))
        return np.array(rows, float), np.array(chance)

    def truth(self) -> dict[str, float]:
        """True value of every estimand."""
        means = []
        for treated in (False, True):
            rows, chance = self.types(treated)
            _, _, exposed, visits, converted = rows.T
            means.append((chance @ converted, chance @ visits))
        itt = means[1][0] - means[0][0]
        quotient = means[1][0] / means[1][1] - means[0][0] / means[0][1]
        return {
            "itt": itt,
            "cuped": itt,
            "stratified cuped": itt,
            "stratified": itt,
            "ratio": quotient,
            "ghost": self.effect,
            "late": self.effect,
        }


def components(rows: np.ndarray, logged: bool) -> np.ndarray:
    """(types, C). `logged`: exposure is what would be (ghost ads), else 0 (control arm not exposed)."""
    _, pre, exposed, visits, converted = rows.T
    e = exposed * logged
    return np.stack(
        [
            np.ones(len(rows)), converted, converted**2, visits, visits**2, converted * visits, pre, pre**2,
            converted * pre, visits * pre, e, converted * e, converted**2 * e,
        ],
        axis=-1,
    )  # fmt: skip


def draw(
    rng: np.random.Generator, world: World, people: int, trials: int, times: float, *, treated: bool, logged: bool,
    stratum: int | None = None,
) -> Totals:  # fmt: skip
    """Noisy totals of one arm in `trials` trials."""
    rows, chance = world.types(treated)
    if stratum is not None:
        keep = rows[:, 0] == stratum
        rows, chance = rows[keep], chance[keep] / chance[keep].sum()
        people = people // 2
    values = components(rows, logged or treated)
    totals = rng.multinomial(people, chance, size=trials) @ values
    variance = people * (chance @ values**2 - (chance @ values) ** 2)
    variance[0] = variance[1]  # n itself does not vary here; its noise is that of the conversions
    noise = np.broadcast_to(times**2 * variance, totals.shape)
    noisy = totals + rng.standard_normal(totals.shape) * np.sqrt(noise)
    return Totals("treated" if treated else "control", COMPONENTS, noisy, noise.copy())


def coverage(world: World, people: int, trials: int, times: float, seed: int) -> dict[str, tuple[float, float, float]]:
    """Per estimator: coverage of the truth, share of p < 0.05, median interval width."""
    rng = np.random.default_rng(seed)
    truth = world.truth()

    def pair(logged: bool, stratum: int | None = None) -> tuple[Totals, Totals]:
        t, c = (
            draw(rng, world, people, trials, times, treated=a, logged=logged, stratum=stratum) for a in (True, False)
        )
        return t, c

    one, ghost, strata = pair(False), pair(True), {"a": pair(False, 0), "b": pair(False, 1)}
    found = {
        "itt": intention_to_treat(*one, "conversions"),
        "cuped": adjusted(*one, "conversions", "pre_visits"),
        "stratified cuped": _within_strata(list(strata.values())),
        "stratified": stratified(strata, "conversions"),
        "ratio": ratio(*one, "conversions", "visits"),
        "ghost": among_exposed(*ghost, "conversions"),
    }
    out = {}
    for name, e in found.items():
        out[name] = _row(*e.interval(), e.p_value(), truth[name])
    late = complier_effect(*one, "conversions")
    out["late"] = _row(late.lower, late.upper, late.p_value, truth["late"])
    return out


def _within_strata(pairs: list[tuple[Totals, Totals]]) -> Estimate:
    """The published reading of a test that declares strata and a value from before."""
    both = differences(pairs, ["conversions", "pre_visits"])
    return uncertain(both, *without_before(both, 0, 1))


def _row(lower: np.ndarray, upper: np.ndarray, p: np.ndarray, truth: float) -> tuple[float, float, float]:
    inside = (lower <= truth) & (truth <= upper)
    return float(inside.mean()), float((p < 0.05).mean()), float(np.median(upper - lower))


def looks(
    world: World, weekly: int, weeks: int, trials: int, times: float, seed: int, level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """Share of trials covered at every look, and share whose interval ever leaves out 0."""
    rng = np.random.default_rng(seed)

    def arm(treated: bool) -> Totals:
        return draw(rng, world, weekly, trials, times, treated=treated, logged=False)

    pairs = [(arm(True), arm(False)) for _ in range(weeks)]
    truth = world.truth()["itt"]
    mixed = mixture_sequence(pairs, "conversions", planned_looks=weeks, level=level)
    spent = spending_sequence(pairs, "conversions", level=level)  # weekly effects, each look its own
    naive = [
        intention_to_treat(_sum(pairs, k, 0), _sum(pairs, k, 1), "conversions").interval(level)
        for k in range(1, weeks + 1)
    ]
    held = np.stack([(lo <= truth) & (truth <= hi) for lo, hi in naive], -1).all(-1)
    out = {"fixed-sample interval at every look": (float(held.mean()), float("nan"))}
    for name, s in (("normal mixture", mixed), ("spending", spent)):
        all_in = ((s.lower <= truth) & (truth <= s.upper)).all(-1)
        out[name] = (float(all_in.mean()), float((s.stopped_at() >= 0).mean()))
    return out


def _sum(pairs: list[tuple[Totals, Totals]], k: int, side: int) -> Totals:
    return added([p[side] for p in pairs[:k]])


def main() -> None:
    """Prints two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20_000)
    parser.add_argument("--look-trials", type=int, default=10_000)
    parser.add_argument("--people", type=int, default=20_000, help="per arm")
    parser.add_argument("--weekly", type=int, default=4_000, help="people per arm and week of the running test")
    parser.add_argument("--weeks", type=int, default=12)
    parser.add_argument("--effect", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=1)
    a = parser.parse_args()
    show: Callable[[str], None] = print
    show("| noise / sampling sd | effect | estimator | coverage | p < 0.05 | median width |\n|---|---|---|---|---|---|")
    for times, effect in itertools.product((0.0, 1.0, 3.0), (0.0, a.effect)):
        for name, row in coverage(World(effect), a.people, a.trials, times, a.seed).items():
            show(f"| {times:g} | {effect:g} | {name} | {row[0]:.4f} | {row[1]:.4f} | {row[2]:.5f} |")
    show(
        "\n| noise / sampling sd | effect | interval | covered at every look | ever leaves out 0 |\n"
        "|---|---|---|---|---|"
    )
    for times, effect in itertools.product((0.0, 1.0, 3.0), (0.0, a.effect)):
        for name, both in looks(World(effect), a.weekly, a.weeks, a.look_trials, times, a.seed + 1).items():
            show(f"| {times:g} | {effect:g} | {name} | {both[0]:.4f} | {both[1]:.4f} |")


if __name__ == "__main__":
    main()
