"""The best plan over channel, time and geo under limits, on posterior draws.

Starts are walked on a few draws, the best are finished on all, and the result is put into whole cents. A channel that
may only run from some amount on (`MinimumCampaign`) makes the set of plans disjoint: branch and bound over it.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from contracts.errors import ContractError
from planning.decision import CENT, Decision, build_decision, whole_cents
from planning.derivatives import derivatives
from planning.limits import Limit, MinimumCampaign, Rows, Rule, best_vertex, breach, build_rows, feasible_point
from planning.objective import Objective, score
from planning.solve import Local, Solved, knapsack, maximise, nearest
from planning.summary import weighted_interval
from planning.surface import Surface, evaluate, extrapolated, held, value_per_kpi

COARSE_DRAWS = 128
RANDOM_STARTS = 2
FINISHED = 2  # starts that are finished on all draws
MANY = 3000  # amounts above which fewer starts are walked
GRID = 61  # steps of the total in the dynamic programme
NODES = 40  # of the branch and bound over minimum campaigns


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What to plan. `reference` (T, G, C) is the plan that gains are counted from, and where undecided shares come
    from; None: today's spend held."""

    surface: Surface
    objective: Objective = Objective()
    decision: str = "channel"
    rules: tuple[Rule, ...] = ()
    campaigns: tuple[MinimumCampaign, ...] = ()
    reference: np.ndarray | None = None

    @property
    def base(self) -> np.ndarray:
        """The reference plan (T, G, C)."""
        return held(self.surface) if self.reference is None else self.reference


@dataclass(frozen=True, slots=True)
class Best:
    """The best plan found, what it brings, and how sure it is that nothing better exists."""

    spend: np.ndarray  # (T, G, C), plan currency, whole cents
    value: float  # the objective's figure
    draws: np.ndarray  # (D,) worth of the plan in the objective's unit, before any hurdle
    gain: np.ndarray  # (D,) over the reference plan on the same draw
    interval: dict[str, float]
    gain_interval: dict[str, float]
    gain_probability: float  # that the gain is positive
    gap: float  # what could at most be missing, as a share of the plan's worth (of 1 for a probability); a bound where
    # the objective is concave
    breach: float  # largest breach of a limit, plan currency (whole cents cost up to a few)
    extrapolated: tuple[str, ...]
    starts: int
    proved: bool  # False where branch and bound stopped at its limit of nodes


@dataclass(frozen=True, slots=True)
class _Evaluator:
    """The objective and its derivatives over the decided amounts."""

    surface: Surface
    objective: Objective
    decision: Decision
    worth: np.ndarray  # (T + L − 1,)
    reference: np.ndarray  # (D,) of the reference plan; 0 unless gains count
    scale: float  # what is at stake: expected worth of the reference plan, 1 for a probability

    def draws(self, z: np.ndarray) -> np.ndarray:
        spend = np.maximum(self.decision.cells(z), 0.0)
        brought = evaluate(self.surface, spend).plan.sum(axis=0) @ self.worth
        return brought - self.objective.cost * float(spend.sum()) - self.reference

    def value(self, z: np.ndarray) -> float:
        return score(self.objective, self.draws(z), self.surface.weights)[0]

    def local(self, z: np.ndarray) -> Local:
        _, q = score(self.objective, self.draws(z), self.surface.weights)
        spend = np.maximum(self.decision.cells(z), 0.0)
        found = derivatives(self.surface, spend, q, self.worth, second=True)
        assert found.blocks is not None
        gradient = self.decision.gradient(found.gradient - self.objective.cost * float(q.sum()))
        return Local(gradient, self.decision.blocks(found.blocks), self.decision.groups)


def optimise(problem: Problem, *, seed: int = 0, warm: Sequence[np.ndarray] = (), explore: bool = True) -> Best:
    """Best plan of `problem`; `warm` are plans (T, G, C) to start from as well, `seed` picks the random starts. Without
    `explore` only the `warm` plans are started from.

    Raises ContractError for limits that clash (named, with the smallest relaxation) or name what is not there.
    """
    surface = problem.surface
    decision = build_decision(surface, problem.decision, problem.reference)
    solved, proved, starts = _branch(problem, decision, seed if explore or not warm else None, warm)
    spend = whole_cents(np.maximum(decision.cells(solved.z), 0.0))
    rows = build_rows(surface, problem.rules, decision.to_cells, decision.top)
    return describe(problem, spend, gap=solved.gap, breach=breach(rows, decision.amounts(spend)), starts=starts,
                    proved=proved)  # fmt: skip


def describe(
    problem: Problem, spend: np.ndarray, *, gap: float = 0.0, breach: float = 0.0, starts: int = 0, proved: bool = True
) -> Best:
    """What a given plan (T, G, C) brings in the terms of `problem`; `gap` in units of the objective."""
    surface, objective = problem.surface, problem.objective
    worth = worth_of(surface, objective)
    margin = 1.0 if objective.unit == "margin" else 0.0
    both = [evaluate(surface, x).plan.sum(axis=0) @ worth - margin * float(x.sum()) for x in (spend, problem.base)]
    draws, gain = both[0], both[0] - both[1]
    counted = gain if objective.gain else draws
    spent = float(spend.sum()) - (float(problem.base.sum()) if objective.gain else 0.0)
    value, _ = score(objective, counted - objective.hurdle * spent, surface.weights)
    return Best(
        spend=spend,
        value=value,
        draws=draws,
        gain=gain,
        interval=weighted_interval(draws, surface.weights),
        gain_interval=weighted_interval(gain, surface.weights),
        gain_probability=min(float(surface.weights @ (gain > 0)), 1.0),
        gap=gap / _at_stake(objective, draws + margin * float(spend.sum()), surface.weights),
        breach=breach,
        extrapolated=extrapolated(surface, spend),
        starts=starts,
        proved=proved,
    )


def choose_and_value(problem: Problem, *, seed: int = 0) -> tuple[Best, Best]:
    """The plan chosen on every second draw, as it looks on those draws and on the others.

    The second is the figure to state: a maximum over plans is not valued by the draws that it was chosen on (the
    optimizer's curse; Smith and Winkler, 2006).
    """
    surface = problem.surface
    if surface.response.draws < 4:
        raise ContractError(f"choosing on one half of the draws needs at least 4; got {surface.response.draws}.")
    halves = []
    for k in (0, 1):
        at = np.arange(k, surface.response.draws, 2)
        part = surface.weights[at] / surface.weights[at].sum()
        halves.append(dataclasses.replace(problem, surface=take(surface, at, part)))
    chosen = optimise(halves[0], seed=seed)
    return chosen, describe(halves[1], chosen.spend, breach=chosen.breach, starts=chosen.starts, proved=chosen.proved)


def worth_of(surface: Surface, objective: Objective) -> np.ndarray:
    """Worth (T + L − 1,) of one KPI unit by period; 0 after the horizon where the objective leaves the tail out."""
    worth = value_per_kpi(surface, objective.unit).copy()
    if not objective.tail:
        worth[surface.periods :] = 0.0
    return worth


def coarse(surface: Surface, draws: int = COARSE_DRAWS) -> Surface:
    """The surface on `draws` draws, picked systematically in proportion to their weights."""
    if draws >= surface.response.draws:
        return surface
    comb = (np.arange(draws) + 0.5) / draws
    return take(surface, np.searchsorted(np.cumsum(surface.weights), comb).clip(0, len(surface.weights) - 1))


def take(surface: Surface, picked: np.ndarray, weights: np.ndarray | None = None) -> Surface:
    """The surface on the draws at `picked` (K,), with `weights` (K,), sum 1; equal ones where not given."""
    steady = surface.response.steady
    response = dataclasses.replace(
        surface.response,
        steady=dataclasses.replace(
            steady,
            amplitude=steady.amplitude[picked],
            half_saturation=steady.half_saturation[picked],
            slope=steady.slope[picked],
            weights=np.full(len(picked), 1.0 / len(picked)) if weights is None else weights,
        ),
        retention=surface.response.retention[picked],
        delay=surface.response.delay[picked],
    )
    by_draw = ("lag_weights", "amplitude", "log_half", "slope", "widen", "seen_share", "in_flight")
    return dataclasses.replace(surface, response=response, **{n: getattr(surface, n)[:, picked] for n in by_draw})


def _evaluator(problem: Problem, surface: Surface, decision: Decision) -> _Evaluator:
    worth, base = worth_of(surface, problem.objective), problem.base
    brought = evaluate(surface, base).plan.sum(axis=0) @ worth
    reference = brought - problem.objective.cost * float(base.sum()) if problem.objective.gain else 0.0 * brought
    scale = _at_stake(problem.objective, brought, surface.weights)
    return _Evaluator(surface, problem.objective, decision, worth, reference, scale)


def _at_stake(objective: Objective, brought: np.ndarray, weights: np.ndarray) -> float:
    """Size to which tolerances and gaps are relative: a probability is its own, a gain's would be near nothing."""
    return 1.0 if objective.kind == "probability" else max(abs(float(weights @ brought)), 1e-12)


def _branch(
    problem: Problem, decision: Decision, seed: int | None, warm: Sequence[np.ndarray]
) -> tuple[Solved, bool, int]:
    """Best-first branch and bound: every campaign between nothing and its minimum is tried off and on."""
    names = problem.surface.response.channels
    for campaign in problem.campaigns:
        if campaign.channel not in names:
            raise ContractError(
                f"{campaign.name!r} names a channel that is not there; the model knows {', '.join(names)}."
            )
    solve = _solver(problem, decision, seed)
    root, starts = solve((), warm)
    queue: list[tuple[float, int, tuple[Limit, ...], Solved]] = [(-root.value, 0, (), root)]
    count, incumbent, closed = 0, None, None
    while queue and count < NODES:
        bound, _, fixed, found = heapq.heappop(queue)
        if incumbent is not None and -bound <= incumbent.value:
            break
        broken = _broken(problem, decision, found.z, fixed)
        if broken is None:
            incumbent = found if incumbent is None or found.value > incumbent.value else incumbent
            continue
        for choice in (Limit(name=broken.name, high=0.0, channels=(broken.channel,)),
                       Limit(name=broken.name, low=broken.amount, channels=(broken.channel,))):  # fmt: skip
            count += 1
            try:
                child, _ = solve((*fixed, choice), (decision.cells(found.z),))
            except ContractError as error:
                closed = error
                continue
            heapq.heappush(queue, (-child.value, count, (*fixed, choice), child))
    if incumbent is None:
        raise closed or ContractError(f"no plan that keeps every minimum campaign was found in {NODES} tries.")
    return incumbent, not queue or -queue[0][0] <= incumbent.value, starts


def _broken(problem: Problem, decision: Decision, z: np.ndarray, fixed: Sequence[Limit]) -> MinimumCampaign | None:
    """The campaign furthest into the gap between nothing and its minimum."""
    spent = decision.cells(z).sum(axis=(0, 1))
    done = {f.name for f in fixed}
    worst, depth = None, 0.0
    for campaign in problem.campaigns:
        x = float(spent[problem.surface.response.channels.index(campaign.channel)])
        here = min(x, campaign.amount - x)
        if campaign.name not in done and here > max(depth, 0.5 / CENT):
            worst, depth = campaign, here
    return worst


Solve = Callable[[tuple[Limit, ...], Sequence[np.ndarray]], tuple[Solved, int]]


def _solver(problem: Problem, decision: Decision, seed: int | None) -> Solve:
    """Solves the problem with more limits added."""
    few = _evaluator(problem, coarse(problem.surface), decision)
    full = _evaluator(problem, problem.surface, decision)

    def solve(extra: tuple[Limit, ...], warm: Sequence[np.ndarray]) -> tuple[Solved, int]:
        rows = build_rows(problem.surface, (*problem.rules, *extra), decision.to_cells, decision.top)
        feasible_point(rows)
        starts = _starts(problem, decision, rows, few, seed, warm)
        steps = 60 if len(rows.top) <= MANY else 25
        walked = [
            maximise(few.value, few.local, s, rows, scale=few.scale, tolerance=1e-5, iterations=steps) for s in starts
        ]
        walked.sort(key=lambda w: w.value, reverse=True)
        kept = walked[: FINISHED if len(rows.top) <= MANY else 1]
        ends = [maximise(full.value, full.local, w.z, rows, scale=full.scale, iterations=steps) for w in kept]
        return max(ends, key=lambda e: e.value), len(starts)

    return solve


def _starts(
    problem: Problem, decision: Decision, rows: Rows, few: _Evaluator, seed: int | None, warm: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Feasible points: today's plan, plans given, the best split of its total on a grid (finds the basin of S-shaped
    curves), halfway to where today's slopes point, random ones; for a figure
    other than the mean also the best mean."""
    if seed is None:
        return [nearest(decision.amounts(w), rows) for w in warm]
    rng = np.random.default_rng(seed)
    today = nearest(decision.amounts(problem.base), rows)
    starts = [today, *(nearest(decision.amounts(w), rows) for w in warm)]
    starts.append(nearest(decision.amounts(_by_channel(problem, few.surface, decision.cells(today))), rows))
    if len(rows.top) <= MANY:
        vertex = best_vertex(few.local(today).gradient, rows)
        starts += [(today + vertex) / 2]
        for _ in range(RANDOM_STARTS):
            starts.append(nearest(today * rng.gamma(1.0, 1.0, len(today)), rows))
    if problem.objective.kind != "mean":
        mean = dataclasses.replace(few, objective=dataclasses.replace(problem.objective, kind="mean"))
        steps = 60 if len(rows.top) <= MANY else 25
        starts.append(
            maximise(mean.value, mean.local, today, rows, scale=few.scale, tolerance=1e-5, iterations=steps).z
        )
    return starts


def _by_channel(problem: Problem, surface: Surface, today: np.ndarray) -> np.ndarray:
    """The plan (T, G, C) that gives today's total to channels by dynamic programming over GRID steps, each channel's
    money lying as in `today`, or evenly where it has none. Limits on one channel's total are kept; the rest is not."""
    names = surface.response.channels
    low, high = np.zeros(len(names)), np.full(len(names), np.inf)
    for rule in problem.rules:
        if isinstance(rule, Limit) and rule.each != "period" and rule.geos is rule.first is rule.last is None:
            for channel in rule.channels or (names if rule.each == "channel" else ()):
                if rule.each == "channel" or rule.channels == (channel,):
                    c = names.index(channel)
                    low[c], high[c] = max(low[c], rule.low), min(high[c], rule.high)
    free = float(today.sum()) - low.sum()
    if free <= 0:
        return today
    pattern = build_decision(surface, "channel", today).pattern
    worth = worth_of(surface, problem.objective)
    steps = np.linspace(0.0, free, GRID)
    table = np.array([surface.weights @ (evaluate(surface, pattern * (low + s)).plan @ worth).T for s in steps]).T
    table = np.where(low[:, None] + steps <= high[:, None] + 1e-9, table, -np.inf)
    return pattern * (low + steps[knapsack(table)])
