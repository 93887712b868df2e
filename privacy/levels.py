"""levels: totals of regions, of the nation and of whole quarters, measured beside the weekly cells of the geos.

Off unless `privacy.shares.levels` > 0. Three levels for each metric of kpi, in one release per block:

| vector | cells | bounding |
|---|---|---|
| region:METRIC | declared region x week | that of kpi: the same person's vector, the same C |
| nation:METRIC | week | the same |
| quarter:METRIC | geo | a person's total of the quarter, clipped to a C of its own: another estimand |

Sensitivity. region and nation: a person has one cohort per block, so the cells of their bounded kpi vector lie in one
geo, in at most one region (regions are disjoint) and in the nation; summing geos moves the entries of one person to
other cells and adds none of them together, so the norm stays at most C. quarter: a person has one cell, clipped to its
C. Every vector is charged apart: levels are further looks at the same people. See `privacy.hierarchy` for what that
buys and for the table in which levels agree.

All of it needs kpi in one batch: weekly batches are bounded one by one, and laid side by side one person's vectors have
a norm of up to sqrt(batches) C. Such a policy is refused.
"""

from __future__ import annotations

from datetime import date
from functools import cache

import numpy as np
import pandas as pd

from contracts.errors import ConfigError
from privacy import kpi
from privacy.bounding import bounded, totals
from privacy.bounds import FixedPoint
from privacy.hierarchy import NATION
from privacy.inputs import Question
from privacy.people import People, Statement, sql
from privacy.policy import PrivacyPolicy
from privacy.vectors import Span, VectorPlan

METHOD = 1


def check(question: Question, policy: PrivacyPolicy) -> None:
    """Raises ConfigError for a region with a geo that no input declares, or a kpi that comes in batches."""
    if policy.cadence.get("kpi", "quarter") != "quarter":
        raise ConfigError(
            "privacy.shares.levels needs kpi in one batch a quarter, because batches are bounded one by one; set "
            'privacy.cadence.kpi = "quarter" or privacy.shares.levels = 0.'
        )
    for region, geos in policy.levels.regions.items():
        for geo in geos:
            if geo not in question.cohorts:
                raise ConfigError(
                    f"privacy.levels.regions.{region} names the geo {geo!r}, which is not declared; declared are "
                    f"{', '.join(question.cohorts)}."
                )


def keys(
    weeks: tuple[date, ...], question: Question, policy: PrivacyPolicy, vectors: tuple[str, ...]
) -> dict[str, pd.DataFrame]:
    """Public keys: level, area, week (none for a whole quarter), metric."""
    out = {}
    for name in vectors:
        level, metric = name.split(":")
        areas = {"region": tuple(policy.levels.regions), "nation": (NATION,), "quarter": question.cohorts}[level]
        cells = [(a, w) for a in areas for w in (weeks if level != "quarter" else (None,))]
        frame = pd.DataFrame(cells, columns=["area", "week"])
        frame.insert(0, "level", level)
        out[name] = frame.assign(metric=metric)
    return out


@cache
def statement(span: Span, areas: tuple[int, ...], vector: VectorPlan) -> Statement:
    """The bounded totals of one vector. `areas` is the area of each geo, -1 for none; empty for a whole quarter."""
    metric, fixed = vector.name.split(":")[1], FixedPoint(vector.numerator, vector.bound_units)
    rows = kpi.rows(span, metric, fixed)
    if not areas:
        return sql(totals(bounded(rows.mutate(cell=(rows.cell // span.weeks).cast("int64")), fixed.units, 1)))
    table = bounded(rows, fixed.units, span.weeks, vector.l0)
    area = (table.cell // span.weeks).cast("int64").cases(*enumerate(areas), else_=-1).cast("int64")
    moved = table.select("person", "x", area=area, week=(table.cell % span.weeks).cast("int64"))
    moved = moved.filter(moved.area >= 0)
    return sql(totals(moved.select("person", cell=(moved.area * span.weeks + moved.week).cast("int64"), x=moved.x)))


def exact(
    people: People, span: Span, question: Question, policy: PrivacyPolicy, vectors: tuple[VectorPlan, ...]
) -> dict[str, np.ndarray]:
    """Bounded totals per vector before noise, fixed-point units (cells,). For the mechanism and for tests only."""
    home = {geo: i for i, geos in enumerate(policy.levels.regions.values()) for geo in geos}
    regions = tuple(home.get(g, -1) for g in question.cohorts)
    areas = {"region": regions, "nation": (0,) * len(question.cohorts), "quarter": ()}
    return {v.name: people.vector(statement(span, areas[v.name.split(":")[0]], v), v.cells) for v in vectors}
