"""Power of a test by its length."""

from __future__ import annotations

import altair as alt
import pandas as pd

from app.charts import theme
from app.rows import each
from app.wording import percent


def power_by_length(frame: pd.DataFrame, goal: float) -> alt.LayerChart:
    """`frame`: days, power (0 to 1), length (1 = the test as it was run). `goal`: the power that one asks for."""
    data = theme.require(frame, "days", "power", "length")
    base = alt.Chart(data).encode(
        x=alt.X("days:Q", axis=alt.Axis(title="days of the test", titleFontWeight="normal")),
        y=alt.Y("power:Q", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(title="power at level 5 %", format="%",
                                                                         titleFontWeight="normal")),
        tooltip=["days:Q", alt.Tooltip("power:Q", format=".0%")],
    )  # fmt: skip
    line = base.mark_line(color="#0078C3", point=True)
    here = base.transform_filter(alt.datum.length == 1).mark_point(
        size=130, filled=True, color="#D25A00", shape="diamond"
    )
    rule = alt.Chart(pd.DataFrame({"power": [goal]})).mark_rule(color=theme.RULE, strokeDash=[4, 4]).encode(y="power:Q")
    return theme.finish(rule + line + here, height=240)


def alt_text(frame: pd.DataFrame) -> str:
    """The chart in a sentence."""
    return f"Power by length: {'; '.join(f'{r.days} days {percent(r.power)}' for r in each(frame))}."
