"""trials: per arm of a user-randomised experiment, the sums from which means, variances and covariances follow.

Per person over the whole window: visits, conversions and revenue are clipped to their bounds first, then multiplied.
Every component is divided by its bound, so it lies in [0, 1].

Sensitivity. A person is in one arm of an experiment and adds at most 1 to each of its k components, so the whole vector
moves by at most sqrt(k) in L2. Every block that the window touches is charged, because rows of each can change it.
All assigned consenting people count in n. Consent is the latest statement in the person's events, else the
`consent` column of the assignments where there is one, else what the workspace assumes.
"""

from __future__ import annotations

import math
from datetime import date
from functools import cache, reduce

import ibis
import ibis.expr.types as ir
import numpy as np
import pandas as pd

from privacy.bounding import bounded, total, totals
from privacy.inputs import Question
from privacy.people import CONVERSION, VISIT, People, Statement, loaded, sql
from privacy.policy import MICROS, TrialPolicy, fixed_point
from privacy.vectors import VectorPlan

METHOD = 1
ONE = 2**20  # fixed-point units of a component at its bound
COMPONENTS: tuple[tuple[str, ...], ...] = (
    (),
    ("visits",),
    ("visits", "visits"),
    ("conversions",),
    ("conversions", "conversions"),
    ("revenue",),
    ("revenue", "revenue"),
    ("conversions", "revenue"),
)
NAMES = tuple("*".join(c) or "n" for c in COMPONENTS)
# the smallest integer whose square is at least k * ONE², so that no vector is ever scaled down
BOUND_UNITS = math.isqrt(len(COMPONENTS) * ONE * ONE - 1) + 1


def keys(experiment: str, arms: tuple[str, ...]) -> dict[str, pd.DataFrame]:
    """Public keys: arm x component."""
    cells = [(arm, name) for arm in arms for name in NAMES]
    frame = pd.DataFrame({"arm": [a for a, _ in cells], "component": [c for _, c in cells]})
    frame.insert(0, "experiment", experiment)
    return {"trial": frame}


def component_bounds(policy: TrialPolicy) -> np.ndarray:
    """Bound of each component in metric units, (k,)."""
    bounds = policy.bounds()
    return np.array([math.prod(bounds[part] for part in c) for c in COMPONENTS], dtype=float)


def _outcomes(start: date, end: date, policy: TrialPolicy) -> ir.Table:
    """(person, visits, conversions, revenue) over the window, in fixed-point units of each bound, not yet clipped.

    Every event is clipped to the bound first, so that no sum can leave int64.
    """
    epoch = date(1970, 1, 1)
    events = loaded("events")
    inside = events.filter(events.day.between((start - epoch).days, (end - epoch).days))
    one = ibis.literal(MICROS, "int64")
    size = {
        "visits": ibis.ifelse(inside.kind == VISIT, one, 0),
        "conversions": ibis.ifelse(inside.kind == CONVERSION, one, 0),
        "revenue": ibis.ifelse(inside.kind == CONVERSION, inside.micros, 0),
    }
    sums = {}
    for name, bound in policy.bounds().items():
        fixed = fixed_point(bound)
        sums[name] = total((ibis.least(size[name], fixed.micros) // fixed.step).cast("int64"))
    return inside.group_by("person").agg(**sums)


def rows(number: int, start: date, end: date, policy: TrialPolicy) -> ir.Table:
    """(person, cell, x) of one experiment, by its position in the question."""
    assigned = loaded("assigned")
    group = assigned.filter(assigned.experiment == number).select("person", "arm")
    joined = group.left_join(_outcomes(start, end, policy), "person")
    shares = {}
    for name, bound in policy.bounds().items():
        fixed = fixed_point(bound)
        clipped = ibis.least(joined[name].fill_null(0), fixed.units)
        shares[name] = ((clipped * ONE) // fixed.units).cast("int64")
    base = joined.select("person", "arm", **shares)
    parts = []
    for i, component in enumerate(COMPONENTS):
        factors = [base[name] for name in component]
        x = reduce(lambda a, b: (a * b) // ONE, factors) if factors else ibis.literal(ONE, "int64")
        cell = base.arm.cast("int64") * len(COMPONENTS) + i
        parts.append(base.select("person", cell=cell.cast("int64"), x=x.cast("int64")))
    table = ibis.union(*parts)
    return table.filter(table.x > 0)


@cache
def statement(number: int, start: date, end: date, policy: TrialPolicy, vector: VectorPlan) -> Statement:
    """SQL of the bounded totals of one experiment."""
    return sql(totals(bounded(rows(number, start, end, policy), vector.bound_units, len(COMPONENTS))))


def exact(people: People, question: Question, experiment: str, policy: TrialPolicy, vector: VectorPlan) -> np.ndarray:
    """Bounded totals before noise, units of 1/ONE of each component's bound, (arms * k,)."""
    number, e = next((i, e) for i, e in enumerate(question.experiments) if e.name == experiment)
    return people.vector(statement(number, e.start, e.end, policy, vector), vector.cells)
