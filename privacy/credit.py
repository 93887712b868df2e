"""credit: per-person credit rules, declared with their parameters before a release, as channel x metric sums.

For every conversion of a person a rule spreads its value (1 for conversions, its revenue for revenue) over the touches
that led to it; what no touch led to is 'unattributed'. A touch is what `privacy.journeys` calls one, belongs to the
journey that the conversion ends, lies at most `lookback_days` local days before it and is among the last `max_touches`.

| rule | weight of touch i of n, age a days | parameters |
|---|---|---|
| time decay | max(1, floor(2^20 · 2^(-a/h))) | h = half_life_days |
| last non-direct | 1 for the last touch outside `direct`, for the last of all where there is none; else 0 | direct |
| position | first · (n-2), middle, ..., middle, last · (n-2); n = 2: first, last; n = 1: all | first, middle, last |

Integers only. With weights w_i, W = Σ w_i and S_i = w_1 + ... + w_i, a value of v units gives touch i

    x_i = floor(v S_i / W) - floor(v S_(i-1) / W),     so that  Σ x_i = v  exactly and |x_i - v w_i/W| < 1 unit.

v <= C <= 2^26 and W <= 2^26 (64 touches of 2^20, or (64-2) · 3000), so v S <= 2^52 and `//` is exact on both engines.
The weights of time decay are a table by age in whole days, worked out in 50-digit decimals from the declared half-life;
the table itself is part of the release's id, so that no two releases under one name can mean different weights.

Sensitivity. The weights are public constants; touches, journeys and conversions are functions of one person's rows of
one block. The look-back window is cut at the first day of the block, so no row of another block is read and no other
block is charged; conversions early in a quarter therefore show too little credit and too much 'unattributed' (see
docs/privacy.md). A person adds one non-negative integer vector over channels and 'unattributed' per rule and metric; it
is scaled to L2 norm C by `privacy.bounding`, so each table moves by at most C. The clipped mass of a vector is one
number, at most 4 C per person. Every rule and metric is bounded and charged apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_FLOOR, Context, Decimal
from functools import cache
from typing import Any

import ibis
import ibis.expr.types as ir
import numpy as np
import pandas as pd

from contracts.errors import ConfigError
from privacy.bounding import bounded, lost, totals
from privacy.bounds import CLIPPED, CLIPPED_CAP, MICROS, FixedPoint, fixed_point
from privacy.inputs import Question
from privacy.kpi import span_events
from privacy.measure_policies import CreditPolicy
from privacy.paths import reduced
from privacy.people import CONVERSION, TOUCH_KINDS, People, Statement, loaded, sql
from privacy.rules import CreditRule, LastNonDirect, TimeDecay
from privacy.vectors import Span, VectorPlan

METHOD = 1
UNATTRIBUTED = "unattributed"
_TOUCHES = "credit_touches"
FINEST = 2**20  # weight of a touch on the day of the conversion


@cache
def decay_table(rule: TimeDecay, lookback_days: int) -> tuple[int, ...]:
    """Integer weight of a touch by age in days, 0 .. lookback_days."""
    exact = Context(prec=50)
    half_life = Decimal(repr(float(rule.half_life_days)))
    powers = (
        exact.power(2, exact.subtract(20, exact.divide(Decimal(age), half_life))) for age in range(lookback_days + 1)
    )
    return tuple(max(1, int(p.to_integral_value(ROUND_FLOOR))) for p in powers)


def parameters(rule: CreditRule, lookback_days: int) -> dict[str, Any]:
    """Everything that fixes what a rule means, JSON-ready: for the release's id and its metadata."""
    if isinstance(rule, TimeDecay):
        table = list(decay_table(rule, lookback_days))
        return {"kind": "time_decay", "half_life_days": float(rule.half_life_days), "weights_by_age": table}
    if isinstance(rule, LastNonDirect):
        return {"kind": "last_non_direct", "direct": list(rule.direct)}
    first, middle, last = rule.thousandths()
    return {"kind": "position", "first": first / 1000, "middle": middle / 1000, "last": last / 1000}


def declared(policy: CreditPolicy) -> dict[str, Any]:
    """The declared rules and windows, JSON-ready."""
    path = {} if policy.path == "all" else {"path": policy.path}
    return path | {
        "lookback_days": policy.lookback_days,
        "max_touches": policy.max_touches,
        "boundary": "the look-back window is cut at the first day of the block; no other block is read or charged",
        "rules": {name: parameters(rule, policy.lookback_days) for name, rule in policy.rules.items()},
    }


def keys(question: Question, vectors: tuple[str, ...]) -> dict[str, pd.DataFrame]:
    """Public keys: the declared channels and 'unattributed' per rule and metric; one row for a clipped mass."""
    out = {}
    for name in vectors:
        rule, metric = name.removeprefix(CLIPPED).split(":")
        if name.startswith(CLIPPED):
            frame = pd.DataFrame({"model": [rule], "channel": [""], "metric": [CLIPPED + metric]})
        else:
            frame = pd.DataFrame({"channel": [*question.channels, UNATTRIBUTED], "metric": metric})
            frame.insert(0, "model", rule)
        out[name] = frame
    return out


def check_direct(question: Question, policy: CreditPolicy) -> None:
    """Raises ConfigError when a rule calls a channel direct that is not declared."""
    for name, rule in policy.rules.items():
        for channel in rule.direct if isinstance(rule, LastNonDirect) else ():
            if channel not in question.channels:
                raise ConfigError(
                    f"privacy.credit.rules.{name}.direct names {channel!r}, which is not a channel; declared are "
                    f"{', '.join(question.channels) or 'none'}. A visit without a channel is no touch anyway."
                )


@cache
def touches_statement(
    span: Span, lookback_days: int, max_touches: int, conversion_is_touch: bool, path: str = "all"
) -> Statement:
    """SQL of one row per conversion x touch that led to it (one with NULL channel where none did), of one block.

    Columns person, journey, micros (of the conversion), channel, position (1 .. length), length, age (days).
    """
    events = span_events(span)
    is_touch = events.kind.isin(TOUCH_KINDS)
    if conversion_is_touch:
        is_touch = is_touch | (events.kind == CONVERSION)
    flagged = events.select(
        "person",
        "seq",
        "day",
        "channel",
        "micros",
        touch=is_touch & (events.channel >= 0),
        ends=(events.kind == CONVERSION).cast("int64"),
    )
    flagged = flagged.filter(flagged.touch | (flagged.ends == 1))
    so_far = ibis.window(group_by=flagged.person, order_by=flagged.seq, preceding=None, following=0)
    numbered = flagged.mutate(journey=_sum(flagged.ends, so_far) - flagged.ends)
    ended = numbered.filter(numbered.ends == 1).select("person", "journey", "micros", end="day")
    touches = numbered.filter(numbered.touch).select("person", "journey", "seq", "channel", "day")
    aged = touches.join(ended, ["person", "journey"])
    # local days can step back by one where a clock change falls on midnight
    aged = aged.mutate(age=ibis.greatest(aged.end - aged.day, 0).cast("int64"))
    aged = reduced(aged.filter(aged.age <= lookback_days), path)
    newest = ibis.window(group_by=[aged.person, aged.journey], order_by=aged.seq.desc())
    ranked = aged.mutate(back=ibis.row_number().over(newest))
    last = ranked.filter(ranked.back < max_touches)
    length = last.seq.count().over(ibis.window(group_by=[last.person, last.journey]))
    placed = last.mutate(length=length)
    placed = placed.select(
        "person", "journey", "channel", "age", "length", position=(placed.length - placed.back).cast("int64")
    )
    joined = ended.left_join(placed, ["person", "journey"])
    numbers = {name: joined[name].cast("int64") for name in ("channel", "position", "length", "age")}
    return sql(joined.select("person", "journey", "micros", **numbers))


def _sum(column: ir.Value, window: Any) -> ir.Value:
    """Window sum of int64 as int64, as `privacy.bounding.total`."""
    return column.sum().over(window).cast("decimal(38, 0)").cast("int64")


def weighted(spread: ir.Table, rule: CreditRule, direct: tuple[int, ...], lookback_days: int) -> ir.Table:
    """`spread` with the integer weight `w` of each touch; 1 where a conversion has no touch."""
    if isinstance(rule, TimeDecay):
        w = spread.age.cases(*enumerate(decay_table(rule, lookback_days)), else_=1)
    elif isinstance(rule, LastNonDirect):
        whole = ibis.window(group_by=[spread.person, spread.journey])
        rank = ibis.ifelse(spread.channel.isin(direct), 0, spread.position) if direct else spread.position
        spread = spread.mutate(rank=rank)
        spread = spread.mutate(best=spread["rank"].max().over(whole))
        chosen = ibis.ifelse(spread.best > 0, spread["rank"] == spread.best, spread.position == spread.length)
        w = chosen.cast("int64").fill_null(1)
    else:
        first, middle, last = rule.thousandths()
        pair = (first, last) if first + last else (1, 1)
        inner = spread.length - 2
        edges = ibis.cases(
            (spread.position == 1, inner * first), (spread.position == spread.length, inner * last), else_=middle
        )
        two = ibis.ifelse(spread.position == 1, pair[0], pair[1])
        w = ibis.cases((spread.length > 2, edges), (spread.length == 2, two), else_=1)
    return spread.mutate(w=w.cast("int64"))


def rows(spread: ir.Table, channels: int, metric: str, fixed: FixedPoint) -> ir.Table:
    """(person, cell, x) of weighted touches: cells are the channels in declared order, then 'unattributed'."""
    conversion = [spread.person, spread.journey]
    so_far = ibis.window(group_by=conversion, order_by=spread.position, preceding=None, following=0)
    summed = spread.mutate(
        value=_value(spread, metric, fixed, fixed.micros),
        so_far=_sum(spread.w, so_far),
        whole=_sum(spread.w, ibis.window(group_by=conversion)),
    )
    upto = (summed.value * summed.so_far) // summed.whole
    before = (summed.value * (summed.so_far - summed.w)) // summed.whole
    table = summed.select(
        "person",
        cell=summed.channel.fill_null(channels).cast("int64"),
        x=upto.cast("int64") - before.cast("int64"),
    )
    return table.filter(table.x > 0)


def _value(table: ir.Table, metric: str, fixed: FixedPoint, most: int) -> ir.Value:
    """Units of one conversion, cut at `most` micro-units."""
    if metric == "conversions":
        return ibis.literal(min(MICROS, most) // fixed.step, "int64")
    return (ibis.least(table.micros, most) // fixed.step).cast("int64")


@dataclass(frozen=True, slots=True)
class Spread:
    """How one rule spreads one metric: everything that a statement depends on besides block and vector."""

    rule: CreditRule
    metric: str
    bound: float
    lookback_days: int
    channels: int
    direct: tuple[int, ...]  # positions of the channels that count as direct


def spread_of(vector: str, question: Question, policy: CreditPolicy) -> Spread:
    """The spread behind a vector 'RULE:METRIC' or its clipped mass."""
    name, metric = vector.removeprefix(CLIPPED).split(":")
    rule = policy.rules[name]
    direct = rule.direct if isinstance(rule, LastNonDirect) else ()
    return Spread(
        rule,
        metric,
        policy.metrics()[metric].bound,
        policy.lookback_days,
        len(question.channels),
        tuple(question.channels.index(c) for c in direct),
    )


@cache
def statement(spread: Spread, vector: VectorPlan) -> Statement:
    """SQL of the bounded totals of one vector, over the kept touches."""
    fixed, led = fixed_point(spread.bound), loaded(_TOUCHES)
    shared = weighted(led, spread.rule, spread.direct, spread.lookback_days)
    table = bounded(rows(shared, spread.channels, spread.metric, fixed), fixed.units, spread.channels + 1)
    if vector.name.startswith(CLIPPED):
        sales = led.filter(led.position.isnull() | (led.position == led.length))  # one row per conversion
        raw = sales.select("person", x=_value(sales, spread.metric, fixed, (CLIPPED_CAP + 1) * fixed.micros))
        outer = FixedPoint(vector.numerator, vector.bound_units)
        table = bounded(lost(raw, table, fixed, outer), vector.bound_units, 1)
    return sql(totals(table))


def exact(
    people: People, span: Span, question: Question, policy: CreditPolicy, vectors: tuple[VectorPlan, ...]
) -> dict[str, np.ndarray]:
    """Bounded totals per vector before noise, fixed-point units (cells,). For the mechanism and for tests only."""
    windows = (policy.lookback_days, policy.max_touches, people.conversion_is_touch, policy.path)
    people.keep(_TOUCHES, touches_statement(span, *windows))
    out = {v.name: people.vector(statement(spread_of(v.name, question, policy), v), v.cells) for v in vectors}
    people.drop(_TOUCHES)
    return out
