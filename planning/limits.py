"""What a plan must keep to, as rows `low <= a · z <= high` in money, and what to do where that cannot be.

z are the decided amounts; a plan is `x = P z` over the cells period × geo × channel (`planning.decision`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csr_array, hstack, identity, vstack

from contracts.checks import non_negative, share
from contracts.errors import ContractError
from planning.surface import Surface

INFINITE = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """Spend over a selection lies in [low, high], plan currency: total, channel bounds, locks, groups, contracts.

    `each` 'sum': the whole selection together; 'period': each period of it; 'channel': each of its channels.
    """

    name: str
    low: float = 0.0
    high: float = INFINITE
    channels: tuple[str, ...] | None = None  # None: all
    geos: tuple[str, ...] | None = None
    first: date | None = None  # periods that start from here
    last: date | None = None  # to here, inclusive
    each: str = "sum"

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low) and self.low >= 0) or np.isnan(self.high):
            raise ContractError(f"limit {self.name!r} must be numbers >= 0; got {self.low} to {self.high}.")
        if self.low > self.high:
            raise ContractError(
                f"limit {self.name!r} asks for at least {self.low:.2f} and at most {self.high:.2f}; lower the first."
            )
        if self.each not in ("sum", "period", "channel"):
            raise ContractError(f"limit {self.name!r}: each must be sum, period or channel; got {self.each!r}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """From one period to the next a channel's spend changes by at most these shares; `from_today` also binds the first
    period to today's spend."""

    name: str
    up: float
    down: float
    channels: tuple[str, ...] | None = None
    from_today: bool = False

    def __post_init__(self) -> None:
        non_negative(up=self.up)
        share(down=self.down)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fairness:
    """Spend per head of every geo stays within ± `within` of the average over all geos."""

    name: str
    within: float
    channels: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        share(within=self.within)


@dataclass(frozen=True, slots=True, kw_only=True)
class MinimumCampaign:
    """A channel spends nothing over the horizon or at least `amount`, plan currency."""

    channel: str
    amount: float

    def __post_init__(self) -> None:
        non_negative(amount=self.amount)

    @property
    def name(self) -> str:
        """For messages."""
        return f"minimum campaign of {self.channel}"


Rule = Limit | Change | Fairness


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows over the decided amounts; `owner` is the position of the rule that a row comes from."""

    matrix: csr_array  # (M, N)
    low: np.ndarray  # (M,)
    high: np.ndarray  # (M,)
    owner: np.ndarray  # (M,)
    names: tuple[str, ...]  # of the rules
    top: np.ndarray  # (N,) largest amount of a variable; 0 where it cannot be spent


def build_rows(surface: Surface, rules: Sequence[Rule], to_cells: csr_array, top: np.ndarray) -> Rows:
    """Rows of `rules` for x = to_cells · z. Raises ContractError for a channel, geo or date that is not there."""
    parts = [_rows_of(surface, rule) for rule in rules]
    owner = np.repeat(np.arange(len(rules)), [len(low) for _, low, _ in parts])
    cells = vstack([p[0] for p in parts], format="csr") if parts else csr_array((0, to_cells.shape[0]))
    return Rows(
        matrix=csr_array(cells @ to_cells),
        low=np.concatenate([p[1] for p in parts] or [np.zeros(0)]),
        high=np.concatenate([p[2] for p in parts] or [np.zeros(0)]),
        owner=owner,
        names=tuple(r.name for r in rules),
        top=top,
    )


def feasible_point(rows: Rows) -> np.ndarray:
    """Some z (N,) that keeps every row. Raises ContractError that names a smallest set of rules that clash and the
    smallest change, in money, that would let them hold."""
    n = len(rows.top)
    found = _solve(np.zeros(n), rows, np.ones(len(rows.low), bool))
    if found is not None:
        return found
    clash = _irreducible(rows)
    down, up = _relaxation(rows)
    raise ContractError(_sentence(rows, clash, down, up))


def best_vertex(gradient: np.ndarray, rows: Rows) -> np.ndarray:
    """z (N,) with the largest gradient · z that keeps every row: a vertex, by HiGHS."""
    found = _solve(-gradient, rows, np.ones(len(rows.low), bool))
    if found is None:
        raise ContractError("the total is free and nothing limits it: give it an upper limit.")
    return found


def breach(rows: Rows, z: np.ndarray) -> float:
    """Largest breach of a row by z (N,), money."""
    at = rows.matrix @ z
    return float(max(np.max(rows.low - at, initial=0.0), np.max(at - rows.high, initial=0.0), np.max(-z), 0.0))


def _select(surface: Surface, rule: Rule) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions of periods, geos, channels of a rule."""
    response = surface.response
    channels = _positions("channel", rule.name, rule.channels, response.channels)
    if not isinstance(rule, Limit):
        return np.arange(surface.periods), np.arange(len(response.geos)), channels
    dates = surface.dates()
    for day in (rule.first, rule.last):
        if day is not None and not surface.start <= day <= dates[-1]:
            raise ContractError(f"limit {rule.name!r} names {day}, outside the plan's {surface.start} to {dates[-1]}.")
    first, last = rule.first or dates[0], rule.last or dates[-1]
    periods = np.array([i for i, d in enumerate(dates) if first <= d <= last], dtype=int)
    if len(periods) == 0:
        raise ContractError(f"limit {rule.name!r} holds no period of the plan: {first} to {last}.")
    return periods, _positions("geo", rule.name, rule.geos, response.geos), channels


def _positions(kind: str, name: str, wanted: tuple[str, ...] | None, known: tuple[str, ...]) -> np.ndarray:
    if wanted is None:
        return np.arange(len(known))
    for item in wanted:
        if item not in known:
            raise ContractError(f"limit {name!r} names {kind} {item!r}; the model knows {', '.join(known)}.")
    return np.array([known.index(i) for i in wanted], dtype=int)


def _rows_of(surface: Surface, rule: Rule) -> tuple[csr_array, np.ndarray, np.ndarray]:
    """Rows over the cells (T, G, C) of one rule, with their bounds."""
    t, g, c = surface.shape
    at = np.arange(t * g * c).reshape(t, g, c)
    periods, geos, channels = _select(surface, rule)
    if isinstance(rule, Limit):
        cells = at[np.ix_(periods, geos, channels)]
        groups = {"sum": [cells], "period": list(cells), "channel": [cells[:, :, i] for i in range(len(channels))]}
        rows = groups[rule.each]
        return _indicator(rows, at.size), np.full(len(rows), rule.low), np.full(len(rows), rule.high)
    if isinstance(rule, Fairness):
        every = _indicator([at[:, :, channels]], at.size)
        own = _indicator([at[:, i, channels] for i in range(g)], at.size)
        heads = surface.response.population / surface.response.population.sum()
        over = own - csr_array(heads[:, None] * (1 + rule.within)) @ every
        under = own - csr_array(heads[:, None] * (1 - rule.within)) @ every
        free = np.full(g, INFINITE)
        return vstack([over, under], format="csr"), np.r_[-free, 0 * heads], np.r_[0 * heads, free]
    return _change_rows(surface, rule, at, channels)


def _change_rows(
    surface: Surface, rule: Change, at: np.ndarray, channels: np.ndarray
) -> tuple[csr_array, np.ndarray, np.ndarray]:
    national = [_indicator(list(at[:, :, c]), at.size) for c in channels]  # each (T, cells)
    up = [rows[1:] - (1 + rule.up) * rows[:-1] for rows in national]
    down = [rows[1:] - (1 - rule.down) * rows[:-1] for rows in national]
    n = len(channels) * (surface.periods - 1)
    matrix, low, high = [*up, *down], [np.full(n, -INFINITE), np.zeros(n)], [np.zeros(n), np.full(n, INFINITE)]
    if rule.from_today:
        today = surface.response.steady.current_spend.sum(axis=0)[channels] / surface.assumptions.rate
        matrix += [rows[:1] for rows in national]
        low, high = [*low, today * (1 - rule.down)], [*high, today * (1 + rule.up)]
    return csr_array(vstack(matrix, format="csr")), np.concatenate(low), np.concatenate(high)


def _indicator(groups: Sequence[np.ndarray], size: int) -> csr_array:
    """One row per group of cells, 1 on each of them."""
    lengths = [g.size for g in groups]
    columns = np.concatenate([g.ravel() for g in groups])
    return csr_array((np.ones(len(columns)), columns, np.r_[0, np.cumsum(lengths)]), shape=(len(groups), size))


def _solve(cost: np.ndarray, rows: Rows, kept: np.ndarray) -> np.ndarray | None:
    """Least cost · z over the rows kept; None where no z keeps them. Money in units of the rows' typical bound."""
    unit = _unit(rows)
    above, below = kept & np.isfinite(rows.high), kept & np.isfinite(rows.low)
    matrix = vstack([rows.matrix[above], -rows.matrix[below]], format="csr")
    bound = np.r_[rows.high[above], -rows.low[below]] / unit
    size = max(float(np.abs(cost).max(initial=0.0)), 1e-300)
    result = linprog(
        cost / size, A_ub=matrix, b_ub=bound, bounds=np.c_[np.zeros(len(rows.top)), rows.top / unit], method="highs"
    )
    return np.clip(result.x * unit, 0.0, rows.top) if result.status == 0 else None


def _unit(rows: Rows) -> float:
    """A typical amount of money, so that the solver's absolute tolerances are relative ones."""
    sizes = np.abs(np.r_[rows.low, rows.high])
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    return float(sizes.max()) if len(sizes) else 1.0


def _irreducible(rows: Rows) -> list[int]:
    """Rules that clash, none of which can be left out (deletion filter; Chinneck and Dravnieks, 1991)."""
    kept = np.ones(len(rows.low), bool)
    clash = []
    for rule in range(len(rows.names)):
        without = kept & (rows.owner != rule)
        if _solve(np.zeros(len(rows.top)), rows, without) is None:
            kept = without
        elif (kept & (rows.owner == rule)).any():
            clash.append(rule)
    return clash


def _relaxation(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Smallest sum of money by which lows are missed (M,) and highs exceeded (M,)."""
    m, n = rows.matrix.shape
    unit = _unit(rows)
    slack = hstack([rows.matrix, identity(m), -identity(m)], format="csr")
    above, below = np.isfinite(rows.high), np.isfinite(rows.low)
    result = linprog(
        np.r_[np.zeros(n), np.ones(2 * m)],
        A_ub=vstack([slack[above], -slack[below]], format="csr"),
        b_ub=np.r_[rows.high[above], -rows.low[below]] / unit,
        bounds=np.c_[np.zeros(n + 2 * m), np.r_[rows.top / unit, np.full(2 * m, INFINITE)]],
        method="highs",
    )
    if result.status != 0:
        raise ContractError(f"the limits cannot all hold, and no relaxation of them was found ({result.message}).")
    return result.x[n : n + m] * unit, result.x[n + m :] * unit


def _sentence(rows: Rows, clash: Sequence[int], down: np.ndarray, up: np.ndarray) -> str:
    names = ", ".join(f"{rows.names[i]!r}" for i in clash)
    steps = []
    for amount, verb in ((down, "lower"), (up, "raise")):
        for i, name in enumerate(rows.names):
            by = float(amount[rows.owner == i].sum())
            if by > 1e-6 * _unit(rows):
                steps.append(f"{verb} {name!r} by {by:,.2f}")
    many = "cannot hold together" if len(clash) > 1 else "cannot be met"
    total = float(down.sum() + up.sum())
    return f"the limits {names} {many}; the smallest relaxation moves {total:,.2f}: {' and '.join(steps)}."
