"""One total per period: the precision-weighted mean of what the journeys tables say, and its distance from the KPI.

Each table gives two sums of the same conversions: with a touch, and without. They differ by released noise and, a
little, by how each vector was bounded. The means of both are weighted by the precision of the released noise (DESIGN
section 5).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attribution.tables import Cells, Journeys, read_journeys
from contracts.errors import ContractError
from contracts.release import Release


@dataclass(frozen=True, slots=True)
class Sums:
    """What one table says: (with a touch, without) and their noise variances, metric units."""

    table: str
    touched: float
    untouched: float
    touched_variance: float
    untouched_variance: float


@dataclass(frozen=True, slots=True)
class TotalsGap:
    """Reconciled total of the journeys tables against the KPI table of the same block, conversions."""

    journeys_total: float
    kpi_total: float
    gap: float  # journeys − kpi
    sd: float  # released noise of both
    in_sd: float  # gap / sd; 0 where both are exact and equal


def sum_weights(journeys: Journeys, table: str) -> np.ndarray:
    """Weights (R, 2) that turn a table's cells into (with a touch, without): the flow's cells row by row."""
    if table == "flow":
        inner = np.zeros((*journeys.flow.cells.value.shape, 2))
        k = len(journeys.channels)
        inner[1:, k, 0], inner[0, k, 1] = 1.0, 1.0
        return inner.reshape(-1, 2)
    if table == "sets":
        sets = journeys.sets
        assert sets is not None
        return np.column_stack([sets.weight * (sets.converted & (sets.size > 0)), sets.converted & (sets.size == 0)])
    t = journeys.position if table == "position" else journeys.position_value
    assert t is not None
    return np.column_stack([(t.channel >= 0) & (t.position == t.length), t.channel < 0]).astype(float)


def cells_of(journeys: Journeys, table: str) -> Cells:
    """Cells (R,) of one table. Raises ContractError where it was not released."""
    if table == "flow":
        return Cells(journeys.flow.cells.value.ravel(), journeys.flow.cells.variance.ravel())
    found = {"position": journeys.position, "position_value": journeys.position_value, "sets": journeys.sets}[table]
    if found is None:
        raise ContractError(
            f"this journeys release has no {table}; give privacy.journeys.{table} a share in plumb.toml."
        )
    return found.cells


def table_sums(journeys: Journeys, table: str) -> Sums:
    """What one table says of the conversions (position_value: of the revenue)."""
    cells, weights = cells_of(journeys, table), sum_weights(journeys, table)
    touched, untouched = cells.value @ weights
    touched_variance, untouched_variance = cells.variance @ weights**2
    return Sums(table, float(touched), float(untouched), float(touched_variance), float(untouched_variance))


def all_sums(journeys: Journeys, *, value: bool = False) -> tuple[Sums, ...]:
    """Sums of every table that carries the metric: only position_value does for revenue."""
    if value:
        return (table_sums(journeys, "position_value"),)
    names = ("position", "flow") if journeys.sets is None else ("position", "flow", "sets")
    return tuple(table_sums(journeys, name) for name in names)


def precision_weights(variances: np.ndarray) -> np.ndarray:
    """Weights (n,) that sum to 1, in proportion to 1/variance; exact figures (variance 0) share the whole weight."""
    exact = variances <= 0
    raw = exact.astype(float) if exact.any() else 1 / variances
    return raw / raw.sum()


def total_weights(sums: tuple[Sums, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Weights (n,) of the tables in the total, and in the conversions without a touch."""
    total = precision_weights(np.array([s.touched_variance + s.untouched_variance for s in sums]))
    return total, precision_weights(np.array([s.untouched_variance for s in sums]))


def period_total(journeys: Journeys, *, value: bool = False) -> tuple[float, float]:
    """Mean and variance of the total of one metric over all tables that carry it."""
    sums = all_sums(journeys, value=value)
    weights, _ = total_weights(sums)
    variance = sum(w**2 * (s.touched_variance + s.untouched_variance) for w, s in zip(weights, sums, strict=True))
    mean = sum(w * (s.touched + s.untouched) for w, s in zip(weights, sums, strict=True))
    return float(mean), float(variance)


def touched_total(journeys: Journeys) -> tuple[float, float]:
    """Mean and variance of the reconciled conversions that had a touch."""
    sums = all_sums(journeys)
    total, none = total_weights(sums)
    rows = list(zip(sums, total, none, strict=True))
    mean = sum(t * (s.touched + s.untouched) - n * s.untouched for s, t, n in rows)
    variance = sum(t**2 * s.touched_variance + (t - n) ** 2 * s.untouched_variance for s, t, n in rows)
    return float(mean), float(variance)


def reconciled_total(release: Release) -> tuple[float, float]:
    """Mean and standard deviation of the conversions of one journeys release, over all its tables."""
    rows = release.table
    names = set(rows["target"].dropna()) if "target" in rows.columns else set()
    mean, variance = period_total(read_journeys(release, sorted(str(n) for n in names - {"conversion", "null", ""})))
    return mean, float(np.sqrt(variance))


def gap_to_kpi(journeys: Release, kpi: Release) -> TotalsGap:
    """Reconciled journeys total minus the KPI table's conversions of the same block, in sd of the released noise.

    Raises ContractError when the two releases are of different blocks or the second holds no conversions.
    """
    if journeys.block != kpi.block:
        raise ContractError(
            f"journeys release {journeys.release_id!r} is of block {journeys.block!r} and kpi release "
            f"{kpi.release_id!r} of {kpi.block!r}; compare releases of one block."
        )
    rows = kpi.table[kpi.table["metric"] == "conversions"] if "metric" in kpi.table.columns else kpi.table.iloc[:0]
    if rows.empty:
        raise ContractError(f"release {kpi.release_id!r} holds no rows of metric 'conversions'.")
    mean, sd = reconciled_total(journeys)
    kpi_total = float(rows["value"].sum())
    spread = float(np.hypot(sd, np.sqrt(rows["variance"].sum())))
    gap = mean - kpi_total
    if spread > 0:
        in_sd = gap / spread
    else:
        in_sd = 0.0 if gap == 0 else float(np.copysign(np.inf, gap))
    return TotalsGap(mean, kpi_total, gap, spread, in_sd)
