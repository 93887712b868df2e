"""The privacy budget by quarter, and what a cell's noise would be at another cost."""

from __future__ import annotations

import altair as alt
import pandas as pd

from app.charts import theme
from app.rows import each
from app.wording import figure, percent

LEFT = "left"
_COLOURS = {
    "kpi": "#0078C3", "journeys": "#D25A00", "trials": "#00A587", "diagnostics": "#782DFF", "media": "#96965A",
    "credit": "#875A4B", "levels": "#6978FF", LEFT: "#C9CDD3",
}  # fmt: skip


def spent_by_quarter(frame: pd.DataFrame) -> alt.LayerChart:
    """`frame`: block, measure ('left' for what is not spent), rho."""
    data = theme.require(frame, "block", "measure", "rho")
    names = [m for m in _COLOURS if m in set(data["measure"])]
    scale = alt.Scale(domain=names, range=[_COLOURS[m] for m in names])
    data = data.assign(place=data["measure"].map(names.index))
    bars = (
        alt.Chart(data)
        .mark_bar(stroke="white", strokeWidth=1)
        .encode(
            y=alt.Y("block:N", sort=None, axis=alt.Axis(title="quarter that begins on", titleFontWeight="normal")),
            x=alt.X("rho:Q", axis=theme.amount_axis("zCDP rho of one person's quarter")),
            color=alt.Color("measure:N", scale=scale, sort=names, legend=alt.Legend(title=None, orient="bottom")),
            order="place:Q",
            tooltip=["block:N", "measure:N", alt.Tooltip("rho:Q", format=".3f")],
        )
    )
    return theme.finish(alt.LayerChart(layer=[bars]), height=34 * max(data["block"].nunique(), 2) + 90)


def noise_by_cost(frame: pd.DataFrame, what: str) -> alt.LayerChart:
    """`frame`: rho, sd, now (bool: the rho in use). `what` names figure and unit."""
    data = theme.require(frame, "rho", "sd", "now")
    base = alt.Chart(data).encode(
        x=alt.X(
            "rho:Q", scale=alt.Scale(type="log"), axis=alt.Axis(title="rho (logarithmic)", titleFontWeight="normal")
        ),
        y=alt.Y("sd:Q", scale=alt.Scale(type="log"), axis=theme.amount_axis(f"noise of a cell, sd ({what})")),
        tooltip=[alt.Tooltip("rho:Q", format=".3~g"), alt.Tooltip("sd:Q", format=",.3~s")],
    )
    line = base.mark_line(color="#0078C3")
    here = base.transform_filter(alt.datum.now).mark_point(size=130, filled=True, color="#D25A00", shape="diamond")
    return theme.finish(line + here, height=260)


def budget_alt(frame: pd.DataFrame) -> str:
    """The budget chart in a sentence."""
    total, left = frame.groupby("block")["rho"].sum(), frame[frame["measure"] == LEFT].set_index("block")["rho"]
    parts = [f"{block} {percent(1 - left.get(block, 0.0) / all_of)} spent" for block, all_of in total.items()]
    return f"Privacy budget by quarter: {'; '.join(parts)}."


def noise_alt(frame: pd.DataFrame, what: str) -> str:
    """The cost chart in a sentence."""
    parts = [f"rho {figure(r.rho, 2)} gives sd {figure(r.sd)}{' (now)' if r.now else ''}" for r in each(frame)]
    return f"Noise of a cell in {what} by cost: {'; '.join(parts)}."
