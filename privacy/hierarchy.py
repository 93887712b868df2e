"""Geo levels: regions and the nation beside the geos, and tables in which parts add up to wholes.

A region's or the nation's total is a linear map of the same bounded vectors, so it needs no bounding of its own.

| on paper | here | shape |
|---|---|---|
| x | leaves: geo x week totals of one metric, after bounding, before noise | (n,) |
| H | design: one row per measured cell; 1 where a geo lies in the area | (m, n) |
| z = H x + e, Cov e = D | measured values and their known variances | (m,), diagonal |
| x̂ = (H' D⁻¹ H)⁻¹ H' D⁻¹ z | reconciled leaves | (n,) |
| V = (H' D⁻¹ H)⁻¹ | their covariance (dense) | (n, n) |

Sensitivity of a level. A person has one cohort per block, so all their cells of one metric lie in one geo, hence in
one region and in one nation: the map from geos to areas moves a person's entries and adds none of them together. Their
vector has the same norm at every level, at most C, so each level has L2 sensitivity C, the same C. What a level costs
is rho: K levels drawn apart are K releases about the same people and pay C²/(2 sigma_k²) each; the stacked vector has
sensitivity sqrt(K) C. Summing n released geos instead costs nothing and has the noise of n cells: sigma sqrt(n).

That holds for areas only. A quarter's total of a geo adds a person's weeks together: its sensitivity under the kpi
bound is the person's L1 norm, up to sqrt(weeks) C. A level over weeks (or channels) is therefore bounded anew, each
person's total clipped to a C of its own: another estimand, with another clipping bias. It is released as a vector of
its own and is never reconciled with the weekly cells.

Reconciliation (generalised least squares; Hay et al. 2010 for the idea, Aitken for the theorem) is post-processing: it
costs no privacy. It is the best linear unbiased estimate for the known D, so no cell has more variance than its own
measurement. The raw measurements stay the primary record; models read those with H and D, because V is dense and its
diagonal alone would call correlated figures independent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from contracts.errors import ContractError
from contracts.release import Release

NATION = "nation"
COLUMNS = ("metric", "level", "area", "week", "value", "variance", "consistent", "consistent_variance")


@dataclass(frozen=True, slots=True)
class Reconciled:
    """Consistent estimates: of the leaves (n,) with their covariance (n, n), and of every measured cell (m,).

    `values` = H `leaves`, so parts add up to wholes; `variances` are those of `values`.
    """

    leaves: np.ndarray
    covariance: np.ndarray
    values: np.ndarray
    variances: np.ndarray


def design(geos: Sequence[str], areas: Mapping[str, Sequence[str]]) -> np.ndarray:
    """H (areas, geos) of 0 and 1. Raises ContractError for an area that names an unknown geo, one twice, or none."""
    place = {g: i for i, g in enumerate(geos)}
    out = np.zeros((len(areas), len(geos)))
    for row, (area, members) in enumerate(areas.items()):
        if not members or len(set(members)) != len(members):
            raise ContractError(f"area {area!r} must name each of its geos once; got {', '.join(members) or 'none'}.")
        for geo in members:
            if geo not in place:
                raise ContractError(f"area {area!r} names the geo {geo!r}, which is not declared.")
            out[row, place[geo]] = 1.0
    return out


def reconcile(measured: np.ndarray, variance: np.ndarray, design: np.ndarray) -> Reconciled:
    """Generalised least squares of independent measurements `measured` (m,) with known `variance` (m,) > 0.

    Raises ContractError on shapes that do not fit, a variance that is not positive, or leaves that the measurements do
    not determine.
    """
    z, d, h = (np.asarray(a, dtype=float) for a in (measured, variance, design))
    if h.ndim != 2 or z.shape != d.shape or z.shape != h.shape[:1]:
        raise ContractError(f"shapes do not fit: measured {z.shape}, variance {d.shape}, design {h.shape}.")
    if not (np.isfinite(z).all() and np.isfinite(d).all() and (d > 0).all()):
        raise ContractError("every measurement needs a finite value and a finite variance above 0.")
    if np.linalg.matrix_rank(h) < h.shape[1]:
        raise ContractError(
            f"{h.shape[0]} measurements do not determine {h.shape[1]} leaves; add the level that is missing."
        )
    # QR of the whitened design: no normal equations, whose condition number would be squared. Row i of H R⁻¹ is
    # sqrt(d_i) q_i, so its variance is d_i |q_i|², at most d_i also in floating point.
    q, r = np.linalg.qr(h / np.sqrt(d)[:, None])
    inverse = np.linalg.inv(r)
    leaves = inverse @ (q.T @ (z / np.sqrt(d)))
    return Reconciled(leaves, inverse @ inverse.T, h @ leaves, d * (q**2).sum(axis=1))


def consistent(kpi: Release, levels: Release) -> pd.DataFrame:
    """The derived table of one block: every weekly cell of geos, regions and the nation, as released and reconciled.

    Columns `COLUMNS`; metric units. Not for modelling: the reconciled figures of one week are correlated. Raises
    ContractError when the two releases are not of one block, or do not hold the same weeks.
    """
    if (kpi.measure, levels.measure) != ("kpi", "levels") or kpi.block != levels.block:
        raise ContractError(
            f"a kpi and a levels release of one block are needed; got {kpi.measure!r} of {kpi.block} and "
            f"{levels.measure!r} of {levels.block}."
        )
    regions: Mapping[str, Sequence[str]] = levels.metadata["spec"]["regions"]
    frames = []
    for name in levels.table["vector"].unique():
        level, metric = str(name).split(":")
        if level == "nation":
            frames.append(_one_metric(metric, kpi.vector(metric), levels, regions))
    if not frames:
        raise ContractError(f"release {levels.release_id!r} holds no national level; nothing can be reconciled.")
    return pd.concat(frames, ignore_index=True)


def _one_metric(
    metric: str, leaves: pd.DataFrame, levels: Release, regions: Mapping[str, Sequence[str]]
) -> pd.DataFrame:
    geos = tuple(dict.fromkeys(map(str, leaves["geo"])))
    parts = [leaves.rename(columns={"geo": "area"}).assign(level="geo")]
    held = set(levels.table["vector"])
    parts += [levels.vector(f"{level}:{metric}") for level in ("region", "nation") if f"{level}:{metric}" in held]
    cells = pd.concat(parts, ignore_index=True)[["level", "area", "week", "value", "variance"]]
    members = {("geo", g): (g,) for g in geos} | {("region", r): tuple(g) for r, g in regions.items()}
    members[("nation", NATION)] = geos
    out = []
    for week, table in cells.groupby("week", sort=True):
        if table[table["level"] == "geo"]["area"].tolist() != list(geos) or "nation" not in set(table["level"]):
            raise ContractError(f"levels release {levels.release_id!r} and kpi differ in their cells of week {week}.")
        rows = list(zip(table["level"], table["area"], strict=True))
        h = design(geos, {" ".join(row): members[row] for row in rows})
        found = reconcile(table["value"].to_numpy(), table["variance"].to_numpy(), h)
        out.append(table.assign(consistent=found.values, consistent_variance=found.variances))
    return pd.concat(out, ignore_index=True).assign(metric=metric)[list(COLUMNS)]
