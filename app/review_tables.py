"""A budget review as text, for its page: P50 with P10 to P90, units in the heads."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from app.figures import span
from app.review import Band, Money, Review
from app.rows import each
from app.wording import INTERVAL_NAME, MISSING, figure, percent, ratio, with_interval


def channels(r: Review) -> pd.DataFrame:
    """Channels of a budget review as text."""
    money, kpi = r.units.currency, r.units.kpi_title
    rows = [
        {
            "channel": x.channel,
            f"spend now, {money}": figure(x.now),
            f"plan, {money}": figure(x.plan) + (" (beyond observed)" if x.extrapolated else ""),
            "change of spend": percent(x.change, signed=True),
            "evidence grade": x.grade,
            f"caused now, {kpi} (P10 to P90)": _band(x.caused_now),
            f"caused by the plan, {kpi} (P10 to P90)": _band(x.caused),
            f"ROI, {money} per {money} (P10 to P90)": _band(x.roi, ratio),
            f"mROI, {money} per {money} (P10 to P90)": _band(x.mroi, ratio),
        }
        for x in r.lines
    ]
    frame = pd.DataFrame(rows)
    return frame.loc[:, (frame != MISSING).any()]


def options(r: Review) -> pd.DataFrame:
    """Scenarios of a budget review as text, the plan under review marked."""
    money, kpi = r.units.currency, r.units.kpi_title
    return pd.DataFrame(
        [
            {
                "scenario": f"{o.letter}: {o.name}" + (" (under review)" if o.letter == r.plan else ""),
                f"spend, {money}": figure(o.spend),
                f"caused, {kpi} (P10 to P90)": _band(o.caused),
                f"gain on the current split, {kpi} (P10 to P90)": _band(o.gain),
                "chance of a gain": MISSING if o.gain == Band(0.0, 0.0, 0.0) else percent(o.chance),
                "author": o.author or "plumb plan",
                "plan of record": "yes" if o.of_record else "no",
            }
            for o in r.options
        ]
    )


def money(r: Review) -> pd.DataFrame | None:
    """What each scenario is worth in money, as text; None where a unit of the KPI has no value."""
    unit = r.units.currency
    rows = [
        {
            "scenario": f"{o.letter}: {o.name}" + (" (under review)" if o.letter == r.plan else ""),
            f"spend, {unit}": figure(o.spend),
            f"revenue caused, {unit} (P10 to P90)": _band(o.money.revenue),
            f"contribution less spend, {unit} (P10 to P90)": _band(o.money.contribution),
            "chance to earn its spend": percent(o.money.pays),
            "weeks until it has (P10 to P90)": payback(o.money),
        }
        for o in r.options
        if o.money is not None
    ]
    frame = pd.DataFrame(rows)
    return frame.loc[:, (frame != MISSING).any()] if rows else None


def payback(m: Money) -> str:
    """Weeks until a plan has earned its spend, as text; what comes after the weeks that were looked at is no number."""
    if m.payback is None:
        return MISSING
    parts = (m.payback.p10, m.payback.p50, m.payback.p90)
    if not any(x < float("inf") for x in parts):
        return f"not within {figure(m.weeks)}"
    p10, p50, p90 = (figure(x) if x < float("inf") else f"over {figure(m.weeks)}" for x in parts)
    return f"{p50} ({p10} to {p90})"


def claims(r: Review) -> pd.DataFrame | None:
    """Claimed and caused outcome per channel as text, with the factor between them; None without claims."""
    rows = [
        {
            "channel": x.channel,
            "period": span(x.period_start, x.period_end),
            f"claimed, {r.units.kpi_title}": figure(x.credited),
            f"caused, {r.units.kpi_title} ({INTERVAL_NAME})": with_interval(
                x.incremental_kpi, x.incremental_p05, x.incremental_p95
            ),
            f"caused ÷ claimed ({INTERVAL_NAME})": with_interval(x.mean, x.p05, x.p95, ratio),
        }
        for x in each(r.claims)
    ]
    return pd.DataFrame(rows) if rows else None


def _band(value: Band | None, write: Callable[[float | None], str] = figure) -> str:
    return MISSING if value is None else with_interval(value.p50, value.p10, value.p90, write)
