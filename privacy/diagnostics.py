"""diagnostics: how many people stand behind a block, how many consent, how much clipping cost.

| vector | cells | one person adds | L2 bound |
|---|---|---|---|
| cohort | geo | 1 to the cohort of their first event | 1 |
| people | people, consenting, invalid_people | at most 1 to each | sqrt(3) |
| clipped:conversions, clipped:revenue | 1 | what the bound took from them, at most 4 C | 4 C |

`people` counts everybody with a well-formed event in the block, consenting or not; it and `consenting` are the only
figures that see people without consent. `invalid_people` are consenting people with an event marked invalid.
"""

from __future__ import annotations

import math
from functools import cache

import ibis
import ibis.expr.types as ir
import numpy as np
import pandas as pd

from privacy import kpi
from privacy.bounding import bounded, lost, totals
from privacy.bounds import CLIPPED_CAP, MICROS, Bound, FixedPoint, fixed_point
from privacy.inputs import Question
from privacy.people import People, Statement, loaded, sql
from privacy.policy import PrivacyPolicy
from privacy.vectors import Span, VectorPlan

METHOD = 1
Capped = tuple[float, int]  # a bound, and the most cells of one person (0: any)
CLIPPED = ("conversions", "revenue")
SHARES = {"cohort": 0.4, "people": 0.2, "clipped:conversions": 0.2, "clipped:revenue": 0.2}
PEOPLE_CELLS = ("people", "consenting", "invalid_people")
PEOPLE_UNITS = math.isqrt(len(PEOPLE_CELLS) * MICROS * MICROS - 1) + 1  # smallest integer >= sqrt(3) people


def vectors(policy: PrivacyPolicy) -> dict[str, Bound]:
    """Name -> bound and share of the vectors in this policy."""
    out = {"cohort": Bound(1.0, SHARES["cohort"]), "people": Bound(math.sqrt(3), SHARES["people"])}
    for name in CLIPPED:
        if name in policy.kpi:
            key = f"clipped:{name}"
            out[key] = Bound(CLIPPED_CAP * policy.kpi[name].bound, SHARES[key])
    return out


def fixed(name: str, bound: float) -> FixedPoint:
    """Fixed-point bound of one vector. The people vector is rounded up, so that nobody is scaled down."""
    return FixedPoint(1, PEOPLE_UNITS) if name == "people" else fixed_point(bound)


def keys(question: Question, names: tuple[str, ...]) -> dict[str, pd.DataFrame]:
    """Public keys: metric, and geo where it applies."""
    built = {
        "cohort": pd.DataFrame({"metric": "cohort", "geo": list(question.cohorts)}),
        "people": pd.DataFrame({"metric": list(PEOPLE_CELLS), "geo": ""}),
    }
    return {n: built[n] if n in built else pd.DataFrame({"metric": [n], "geo": [""]}) for n in names}


def _people_rows(block: int) -> ir.Table:
    presence = loaded("presence")
    here = presence.filter(presence.block == block)
    one = ibis.literal(MICROS, "int64")
    consenting = here.filter(here.consenting == 1)
    invalid = consenting.filter(consenting.invalid == 1)
    parts = [
        t.select("person", cell=ibis.literal(i, "int64"), x=one) for i, t in enumerate((here, consenting, invalid))
    ]
    return ibis.union(*parts)


def _cohort_rows(block: int) -> ir.Table:
    home = kpi.cohorts(block)
    return home.select("person", cell=home.geo.cast("int64"), x=ibis.literal(MICROS, "int64"))


def _clipped_rows(whole: Span, batches: tuple[Span, ...], metric: str, kpi_bound: Capped, v: VectorPlan) -> ir.Table:
    """(person, cell, x): what the kpi bound took from each person, at most 4 C, in units of this vector.

    Every batch of the kpi measure is bounded on its own, so what was kept is summed over them.
    """
    bound, l0 = kpi_bound
    inner = fixed_point(bound)
    raw = kpi.rows(whole, metric, inner, clip_micros=(CLIPPED_CAP + 1) * inner.micros)
    parts = [bounded(kpi.rows(b, metric, inner), inner.units, b.weeks, l0) for b in batches]
    kept = ibis.union(*parts) if len(parts) > 1 else parts[0]
    return lost(raw, kept, inner, FixedPoint(v.numerator, v.bound_units))


@cache
def statement(whole: Span, batches: tuple[Span, ...], kpi_bound: Capped, vector: VectorPlan) -> Statement:
    """SQL of the bounded totals of one vector; `batches` and `kpi_bound` are those of the clipped metric."""
    if vector.name == "people":
        table = _people_rows(whole.block)
    elif vector.name == "cohort":
        table = _cohort_rows(whole.block)
    else:
        table = _clipped_rows(whole, batches, vector.name.removeprefix("clipped:"), kpi_bound, vector)
    return sql(totals(bounded(table, vector.bound_units, len(PEOPLE_CELLS))))


def exact(
    people: People, whole: Span, batches: tuple[Span, ...], policy: PrivacyPolicy, vectors: tuple[VectorPlan, ...]
) -> dict[str, np.ndarray]:
    """Bounded totals per vector before noise, fixed-point units (cells,). For the mechanism and for tests only."""
    out = {}
    for v in vectors:
        metric = v.name.removeprefix("clipped:")
        known = policy.kpi.get(metric)
        bound = (known.bound, policy.l0("kpi", metric, known)) if known else (0.0, 0)
        out[v.name] = people.vector(statement(whole, batches, bound, v), v.cells)
    return out
