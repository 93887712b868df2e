"""journeys: what people saw before they converted or did not, as four bounded count vectors.

A journey is the touches of one person inside one batch (some weeks of one block) in time order (ties by keyed hash). A
conversion ends it; touches after the last conversion form one journey that did not convert. Only the last `max_touches`
touches before the end are kept. A touch is an impression, click or visit with a declared channel, and, with
`conversion_is_touch`, a conversion row with a declared channel. An event whose channel is absent or undeclared is no
touch (organic).

`path` and `lookback_days` (privacy.paths) leave touches out before that. With `markov_order` k > 1 the sources of the
flow are the last k kept channels (fewer near the start of a journey), oldest first, such as 'social>search'; with k = 1
they are channels.

Sensitivity. A journey is a function of one person's rows of one block, so a person adds one non-negative vector to each
table; it is scaled to L2 norm C by `privacy.bounding`. All flow counts are one vector with one scale and no clip by
cell, so that what flows into a channel flows out of it (up to one fixed-point unit a cell from the integer division).
With `privacy.journeys.clipped_share` > 0 the release also holds the clipped mass of each table: one number, at most 4 C
per person, bounded and charged as a vector of its own.
"""

from __future__ import annotations

from functools import cache
from itertools import combinations, product

import ibis
import ibis.expr.types as ir
import numpy as np
import pandas as pd

from privacy.bounding import bounded, bounded_counts, lost, total, totals
from privacy.bounds import CLIPPED, CLIPPED_CAP, MICROS, FixedPoint
from privacy.kpi import span_events
from privacy.measure_policies import JourneyPolicy
from privacy.paths import WHOLE_BLOCK, reduced, within
from privacy.people import CONVERSION, TOUCH_KINDS, People, Statement, loaded, sql
from privacy.vectors import Span, VectorPlan

METHOD = 1
FULL_SETS = 10  # channels up to which every set of channels is a key
CELL_LIMIT = 20_000
STEP = ">"  # joins the channels of a state
_COLUMNS = ("source", "target", "channel", "position", "length", "channels", "outcome")
_TOUCHES, _BARE = "journey_touches", "journey_bare"


def _frame(rows: list[dict[str, object]]) -> pd.DataFrame:
    blank: dict[str, object] = dict.fromkeys(_COLUMNS, "") | {"position": 0, "length": 0}
    return pd.DataFrame([blank | row for row in rows], columns=list(_COLUMNS))


def states(channels: tuple[str, ...], order: int = 1) -> list[str]:
    """Names of the states of 1 .. order channels, oldest first in a name; shorter states first, the newest runs
    fastest."""
    return [STEP.join(s) for size in range(1, order + 1) for s in product(channels, repeat=size)]


def state_count(channels: int, order: int) -> int:
    """Number of `states`."""
    return sum(channels**size for size in range(1, order + 1))


def flow_keys(channels: tuple[str, ...], order: int = 1) -> pd.DataFrame:
    """start->channel, start->conversion, state->channel, state->conversion, state->null."""
    sources = states(channels, order)
    pairs = [("start", c) for c in channels] + [("start", "conversion")]
    pairs += [(a, b) for a in sources for b in channels]
    pairs += [(c, "conversion") for c in sources] + [(c, "null") for c in sources]
    return _frame([{"source": a, "target": b} for a, b in pairs])


def position_keys(channels: tuple[str, ...], max_touches: int) -> pd.DataFrame:
    """One row for conversions without a touch, then channel x length x position."""
    rows: list[dict[str, object]] = [{"channel": "", "position": 0, "length": 0}]
    for c in channels:
        for n in range(1, max_touches + 1):
            rows += [{"channel": c, "position": p, "length": n} for p in range(1, n + 1)]
    return _frame(rows)


def _subsets(channels: tuple[str, ...]) -> list[str]:
    """Names of the sets 1 .. 2^n - 1, by bit mask; members in declared order."""
    names = [""] * (2 ** len(channels))
    for size in range(1, len(channels) + 1):
        for members in combinations(range(len(channels)), size):
            names[sum(1 << i for i in members)] = "+".join(channels[i] for i in members)
    return names[1:]


def set_keys(channels: tuple[str, ...], max_touches: int) -> pd.DataFrame:
    """Conversions without a touch, then sets of channels x outcome; above 10 channels: channel x set size x outcome."""
    rows: list[dict[str, object]] = [{"channels": "", "outcome": "conversion"}]
    if len(channels) <= FULL_SETS:
        rows += [{"channels": s, "outcome": o} for s in _subsets(channels) for o in ("conversion", "null")]
        return _frame(rows)
    for c in channels:
        for n in range(1, min(len(channels), max_touches) + 1):
            rows += [{"channel": c, "length": n, "outcome": o} for o in ("conversion", "null")]
    return _frame(rows)


def keys(
    channels: tuple[str, ...], max_touches: int, vectors: tuple[str, ...], order: int = 1
) -> dict[str, pd.DataFrame]:
    """Public keys of each vector; one blank row for a clipped mass."""
    position = position_keys(channels, max_touches)
    built = {
        "flow": flow_keys(channels, order),
        "position": position,
        "position_value": position,
        "sets": set_keys(channels, max_touches),
    }
    return {name: _frame([{}]) if name.startswith(CLIPPED) else built[name] for name in vectors}


def cell_count(channels: int, max_touches: int, order: int = 1) -> int:
    """Cells of all four vectors, without building them."""
    flow = channels + 1 + state_count(channels, order) * (channels + 2)
    position = 1 + channels * max_touches * (max_touches + 1) // 2
    sets = 2 ** (channels + 1) - 1 if channels <= FULL_SETS else 1 + 2 * channels * min(channels, max_touches)
    return flow + 2 * position + sets


@cache
def journey_statements(
    span: Span, max_touches: int, conversion_is_touch: bool, path: str = "all", lookback_days: int = WHOLE_BLOCK
) -> tuple[Statement, Statement]:
    """SQL of the kept touches of one batch, and of its conversions without a touch (which reads the first).

    touches: position is 1..length, converted 0 or 1, micros those of the conversion, following the channel of the next
    kept touch (NULL at the end).
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
    numbered = flagged.mutate(
        journey=(flagged.ends.sum().over(so_far).cast("decimal(38, 0)").cast("int64") - flagged.ends)
    )

    ended_by = numbered.filter(numbered.ends == 1)
    conversions = ended_by.select("person", "journey", "micros")
    touches = numbered.filter(numbered.touch).select("person", "journey", "seq", "day", "channel")
    touches = reduced(within(touches, ended_by, lookback_days), path)
    newest = ibis.window(group_by=[touches.person, touches.journey], order_by=touches.seq.desc())
    whole = ibis.window(group_by=[touches.person, touches.journey])
    ranked = touches.mutate(back=ibis.row_number().over(newest), count=touches.seq.count().over(whole))
    last = ranked.filter(ranked.back < max_touches)
    placed = last.mutate(length=ibis.least(last["count"], max_touches))
    placed = placed.mutate(position=placed.length - placed.back)
    onward = ibis.window(group_by=[placed.person, placed.journey], order_by=placed.position)
    placed = placed.mutate(following=placed.channel.lead().over(onward))
    ended = conversions.mutate(converted=ibis.literal(1, "int64"))
    joined = placed.left_join(ended, ["person", "journey"])
    touched = joined.select(
        "person",
        "journey",
        channel=joined.channel.cast("int64"),
        position=joined.position.cast("int64"),
        length=joined.length.cast("int64"),
        converted=joined.converted.fill_null(0),
        micros=joined.micros.fill_null(0),
        following=joined.following.cast("int64"),
    )
    bare = conversions.anti_join(loaded(_TOUCHES), ["person", "journey"])
    return sql(touched), sql(bare)


def _count(table: ir.Table, cell: ir.Value, one: int) -> ir.Table:
    """(person, cell, x) with x = `one` a row."""
    return table.select("person", cell=cell.cast("int64"), x=ibis.literal(one, "int64"))


def _one(fixed: FixedPoint) -> int:
    """One event in fixed-point units."""
    return min(MICROS, fixed.micros) // fixed.step


def _with_state(touches: ir.Table, n: int, order: int) -> ir.Table:
    """`touches` with `state`: position in `states` of the last `order` kept channels up to each touch."""
    onward = ibis.window(group_by=[touches.person, touches.journey], order_by=touches.position)
    for back in range(1, order):
        touches = touches.mutate(**{f"back{back}": touches.channel.lag(back).over(onward)})
    state = touches.channel
    for back in range(1, order):  # a state one channel longer stands behind all shorter ones
        longer = sum(n**i for i in range(1, back + 1))
        older = sum((touches[f"back{i}"] * n**i for i in range(1, back + 1)), touches.channel)
        state = ibis.ifelse(touches[f"back{back}"].notnull(), older + longer, state)
    return touches.mutate(state=state.cast("int64"))


def flow_rows(touches: ir.Table, bare: ir.Table, n: int, order: int = 1) -> ir.Table:
    """(person, cell, x = 1) of transitions, cells in the order of `flow_keys`."""
    touches, s = _with_state(touches, n, order), state_count(n, order)
    first = touches.filter(touches.position == 1)
    inner = touches.filter(touches.following.notnull())
    last = touches.filter(touches.position == touches.length)
    end = ibis.ifelse(last.converted == 1, 0, s)
    return ibis.union(
        _count(first, first.channel, 1),
        _count(bare, ibis.literal(n, "int64"), 1),
        _count(inner, inner.state * n + inner.following + (n + 1), 1),
        _count(last, last.state + end + (n + 1 + s * n), 1),
    )


def position_rows(touches: ir.Table, bare: ir.Table, max_touches: int, fixed: FixedPoint, *, value: bool) -> ir.Table:
    """(person, cell, x) of the touches of converting journeys; x counts them or is the conversion's revenue."""
    size = max_touches * (max_touches + 1) // 2
    won = touches.filter(touches.converted == 1)
    before = ((won.length * (won.length - 1)) // 2).cast("int64")
    cell = won.channel * size + before + won.position  # one row for bare conversions stands first
    none = ibis.literal(0, "int64")
    if not value:
        return ibis.union(_count(won, cell, _one(fixed)), _count(bare, none, _one(fixed)))
    return ibis.union(
        won.select("person", cell=cell.cast("int64"), x=_units(won.micros, fixed)),
        bare.select("person", cell=none, x=_units(bare.micros, fixed)),
    )


def _units(micros: ir.Value, fixed: FixedPoint) -> ir.Value:
    return (ibis.least(micros, fixed.micros) // fixed.step).cast("int64")


def set_rows(touches: ir.Table, bare: ir.Table, n: int, max_touches: int, fixed: FixedPoint) -> ir.Table:
    """(person, cell, x) of journeys by the set of channels in them and their outcome."""
    seen = touches.select("person", "journey", "channel", "converted").distinct()
    if n <= FULL_SETS:
        bits = seen.mutate(bit=seen.channel.cases(*((i, 1 << i) for i in range(n)), else_=0).cast("int64"))
        sets = bits.group_by(["person", "journey", "converted"]).agg(mask=total(bits.bit))
        journeys = _count(sets, sets.mask * 2 - sets.converted, _one(fixed))  # 1 + (mask - 1) * 2 + (1 - converted)
    else:
        sizes = min(n, max_touches)
        whole = ibis.window(group_by=[seen.person, seen.journey])
        sized = seen.mutate(size=seen.channel.count().over(whole), null=1 - seen.converted)
        journeys = _count(sized, 1 + (sized.channel * sizes + sized["size"] - 1) * 2 + sized.null, _one(fixed))
    return ibis.union(journeys, _count(bare, ibis.literal(0, "int64"), _one(fixed)))


def _rows(name: str, channels: int, policy: JourneyPolicy, fixed: FixedPoint) -> ir.Table:
    """(person, cell, x) of one table before bounding; x = 1 a transition in flow, else units of `fixed`."""
    touches, bare = loaded(_TOUCHES), loaded(_BARE)
    if name == "flow":
        return flow_rows(touches, bare, channels, policy.markov_order)
    if name == "sets":
        return set_rows(touches, bare, channels, policy.max_touches, fixed)
    return position_rows(touches, bare, policy.max_touches, fixed, value=name == "position_value")


@cache
def statement(channels: int, policy: JourneyPolicy, vector: VectorPlan, inner: VectorPlan) -> Statement:
    """SQL of the bounded totals of one vector, over the kept touches.

    `inner` is the vector itself, or the table whose clipped mass it is.
    """
    fixed = FixedPoint(inner.numerator, inner.bound_units)
    table = _rows(inner.name, channels, policy, fixed)
    if inner.name == "flow":
        kept = bounded_counts(table, inner.bound_units, _one(fixed), inner.cells)
    else:
        kept = bounded(table, inner.bound_units, inner.cells, inner.l0)
    if vector.name.startswith(CLIPPED):
        wide = FixedPoint(fixed.step, (CLIPPED_CAP + 1) * fixed.units)
        raw = _rows(inner.name, channels, policy, wide)
        if inner.name == "flow":
            raw = raw.mutate(x=(raw.x * _one(wide)).cast("int64"))
        mass = lost(raw, kept, fixed, FixedPoint(vector.numerator, vector.bound_units))
        kept = bounded(mass, vector.bound_units, 1)
    return sql(totals(kept))


def exact(
    people: People, span: Span, channels: int, policy: JourneyPolicy, vectors: tuple[VectorPlan, ...]
) -> dict[str, np.ndarray]:
    """Bounded totals per vector before noise, fixed-point units (cells,). For the mechanism and for tests only."""
    touches, bare = journey_statements(
        span, policy.max_touches, people.conversion_is_touch, policy.path, policy.lookback_days
    )
    people.keep(_TOUCHES, touches)
    people.keep(_BARE, bare)
    plans = {v.name: v for v in vectors}
    out = {
        v.name: people.vector(statement(channels, policy, v, plans[v.name.removeprefix(CLIPPED)]), v.cells)
        for v in vectors
    }
    people.drop(_TOUCHES)
    people.drop(_BARE)
    return out
