"""Charts of one test's page: observed against expected, effect by period, placebos, noise in the variance."""

from __future__ import annotations

import math
from collections.abc import Sequence

import altair as alt
import pandas as pd

from app.charts import theme
from app.wording import figure
from contracts.readout import LiftReadout, PathPoint

OBSERVED, EXPECTED = theme.COLOURS[0], theme.COLOURS[1]


def _frame(points: Sequence[PathPoint]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"day": pd.Timestamp(p.day), "observed": p.observed, "expected": p.expected, "effect": p.effect,
             "low": p.effect - 1.645 * p.sd, "high": p.effect + 1.645 * p.sd}
            for p in points
        ]
    )  # fmt: skip


def _days() -> alt.Axis:
    return alt.Axis(title=None, format="%Y-%m-%d", tickCount=5, labelOverlap=True)


def fit_chart(r: LiftReadout) -> alt.LayerChart:
    """Observed and expected before and during the test; a rule where the test starts."""
    data = _frame([*r.history, *r.path]).melt("day", ["observed", "expected"], "series", "value").dropna()
    scale = alt.Scale(domain=["observed", "expected"], range=[OBSERVED, EXPECTED])
    lines = (
        alt.Chart(data)
        .mark_line(strokeWidth=1.8)
        .encode(
            x=alt.X("day:T", axis=_days()),
            y=alt.Y(
                "value:Q", axis=theme.amount_axis(f"{r.headline.metric}, treated geos"), scale=alt.Scale(zero=False)
            ),
            color=alt.Color("series:N", scale=scale, legend=alt.Legend(title=None, orient="top")),
            strokeDash=alt.StrokeDash(
                "series:N", scale=alt.Scale(domain=["observed", "expected"], range=[[1, 0], [5, 3]]), legend=None
            ),
        )
    )
    start = (
        alt.Chart(pd.DataFrame({"day": [pd.Timestamp(r.path[0].day)]})).mark_rule(color=theme.RULE).encode(x="day:T")
    )
    return theme.finish(lines + start, height=240)


def effect_chart(r: LiftReadout) -> alt.LayerChart:
    """Effect of every period with its 90 % band."""
    data = _frame(r.path).dropna(subset=["effect"])
    x = alt.X("day:T", axis=_days())
    y = alt.Y("low:Q", axis=theme.amount_axis(f"{r.headline.metric} caused"))
    band = alt.Chart(data).mark_area(color=OBSERVED, opacity=0.22).encode(x=x, y=y, y2="high:Q")
    line = alt.Chart(data).mark_line(color=OBSERVED, point=True).encode(x=x, y="effect:Q")
    zero = alt.Chart(pd.DataFrame({"y": [0.0]})).mark_rule(color=theme.RULE).encode(y="y:Q")
    return theme.finish(band + line + zero, height=220)


def placebo_chart(r: LiftReadout) -> alt.LayerChart:
    """Histogram of the placebo statistics with the test's own as a rule."""
    data = pd.DataFrame({"value": list(r.placebos)})
    bars = (
        alt.Chart(data)
        .mark_bar(color=theme.BASELINE)
        .encode(
            x=alt.X("value:Q", bin=alt.Bin(maxbins=30), axis=theme.amount_axis(f"{r.headline.metric}, placebo")),
            y=alt.Y("count():Q", axis=alt.Axis(title="placebos", titleFontWeight="normal")),
        )
    )
    own = (
        alt.Chart(pd.DataFrame({"value": [r.statistic]})).mark_rule(color=EXPECTED, strokeWidth=2.5).encode(x="value:Q")
    )
    return theme.finish(bars + own, height=180)


def variance_chart(r: LiftReadout) -> alt.LayerChart:
    """One bar: variance of the headline, split into what sampling and what released noise gives."""
    share = r.headline.noise_variance_share
    data = pd.DataFrame({"part": ["sampling", "released noise"], "share": [1 - share, share]})
    scale = alt.Scale(domain=list(data["part"]), range=[theme.BASELINE, EXPECTED])
    bar = (
        alt.Chart(data)
        .mark_bar(size=26)
        .encode(
            x=alt.X("share:Q", axis=alt.Axis(title="share of the variance", format="%", titleFontWeight="normal")),
            color=alt.Color("part:N", scale=scale, legend=alt.Legend(title=None, orient="top")),
        )
    )
    return theme.finish(alt.LayerChart(layer=[bar]), height=90)


def alt_text(r: LiftReadout, which: str) -> str:
    """A chart in a sentence."""
    e = r.headline
    if which == "fit":
        return f"{e.metric} of the treated geos, observed and expected, from {r.history[0].day} to {r.path[-1].day}."
    if which == "effect":
        known = [p.effect for p in r.path if math.isfinite(p.effect)]
        return f"Effect by period, from {figure(min(known))} to {figure(max(known))} {e.metric}."
    if which == "placebo":
        beyond = sum(abs(x) >= abs(r.statistic) for x in r.placebos)
        return f"{beyond} of {len(r.placebos)} placebos are as far from zero as the test's {figure(r.statistic)}."
    return f"{e.noise_variance_share:.0%} of the variance is noise added for privacy."
