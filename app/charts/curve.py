"""Response curve of one channel: band inside observed spend, dashed beyond it, current spend marked."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import pandas as pd

from app.charts import theme
from app.wording import Units


def split_observed(frame: pd.DataFrame) -> pd.DataFrame:
    """Adds `part` ('observed', 'beyond'); the last observed point opens the other part too, so the line is whole."""
    data = frame.sort_values("spend")
    inside, beyond = data[data["observed"]], data[~data["observed"]]
    if len(inside) and len(beyond):
        joint = inside[inside["spend"] < beyond["spend"].min()].tail(1)
        beyond = pd.concat([joint, beyond]).sort_values("spend")
    return pd.concat([inside.assign(part="observed"), beyond.assign(part="beyond")], ignore_index=True)


def response_curve(
    frame: pd.DataFrame, channel: str, channels: Sequence[str], current: float, units: Units, planned: float | None
) -> alt.LayerChart:
    """`frame`: spend, mean, p05, p95, observed (bool), one channel. `current`, `planned`: currency per period."""
    data = split_observed(theme.require(frame, "spend", "mean", "p05", "p95", "observed"))
    colour = theme.channel_colours(channels)[channel]
    x = alt.X("spend:Q", axis=theme.amount_axis(f"spend on {channel} ({units.currency} per {units.period})"))
    y_title = f"{units.kpi_title} per {units.period}"
    tip = [
        alt.Tooltip("spend:Q", title=f"spend, {units.currency} per {units.period}", format=",.3s"),
        alt.Tooltip("mean:Q", title=y_title, format=",.3s"),
        alt.Tooltip("p05:Q", title="90 % interval from", format=",.3s"),
        alt.Tooltip("p95:Q", title="to", format=",.3s"),
        alt.Tooltip("part:N", title="spend was"),
    ]
    base = alt.Chart(data).encode(x=x, tooltip=tip)
    band = base.mark_area(color=colour).encode(
        y=alt.Y("p05:Q", axis=theme.amount_axis(y_title)),
        y2="p95:Q",
        opacity=alt.Opacity("part:N", scale=alt.Scale(domain=["observed", "beyond"], range=[0.28, 0.1]), legend=None),
    )
    dash = alt.StrokeDash(
        "part:N",
        scale=alt.Scale(domain=["observed", "beyond"], range=[[1, 0], [5, 5]]),
        legend=None,
    )
    line = base.mark_line(color=colour, strokeWidth=2.5).encode(y="mean:Q", strokeDash=dash)
    return theme.finish(band + line + _marks(current, planned), height=300)


def _marks(current: float, planned: float | None) -> alt.LayerChart:
    rows = [{"spend": current, "label": "now"}]
    if planned is not None and abs(planned - current) > 1e-9 * max(current, 1.0):
        rows.append({"spend": planned, "label": "plan"})
    base = alt.Chart(pd.DataFrame(rows)).encode(x="spend:Q")
    rule = base.mark_rule(color=theme.RULE, strokeWidth=1.5)
    text = base.mark_text(align="left", dx=4, dy=8, color=theme.RULE).encode(y=alt.value(0), text="label:N")
    return rule + text


def alt_text(frame: pd.DataFrame, channel: str, current: float, units: Units) -> str:
    """The chart in a sentence."""
    top = frame.loc[frame["observed"], "spend"].max()
    at = frame.iloc[(frame["spend"] - current).abs().argmin()]
    return (
        f"Response curve of {channel}: at the current spend of {units.money(current)} per {units.period} it causes "
        f"about {units.kpi_figure(at['mean'])} (90 % interval {units.kpi_figure(at['p05'])} to "
        f"{units.kpi_figure(at['p95'])}); spend above {units.money(top)} was never observed."
    )
