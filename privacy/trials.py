"""trials: per arm (and declared stratum) of a user-randomised test, the sums from which its readings follow.

Per person over the whole window: each factor of a component (visits, conversions, revenue, the same before the test,
a declared covariate, exposure) is clipped to its bound first, then multiplied. Every component is divided by its
bound, so it lies in [0, 1]. Which components there are is declared per test (contracts/trials.py).

Sensitivity. A person is in one arm and one stratum of a test and adds at most 1 to each of its k components, so the
whole vector moves by at most sqrt(k) in L2, however many arms and strata there are. Every block that the window, the
days before it or the covariate's days touch is charged, because rows of each can change it: every component is
non-negative and falls when rows are taken away, so one block's rows move the vector by at most its own norm. A weekly
look is a release of its own, with its own noise and charge. Arm, stratum, day of entry and a logged exposure are told
once per person in the assignments.

All assigned consenting people count in n. Consent is the latest statement in the person's events, else the
`consent` column of the assignments where there is one, else what the workspace assumes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache, reduce

import ibis
import ibis.expr.types as ir
import numpy as np
import pandas as pd

from contracts.errors import ConfigError
from contracts.evidence import Experiment
from contracts.trials import ASSIGNED, COVARIATE, EXPOSED, PRE, TrialDesign, component_name
from privacy.bounding import bounded, total, totals
from privacy.bounds import MICROS, FixedPoint, fixed_point
from privacy.inputs import Question
from privacy.measure_policies import TrialPolicy
from privacy.people import CONVERSION, KINDS, VISIT, People, Statement, loaded, sql
from privacy.vectors import VectorPlan

METHOD = 1
ONE = 2**20  # fixed-point units of a component at its bound
Components = Sequence[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Part:
    """What one release of a test holds: the whole test, or look number `look` of a running one."""

    number: int  # position of the test in the question
    channel: int  # position of the tested channel; -1 where no event of it is asked for
    start: date
    end: date  # inclusive
    design: TrialDesign
    look: int = 0

    @property
    def components(self) -> tuple[tuple[str, ...], ...]:
        """Factors of each component."""
        return self.design.look_components() if self.look else self.design.components()

    @property
    def cells(self) -> tuple[str, ...]:
        """Strata of this release."""
        return ("",) if self.look else self.design.cells()

    @property
    def first_day(self) -> date:
        """First day whose rows are read."""
        return self.start if self.look else self.design.first_day(self.start)


def part_of(question: Question, experiment: Experiment, look: int = 0) -> Part:
    """The whole test, or one look: all days so far, or with `entry` the people who entered in that week.

    Raises ConfigError when exposure is asked of a channel that is not declared.
    """
    design = question.design(experiment)
    start, end = experiment.start, experiment.end
    if look:
        end = start + timedelta(days=7 * look - 1)
        start = end - timedelta(days=6) if design.entry else start
    channel = -1
    if design.exposed not in ("", ASSIGNED):
        if experiment.channel not in question.channels:
            raise ConfigError(f"experiments.{experiment.name}.exposed: channel {experiment.channel!r} is not declared.")
        channel = question.channels.index(experiment.channel)
    number = question.experiments.index(experiment)
    return Part(number, channel, start, end, design, look)


def bound_units(components: Components) -> int:
    """The smallest integer whose square is at least k ONE², so that no vector is ever scaled down."""
    return math.isqrt(len(components) * ONE * ONE - 1) + 1


def keys(experiment: str, arms: tuple[str, ...], part: Part) -> dict[str, pd.DataFrame]:
    """Public keys: arm x (stratum x) component."""
    cells = [(a, s, component_name(c)) for a in arms for s in part.cells for c in part.components]
    frame = pd.DataFrame(cells, columns=["arm", "stratum", "component"])
    frame.insert(0, "experiment", experiment)
    return {"trial": frame if len(part.cells) > 1 else frame.drop(columns="stratum")}


def component_bounds(policy: TrialPolicy, components: Components, covariate: float = 0.0) -> np.ndarray:
    """Bound of each component in metric units, (k,)."""
    own = {EXPOSED: 1.0, COVARIATE: covariate}
    bounds = policy.bounds()
    return np.array([math.prod(own.get(f, bounds.get(f.removeprefix(PRE), 0.0)) for f in c) for c in components])


def _sums(group: ir.Table, part: Part, policy: TrialPolicy, before: bool) -> ir.Table:
    """(person, the metrics, exposed) over the window, or over the days before it, not yet clipped.

    In fixed-point units of each bound. Every event is clipped to the bound first, so that no sum can leave int64.
    """
    epoch, events = date(1970, 1, 1), loaded("events")
    first, last = (part.first_day, part.start - timedelta(days=1)) if before else (part.start, part.end)
    inside = events.filter(events.day.between((first - epoch).days, (last - epoch).days))
    if part.design.entry and not before:
        inside = inside.join(group.select("person", "entered"), "person")
        inside = inside.filter(inside.day >= inside.entered)
    one = ibis.literal(MICROS, "int64")
    size = {
        "visits": ibis.ifelse(inside.kind == VISIT, one, 0),
        "conversions": ibis.ifelse(inside.kind == CONVERSION, one, 0),
        "revenue": ibis.ifelse(inside.kind == CONVERSION, inside.micros, 0),
    }
    sums = {}
    for name, bound in policy.bounds().items():
        fixed = fixed_point(bound)
        sums[PRE + name if before else name] = total((ibis.least(size[name], fixed.micros) // fixed.step).cast("int64"))
    if part.channel >= 0 and not before:
        reached = (inside.kind == KINDS.index(part.design.exposed)) & (inside.channel == part.channel)
        sums["reached"] = ibis.ifelse(reached, 1, 0).max().cast("int64")
    return inside.group_by("person").agg(**sums)


def _share(value: ir.Value, fixed: FixedPoint) -> ir.Value:
    """Clipped to its bound and divided by it, in units of ONE."""
    return ((ibis.least(value.fill_null(0), fixed.units) * ONE) // fixed.units).cast("int64")


def _factors(part: Part, policy: TrialPolicy) -> ir.Table:
    """(person, cell of arm and stratum, one column in [0, ONE] per factor) of everybody in the test."""
    assigned, design = loaded("assigned"), part.design
    group = assigned.filter(assigned.experiment == part.number)
    if part.look and design.entry:
        epoch = date(1970, 1, 1)
        group = group.filter(group.entered.between((part.start - epoch).days, (part.end - epoch).days))
    joined = group.left_join(_sums(group, part, policy, before=False), "person", rname="{name}_in")
    used = {f for c in part.components for f in c}
    if any(f.startswith(PRE) for f in used):
        joined = joined.left_join(_sums(group, part, policy, before=True), "person", rname="{name}_before")
    bounds = {prefix + name: b for prefix in ("", PRE) for name, b in policy.bounds().items()}
    shares = {name: _share(joined[name], fixed_point(b)) for name, b in bounds.items() if name in used}
    if COVARIATE in used:
        fixed = fixed_point(design.covariate)
        clipped = (ibis.least(joined.covariate, fixed.micros) // fixed.step).cast("int64")
        shares[COVARIATE] = _share(clipped, fixed)
    if EXPOSED in used:
        reached = joined.exposed if design.exposed == ASSIGNED else joined.reached.fill_null(0)
        shares[EXPOSED] = (reached * ONE).cast("int64")
    stratum = joined.stratum if len(part.cells) > 1 else 0
    return joined.select("person", cell=(joined.arm * len(part.cells) + stratum).cast("int64"), **shares)


def rows(part: Part, policy: TrialPolicy) -> ir.Table:
    """(person, cell, x) of one release of a test."""
    base, parts = _factors(part, policy), []
    for i, component in enumerate(part.components):
        factors = [base[name] for name in component]
        x = reduce(lambda a, b: (a * b) // ONE, factors) if factors else ibis.literal(ONE, "int64")
        cell = base.cell * len(part.components) + i
        parts.append(base.select("person", cell=cell.cast("int64"), x=x.cast("int64")))
    table = ibis.union(*parts)
    return table.filter(table.x > 0)


@cache
def statement(part: Part, policy: TrialPolicy, vector: VectorPlan) -> Statement:
    """SQL of the bounded totals of one release of a test."""
    return sql(totals(bounded(rows(part, policy), vector.bound_units, len(part.components))))


def exact(people: People, part: Part, policy: TrialPolicy, vector: VectorPlan) -> np.ndarray:
    """Bounded totals before noise, units of 1/ONE of each component's bound, (arms * strata * k,)."""
    return people.vector(statement(part, policy, vector), vector.cells)
