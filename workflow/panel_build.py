"""Builds `contracts.panel.Panel` from released KPIs and public tables, or from the aggregate-only panel table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date

import numpy as np
import pandas as pd
from scipy import stats

from contracts.calendar import week_of
from contracts.errors import InputError, MissingStep
from contracts.panel import OTHER_GEO, Panel
from contracts.release import Release
from workflow.config import Config
from workflow.tables_in import Controls, PublicTables, Spend

WEEK = 7
CLIPPED_PRIOR = 0.05  # share of the KPI that a sensible bound clips


def released_weeks(releases: Sequence[Release]) -> tuple[date, ...]:
    """Weeks that the kpi releases hold, oldest first."""
    return tuple(sorted({w for r in releases if r.measure == "kpi" for w in r.table["week"]}))


def kpi_rows(releases: Sequence[Release]) -> pd.DataFrame:
    """Rows of all kpi releases: geo, week, metric, value, variance, release_id, block. Empty when there are none."""
    frames = [r.table.assign(release_id=r.release_id, block=r.block) for r in releases if r.measure == "kpi"]
    columns = ["geo", "week", "metric", "value", "variance", "release_id", "block"]
    return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)


def from_releases(config: Config, public: PublicTables, releases: Sequence[Release]) -> Panel:
    """Panel of the released weeks that spend covers; spend is 0 where there is no spend table at all.

    Geo 'other' is left out: it has no spend. Raises MissingStep without kpi releases, InputError when controls leave a
    hole or spend and releases share no week.
    """
    rows = kpi_rows(releases)
    if rows.empty:
        raise MissingStep("no kpi release is published yet; run: plumb release")
    spend, start = public.spend, config.project.week_start
    weeks = released_weeks(releases)
    if spend is not None:
        weeks = tuple(w for w in weeks if w >= week_of(spend.first, start) and w <= spend.last)
        if not weeks:
            raise InputError(
                f"{spend.files[0].name} covers {spend.first} to {spend.last}, where no week is released; "
                "mend its dates or the calendar in plumb.toml."
            )
    geos = tuple(g for g in public.geos if g != OTHER_GEO)
    value = _grid(rows[rows["metric"] == config.project.kpi], "value", geos, weeks)
    variance = _grid(rows[rows["metric"] == config.project.kpi], "variance", geos, weeks)
    shape = (len(geos), len(weeks), len(public.channels))
    costs = np.zeros(shape) if spend is None else _weekly(spend.rows, "spend", geos, weeks, public.channels, start)
    media = costs.copy() if spend is None else _media(spend, costs, geos, weeks, public.channels, start)
    controls, names = _controls(public.controls, geos, weeks, start)
    return Panel(
        geos=geos, weeks=weeks, channels=public.channels, kpi=value, kpi_variance=np.nan_to_num(variance, nan=0.0),
        media=media, spend=costs, population=_population(public.controls, geos),
        controls=controls, control_names=names,
        organic=np.zeros((len(geos), len(weeks), 0)), organic_names=(),
        revenue_per_kpi=_revenue_per_kpi(config, rows, geos, weeks), kpi_name=config.project.kpi,
        currency=config.project.currency, period_days=WEEK, scale_back=scale_back(config.project.kpi, releases),
        user_level=True, evidence_ids=tuple(sorted(set(rows["release_id"]))),
    )  # fmt: skip


def check_public(config: Config, public: PublicTables) -> None:
    """Raises InputError, before anything is released, for a hole in the controls that the panel would meet later."""
    start, spend = config.project.week_start, public.spend
    weeks = tuple(
        w for w in public.weeks if spend is None or week_of(spend.first, start) <= w <= spend.last
    )  # fmt: skip
    geos = tuple(g for g in public.geos if g != OTHER_GEO)
    _controls(public.controls, geos, weeks, start)
    _population(public.controls, geos)


def _grid(rows: pd.DataFrame, column: str, geos: tuple[str, ...], weeks: tuple[date, ...]) -> np.ndarray:
    """(G, T) of one column; cells that no release holds are NaN."""
    wide = rows.pivot(index="geo", columns="week", values=column)
    return wide.reindex(index=list(geos), columns=list(weeks)).to_numpy(float)


def _weekly(
    rows: pd.DataFrame,
    column: str,
    geos: tuple[str, ...],
    weeks: tuple[date, ...],
    channels: tuple[str, ...],
    start: str,
) -> np.ndarray:
    """(G, T, C) sums of daily or weekly rows; a cell without a row is 0."""
    week = rows["day"].map(lambda d: week_of(d, start))
    sums = rows.groupby([rows["geo"], week, rows["channel"]])[column].sum()
    index = pd.MultiIndex.from_product([geos, weeks, channels])
    return sums.reindex(index, fill_value=0.0).to_numpy(float).reshape(len(geos), len(weeks), len(channels))


def _media(
    spend: Spend,
    costs: np.ndarray,
    geos: tuple[str, ...],
    weeks: tuple[date, ...],
    channels: tuple[str, ...],
    start: str,
) -> np.ndarray:
    """Impressions of channels that give them on every row with spend, spend otherwise. (G, T, C)"""
    rows, out = spend.rows, costs.copy()
    for position, channel in enumerate(channels):
        mine = rows[rows["channel"] == channel]
        paid = mine[(mine["spend"] > 0) | mine["impressions"].notna()]
        if len(paid) and paid["impressions"].notna().all() and paid["impressions"].sum() > 0:
            out[:, :, position] = _weekly(paid, "impressions", geos, weeks, (channel,), start)[:, :, 0]
    return out


def _controls(
    controls: Controls | None, geos: tuple[str, ...], weeks: tuple[date, ...], start: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """(G, T, K) weekly means of the controls. Raises InputError for a geo and week without a row."""
    if controls is None or not controls.names:
        return np.zeros((len(geos), len(weeks), 0)), ()
    week = controls.rows["day"].map(lambda d: week_of(d, start))
    means = controls.rows.groupby([controls.rows["geo"], week])[list(controls.names)].mean()
    wide = means.reindex(pd.MultiIndex.from_product([geos, weeks], names=["geo", "week"]))
    holes = wide.isna().any(axis=1)
    if holes.any():
        geo, hole = wide.index[int(np.flatnonzero(holes)[0])]
        raise InputError(
            f"{controls.files[0].name} has no row for geo {geo!r} in the week of {hole}; add it, or take the geo out "
            "of geos in [project] of plumb.toml."
        )
    return wide.to_numpy(float).reshape(len(geos), len(weeks), len(controls.names)), controls.names


def _population(controls: Controls | None, geos: tuple[str, ...]) -> np.ndarray:
    """People per geo; ones when the controls do not say."""
    if controls is None or not controls.population:
        return np.ones(len(geos))
    missing = [g for g in geos if g not in controls.population]
    if missing:
        raise InputError(f"{controls.files[0].name} gives no population for geo {missing[0]!r}; add a row for it.")
    return np.array([controls.population[g] for g in geos])


def _revenue_per_kpi(
    config: Config, rows: pd.DataFrame, geos: tuple[str, ...], weeks: tuple[date, ...]
) -> np.ndarray | None:
    """Constant released revenue ÷ released conversions; ones when the KPI is revenue; None when neither is known.

    None also where the noise hides whether there is any revenue: its total lies within two sd of zero.
    """
    shape = (len(geos), len(weeks))
    if config.project.kpi == "revenue":
        return np.ones(shape)
    inside = rows[rows["geo"].isin(geos) & rows["week"].isin(weeks)]
    totals: dict[str, float] = {}
    for metric in ("revenue", "conversions"):
        mine = inside[inside["metric"] == metric]
        totals[metric] = float(mine["value"].sum())
        if not totals[metric] > 2 * math.sqrt(float(mine["variance"].sum())):
            return None
    return np.full(shape, totals["revenue"] / totals["conversions"])


def scale_back(kpi: str, releases: Sequence[Release]) -> tuple[float, float]:
    """Factor (mean, sd) that undoes the clipped mass: 1 + r, r = Σ clipped ÷ Σ kpi over the blocks that release both.

    A block's clipped mass is one figure, whatever the number of batches its kpi came in.
    The noisy ratio is combined with r >= 0 and a half-normal prior of scale `CLIPPED_PRIOR`: bounds are chosen to clip
    little, and in a small world the noise alone would say anything (docs/decisions/0043). (1, 0) without such releases.
    """
    kept = kept_variance = lost = lost_variance = 0.0
    rows = kpi_rows(releases)
    rows = rows[rows["metric"] == kpi]
    for release in (r for r in releases if r.measure == "diagnostics"):
        noted = release.table
        mine, clipped = rows[rows["block"] == release.block], noted[noted["metric"] == f"clipped:{kpi}"]
        if clipped.empty or mine.empty:
            continue
        kept += float(mine["value"].sum())
        kept_variance += float(mine["variance"].sum())
        lost += float(clipped["value"].sum())
        lost_variance += float(clipped["variance"].sum())
    if kept <= 0 or lost_variance <= 0:
        return 1.0, 0.0
    ratio = lost / kept
    precision = kept**2 / (lost_variance + ratio**2 * kept_variance)
    variance = 1 / (precision + CLIPPED_PRIOR**-2)
    mean, sd = precision * ratio * variance, math.sqrt(variance)
    share = stats.truncnorm(-mean / sd, math.inf, loc=mean, scale=sd)
    return 1.0 + float(share.mean()), float(share.std())
