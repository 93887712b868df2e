"""Finished tables: cells are text with units, for screens and the report; and the same numbers raw, for download."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import pandas as pd

from app import evidence, figures
from app.figures import ChannelRow, Estimate
from app.rows import each
from app.saved.scenarios import Entry
from app.store import Snapshot
from app.wording import INTERVAL_NAME, MISSING, Units, between, figure, percent, ratio, title, with_interval


def overview(s: Snapshot) -> pd.DataFrame:
    """One row a channel. Money columns are ROI and mROI where revenue is known, else costs per KPI unit."""
    units, rows = figures.units(s), figures.channel_rows(s)
    spend, caused = (
        f"spend now, {units.currency} per {units.period}",
        f"incremental {units.kpi_title} ({INTERVAL_NAME})",
    )
    out = []
    for r in rows:
        cells = {"channel": r.channel, spend: figure(r.spend), caused: _cell(r.incremental)}
        cells |= _return_cells(r, units, any(x.roi for x in rows))
        cells[f"last-touch credit, {units.kpi_title}"] = _cell(r.credit)
        cells["factor, caused ÷ credited"] = _cell(r.factor, ratio)
        cells["recommended change"] = percent(r.change, signed=True)
        out.append(cells)
    frame = pd.DataFrame(out)
    return frame.loc[:, (frame != MISSING).any()]  # a workspace without credit has no column for it


def overview_csv(s: Snapshot) -> str:
    """The overview in full precision, one column a number."""
    rows = []
    for r in figures.channel_rows(s):
        flat: dict[str, object] = {"channel": r.channel, "spend_per_period": r.spend, "recommended_change": r.change}
        for name in ("incremental", "roi", "mroi", "cost", "marginal_cost", "credit", "factor"):
            value = getattr(r, name)
            parts = asdict(value) if value else dict.fromkeys(("mean", "p05", "p95"))
            flat |= {f"{name}_{k}": v for k, v in parts.items()}
        rows.append(flat)
    return pd.DataFrame(rows).to_csv(index=False)


def factors(s: Snapshot, period: evidence.Period) -> pd.DataFrame:
    """Factor table of a period: channel × credit model."""
    units = figures.units(s)
    return pd.DataFrame(
        [
            {
                "channel": r.channel,
                "credit model": title(str(r.model)),
                f"factor ({INTERVAL_NAME})": _known(r.mean, r.p05, r.p95),
                f"credited, {units.kpi_title}": figure(r.credited),
                f"caused, {units.kpi_title} ({INTERVAL_NAME})": with_interval(
                    r.incremental_kpi, r.incremental_p05, r.incremental_p95
                ),
                "rests on tests / model / credit": " / ".join(
                    percent(w) for w in (r.weight_lift, r.weight_mmm, r.weight_credit)
                ),
                "flag": r.flag or "",
            }
            for r in each(evidence.factors(s, period))
        ]
    )


def tests(s: Snapshot) -> pd.DataFrame:
    """Every experiment as it was read out: signed, over its own geos and weeks."""
    units = figures.units(s)
    return pd.DataFrame(
        [
            {
                "test": r.experiment + (f", arm {r.arm}" if r.arm else ""),
                "channel": r.channel,
                "kind": r.kind,
                "window": figures.span(r.start, r.end),
                "estimator": title(str(r.estimator)),
                f"effect ({INTERVAL_NAME})": " ".join(
                    (with_interval(r.mean, r.p05, r.p95), replace(units, kpi=str(r.metric)).kpi_title)
                ),
                "read by the model": "yes" if r.published else "no",
                "p-value": "< 0.001" if r.p_value < 0.001 else figure(r.p_value, 2),
                f"spend change, {units.currency}": figure(r.spend_delta),
                f"outcome per {units.currency} ({INTERVAL_NAME})": with_interval(
                    r.iroas, r.iroas_p05, r.iroas_p95, ratio
                ),
                "noise share of variance": percent(r.noise_variance_share),
            }
            for r in each(s.lift)
        ]
    )


def scenarios(s: Snapshot) -> pd.DataFrame:
    """Scenarios of the job and saved ones, one row a scenario and channel, over their own period."""
    units = figures.units(s)
    return pd.DataFrame(
        [
            {
                "scenario": title(str(r.scenario)) if not r.scenario_id else _saved_name(r),
                "channel": r.channel,
                "period": figures.span(r.period_start, r.period_end),
                f"spend, {units.currency}": figure(r.spend),
                "change of spend": percent(r.spend_change, signed=True),
                f"caused, {units.kpi_title} ({INTERVAL_NAME})": with_interval(r.mean, r.p05, r.p95),
            }
            for r in each(s.scenarios)
        ]
    )


def saved(entries: Sequence[Entry], fit: str) -> pd.DataFrame:
    """The list of saved scenarios, each in the units that it was saved in. `fit` names the draws now in use."""
    return pd.DataFrame(
        [
            {
                "scenario": e.name,
                "period": figures.span(e.period_start, e.period_end),
                "budget": f"{units.money(e.budget)} per {units.period}",
                f"caused, all channels ({INTERVAL_NAME})": f"{with_interval(e.mean, e.p05, e.p95)} {units.kpi_title}",
                "priced with": "the fit in use" if e.response_id == fit else "an older fit",
                "author": e.author,
                "saved": f"{e.saved_at[:16]} UTC, version {e.version}",
                "comments": str(e.comments),
            }
            for e, units in ((e, Units(e.kpi, e.currency, figures.PERIODS[e.period_days])) for e in entries)
        ]
    )


def _saved_name(r: Any) -> str:
    return f"{r.scenario}{', older fit' if r.outdated else ''}"


def plan(rows: pd.DataFrame, units: Units) -> pd.DataFrame:
    """Rows of a scenario's comparison as text."""
    return pd.DataFrame(
        [
            {
                "channel": r.channel,
                f"now, {units.currency} per {units.period}": figure(r.current_spend),
                f"scenario, {units.currency} per {units.period}": figure(r.spend),
                "change of spend": percent(r.spend_change, signed=True),
                f"change of {units.kpi_title} per {units.period} ({INTERVAL_NAME})": with_interval(
                    r.mean, r.p05, r.p95
                ),
            }
            for r in each(rows)
        ]
    )


def _return_cells(r: ChannelRow, units: Units, money: bool) -> dict[str, str]:
    if money:
        unit = f"{units.currency} per {units.currency}"
        return {f"ROI, {unit}": _cell(r.roi, ratio), f"mROI, {unit}": _cell(r.mroi, ratio)}
    one = f"{units.currency} per incremental {units.kpi}"
    return {f"cost, {one}": _cell(r.cost), f"marginal cost, {one}": _cell(r.marginal_cost)}


def _cell(value: Estimate | None, write: object = figure) -> str:
    writer = ratio if write is ratio else figure
    return MISSING if value is None else with_interval(value.mean, value.p05, value.p95, writer)


def _known(mean: float, p05: float, p95: float) -> str:
    if pd.isna(mean):
        return "not printed: the credit's interval holds 0"
    return f"{ratio(mean)} ({between(p05, p95, ratio)})"
