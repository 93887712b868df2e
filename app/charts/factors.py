"""Incrementality factors on a logarithmic axis, with the line at 1."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import pandas as pd

from app.charts import theme
from app.rows import each
from app.wording import ratio, title, with_interval

FLOOR = 0.02  # a logarithmic axis has no zero; an interval that reaches lower is drawn to here


def drawable(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows that have a factor, with ends that a logarithmic axis can hold."""
    data = frame.dropna(subset=["mean", "p05", "p95"])
    return data.assign(**{c: data[c].clip(lower=FLOOR) for c in ("mean", "p05", "p95")})


def factor_plot(frame: pd.DataFrame, channels: Sequence[str]) -> alt.LayerChart:
    """`frame`: channel, model, mean, p05, p95 (true ÷ credited). Rows without a factor are not drawn."""
    data = drawable(theme.require(frame, "channel", "model", "mean", "p05", "p95"))
    data = data.assign(row=[f"{c} · {title(m)}" for c, m in zip(data["channel"], data["model"], strict=True)])
    order = data.sort_values(["channel", "model"])["row"].tolist()
    values = [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50]
    axis = alt.Axis(
        title="caused ÷ credited (log scale), 90 % interval",
        values=values, format="~g", titleFontWeight="normal",
    )  # fmt: skip
    scale = alt.Scale(type="log", nice=False, padding=12)
    tip = [
        alt.Tooltip("channel:N"),
        alt.Tooltip("model:N", title="credit model"),
        alt.Tooltip("mean:Q", title="factor", format=".2r"),
        alt.Tooltip("p05:Q", title="90 % interval from", format=".2r"),
        alt.Tooltip("p95:Q", title="to", format=".2r"),
    ]
    colour = alt.Color("channel:N", scale=theme.colour_scale(channels), legend=None)
    base = alt.Chart(data).encode(y=alt.Y("row:N", sort=order, axis=theme.name_axis()), color=colour, tooltip=tip)
    bars = base.mark_rule(strokeWidth=2.5).encode(x=alt.X("p05:Q", axis=axis, scale=scale), x2="p95:Q")
    points = base.mark_point(filled=True, size=80, opacity=1).encode(
        x="mean:Q", shape=alt.Shape("channel:N", scale=theme.shape_scale(channels), legend=None)
    )
    one = alt.Chart(pd.DataFrame({"x": [1.0]})).mark_rule(color=theme.RULE, strokeDash=[4, 3]).encode(x="x:Q")
    return theme.finish(one + bars + points, height=22 * max(len(data), 2) + 60)


def alt_text(frame: pd.DataFrame) -> str:
    """The chart in a sentence."""
    parts = [
        f"{r.channel} under {title(r.model)} {with_interval(r.mean, r.p05, r.p95, ratio)}"
        for r in each(drawable(frame))
    ]
    return f"Incrementality factors (caused ÷ credited; 1 means that credit equals cause): {'; '.join(parts)}."
