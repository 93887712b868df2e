"""media: cohort x week x channel counts of impressions and clicks, for channels without a public number.

Off unless `privacy.shares.media` > 0: what a platform reports in total is not about a person and stays exact. Only the
channels in `privacy.media.channels` are released (none named: all declared ones); rows without such a channel are not
read.

Sensitivity. An event adds one to one cell. A person has one cohort per block (the geo of their first event in it), so
their vector has at most weeks x channels cells; `privacy.bounding` forces it into the L2 ball of radius C, whatever the
number of their events. No row depends on another person. Adding or removing one person's rows of a block therefore
moves each metric's table by at most its C in L2. The clipped mass of a metric is one number, at most 4 C per person.
Impressions and clicks are bounded apart and charged apart.
"""

from __future__ import annotations

from datetime import date
from functools import cache

import ibis
import ibis.expr.types as ir
import numpy as np
import pandas as pd

from contracts.errors import ConfigError
from privacy.bounding import bounded, lost, totals
from privacy.bounds import CLIPPED, CLIPPED_CAP, MICROS, FixedPoint, fixed_point
from privacy.inputs import Question
from privacy.kpi import cohorts, span_events
from privacy.measure_policies import MediaPolicy
from privacy.people import CLICK, IMPRESSION, People, Statement, sql
from privacy.vectors import Span, VectorPlan

METHOD = 1
KIND = {"impressions": IMPRESSION, "clicks": CLICK}


def channels(question: Question, policy: MediaPolicy) -> tuple[str, ...]:
    """Channels of the table, in declared order. Raises ConfigError for one that is not declared."""
    for name in policy.channels:
        if name not in question.channels:
            raise ConfigError(
                f"privacy.media.channels names {name!r}, which is not a channel; declared are "
                f"{', '.join(question.channels) or 'none'}."
            )
    return tuple(c for c in question.channels if not policy.channels or c in policy.channels)


def keys(
    weeks: tuple[date, ...], question: Question, policy: MediaPolicy, vectors: tuple[str, ...]
) -> dict[str, pd.DataFrame]:
    """Public keys: geo x week x channel, geo by geo; one row without them for a clipped mass."""
    names = channels(question, policy)
    cells = [(g, w, c) for g in question.cohorts for w in weeks for c in names]
    frame = pd.DataFrame(cells, columns=["geo", "week", "channel"])
    none = pd.DataFrame({"geo": [""], "week": [None], "channel": [""]})
    return {name: (none if name.startswith(CLIPPED) else frame).assign(metric=name) for name in vectors}


def rows(span: Span, metric: str, numbers: tuple[int, ...], fixed: FixedPoint, most: int) -> ir.Table:
    """(person, cell, x): one row per impression or click of the channels `numbers`, cut at `most` micro-units."""
    events = span_events(span)
    place = events.channel.cases(*((c, i) for i, c in enumerate(numbers)), else_=-1).cast("int64")
    seen = events.filter(events.kind == KIND[metric]).select("person", "week", place=place)
    seen = seen.filter(seen.place >= 0)
    joined = seen.join(cohorts(span.block), "person")
    cell = (joined.geo.cast("int64") * span.weeks + joined.week.cast("int64")) * len(numbers) + joined.place
    return joined.select("person", cell=cell.cast("int64"), x=ibis.literal(min(MICROS, most) // fixed.step, "int64"))


@cache
def statement(span: Span, numbers: tuple[int, ...], bound: float, l0: int, vector: VectorPlan) -> Statement:
    """SQL of the bounded totals of one vector; `bound` is the declared one of its metric."""
    metric, fixed = vector.name.removeprefix(CLIPPED), fixed_point(bound)
    table = bounded(rows(span, metric, numbers, fixed, fixed.micros), fixed.units, span.weeks * len(numbers), l0)
    if vector.name.startswith(CLIPPED):
        raw = rows(span, metric, numbers, fixed, (CLIPPED_CAP + 1) * fixed.micros)
        outer = FixedPoint(vector.numerator, vector.bound_units)
        table = bounded(lost(raw, table, fixed, outer), vector.bound_units, 1)
    return sql(totals(table))


def exact(
    people: People, span: Span, question: Question, policy: MediaPolicy, vectors: tuple[VectorPlan, ...]
) -> dict[str, np.ndarray]:
    """Bounded totals per vector before noise, fixed-point units (cells,). For the mechanism and for tests only."""
    numbers = tuple(question.channels.index(c) for c in channels(question, policy))
    bounds, plans = policy.tables(), {v.name: v for v in vectors}
    return {
        v.name: people.vector(
            statement(span, numbers, bounds[metric].bound, plans[metric].l0 if metric in plans else 0, v), v.cells
        )
        for v in vectors
        for metric in (v.name.removeprefix(CLIPPED),)
    }
