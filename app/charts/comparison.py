"""Scenario against current: spend side by side, and the outcome with its interval."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import pandas as pd

from app.charts import theme
from app.rows import each
from app.wording import Units, with_interval


def spend_bars(frame: pd.DataFrame, channels: Sequence[str], units: Units) -> alt.LayerChart:
    """Two bars per channel. `frame`: channel, plan ('current' or 'scenario'), spend (currency per period)."""
    data = theme.require(frame, "channel", "plan", "spend")
    axis = theme.amount_axis(f"spend ({units.currency} per {units.period})")
    base = alt.Chart(data).encode(
        y=alt.Y("channel:N", axis=theme.name_axis(), sort=sorted(set(data["channel"]))),
        yOffset=alt.YOffset("plan:N", sort=["current", "scenario"]),
        x=alt.X("spend:Q", axis=axis),
        tooltip=[
            alt.Tooltip("channel:N"),
            alt.Tooltip("plan:N"),
            alt.Tooltip("spend:Q", title=f"spend, {units.currency} per {units.period}", format=",.3s"),
        ],
    )
    scale = theme.colour_scale(channels)
    colour = alt.Color("channel:N", scale=scale, legend=None)
    filled = base.transform_filter("datum.plan == 'scenario'").mark_bar().encode(color=colour)
    outline = (
        base.transform_filter("datum.plan == 'current'")
        .mark_bar(filled=False, strokeWidth=1.5)
        .encode(stroke=alt.Stroke("channel:N", scale=scale, legend=None))
    )
    return theme.finish(outline + filled, height=44 * max(data["channel"].nunique(), 2) + 60)


def outcome_change(frame: pd.DataFrame, channels: Sequence[str], units: Units) -> alt.LayerChart:
    """Change of the outcome per channel and in total, with paired 90 % intervals.

    `frame`: channel (a channel or 'total'), mean, p05, p95 (KPI units per period, scenario − current).
    """
    data = theme.require(frame, "channel", "mean", "p05", "p95")
    colours = theme.channel_colours(channels) | {"total": theme.RULE}
    shapes = theme.channel_shapes(channels) | {"total": "diamond"}
    order = data["channel"].tolist()
    axis = theme.amount_axis(f"change of {units.kpi_title} per {units.period}, 90 % interval")
    tip = [
        alt.Tooltip("channel:N"),
        alt.Tooltip("mean:Q", title="change", format="+,.3s"),
        alt.Tooltip("p05:Q", title="90 % interval from", format="+,.3s"),
        alt.Tooltip("p95:Q", title="to", format="+,.3s"),
    ]
    base = alt.Chart(data).encode(
        y=alt.Y("channel:N", sort=order, axis=theme.name_axis()),
        color=alt.Color("channel:N", scale=_scale(colours), legend=None),
        tooltip=tip,
    )
    bars = base.mark_rule(strokeWidth=3).encode(x=alt.X("p05:Q", axis=axis), x2="p95:Q")
    points = base.mark_point(filled=True, size=110, opacity=1).encode(
        x="mean:Q", shape=alt.Shape("channel:N", scale=_scale(shapes), legend=None)
    )
    zero = alt.Chart(pd.DataFrame({"x": [0.0]})).mark_rule(color=theme.RULE).encode(x="x:Q")
    return theme.finish(zero + bars + points, height=34 * max(len(data), 2) + 60)


def alt_text(frame: pd.DataFrame, units: Units) -> str:
    """The outcome chart in a sentence."""
    parts = [f"{r.channel} {with_interval(r.mean, r.p05, r.p95)}" for r in each(frame)]
    return f"Change of {units.kpi_title} per {units.period}, scenario minus current: {'; '.join(parts)}."


def spend_alt_text(frame: pd.DataFrame, units: Units) -> str:
    """The spend chart in a sentence."""
    wide = frame.pivot(index="channel", columns="plan", values="spend")
    parts = [f"{c} {units.money(r['current'])} now, {units.money(r['scenario'])} planned" for c, r in wide.iterrows()]
    return f"Spend per {units.period} by channel: {'; '.join(parts)}."


def _scale(mapping: dict[str, str]) -> alt.Scale:
    return alt.Scale(domain=list(mapping), range=list(mapping.values()))
