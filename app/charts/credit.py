"""Shares of credit: one row a channel, one mark a model, so that models are compared where they differ."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import pandas as pd

from app.charts import theme
from app.rows import each
from app.wording import percent, title

MODEL_SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "stroke")


def credit_shares(frame: pd.DataFrame, channels: Sequence[str]) -> alt.LayerChart:
    """`frame`: model, channel, share, low, high (shares of 1, 90 % interval)."""
    data = theme.require(frame, "model", "channel", "share", "low", "high").assign(
        model=frame["model"].map(lambda m: title(str(m)))
    )
    models = list(dict.fromkeys(data["model"]))
    shapes = [MODEL_SHAPES[i % len(MODEL_SHAPES)] for i in range(len(models))]
    axis = alt.Axis(title="share of the credit to channels, 90 % interval", format="%", titleFontWeight="normal")
    tip = [
        alt.Tooltip("channel:N"),
        alt.Tooltip("model:N"),
        alt.Tooltip("share:Q", format=".1%"),
        alt.Tooltip("low:Q", title="90 % interval from", format=".1%"),
        alt.Tooltip("high:Q", title="to", format=".1%"),
    ]
    base = alt.Chart(data).encode(
        y=alt.Y("channel:N", sort=sorted(set(data["channel"])), axis=theme.name_axis()),
        yOffset=alt.YOffset("model:N", sort=models),
        color=alt.Color("channel:N", scale=theme.colour_scale(channels), legend=None),
        tooltip=tip,
    )
    bars = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", axis=axis), x2="high:Q")
    legend = alt.Legend(title="credit model", orient="bottom", columns=4, symbolFillColor="grey")
    points = base.mark_point(size=60, filled=True, opacity=1).encode(
        x="share:Q",
        shape=alt.Shape("model:N", sort=models, scale=alt.Scale(domain=models, range=shapes), legend=legend),
    )
    return theme.finish(bars + points, height=max(160, 14 * len(data) + 110))


def alt_text(frame: pd.DataFrame) -> str:
    """The chart in a sentence."""
    parts = [f"{r.channel} by {title(str(r.model))} {percent(r.share)}" for r in each(frame)]
    return f"Share of the credit by channel and model: {'; '.join(parts)}."
