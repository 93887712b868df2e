"""One total per period: the precision-weighted mean of what the journeys tables say, and its distance from the KPI.

Each table gives two sums of the same conversions: with a touch, and without. They differ by released noise and, a
little, by how each vector was bounded. The means of both are weighted by the precision of the released noise (DESIGN
section 5).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attribution.tables import Journeys, read_journeys
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


def _split(
    table: str, value: np.ndarray, variance: np.ndarray, weight: np.ndarray, touched: np.ndarray, none: np.ndarray
) -> Sums:
    return Sums(
        table,
        float((value * weight)[touched].sum()),
        float(value[none].sum()),
        float((variance * weight**2)[touched].sum()),
        float(variance[none].sum()),
    )


def position_sums(journeys: Journeys, *, value: bool = False) -> Sums:
    """Last touches, and conversions without a touch; of the currency table when `value`."""
    t = journeys.position_value if value else journeys.position
    if t is None:
        raise ContractError(
            "this journeys release has no position_value; revenue credit needs it. Add it to the policy."
        )
    last = (t.channel >= 0) & (t.position == t.length)
    return _split("position", t.cells.value, t.cells.variance, np.ones(len(t.channel)), last, t.channel < 0)


def flow_sums(journeys: Journeys) -> Sums:
    """Transitions into conversion."""
    k = len(journeys.channels)
    into = slice(None), k
    touched = np.arange(k + 1) > 0
    value, variance = journeys.flow.value[into], journeys.flow.variance[into]
    return _split("flow", value, variance, np.ones(k + 1), touched, ~touched)


def all_sums(journeys: Journeys, *, value: bool = False) -> tuple[Sums, ...]:
    """Sums of every table that carries the metric: only position_value does for revenue."""
    if value:
        return (position_sums(journeys, value=True),)
    sets = journeys.sets
    extra: tuple[Sums, ...] = ()
    if sets is not None:
        extra = (_split("sets", sets.cells.value, sets.cells.variance, sets.weight, sets.touched, ~sets.touched),)
    return (position_sums(journeys), flow_sums(journeys), *extra)


def precision_weights(variances: np.ndarray) -> np.ndarray:
    """Weights (n,) that sum to 1, in proportion to 1/variance; exact figures (variance 0) share the whole weight."""
    exact = variances <= 0
    raw = exact.astype(float) if exact.any() else 1 / variances
    return raw / raw.sum()


def total_weights(sums: tuple[Sums, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Weights (n,) of the tables in the total, and in the conversions without a touch."""
    total = precision_weights(np.array([s.touched_variance + s.untouched_variance for s in sums]))
    return total, precision_weights(np.array([s.untouched_variance for s in sums]))


def reconciled_total(release: Release) -> tuple[float, float]:
    """Mean and standard deviation of the conversions of one journeys release, over all its tables."""
    rows = release.table
    names = (set(rows["source"].dropna()) | set(rows["target"].dropna())) if "source" in rows.columns else set()
    journeys = read_journeys(release, sorted(str(n) for n in names - {"start", "conversion", "null", ""}))
    sums = all_sums(journeys)
    weights, _ = total_weights(sums)
    variance = sum(w**2 * (s.touched_variance + s.untouched_variance) for w, s in zip(weights, sums, strict=True))
    mean = sum(w * (s.touched + s.untouched) for w, s in zip(weights, sums, strict=True))
    return float(mean), float(np.sqrt(variance))


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
