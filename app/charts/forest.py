"""Forest plot of one channel: what each credit model, each test, the model and all of them together say."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import pandas as pd

from app.charts import theme
from app.rows import each
from app.wording import Units, with_interval

FAMILIES = ("pooled", "model", "lift", "credit")  # from the answer to the description
_SHAPES = ["diamond", "circle", "square", "triangle-up"]


def forest_plot(frame: pd.DataFrame, channel: str, channels: Sequence[str], units: Units) -> alt.LayerChart:
    """`frame`: source (label, unique), family (of FAMILIES), mean, p05, p95 (KPI units), in the order to be shown.

    Credit is hollow because it describes; tests, model and the pooled estimate are filled because they measure cause.
    """
    data = theme.require(frame, "source", "family", "mean", "p05", "p95", "note")
    colour = theme.channel_colours(channels)[channel]
    axis = theme.amount_axis(f"{units.kpi_title} in the period, 90 % interval")
    tip = [
        alt.Tooltip("source:N", title="source"),
        alt.Tooltip("mean:Q", title=units.kpi_title, format=",.3s"),
        alt.Tooltip("p05:Q", title="90 % interval from", format=",.3s"),
        alt.Tooltip("p95:Q", title="to", format=",.3s"),
        alt.Tooltip("note:N", title="how"),
    ]
    y = alt.Y("source:N", sort=data["source"].tolist(), axis=theme.name_axis())
    base = alt.Chart(data).encode(y=y, tooltip=tip)
    bars = base.mark_rule(color=colour, strokeWidth=2.5).encode(x=alt.X("p05:Q", axis=axis), x2="p95:Q")
    points = base.mark_point(size=110, stroke=colour, strokeWidth=2, opacity=1).encode(
        x="mean:Q",
        shape=alt.Shape("family:N", scale=alt.Scale(domain=list(FAMILIES), range=_SHAPES), legend=None),
        fill=alt.condition(alt.datum.family == "credit", alt.value("transparent"), alt.value(colour)),
    )
    zero = alt.Chart(pd.DataFrame({"x": [0.0]})).mark_rule(color=theme.RULE).encode(x="x:Q")
    return theme.finish(zero + bars + points, height=30 * max(len(data), 2) + 60)


def alt_text(frame: pd.DataFrame, channel: str, units: Units) -> str:
    """The chart in a sentence."""
    parts = [f"{r.source} {with_interval(r.mean, r.p05, r.p95)}" for r in each(frame)]
    return f"{units.kpi_title} of {channel} by source, with 90 % intervals: {'; '.join(parts)}."
