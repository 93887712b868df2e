"""The KPI over time: what would have come anyway, and what each channel added."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import pandas as pd

from app.charts import theme
from app.wording import Units, figure

BASELINE = "baseline"


def kpi_timeline(parts: pd.DataFrame, total: pd.DataFrame, channels: Sequence[str], units: Units) -> alt.LayerChart:
    """Stacked areas under the KPI line.

    `parts`: week, part ('baseline' or a channel), value, y0, y1 (KPI units, already stacked). `total`: week, value,
    p05, p95, the released KPI and its noise.
    """
    colours = {BASELINE: theme.BASELINE} | theme.channel_colours(channels)
    scale = alt.Scale(domain=list(colours), range=list(colours.values()))
    x = alt.X("week:T", axis=alt.Axis(title=None, format="%b %Y", labelOverlap=True, grid=False))
    title = f"{units.kpi_title} per {units.period}"
    legend = alt.Legend(title=None, orient="bottom", columns=4)
    areas = (
        alt.Chart(theme.require(parts, "week", "part", "value", "y0", "y1"))
        .mark_area(line=False)
        .encode(
            x=x,
            y=alt.Y("y0:Q", axis=theme.amount_axis(title)),
            y2="y1:Q",
            color=alt.Color("part:N", scale=scale, legend=legend),
            opacity=alt.condition(alt.datum.part == BASELINE, alt.value(0.35), alt.value(0.85)),
            tooltip=[
                alt.Tooltip("week:T"),
                alt.Tooltip("part:N", title="part"),
                alt.Tooltip("value:Q", title=title, format=",.3s"),
            ],
        )
    )
    line = (
        alt.Chart(theme.require(total, "week", "value", "p05", "p95"))
        .mark_line(color=theme.RULE, strokeWidth=1.5)
        .encode(
            x=x,
            y="value:Q",
            tooltip=[
                alt.Tooltip("week:T"),
                alt.Tooltip("value:Q", title=f"measured {title}", format=",.3s"),
                alt.Tooltip("p05:Q", title="noise: 90 % from", format=",.3s"),
                alt.Tooltip("p95:Q", title="to", format=",.3s"),
            ],
        )
    )
    return theme.finish(areas + line, height=320)


def alt_text(parts: pd.DataFrame, units: Units) -> str:
    """The chart in a sentence."""
    sums = parts.groupby("part", sort=False)["value"].sum()
    said = "; ".join(f"{name} {figure(value)}" for name, value in sums.items())
    return f"{units.kpi_title} per {units.period} over time, stacked by what caused it. Sums over the period: {said}."
