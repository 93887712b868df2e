"""Integer L2 bounding of each person's vector, as one Ibis expression (DESIGN section 3).

    n  = ceil(sqrt(sum x²)) + 1
    x' = x              if sum x² <= C²
         (x C) // n     otherwise

All x are integers in [0, C], so after scaling sum x'² <= C² sum x² / n² <= C²: adding or removing one person moves the
table by at most C in L2, whatever the number of cells. C <= 2^26 and at most 1,024 cells a person, so sum x² <= 2^62
fits int64 and x C <= 2^52. The test on integers (and not on the rounded root) keeps the bound exact.

`//` compiles to floor(a / b) on doubles on both engines. It is exact here: a <= 2^52 and b are exact doubles, and a
quotient that is not an integer lies at least 1/b away from one, while the rounding error is at most (a/b) 2^-53, which
is at most 1/(2 b).
"""

from __future__ import annotations

import math

import ibis
import ibis.expr.types as ir

from privacy.bounds import CLIPPED_CAP, MAX_CELLS_PER_PERSON, MAX_UNITS, FixedPoint
from privacy.people import loaded

FINE = 1000  # steps into which one event is divided while the norm of a count vector is taken


def total(column: ir.Value) -> ir.Value:
    """Sum of int64 as int64. DuckDB sums into 128 bits, and Ibis drops a cast that it thinks changes nothing."""
    return column.sum().cast("decimal(38, 0)").cast("int64")


def per_cell(rows: ir.Table, bound_units: int) -> ir.Table:
    """(person, cell, x): each row clipped to [0, C], summed to person x cell, clipped to C again."""
    clipped = rows.mutate(x=ibis.least(ibis.greatest(rows.x, 0), bound_units).cast("int64"))
    summed = clipped.group_by(["person", "cell"]).agg(x=total(clipped.x))
    return summed.mutate(x=ibis.least(summed.x, bound_units).cast("int64"))


def first_cells(cells: ir.Table, limit: int = MAX_CELLS_PER_PERSON) -> ir.Table:
    """Keeps at most `limit` cells of each person, in the order of the keyed hash of (person, cell).

    The table `keys` maps the engine's person number to its keyed hash. The number itself depends on who else is in the
    file, so ordering by it would let one person's row change another's contribution.
    """
    keyed = cells.join(loaded("keys"), "person")
    order = (keyed.user_key + ":" + keyed.cell.cast("string")).hexdigest("sha256")
    ranked = keyed.mutate(rank=ibis.row_number().over(ibis.window(group_by=keyed.person, order_by=order)))
    return ranked.filter(ranked["rank"] < limit).select("person", "cell", "x")


def scaled(cells: ir.Table, bound_units: int, *, inside: int | None = None, gain: int = 1) -> ir.Table:
    """(person, cell, x) with each person's vector scaled into the L2 ball of radius `bound_units`.

    A vector whose sum of squares is at most `inside` (default C²) is multiplied by `gain` (default 1) and else kept.
    Only the few persons outside are joined back, which costs less than a window over everybody.
    """
    sums = cells.group_by("person").agg(square=total(cells.x * cells.x))
    outside = sums.filter(sums.square > (bound_units * bound_units if inside is None else inside))
    norms = outside.select("person", norm=norm_of(outside.square))
    both = cells.left_join(norms, "person")
    kept = both.x * gain if gain > 1 else both.x
    less = shrunk(both.x, bound_units, both.norm)
    return both.select("person", "cell", x=ibis.ifelse(both.norm.isnull(), kept, less))


def norm_of(square: ir.Value) -> ir.Value:
    """ceil(sqrt(square)) + 1, at least the root whatever a double made of it."""
    return square.cast("float64").sqrt().ceil().cast("int64") + 1


def shrunk(x: ir.Value, bound_units: int, norm: ir.Value) -> ir.Value:
    """floor(x C / n)."""
    return ((x * bound_units) // norm).cast("int64")


def linf_units(bound_units: int, l0: int) -> int:
    """The largest Linf with sqrt(L0) Linf <= C, so that C stays the L2 sensitivity."""
    return math.isqrt(bound_units * bound_units // l0)


def bounded(rows: ir.Table, bound_units: int, per_person: int, l0: int = 0) -> ir.Table:
    """(person, cell, x) after clipping, capping and scaling; or, with `l0`, at most l0 cells of at most Linf each.

    `per_person` is the most cells that one person can touch, known from the public keys. With `l0`, cells are kept in
    the order of the keyed hash of (person, cell), and nothing is scaled: sum x'² <= L0 Linf² <= C².
    """
    if l0:
        table = per_cell(rows, linf_units(bound_units, l0))
        return first_cells(table, l0) if per_person > l0 else table
    table = per_cell(rows, bound_units)
    if per_person > MAX_CELLS_PER_PERSON:  # decided by the public keys, never by the data
        table = first_cells(table)
    return scaled(table, bound_units)


def bounded_counts(rows: ir.Table, bound_units: int, one: int, per_person: int) -> ir.Table:
    """As `bounded` for rows that count (x = 1, worth `one` units each), with one scale and no clip by cell.

    Clipping single cells would break what the counts conserve (flow into a channel = flow out of it). The norm is taken
    on x f with f = gcd(one, 1000), so that it stays in int64 up to 67,108 equal events of one person, where a cell is
    cut after all. Σ (k one)² <= C² is tested as Σ (k f)² <= floor(C² f² / one²), which is the same for integers.
    """
    fine = math.gcd(one, FINE)
    table = per_cell(rows, MAX_UNITS // fine)
    if per_person > MAX_CELLS_PER_PERSON:
        table = first_cells(table)
    table = table.mutate(x=table.x * fine)
    return scaled(table, bound_units, inside=(bound_units * fine) ** 2 // one**2, gain=one // fine)


def lost(raw: ir.Table, kept: ir.Table, inner: FixedPoint, outer: FixedPoint) -> ir.Table:
    """(person, cell 0, x): what the bound `inner` took from each person, at most 4 C, in units of `outer`.

    `raw` is (person, x) in units of `inner`, each event cut at 5 C: one such event alone makes the mass reach 4 C, and
    sums stay inside int64. `kept` is the same person's bounded vector. Sensitivity: 4 C, from that person's rows alone.
    """
    before = raw.group_by("person").agg(raw=total(raw.x))
    after = kept.group_by("person").agg(kept=total(kept.x))
    both = before.left_join(after, "person")
    mass = ibis.least(both.raw - both.kept.fill_null(0), CLIPPED_CAP * inner.units)
    x = ((mass * inner.step) // outer.step).cast("int64")
    table = both.select("person", cell=ibis.literal(0, "int64"), x=x)
    return table.filter(table.x > 0)


def totals(table: ir.Table) -> ir.Table:
    """(cell, x): sums over people. The only place where people meet, and it is a sum."""
    return table.group_by("cell").agg(x=total(table.x))
