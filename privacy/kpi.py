"""kpi: cohort x week counts of conversions, revenue and active people.

Sensitivity. A person has one cohort per block (the geo of their first event in it), so their rows touch at most one
cell per week; each vector is bounded to L2 norm C by `privacy.bounding`. No row depends on another person. Adding or
removing one person's rows of a block therefore moves each vector by at most its C, and the three vectors compose.
"""

from __future__ import annotations

from datetime import date
from functools import cache, reduce
from operator import add

import ibis
import ibis.expr.types as ir
import numpy as np
import pandas as pd

from privacy.bounding import bounded, norm_of, totals
from privacy.bounds import MICROS, FixedPoint
from privacy.inputs import Question
from privacy.people import CONVERSION, People, Statement, loaded, sql
from privacy.vectors import Span, VectorPlan

METHOD = 1  # raise when the meaning of a number changes


def keys(weeks: tuple[date, ...], question: Question, vectors: tuple[str, ...]) -> dict[str, pd.DataFrame]:
    """Public keys of each vector: declared geos and 'other' x weeks of the batch, geo by geo."""
    cells = [(geo, week) for geo in question.cohorts for week in weeks]
    return {
        name: pd.DataFrame({"geo": [g for g, _ in cells], "week": [w for _, w in cells], "metric": name})
        for name in vectors
    }


def block_events(block: int) -> ir.Table:
    """Events of one block, by its position in the question."""
    events = loaded("events")
    return events.filter(events.block == block)


def span_events(span: Span) -> ir.Table:
    """Events of some weeks of a block, `week` counted from the first of them."""
    events = block_events(span.block)
    inside = events.filter(events.week >= span.first, events.week < span.first + span.weeks)
    return inside.mutate(week=(inside.week - span.first).cast("int64"))


def cohorts(block: int) -> ir.Table:
    """

    (person, geo, weeks): the cohort of each person in a block, and the bits of the weeks in which they were active.
    """
    homes = loaded("homes")
    return homes.filter(homes.block == block).select("person", "geo", "weeks")


def rows(span: Span, metric: str, fixed: FixedPoint, clip_micros: int | None = None) -> ir.Table:
    """(person, cell, x): x in fixed-point units, each event clipped to the bound (or to `clip_micros`).

    The cohort is that of the whole block, so that a person keeps it through all batches of the quarter.
    """
    events = span_events(span)
    clip = fixed.micros if clip_micros is None else clip_micros
    if metric == "active_users":
        base = events.select("person", "week").distinct().mutate(micros=ibis.literal(MICROS, "int64"))
    else:
        conversions = events.filter(events.kind == CONVERSION)
        base = conversions if metric == "revenue" else conversions.mutate(micros=ibis.literal(MICROS, "int64"))
        base = base.select("person", "week", "micros")
    joined = base.join(cohorts(span.block), "person")
    return joined.select(
        "person",
        cell=(joined.geo.cast("int64") * span.weeks + joined.week.cast("int64")),
        x=(ibis.least(joined.micros, clip) // fixed.step).cast("int64"),
    )


def active_totals(span: Span, vector: VectorPlan) -> ir.Table:
    """(cell, x) of active people, straight from the bits of their weeks; equal to the way through `bounded`.

    All cells of one person hold the same number, so the norm follows from how many there are: k one².
    """
    fixed = FixedPoint(vector.numerator, vector.bound_units)
    one = min(MICROS, fixed.micros) // fixed.step
    homes = cohorts(span.block)
    count = reduce(add, [(homes.weeks >> (span.first + w)) & 1 for w in range(span.weeks)])
    square = count.cast("int64") * (one * one)
    inside = square <= vector.bound_units**2
    x = ibis.ifelse(inside, one, ibis.literal(one * vector.bound_units, "int64") // norm_of(square))
    people = homes.select("person", "geo", "weeks", x=x.cast("int64"))
    each = people.mutate(week=ibis.range(0, span.weeks).unnest())
    there = each.filter(((each.weeks >> (each.week + span.first).cast("int32")) & 1) == 1)
    return totals(there.select("person", cell=(there.geo * span.weeks + there.week).cast("int64"), x=there.x))


@cache
def statement(span: Span, vector: VectorPlan) -> Statement:
    """The bounded totals of one vector."""
    if vector.name == "active_users" and not vector.l0:
        return sql(active_totals(span, vector))
    table = rows(span, vector.name, FixedPoint(vector.numerator, vector.bound_units))
    return sql(totals(bounded(table, vector.bound_units, span.weeks, vector.l0)))


def exact(people: People, span: Span, vectors: tuple[VectorPlan, ...]) -> dict[str, np.ndarray]:
    """Bounded totals per vector before noise, fixed-point units (cells,). For the mechanism and for tests only."""
    return {v.name: people.vector(statement(span, v), v.cells) for v in vectors}
