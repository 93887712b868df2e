"""Questions that need more than one best plan: how little money, how much, at what risk, and where the next goes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from contracts.checks import positive
from contracts.errors import ContractError
from planning.decision import CENT, build_decision
from planning.limits import Limit, best_vertex, build_rows, feasible_point
from planning.objective import Objective
from planning.optimise import Best, Problem, optimise, worth_of
from planning.summary import weighted_interval
from planning.surface import evaluate

TOTAL = "total of the goal"
STEPS = 14  # halvings of the range of the total: one part in 16,000
SCAN = 8  # totals tried before halving


@dataclass(frozen=True, slots=True)
class Goal:
    """The total that a goal asks for and its best plan."""

    total: float  # plan currency
    probability: float  # of reaching the target, or of the ratio at least the asked one
    best: Best


def least_budget(problem: Problem, target: float, probability: float, *, most: float | None = None) -> Goal:
    """Least total whose best plan reaches `target` (unit of the objective) with `probability`.

    The plan at each total is the one with the highest quantile at 1 − probability. `most` bounds the total; today's
    largest observed spend over the horizon where not given. Raises ContractError where no total up to it is enough.
    """
    if not 0 < probability < 1:
        raise ContractError(f"the probability of a goal must lie between 0 and 1; got {probability}.")
    goal = dataclasses.replace(
        problem, objective=dataclasses.replace(problem.objective, kind="quantile", level=1 - probability, caution=1.0)
    )
    weights = problem.surface.weights

    def reached(best: Best) -> bool:
        return float(weights @ (best.draws >= target)) >= probability

    low, high = total_range(problem, most)
    top = _at(goal, high)
    if not reached(top):
        raise ContractError(
            f"no plan up to {high:,.2f} {problem.surface.currency} reaches {target:,.0f} with probability "
            f"{probability:.0%}: the best reaches it with {float(weights @ (top.draws >= target)):.0%}. Lower the "
            "target or the probability, or allow more spend."
        )
    bottom = _at(goal, low, top)
    if reached(bottom):
        return _goal(bottom, low, target, weights)
    total, best = _halve(goal, low, high, top, reached)
    return _goal(best, total, target, weights)


def largest_budget(
    problem: Problem, *, roi: float | None = None, cpa: float | None = None, most: float | None = None
) -> Goal:
    """Largest total whose best plan still brings `roi` (worth per currency) or costs at most `cpa` per KPI unit on
    average, in expectation.

    Raises ContractError unless exactly one is given, or where even the least total misses it.
    """
    if (roi is None) == (cpa is None):
        raise ContractError("a free total needs one of a target ROI and a target CPA.")
    ratio = roi if roi is not None else 1.0 / float(cpa or np.nan)
    positive(**({"roi": roi} if roi is not None else {"cpa": float(cpa or np.nan)}))
    unit = "kpi" if cpa is not None else ("revenue" if problem.objective.unit == "margin" else problem.objective.unit)
    goal = dataclasses.replace(problem, objective=Objective(unit=unit, tail=problem.objective.tail))
    weights = problem.surface.weights

    def kept(best: Best) -> bool:
        return float(weights @ best.draws) >= ratio * float(best.spend.sum())

    low, high = total_range(problem, most)
    start = max(low, 1e-3 * high)
    totals = np.linspace(start, high, SCAN)
    plans = [_at(goal, totals[-1])]
    for total in totals[-2::-1]:
        plans.insert(0, _at(goal, total, plans[0]))
    good = [i for i, p in enumerate(plans) if kept(p)]
    if not good:
        rate = max(float(weights @ p.draws) / float(p.spend.sum()) for p in plans)
        found = f"ROI is {rate:.2f}" if roi is not None else f"CPA is {1 / rate:.2f}"
        asked = f"ROI of {roi}" if roi is not None else f"CPA of {cpa}"
        raise ContractError(f"no total from {start:,.2f} to {high:,.2f} meets the {asked}: the best {found}.")
    last = good[-1]
    if last == len(plans) - 1:
        return Goal(high, float(weights @ (plans[-1].draws >= ratio * high)), plans[-1])
    total, best = _halve(goal, totals[last + 1], totals[last], plans[last], kept)
    return Goal(total, float(weights @ (best.draws >= ratio * total)), best)


def frontier(problem: Problem, points: int = 6) -> pd.DataFrame:
    """Return against risk: from the best mean to the best mean of the worst `level`, in between by mixing the two.

    Columns: caution (0 to 1), mean, cvar, p10, sd (unit of the objective), gain_mean, gain_probability, and `plan`, the
    Best itself. No row is worse than another in both mean and cvar beyond the solver's gap.
    """
    if points < 2:
        raise ContractError(f"a frontier needs at least 2 points; got {points}.")
    rows, last = [], None
    for caution in np.linspace(0.0, 1.0, points):
        objective = dataclasses.replace(problem.objective, kind="cvar", caution=float(caution))
        here = dataclasses.replace(problem, objective=objective)
        best = optimise(here) if last is None else optimise(here, warm=(last.spend,), explore=False)
        counted = best.gain if objective.gain else best.draws
        rows.append(
            {
                "caution": float(caution),
                "mean": float(problem.surface.weights @ counted),
                "cvar": lower_mean(counted, problem.surface.weights, objective.level),
                "p10": weighted_interval(counted, problem.surface.weights)["p10"],
                "sd": weighted_interval(counted, problem.surface.weights)["sd"],
                "gain_mean": best.gain_interval["mean"],
                "gain_probability": best.gain_probability,
                "plan": best,
            }
        )
        last = best
    return pd.DataFrame(rows)


def lower_mean(draws: np.ndarray, weights: np.ndarray, level: float) -> float:
    """Mean of the worst `level` of draws (D,) under weights (D,): the conditional value at risk."""
    order = np.argsort(draws, kind="stable")
    upper = np.minimum(np.cumsum(weights[order]), level)
    return float(np.diff(np.concatenate([[0.0], upper])) @ draws[order] / level)


def marginal_ranking(problem: Problem, spend: np.ndarray, amount: float = 10_000.0) -> pd.DataFrame:
    """Where the next `amount` (plan currency) goes: what it would bring in each channel, best first.

    The money follows the channel's own periods and geos in `spend` (T, G, C), or the decision's pattern where it has
    none. Columns: channel, spend (now), worth of the extra money as mean, sd and p05 to p95, per_currency (its mean per
    unit of money: mROAS where the unit is revenue), beats_hurdle (probability), extrapolated (bool).
    """
    positive(amount=amount)
    surface, objective = problem.surface, problem.objective
    worth, weights = worth_of(surface, objective), surface.weights
    pattern = build_decision(surface, "channel", spend).pattern
    now = evaluate(surface, spend).plan
    bar = max(objective.hurdle, 1.0) if objective.unit in ("revenue", "margin") else objective.hurdle
    rows = []
    for c, channel in enumerate(surface.response.channels):
        if not pattern[:, :, c].any():
            continue
        more = spend.copy()
        more[:, :, c] += amount * pattern[:, :, c]
        extra = (evaluate(surface, more).plan[c] - now[c]) @ worth
        over = (surface.per_spend[:, :, c] * more[:, :, c] > surface.seen[c] * (1 + 1e-9)).any()
        rows.append(
            {"channel": channel, "spend": float(spend[:, :, c].sum())}
            | weighted_interval(extra, weights)
            | {
                "per_currency": float(weights @ extra) / amount,
                "beats_hurdle": min(float(weights @ (extra >= bar * amount)), 1.0),
                "extrapolated": bool(over),
            }
        )
    return pd.DataFrame(rows).sort_values("mean", ascending=False, ignore_index=True)


def total_range(problem: Problem, most: float | None = None) -> tuple[float, float]:
    """Least and largest total (plan currency) that the rules allow, the latter at most `most`."""
    surface = problem.surface
    if most is None:
        most = float(surface.response.steady.observed_max.sum()) * surface.periods / surface.assumptions.rate
    decision = build_decision(surface, problem.decision, problem.reference)
    rules = (*problem.rules, Limit(name=TOTAL, high=most))
    rows = build_rows(surface, rules, decision.to_cells, decision.top)
    feasible_point(rows)
    one = np.ones(len(rows.top))
    least, largest = (float(best_vertex(sign * one, rows).sum()) for sign in (-1.0, 1.0))
    return np.ceil(least * CENT - 1e-4) / CENT, np.floor(largest * CENT + 1e-4) / CENT


def _at(problem: Problem, total: float, near: Best | None = None) -> Best:
    """Best plan of a total, from the plan of a total nearby where there is one."""
    fixed = dataclasses.replace(problem, rules=(*problem.rules, Limit(name=TOTAL, low=total, high=total)))
    if near is None:
        return optimise(fixed)
    scaled = near.spend * (total / max(float(near.spend.sum()), 1e-12))
    return optimise(fixed, warm=(scaled,), explore=False)


def _halve(problem: Problem, bad: float, good: float, best: Best, holds: Callable[[Best], bool]) -> tuple[float, Best]:
    """The total nearest to `bad` whose best plan holds, by halving between the two."""
    for _ in range(STEPS):
        middle = round((bad + good) / 2, 2)
        found = _at(problem, middle, best)
        if holds(found):
            good, best = middle, found
        else:
            bad = middle
    return good, best


def _goal(best: Best, total: float, target: float, weights: np.ndarray) -> Goal:
    return Goal(total, min(float(weights @ (best.draws >= target)), 1.0), best)
