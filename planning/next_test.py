"""Which experiment next: the expected value of sample information (EVSI) of candidate tests.

    EVSI = E_y[ max_b E(U(b) | y) ] − max_b E(U(b)),     y[k] = L_k + se_k z

U(b)[d] is the worth of plan b on draw d, L_k[d] what test k would truly show there, se_k its standard error by design,
released noise included. Nothing is fitted again: given y, draws are weighted by the normal density of y − L_k
(attribution_and_interface 3.6; Strong, Oakley and Brennan, 2014, for the problem).

Cross-fitting keeps it honest: a plan is chosen on one half of the draws, for an outcome y that a draw of the other half
would give, and valued on that very draw; then the halves change places. A value is a mean of paired differences
U(b(y)) − U(b*) on one draw, so it cannot exceed what perfect information is worth (the mean of max_b U(b) − U(b*)).
The plan leaves b* only where the half that chooses sees the gain beyond its own Monte Carlo error: a test that says
nothing then changes nothing.

| on paper | here | dims | unit |
|---|---|---|---|
| U | worth | draw, plan | KPI units or money |
| L | readings | draw, test | KPI units of the test |
| y | | | KPI units of the test |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from contracts.checks import non_negative, positive
from contracts.errors import ContractError
from planning.decision import build_decision
from planning.limits import best_vertex, build_rows
from planning.loss import PlanWorth
from planning.optimise import Problem, coarse, optimise
from planning.scenarios import DUST
from planning.solve import nearest
from planning.summary import weighted_quantile
from planning.surface import Surface, held

NOISES = 4  # outcomes per draw
SURE = 2.0  # Monte Carlo errors by which a gain must be seen before the plan is changed
CHUNK = 512  # outcomes at a time
COLUMNS = (
    "test", "channel", "kind", "weeks", "spend_change", "std_error", "mde", "expected_lift", "cost", "value",
    "value_se", "perfect_information", "ess", "share_changed", "decision", "net_value",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A test that could be run. Money is plan currency."""

    name: str
    channel: str
    kind: str  # 'geo' or 'user', and what is done: free text of the designer
    weeks: float
    spend_change: float  # over the test, signed; what its lift is the effect of
    reach: float  # share of the channel's outcome that the test can move, (0, 1]
    std_error: float  # of the lift, KPI units, released noise included
    mde: float  # smallest lift that it finds with the designer's power, KPI units
    cost: float  # of running it, >= 0: media added, outcome forgone, work

    def __post_init__(self) -> None:
        positive(weeks=self.weeks, std_error=self.std_error)
        non_negative(cost=self.cost, mde=self.mde)
        if not 0 < self.reach <= 1 or self.spend_change == 0:
            raise ContractError(f"candidate {self.name!r} needs a reach in (0, 1] and a spend change other than 0.")


@dataclass(frozen=True, slots=True)
class Value:
    """What one test is worth before it is run."""

    value: float  # unit of `worth`
    std_error: float  # Monte Carlo, over draws
    perfect: float  # what knowing the draw would be worth
    ess: float  # median effective draws behind a decision
    share_changed: float  # of outcomes that change the plan
    threshold: tuple[float, float]  # outcomes below and above which the plan changes in more than half of cases


def sample_information(
    worth: np.ndarray, reading: np.ndarray, std_error: float, *, noises: int = NOISES, seed: int = 0
) -> Value:
    """EVSI of one test with readings (D,) and one standard error, for plans of `worth` (D, B), draws equally weighted.

    Raises ContractError for shapes that do not fit or fewer than 40 draws.
    """
    if worth.ndim != 2 or reading.shape != worth.shape[:1] or len(worth) < 40:
        raise ContractError(
            f"the value of a test needs at least 40 draws of worth (D, B) and readings (D,); got {worth.shape} and "
            f"{reading.shape}."
        )
    positive(std_error=std_error)
    rng = np.random.default_rng(seed)
    half = np.arange(len(worth)) % 2
    gains, best, sizes, changed, outcomes = (np.zeros((noises, len(worth))) for _ in range(5))
    for k in (0, 1):
        choose, value = np.flatnonzero(half == k), np.flatnonzero(half != k)
        first = int(worth[choose].mean(axis=0).argmax())
        gain = worth - worth[:, [first]]
        gain[np.abs(gain) <= DUST * np.abs(worth[:, [first]])] = 0.0  # a copy of the present plan is no other plan
        best[:, value] = gain[value].max(axis=1)
        y = reading[value] + std_error * _normals(rng, noises, len(value))
        picked, ess = _choose(gain[choose].astype(np.float32), reading[choose], y.ravel(), std_error)
        at = np.tile(value, noises)
        gains[:, value] = np.where(picked >= 0, gain[at, np.maximum(picked, 0)], 0.0).reshape(noises, -1)
        sizes[:, value], outcomes[:, value] = ess.reshape(noises, -1), y
        changed[:, value] = (picked >= 0).reshape(noises, -1)
    each = gains.mean(axis=0)
    return Value(
        value=float(each.mean()),
        std_error=float(each.std(ddof=1) / np.sqrt(len(each))),
        perfect=float(best.mean()),
        ess=float(np.median(sizes)),
        share_changed=float(changed.mean()),
        threshold=_threshold(outcomes.ravel(), changed.ravel() > 0),
    )


def _normals(rng: np.random.Generator, noises: int, draws: int) -> np.ndarray:
    """Antithetic standard normals (noises, draws)."""
    first = rng.standard_normal(((noises + 1) // 2, draws))
    return np.concatenate([first, -first])[:noises]


def _choose(
    gain: np.ndarray, reading: np.ndarray, outcomes: np.ndarray, std_error: float
) -> tuple[np.ndarray, np.ndarray]:
    """Best plan (N,) for each outcome on the draws of one half, -1 where none is surely better than the present one,
    and the effective number of draws behind it (N,)."""
    picked, sizes = np.full(len(outcomes), -1), np.zeros(len(outcomes))
    square = gain**2
    for start in range(0, len(outcomes), CHUNK):
        y = outcomes[start : start + CHUNK]
        log_w = -0.5 * ((y[:, None] - reading) / std_error) ** 2
        w = np.exp(log_w - log_w.max(axis=1, keepdims=True)).astype(np.float32)
        w /= w.sum(axis=1, keepdims=True)
        mean = w @ gain
        at = mean.argmax(axis=1)
        rows = np.arange(len(y))
        top = mean[rows, at]
        size = 1.0 / (w**2).sum(axis=1)
        second = np.einsum("nd,nd->n", w, square[:, at].T)
        error = np.sqrt(np.maximum(second - top**2, 0.0) / np.maximum(size, 1.0))
        picked[start : start + CHUNK] = np.where(top > SURE * error, at, -1)
        sizes[start : start + CHUNK] = size
    return picked, sizes


def _threshold(outcomes: np.ndarray, changed: np.ndarray) -> tuple[float, float]:
    """Largest outcome below which, and smallest above which, more than half of the outcomes change the plan; infinite
    where no outcome does."""
    middle = float(np.median(outcomes))
    low, high = -np.inf, np.inf
    edges = np.quantile(outcomes, np.linspace(0, 1, 41))
    for a, b in zip(edges[:-1], edges[1:], strict=True):
        inside = (outcomes >= a) & (outcomes <= b)
        if inside.any() and changed[inside].mean() > 0.5:
            low, high = (max(low, float(b)), high) if b <= middle else (low, min(high, float(a)))
    return low, high


def plans_to_choose_from(
    problem: Problem, count: int = 200, seed: int = 0, *, best: np.ndarray | None = None
) -> np.ndarray:
    """Plans (B, T, G, C) that a test could lead to: the best one first, today's, each channel at its most and least and
    halfway there, and random mixtures; all keep the problem's limits. `best` is the best plan where it is known."""
    rng = np.random.default_rng(seed)
    few = coarse(problem.surface, 64)
    decision = build_decision(few, problem.decision, problem.reference)
    rows = build_rows(few, problem.rules, decision.to_cells, decision.top)
    top = decision.amounts(optimise(problem).spend if best is None else best)
    corners = [top, nearest(decision.amounts(problem.base), rows)]
    for c in range(len(few.response.channels)):
        for sign in (1.0, -1.0):
            toward = np.zeros(few.shape)
            toward[:, :, c] = sign
            vertex = best_vertex(decision.gradient(toward), rows)
            corners += [vertex, (vertex + top) / 2]
    while len(corners) < count:
        mix = rng.dirichlet(np.full(4, 0.7))
        chosen = rng.integers(0, min(len(corners), 2 + 4 * len(few.response.channels)), 4)
        corners.append(sum(m * corners[i] for m, i in zip(mix, chosen, strict=True)))
    return np.stack([np.maximum(decision.cells(z), 0.0) for z in corners[:count]])


def readings(surface: Surface, candidates: Sequence[Candidate]) -> np.ndarray:
    """True lift (D, K) of each test, KPI units: what the channel's outcome changes by when `spend_change` is laid over
    the test's weeks, at the reach of its geos or people."""
    steady, period = surface.response.steady, surface.response.period_days / 7
    out = np.empty((surface.response.draws, len(candidates)))
    now = steady.current_spend
    for k, test in enumerate(candidates):
        c = _channel(surface, test)
        periods = test.weeks / period
        base = now[:, c].copy()
        base = base if base.sum() > 0 else held(surface, np.eye(len(surface.response.channels))[c])[0, :, c]
        step = test.spend_change * surface.assumptions.rate / periods / test.reach / base.sum()
        plan = np.zeros((2, *now.shape))
        plan[0, :, c], plan[1, :, c] = now[:, c], np.maximum(now[:, c] + step * base, 0.0)
        change = steady.evaluate(plan[1])[:, :, c].sum(axis=1) - steady.evaluate(plan[0])[:, :, c].sum(axis=1)
        out[:, k] = test.reach * periods * change
    return out


def _channel(surface: Surface, test: Candidate) -> int:
    if test.channel not in surface.response.channels:
        known = ", ".join(surface.response.channels)
        raise ContractError(f"candidate {test.name!r} tests channel {test.channel!r}; the model knows {known}.")
    return surface.response.channels.index(test.channel)


def rank(
    problem: Problem, found: PlanWorth, candidates: Sequence[Candidate], *, money_per_unit: float | None = None,
    seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """Candidates by what they are worth, best first; COLUMNS. `found` is the worth of `plans_to_choose_from`.

    value, value_se and perfect_information are in the objective's unit over the planning period; net_value is
    value × `money_per_unit` − cost where a unit of the objective has a price in plan currency, else NaN. `decision`
    says in one sentence which outcome changes the plan. Draws of the surface must be equally weighted.
    """
    if not np.allclose(problem.surface.weights, problem.surface.weights[0]):
        raise ContractError("the value of a test needs equally weighted draws; resample the response first.")
    shifts, worth, lifts = found.plans, found.draws, readings(problem.surface, candidates)
    rows = []
    for k, test in enumerate(candidates):
        value = sample_information(worth, lifts[:, k], test.std_error, seed=seed)
        net = value.value * money_per_unit - test.cost if money_per_unit is not None else np.nan
        rows.append(
            {
                "test": test.name, "channel": test.channel, "kind": test.kind, "weeks": test.weeks,
                "spend_change": test.spend_change, "std_error": test.std_error, "mde": test.mde, "cost": test.cost,
                "expected_lift": float(lifts[:, k].mean()), "value": value.value, "value_se": value.std_error,
                "perfect_information": value.perfect, "ess": value.ess, "share_changed": value.share_changed,
                "net_value": net, "decision": _sentence(problem, test, value, worth, shifts, lifts[:, k]),
            }
        )  # fmt: skip
    by = ["net_value" if money_per_unit is not None else "value"]
    return pd.DataFrame(rows, columns=list(COLUMNS)).sort_values(by, ascending=False, ignore_index=True)


def _sentence(
    problem: Problem, test: Candidate, found: Value, worth: np.ndarray, plans: np.ndarray, lift: np.ndarray
) -> str:
    """Which outcome changes the plan, and how."""
    low, high = found.threshold
    unit = problem.surface.response.kpi_name
    expected = weighted_quantile(lift, problem.surface.weights, np.array([0.5]))[0]
    parts = []
    for side, edge in (("under", low), ("over", high)):
        if not np.isfinite(edge):
            continue
        kept = lift < edge if side == "under" else lift > edge
        if not kept.any():
            continue
        then = plans[int(worth[kept].mean(axis=0).argmax())].sum(axis=(0, 1))
        moved = then - plans[0].sum(axis=(0, 1))
        c = _channel(problem.surface, test)
        way = "more" if moved[c] > 0 else "less"
        parts.append(
            f"{side} {edge:,.0f} {unit}: {abs(moved[c]):,.0f} {problem.surface.currency} {way} for {test.channel}"
        )
    if not parts:
        return f"no outcome of this test changes the plan (expected lift {expected:,.0f} {unit})"
    return f"expected lift {expected:,.0f} {unit}; {'; '.join(parts)}"
