"""The one-page readout of a test: finished numbers in, one self-contained HTML document out."""

from __future__ import annotations

import math
from pathlib import Path

import altair as alt
import jinja2
import pandas as pd
from markupsafe import Markup

from app.charts import lift as charts
from app.report import Figure, inline_svg
from app.wording import MISSING, Units, between, figure, percent, with_interval
from contracts.evidence import LiftEstimate
from contracts.readout import LiftReadout

TEMPLATE = "lift_page.html.j2"
MARKS = {"pass": "✓", "warn": "!", "fail": "✗"}


def lift_page(readout: LiftReadout) -> str:
    """The page. Nothing is estimated here and nothing is fetched; the same readout gives the same bytes."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    e = readout.headline
    units = Units(e.metric, readout.currency, "period")
    return environment.get_template(TEMPLATE).render(
        r=readout,
        e=e,
        amount=units.kpi_figure(e.mean),
        interval=between(e.p05, e.p95, units.kpi_figure),
        verdict=verdict(readout),
        level=_level(readout),
        relative=percent(readout.relative, signed=True),
        p_value=figure(e.p_value, 2),
        spend=units.money(e.spend_delta) if math.isfinite(e.spend_delta) else MISSING,
        iroas=with_interval(*readout.iroas),
        noise=percent(e.noise_variance_share),
        plan=plan_table(readout),
        estimates=estimate_table(readout),
        arms=arm_table(readout),
        looks=look_table(readout),
        figures=_figures(readout),
        marks=MARKS,
    )


def verdict(r: LiftReadout) -> str:
    """The conclusion in a sentence."""
    e = r.headline
    if any(c.verdict == "fail" for c in r.checks):
        return "A check of the test failed: its figures are shown to find the fault, not to decide on."
    if e.p05 > 0:
        return f"The test shows more {e.metric} than there would have been without the change."
    if e.p95 < 0:
        return f"The test shows fewer {e.metric} than there would have been without the change."
    return f"The test does not show whether the change moved {e.metric}: its interval holds zero."


def _level(r: LiftReadout) -> str:
    order = {"pass": 0, "warn": 1, "fail": 2}
    worst = max((c.verdict for c in r.checks), key=order.__getitem__, default="pass")
    return {"pass": "ok"}.get(worst, worst)


def plan_table(r: LiftReadout) -> pd.DataFrame:
    """Plan against result."""
    return pd.DataFrame(
        [
            {
                "": line.name,
                "planned": f"{figure(line.planned)} {line.unit}",
                "came": f"{figure(line.came)} {line.unit}",
            }
            for line in r.plan
        ]
    )


def _row(e: LiftEstimate) -> dict[str, str]:
    return {
        "metric": e.metric,
        "arm": e.arm or "treated geos",
        "incremental": figure(e.mean),
        "90 % interval": between(e.p05, e.p95),
        "p": figure(e.p_value, 2),
        "noise share": percent(e.noise_variance_share),
        "estimator": e.estimator,
    }


def estimate_table(r: LiftReadout) -> pd.DataFrame:
    """Every estimate of the test."""
    return pd.DataFrame([_row(e) for e in r.estimates])


def arm_table(r: LiftReadout) -> pd.DataFrame:
    """Arms as released."""
    return pd.DataFrame(
        [
            {"arm": a.name, "people": figure(a.people, 4), "noise sd": figure(a.people_sd, 2)}
            | {f"{m} per person": figure(v) for m, v in a.means}
            for a in r.arms
        ]
    )


def look_table(r: LiftReadout) -> pd.DataFrame:
    """Every look at a running test."""
    return pd.DataFrame(
        [
            {
                "look": str(x.look), "to": x.day.isoformat(), "arm": x.arm, "metric": x.metric,
                "effect": figure(x.value), "95 % interval": between(x.lower, x.upper), "p": figure(x.p_value, 2),
                "noise share": percent(x.noise_share),
            }
            for x in r.looks
        ]
    )  # fmt: skip


def _figures(r: LiftReadout) -> list[Figure]:
    out = []
    if r.path and r.history:
        out.append(_figure(r, "Before and during the test", charts.fit_chart(r), "fit"))
    if any(math.isfinite(p.effect) for p in r.path):
        out.append(_figure(r, "Effect by period", charts.effect_chart(r), "effect"))
    if r.placebos:
        out.append(_figure(r, "Placebos", charts.placebo_chart(r), "placebo"))
    out.append(_figure(r, "Where the uncertainty comes from", charts.variance_chart(r), "variance"))
    return out


def _figure(r: LiftReadout, heading: str, chart: alt.LayerChart, which: str) -> Figure:
    text = charts.alt_text(r, which)
    return Figure(heading, Markup(inline_svg(chart, heading, text)), text, text)
