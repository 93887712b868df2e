"""Incremental outcome of each channel with its 90 % interval."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import pandas as pd

from app.charts import theme
from app.rows import each
from app.wording import Units, with_interval


def incremental_totals(frame: pd.DataFrame, channels: Sequence[str], units: Units) -> alt.LayerChart:
    """Points with intervals, one row a channel, largest first.

    `frame`: channel, mean, p05, p95 (KPI units). `channels`: all channels of the workspace, for colour and shape.
    """
    data = theme.require(frame, "channel", "mean", "p05", "p95").sort_values("mean", ascending=False)
    y = alt.Y("channel:N", sort=data["channel"].tolist(), axis=theme.name_axis())
    tip = [
        alt.Tooltip("channel:N", title="channel"),
        alt.Tooltip("mean:Q", title=f"incremental {units.kpi_title}", format=",.3s"),
        alt.Tooltip("p05:Q", title="90 % interval from", format=",.3s"),
        alt.Tooltip("p95:Q", title="to", format=",.3s"),
    ]
    colour = alt.Color("channel:N", scale=theme.colour_scale(channels), legend=None)
    base = alt.Chart(data).encode(y=y, color=colour, tooltip=tip)
    axis = theme.amount_axis(f"incremental {units.kpi_title}, 90 % interval")
    bars = base.mark_rule(strokeWidth=3).encode(x=alt.X("p05:Q", axis=axis), x2="p95:Q")
    points = base.mark_point(filled=True, size=110, opacity=1).encode(
        x="mean:Q", shape=alt.Shape("channel:N", scale=theme.shape_scale(channels), legend=None)
    )
    zero = alt.Chart(pd.DataFrame({"x": [0.0]})).mark_rule(color=theme.RULE).encode(x="x:Q")
    return theme.finish(zero + bars + points, height=32 * max(len(data), 2) + 60)


def alt_text(frame: pd.DataFrame, units: Units) -> str:
    """The chart in a sentence."""
    parts = [f"{r.channel} {with_interval(r.mean, r.p05, r.p95)}" for r in each(frame)]
    return f"Incremental {units.kpi_title} per channel with 90 % intervals: {'; '.join(parts)}."
